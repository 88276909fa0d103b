"""GATE, LIVE and ROLL: who may open, recover and roll, among threads and among processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.support.background import Background
from tests.support.children import Channel, Children

from shardlog.errors import StoreLocked
from shardlog.files.gate import GATE, LIVE, ROLL, gate_held, roll_held
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import LockFile

FILES = PosixFiles()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A lock file's path."""
    return str(tmp_path / "LOCK")


@pytest.fixture
def lock(path: str) -> LockFile:
    """One holder."""
    return FILES.open_lock(path)


def test_the_locks_are_different_bytes() -> None:
    """Part of the format: processes of different releases lock the same bytes."""
    assert (GATE, LIVE, ROLL) == (0, 1, 2)


def test_the_gate_is_held_alone_and_given_up(lock: LockFile, path: str) -> None:
    """Also when what runs under it fails."""
    other = FILES.open_lock(path)
    with gate_held(lock, path, 0):
        assert other.is_held_elsewhere(GATE)
        assert not other.is_held_elsewhere(LIVE)
        with pytest.raises(StoreLocked, match="waited 0 s") as refusal, gate_held(other, path, 0):
            raise AssertionError("nobody comes here")
        assert path in str(refusal.value)
    with pytest.raises(KeyError), gate_held(lock, path, 0):
        raise KeyError
    with gate_held(other, path, 0):
        pass


def test_who_waits_for_the_gate_gets_it(lock: LockFile, path: str) -> None:
    """As soon as it is given up, within the timeout."""
    other = FILES.open_lock(path)

    def wait() -> bool:
        with gate_held(other, path, 30):
            return lock.is_held_elsewhere(GATE)

    with gate_held(lock, path, 0):
        waiting = Background(wait)
        assert waiting.is_running
    assert waiting.result()


def test_who_waits_to_roll_waits_without_end(lock: LockFile, path: str) -> None:
    """There is no timeout: whoever rolls holds up the appends of the others anyway."""
    other = FILES.open_lock(path)

    def wait() -> bool:
        with roll_held(other):
            return lock.is_held_elsewhere(ROLL)

    with roll_held(lock):
        waiting = Background(wait)
        assert not other.try_exclusive(ROLL)
    assert waiting.result()


def _hold(channel: Channel, path: str, alone: tuple[int, ...], shared: tuple[int, ...]) -> None:
    lock = FILES.open_lock(path)
    channel.send(([lock.try_exclusive(byte) for byte in alone], [lock.try_shared(byte) for byte in shared]))
    channel.receive()


def test_processes_lock_each_other_out(children: Children, lock: LockFile, path: str) -> None:
    """What another process holds alone is held; what it shares can be shared."""
    child = children.start(_hold, path, (GATE,), (LIVE,))
    assert child.receive() == ([True], [True])
    assert lock.is_held_elsewhere(GATE)
    assert lock.is_held_elsewhere(LIVE)
    assert not lock.try_exclusive(GATE)
    assert not lock.try_exclusive(LIVE)
    assert lock.try_shared(LIVE)
    second = children.start(_hold, path, (GATE, LIVE), (LIVE,))
    assert second.receive() == ([False, False], [True])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_locks_of_the_dead_are_free(children: Children, lock: LockFile, path: str, number: int) -> None:
    """The kernel gives them up, however the process died: nobody cleans up after it."""
    child = children.start(_hold, path, (GATE, ROLL), (LIVE,))
    assert child.receive() == ([True, True], [True])
    os.kill(child.pid, number)
    assert child.wait() == -number
    assert not any(lock.is_held_elsewhere(byte) for byte in (GATE, LIVE, ROLL))
    assert all(lock.try_exclusive(byte) for byte in (GATE, LIVE, ROLL))


def test_a_stopped_process_keeps_its_locks(children: Children, lock: LockFile, path: str) -> None:
    """Stopped is not dead: who waits for the gate is told so after the timeout."""
    child = children.start(_hold, path, (GATE,), ())
    assert child.receive() == ([True], [])
    os.kill(child.pid, signal.SIGSTOP)
    with pytest.raises(StoreLocked), gate_held(lock, path, 0.01):
        raise AssertionError("nobody comes here")


def _lock_after_fork(channel: Channel, path: str) -> None:
    lock = FILES.open_lock(path)
    taken = lock.try_exclusive(GATE)
    if os.fork() == 0:
        # The child inherits the open file, and the lock with it; it gives up its copy.
        lock.close()
        os._exit(0 if FILES.open_lock(path).is_held_elsewhere(GATE) else 1)
    _, status = os.wait()
    channel.send((taken, status))
    channel.receive()


def test_a_forked_child_that_closes_its_copy_unlocks_nothing(children: Children, lock: LockFile, path: str) -> None:
    """The lock belongs to the open file: it is held until the last copy is closed, here the parent's."""
    child = children.start(_lock_after_fork, path)
    assert child.receive() == (True, 0)
    assert lock.is_held_elsewhere(GATE)
    child.kill()
    assert not lock.is_held_elsewhere(GATE)

"""The consumers' environment: transactions of many threads in one, errors that leave nothing, damaged files."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import lmdb
import pytest
from tests.support.background import Background, wait_until

import shardlog
from shardlog import Closed, CorruptLog, LeaseLost, ReadOnly, StorageFailed, StorageFull, Store, StoreLocked, Stream
from shardlog.consumer import Consumers, environment, open_consumers, open_consumers_to_read
from shardlog.consumer.environment import OPEN, Rows
from shardlog.files.posix import PosixFiles
from shardlog.format.lease import GROUP, GroupRow, LeaseRow, WorkerRow

ROW = GroupRow(1, 2, 3)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A directory of a stream."""
    return str(tmp_path)


@pytest.fixture
def consumers(path: str) -> Consumers:
    """Its environment, open."""
    return open_consumers(PosixFiles(), path, 1.0)


def groups(consumers: Consumers) -> dict[str, GroupRow]:
    with consumers.read() as rows:
        return rows.groups()


def test_rows_are_kept_apart_by_group(consumers: Consumers) -> None:
    """A group whose name begins like another's sees its own rows only."""
    lease, worker = LeaseRow("w", 1, 2, 2, 1, None, False, None), WorkerRow(1, 1, 1, 1)

    def put(rows: Rows) -> None:
        for name in ("a", "a.b", "ab"):
            rows.put_group(name, ROW)
            rows.put_lease(name, f"shard of {name}", lease)
            rows.put_worker(name, f"worker of {name}", worker)

    consumers.update(put)
    with consumers.read() as rows:
        assert rows.groups() == dict.fromkeys(("a", "a.b", "ab"), ROW)
        for name in ("a", "a.b", "ab"):
            assert rows.leases(name) == {f"shard of {name}": lease}
            assert rows.workers(name) == {f"worker of {name}": worker}
            assert rows.lease(name, f"shard of {name}") == lease
        assert (rows.group("x"), rows.lease("a", "x"), rows.worker("a", "x")) == (None, None, None)
    consumers.close()


def test_what_is_written_is_there_after_reopening(consumers: Consumers, path: str) -> None:
    """By whoever opens it next."""
    consumers.update(lambda rows: rows.put_group("a", ROW))
    consumers.update(lambda rows: rows.put_group("b", ROW))
    consumers.update(lambda rows: rows.remove(GROUP, "b"))
    consumers.close()
    again = open_consumers(PosixFiles(), path, 1.0)
    assert groups(again) == {"a": ROW}
    again.close()


def test_updates_of_several_threads_share_a_transaction(consumers: Consumers, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one commits the others gather; each gets its own result or its own error."""
    commits: list[int] = []
    reached, release = threading.Event(), threading.Event()
    real = Consumers._commit

    def commit(self: Consumers, updates: list[environment._Update[object]]) -> None:
        commits.append(len(updates))
        if len(commits) == 1:
            reached.set()
            assert release.wait(20)
        real(self, updates)

    monkeypatch.setattr(consumers._gathering, "_commit", lambda updates: commit(consumers, updates))

    def put(number: int) -> int:
        def write(rows: Rows) -> int:
            if number == 5:
                raise LeaseLost("five")
            rows.put_group(f"g{number}", ROW)
            return number

        return consumers.update(write)

    first = Background(put, 0)
    assert reached.wait(20)
    others = [Background(put, number) for number in range(1, 9)]
    wait_until(lambda: len(consumers._gathering._pending) == 8)
    release.set()
    assert first.result() == 0
    for number, other in enumerate(others, 1):
        if number == 5:
            with pytest.raises(LeaseLost, match="five"):
                other.result()
        else:
            assert other.result() == number
    assert commits == [1, 8]
    assert groups(consumers).keys() == {f"g{number}" for number in range(9) if number != 5}
    consumers.close()


def test_an_update_that_raises_leaves_nothing(consumers: Consumers) -> None:
    """An error of ours before it put anything; any other error takes the whole transaction back."""

    def refuse(rows: Rows) -> None:
        raise LeaseLost("refused")

    def fail(rows: Rows) -> None:
        rows.put_group("a", ROW)
        raise ZeroDivisionError

    with pytest.raises(LeaseLost):
        consumers.update(refuse)
    with pytest.raises(ZeroDivisionError):
        consumers.update(fail)
    assert groups(consumers) == {}
    consumers.update(lambda rows: rows.put_group("a", ROW))
    assert groups(consumers) == {"a": ROW}
    consumers.close()


def test_no_room_is_storage_full_and_leaves_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest goes on, and there is room again when something was removed."""
    monkeypatch.setattr(environment, "MAP_BYTES", 1 << 16)
    consumers = open_consumers(PosixFiles(), path, 1.0)
    fitted: list[str] = []

    def fill() -> None:
        while True:
            name = f"{len(fitted):0120}"
            consumers.update(lambda rows, name=name: rows.put_group(name, ROW))  # type: ignore[misc]
            fitted.append(name)

    with pytest.raises(StorageFull):
        fill()
    assert len(fitted) > 10
    assert sorted(groups(consumers)) == fitted
    consumers.update(lambda rows: [rows.remove(GROUP, name) for name in rows.groups()])
    consumers.update(lambda rows: rows.put_group("a", ROW))
    assert groups(consumers) == {"a": ROW}
    consumers.close()


def test_everything_raises_closed_after_close(consumers: Consumers) -> None:
    """And after it was abandoned in a fork; both twice are harmless."""
    consumers.close()
    consumers.close()
    for call in (lambda: groups(consumers), lambda: consumers.update(lambda rows: None), lambda: consumers.is_alive(1)):
        with pytest.raises(Closed):
            call()
    consumers.abandon()


def test_an_abandoned_environment_lets_go_of_its_locks(consumers: Consumers, path: str) -> None:
    """A worker's as well: in a forked child it would outlive the worker, which would pass for alive."""
    files = PosixFiles()
    worker_lock = files.open_lock(f"{path}/consumers/LOCK")
    assert worker_lock.try_exclusive(4711)
    consumers.close_after_fork(worker_lock)
    other = files.open_lock(f"{path}/consumers/LOCK")
    assert other.is_held_elsewhere(4711)
    assert other.is_held_elsewhere(OPEN)
    consumers.abandon()
    assert not other.is_held_elsewhere(4711)
    assert not other.is_held_elsewhere(OPEN)
    other.close()
    with pytest.raises(Closed):
        groups(consumers)


def test_who_opens_waits_for_whoever_opens(path: str) -> None:
    """Up to a limit; those who only use it are no reason to wait."""
    os.makedirs(f"{path}/consumers")
    opener = PosixFiles().open_lock(f"{path}/consumers/LOCK")
    assert opener.try_exclusive(OPEN)
    with pytest.raises(StoreLocked):
        open_consumers(PosixFiles(), path, 0.01)
    waiting = Background(open_consumers, PosixFiles(), path, 20.0)
    assert opener.try_shared(OPEN)
    waiting.result().close()
    opener.close()


def test_an_opening_that_fails_can_be_tried_again(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It left the environment open, which LMDB opens once per process."""

    def fail(*_: str) -> None:
        raise StorageFailed("made up")

    with monkeypatch.context() as patch:
        patch.setattr(environment, "_sync", fail)
        with pytest.raises(StorageFailed):
            open_consumers(PosixFiles(), path, 1.0)
    open_consumers(PosixFiles(), path, 0.1).close()


def test_its_name_is_durable_before_it_is_used(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory itself and the one that it is in are synced."""
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(environment.os, "fsync", fsync)
    open_consumers(PosixFiles(), path, 1.0).close()
    assert synced == [f"{path}/consumers", path]


@pytest.mark.parametrize("committed", [False, True])
def test_an_interrupted_transaction_tells_what_became_of_it(consumers: Consumers, committed: bool) -> None:
    """Ctrl-C at its commit: nothing is done twice.

    What ran twice after the commit said that a lease was lost, or that a group was deleted, by itself.
    """
    runs: list[int] = []
    real = consumers._environment
    assert real is not None

    class Interrupted:
        def __init__(self, transaction: lmdb.Transaction) -> None:
            self._transaction = transaction

        def commit(self) -> None:
            if committed:
                self._transaction.commit()
            raise KeyboardInterrupt

        def __getattr__(self, name: str) -> object:
            return getattr(self._transaction, name)

    class Environment:
        def begin(self, **options: bool) -> object:
            return Interrupted(real.begin(**options))

    def add(rows: Rows) -> None:
        runs.append(1)
        rows.put_group("a", ROW)

    update = environment._Update(add)
    consumers._environment = Environment()  # type: ignore[assignment]  # it has what is needed
    with pytest.raises(KeyboardInterrupt):
        consumers._commit([update])
    consumers._environment = real
    assert update.is_done is committed
    assert groups(consumers) == ({"a": ROW} if committed else {})
    consumers.close()


def damaged(content: bytes, seed: int) -> list[bytes]:
    """Ways to damage a file: flipped bits all over, pages of zeros or garbage, cut short."""
    choice = random.Random(seed)
    found = [content[:length] for length in (1, 100, 4096, len(content) // 2, len(content) - 1)]
    for _ in range(150):
        changed = bytearray(content)
        changed[choice.randrange(len(content))] ^= 1 << choice.randrange(8)
        found.append(bytes(changed))
    for at in range(0, len(content), 4096):
        found.append(content[:at] + bytes(4096) + content[at + 4096 :])
        found.append(content[:at] + choice.randbytes(4096) + content[at + 4096 :])
    return found


def test_a_damaged_file_is_an_error_or_the_truth(consumers: Consumers, path: str, seed: int) -> None:
    """Whatever is damaged: CorruptLog, or the rows that were there; never other rows, never a crash."""
    lease = LeaseRow("w", 1, 2, 2, 1, 77, False, None)
    for number in range(60):
        consumers.update(lambda rows, number=number: rows.put_lease("a", f"s{number:03}", lease))
    consumers.update(lambda rows: rows.put_group("a", ROW))
    consumers.close()
    data = Path(path, "consumers", "data.mdb")
    content, refused = data.read_bytes(), 0
    for wrong in damaged(content, seed):
        data.write_bytes(wrong)
        try:
            again = open_consumers(PosixFiles(), path, 1.0)
        except CorruptLog:
            refused += 1
            continue
        try:
            with again.read() as rows:
                assert rows.group("a") in (ROW, None)
                assert set(rows.leases("a").values()) <= {lease}
        except (CorruptLog, StorageFailed):
            refused += 1
        finally:
            again.close()
    assert refused > 5


def test_reading_copies_what_nobody_has_open(consumers: Consumers, path: str) -> None:
    """A copy that is gone afterwards; writing to it is refused."""
    consumers.update(lambda rows: rows.put_group("a", ROW))
    consumers.close()
    before = Path(path, "consumers", "data.mdb").read_bytes()
    reading = open_consumers_to_read(PosixFiles(), path)
    assert groups(reading) == {"a": ROW}
    with pytest.raises(StorageFailed):
        reading.update(lambda rows: rows.put_group("b", ROW))
    assert reading._copy is not None
    copy = reading._copy.name
    reading.close()
    assert not Path(copy).exists()
    assert Path(path, "consumers", "data.mdb").read_bytes() == before


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_store_that_is_open_to_read_moves_nothing(store: Store, stream: Stream, is_shared: bool) -> None:
    """Reset, delete and workers raise ReadOnly; also where the process has the stream open to write, besides."""
    stream.group("g")
    if not is_shared:
        store.close()
    with shardlog.open(store.path, read_only=True) as reading:
        group = reading.stream("s").group("g")
        assert group.leases() == []
        for call in (lambda: group.reset("LATEST"), group.delete, lambda: group.worker("w")):
            with pytest.raises(ReadOnly):
                call()
        assert reading.stream("s").groups() == ["g"]

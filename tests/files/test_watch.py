"""Waiting for a file to be written: nobody who waits is forgotten, and nothing polls where inotify works."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.background import Background, wait_until
from tests.support.children import Channel, Children
from tests.support.history import changes, numbers

from shardlog import StorageFailed, Stream
from shardlog.files import watch as watch_module
from shardlog.files.watch import Watch

LIMIT_SECONDS = 30


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The watched file."""
    path = tmp_path / "MARK"
    path.write_bytes(bytes(100))
    return path


@pytest.fixture(params=["inotify", "looking"])
def watch(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A watch, with inotify and without."""
    if request.param == "looking":
        monkeypatch.setattr(watch_module, "_inotify", lambda path: -1)
    watch = Watch(str(path))
    yield watch
    watch.close()


def _write(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"x", 0)
    os.close(descriptor)


def _settled_turn(watch: Watch) -> int:
    """A turn after which nothing comes by itself: the first look at a file counts as a change of it."""
    turn = watch.turn()
    while watch.wait(turn, 0.12):
        turn = watch.turn()
    return turn


def test_a_write_wakes(watch: Watch, path: Path) -> None:
    """One write, one later turn; who asks for the turn before it looks misses nothing."""
    turn = _settled_turn(watch)
    _write(path)
    assert watch.wait(turn, LIMIT_SECONDS)
    assert watch.turn() > turn


def test_a_write_before_the_waiting_wakes_too(watch: Watch, path: Path) -> None:
    """The write falls between looking and waiting: the turn is old already, and the wait ends at once."""
    turn = watch.turn()
    _write(path)
    wait_until(lambda: watch.turn() > turn)
    assert watch.wait(turn, 0)


def test_no_write_no_turn(watch: Watch) -> None:
    """After the timeout, False; with none left, at once."""
    turn = _settled_turn(watch)
    assert not watch.wait(turn, 0.001)
    assert not watch.wait(turn, 0)
    assert not watch.wait(turn, -1)
    assert watch.turn() == turn


def test_every_waiting_thread_is_woken(watch: Watch, path: Path) -> None:
    """Readers of one process share the thread that watches."""
    turn = _settled_turn(watch)
    waiting = [Background(watch.wait, turn, LIMIT_SECONDS) for _ in range(5)]
    _write(path)
    assert all(thread.result() for thread in waiting)
    assert [thread.name for thread in threading.enumerate()].count("shardlog-watch") == 1


def _write_on_demand(channel: Channel, path: Path) -> None:
    while channel.receive():
        _write(path)
        channel.send(None)


def test_writes_of_another_process_wake(watch: Watch, path: Path, children: Children) -> None:
    """Each of many, one after the other."""
    child = children.start(_write_on_demand, path)
    turn = _settled_turn(watch)
    for _ in range(3):
        child.send(True)
        child.receive()
        assert watch.wait(turn, LIMIT_SECONDS)
        turn = watch.turn()
    child.send(False)


def test_two_writes_within_a_tick_wake_twice(watch: Watch, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of files are coarse: a write just after the file was looked at may leave its time as it was."""
    os.utime(path, ns=(1, 1))
    turn = _settled_turn(watch)
    monkeypatch.setattr(watch_module, "_TICK_NS", 3_600_000_000_000)
    stamp = time.time_ns()
    for _ in range(2):
        _write(path)
        os.utime(path, ns=(stamp, stamp))
        assert watch.wait(turn, LIMIT_SECONDS)
        turn = watch.turn()


def test_closing_ends_all_waiting(watch: Watch) -> None:
    """With False, as after a timeout; and whoever comes later does not wait."""
    turn = _settled_turn(watch)
    waiting = [Background(watch.wait, turn, None) for _ in range(3)]
    watch.close()
    assert not any(thread.result() for thread in waiting)
    assert watch.is_closed
    assert not watch.wait(watch.turn(), None)
    watch.close()
    assert not any(thread.name == "shardlog-watch" for thread in threading.enumerate())


def test_nothing_runs_until_somebody_asks(path: Path) -> None:
    """A stream that nobody follows has no thread, and closing it costs nothing."""
    before = threading.active_count()
    watch = Watch(str(path))
    assert threading.active_count() == before
    watch.close()
    assert watch.turn() >= 0
    assert threading.active_count() == before


def test_callbacks(watch: Watch, path: Path) -> None:
    """Called at every turn and at the end, until they are removed."""
    called = threading.Event()
    removed = threading.Event()
    _settled_turn(watch)
    watch.add_callback(called.set)
    watch.add_callback(removed.set)
    watch.remove_callback(removed.set)
    watch.remove_callback(removed.set)
    _write(path)
    assert called.wait(LIMIT_SECONDS)
    called.clear()
    watch.close()
    assert called.is_set()
    assert not removed.is_set()


def test_announcing_is_as_good_as_a_write(watch: Watch) -> None:
    """For news that do not come through the file."""
    turn = _settled_turn(watch)
    watch.announce()
    assert watch.wait(turn, 0)


def test_a_file_that_goes_away_wakes(watch: Watch, path: Path) -> None:
    """The stream was deleted, maybe by another process: who follows it has to look, and the thread lives on."""
    turn = _settled_turn(watch)
    path.unlink()
    assert watch.wait(turn, LIMIT_SECONDS)


def test_descriptors_are_given_back(watch: Watch, path: Path) -> None:
    """A watch leaves nothing open."""
    before = set(os.listdir("/proc/self/fd"))
    _settled_turn(watch)
    watch.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_without_inotify_it_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, where it first waits: instances of inotify are limited per user."""
    monkeypatch.setattr(watch_module, "_inotify", lambda path: -1)
    with caplog.at_level(logging.WARNING, "shardlog"):
        watch = Watch(str(path))
        watch.turn()
        watch.turn()
        watch.close()
    assert [record.message for record in caplog.records] == [
        f"inotify cannot watch {path}; looking at it every 50 ms instead"
    ]


def test_inotify_refuses_what_is_not_there(tmp_path: Path) -> None:
    """No descriptor, and none leaked."""
    before = set(os.listdir("/proc/self/fd"))
    assert watch_module._inotify(str(tmp_path / "missing")) == -1
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_forked_child_waits_for_nothing(path: Path) -> None:
    """There the thread does not run, and its lock may be held for ever: every use returns at once."""
    watch = Watch(str(path))
    watch.turn()
    with watch._condition:  # as it may be held by another thread at the moment of the fork
        pid = os.fork()
        if pid == 0:
            watch.abandon()
            os._exit(0 if watch.is_closed and not watch.wait(watch.turn(), None) else 1)
    _, status = os.waitpid(pid, 0)
    watch.close()
    assert status == 0


def test_a_follower_whose_loop_was_closed_takes_nobody_along(stream: Stream) -> None:
    """Found once: its callback raised in the thread that watches, and then nobody in the process was woken any more."""
    stream.append(changes(1, 1))
    loop = asyncio.new_event_loop()
    following = stream.read_async(follow=True)
    assert numbers([loop.run_until_complete(anext(following))]) == [1]
    loop.close()
    reading = Background(next, stream.read("LATEST", follow=True, timeout=LIMIT_SECONDS))
    for number in range(2, 5):
        stream.append(changes(number, 1))
    assert numbers([reading.result()])[0] >= 2


def test_those_who_wait_are_left_alone_while_nothing_is_new(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking by itself, it wakes them where what they wait for has changed, or cannot be looked at; else not."""
    monkeypatch.setattr(watch_module, "_OVERLOOKED_MS", 5)
    looks: list[int] = []
    tail = [1]

    def look() -> int:
        looks.append(tail[0])
        if tail[0] < 0:
            raise StorageFailed("made up")
        return tail[0]

    watch = Watch(str(path), look)
    try:
        watch.turn()
        wait_until(lambda: len(looks) > 2)
        turn = watch.turn()
        seen = len(looks)
        wait_until(lambda: len(looks) > seen + 10)
        assert watch.turn() == turn
        tail[0] = 2  # published by somebody who died before it wrote to the file
        assert watch.wait(turn, LIMIT_SECONDS)
        tail[0] = -1
        turn = watch.turn()
        assert watch.wait(turn, LIMIT_SECONDS)
        assert watch.wait(watch.turn(), LIMIT_SECONDS)
    finally:
        watch.close()

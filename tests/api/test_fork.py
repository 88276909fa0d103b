"""A fork leaves the child with nothing of what the parent has open, and the parent with everything.

The process that forks is a child of the test, because the test's own process has threads of others.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_closing import STORE_CALLS, STREAM_CALLS, is_live
from tests.support.background import Background
from tests.support.children import Channel, Children
from tests.support.faults import FaultyFiles, open_with
from tests.support.history import changes, new_stream, numbers, records_only

import shardlog
from shardlog import Store, Stream


def outcome(call: Callable[[], object]) -> str:
    """The name of what a call raises."""
    try:
        call()
    except BaseException as error:
        return type(error).__name__
    return "nothing"


def all_outcomes(store: Store, stream: Stream) -> set[str]:
    """What everything that can be asked raises."""
    return {
        *(outcome(lambda call=call: call(store)) for call in STORE_CALLS),  # type: ignore[misc]
        *(outcome(lambda call=call: call(stream)) for call in STREAM_CALLS),  # type: ignore[misc]
    }


def in_fork(run: Callable[[], object], leave: Callable[[int], Any] = os._exit) -> int:
    """Run something in a forked child and wait for it; its exit status."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
            leave(0)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _asks_in_the_fork(channel: Channel, path: Path) -> None:
    store = shardlog.open(path)
    stream = store.stream("s")
    for first in range(0, 300, 10):
        stream.append(changes(first, 10))
    reader = stream.read()
    read = [next(reader)]

    def ask() -> None:
        channel.send(all_outcomes(store, stream))
        channel.send(outcome(lambda: list(reader)))
        stream.close()
        store.close()
        channel.send(outcome(lambda: store.stream("s")))

    assert in_fork(ask) == 0
    stream.append(changes(300, 10))
    channel.send(numbers([*read, *reader]))
    channel.send(numbers(stream.read()))
    channel.receive()
    stream.append(changes(310, 1))
    channel.send(numbers(stream.read()))
    store.close()


def test_everything_inherited_is_closed(store: Store, store_path: Path, children: Children) -> None:
    """Store, stream and a reader in the middle raise Closed in the child; the parent goes on, its reader as well."""
    stream = new_stream(store, shards=1)
    store.close()
    child = children.start(_asks_in_the_fork, store_path)
    assert child.receive() == {"Closed"}
    assert child.receive() == "Closed"
    assert child.receive() == "Closed"
    assert child.receive() == list(range(300))
    assert child.receive() == list(range(310))
    assert is_live(store_path, stream)
    with shardlog.open(store_path) as other:
        other.stream("s").append(changes(1000, 1))
        child.send("go on")
        assert child.receive() == [*range(310), 1000, 310]
    assert child.wait() == 0
    assert not is_live(store_path, stream)


def _forks_and_goes_on(channel: Channel, path: Path, how: str) -> None:
    store = shardlog.open(path)
    stream = store.stream("s")
    stream.append(changes(0, 1))
    channel.send("open")
    while (number := channel.receive()) is not None:
        if how == "os._exit":
            assert in_fork(lambda: None) == 0
        elif how == "killed":
            assert in_fork(lambda: os.kill(os.getpid(), signal.SIGKILL)) == -9
        else:
            assert in_fork(lambda: (store.close(), _leave_tidily())) == 7
        channel.send(stream.append(changes(number, 1)).sequences)
    store.close()


def _leave_tidily() -> None:
    # What the interpreter does at its end, as far as a fork of a fork can do it: collect everything, then leave.
    import gc

    for value in list(globals().values()):
        del value
    gc.collect()
    os._exit(7)


@pytest.mark.parametrize("how", ["os._exit", "killed", "tidily"])
def test_the_child_takes_no_locks_along_when_it_ends(
    store: Store, store_path: Path, children: Children, how: str
) -> None:
    """However the child ends, the parent keeps LIVE, and its appends and another process's exclude each other."""
    stream = new_stream(store)
    store.close()
    child = children.start(_forks_and_goes_on, store_path, how)
    assert child.receive() == "open"
    with shardlog.open(store_path) as other:
        mine = other.stream("s")
        wanted = [0]
        for number in range(1, 12, 2):
            child.send(number)
            assert child.receive() == [number + 1]
            assert mine.append(changes(number + 1, 1)).sequences == [number + 2]
            wanted += [number, number + 1]
        assert numbers(mine.read()) == wanted
    assert is_live(store_path, stream)
    child.send(None)
    assert child.wait() == 0
    assert not is_live(store_path, stream)


def _forks_and_waits_for_its_death(channel: Channel, path: Path) -> None:
    store = shardlog.open(path)
    stream = store.stream("s")
    for first in range(0, 300, 10):
        stream.append(changes(first, 10))
    follower = Background(lambda: list(stream.read(start="LATEST", follow=True)))
    assert follower.is_running
    pid = os.fork()
    if pid == 0:
        channel.send(("forked", os.getpid()))
        channel.receive()
        os._exit(0)
    channel.receive()


def test_after_the_parent_died_its_fork_holds_nothing(store: Store, store_path: Path, children: Children) -> None:
    """The parent is killed while its forked child lives on: the next to open sees nobody LIVE, and recovers."""
    stream = new_stream(store)
    store.close()
    child = children.start(_forks_and_waits_for_its_death, store_path)
    _, forked = child.receive()
    assert is_live(store_path, stream)
    child.kill()
    os.kill(forked, 0)  # it is there
    assert not is_live(store_path, stream)
    index = store_path / "streams" / "s" / stream.label / "index" / "data.mdb"
    before = index.stat().st_ino
    with shardlog.open(store_path, lock_timeout=1) as again:
        assert numbers(again.stream("s").read()) == list(range(300))
        assert index.stat().st_ino != before, "the index of nobody must be made anew"
        for first in range(300, 500, 10):
            again.stream("s").append(changes(first, 10))
    child.send("end")
    with shardlog.open(store_path) as again:
        assert numbers(again.stream("s").read()) == list(range(500))


def _forks_in_the_middle(channel: Channel, path: Path) -> None:
    files = FaultyFiles()
    store = open_with(path, files)
    stream = store.stream("s")
    reached, release = threading.Event(), threading.Event()

    def hold_up() -> None:
        reached.set()
        release.wait(20)

    files.arm(lambda step: step.operation == "pwrite" and step.is_segment, hold_up)
    background = [Background(stream.append, changes(0, 3))]
    assert reached.wait(20)
    background.append(Background(stream.append, changes(3, 3)))
    follower = Background(lambda: next(stream.read(follow=True)))

    def ask() -> None:
        signal.alarm(20)  # a lock that nobody will give up would end it
        channel.send(all_outcomes(store, stream))

    assert in_fork(ask) == 0
    release.set()
    for append in background:
        append.result()
    channel.send(follower.result().sequence)
    channel.send(sorted(numbers(stream.read())))
    store.close()


def test_a_fork_while_other_threads_append_and_follow(store: Store, store_path: Path, children: Children) -> None:
    """Locks that other threads held at the fork do not stop the child from being told Closed; the parent goes on."""
    new_stream(store)
    store.close()
    child = children.start(_forks_in_the_middle, store_path)
    assert child.receive() == {"Closed"}
    assert child.receive() == 1
    assert child.receive() == list(range(6))
    assert child.wait() == 0


def _opens_in_the_fork(channel: Channel, path: Path) -> None:
    store = shardlog.open(path)
    stream = store.stream("s")
    stream.append(changes(0, 1))

    def open_another() -> None:
        with shardlog.open(path) as mine:
            other = mine.stream("other")
            other.append(changes(5, 2))
            channel.send(numbers(other.read()))

    assert in_fork(open_another) == 0
    stream.append(changes(1, 1))
    channel.send(numbers(records_only(stream.read())))
    store.close()


def test_the_child_may_open_what_the_parent_has_not_open(store: Store, store_path: Path, children: Children) -> None:
    """A forked child opens the store for itself, and uses streams that its parent does not have open."""
    new_stream(store)
    new_stream(store, "other")
    store.close()
    child = children.start(_opens_in_the_fork, store_path)
    assert child.receive() == [5, 6]
    assert child.receive() == [0, 1]
    assert child.wait() == 0


def _forks_while_opening(channel: Channel, path: Path) -> None:
    files = FaultyFiles()
    store = open_with(path, files)
    reached, has_forked = threading.Event(), threading.Event()

    def hold_up() -> None:
        reached.set()
        has_forked.wait(0.3)  # for ever, where the fork waits for the opening

    files.arm(lambda step: step.operation == "open_lock", hold_up, "after")
    opening = Background(store.stream, "s")
    assert reached.wait(20)
    if os.fork() == 0:
        channel.send(os.getpid())
        channel.receive()
        os._exit(0)
    has_forked.set()
    opening.result().append(changes(0, 1))
    channel.send("open")
    channel.receive()


def test_a_fork_while_another_thread_opens(store: Store, store_path: Path, children: Children) -> None:
    """A lock that was being taken at the fork does not stay with the child when the parent is dead."""
    stream = new_stream(store)
    store.close()
    child = children.start(_forks_while_opening, store_path)
    messages = {child.receive(), child.receive()}
    (forked,) = messages - {"open"}
    assert is_live(store_path, stream)
    child.kill()
    os.kill(forked, 0)  # it is there
    assert not is_live(store_path, stream)
    child.send("end")

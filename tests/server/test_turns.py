"""One thread, in turns."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
from tests.support.background import LIMIT_SECONDS

from shardlog.server.turns import Turns, give_way


@pytest.fixture
def turns() -> Iterator[Turns]:
    """One that ends."""
    with Turns("test") as turns:
        yield turns


@pytest.fixture
def start(turns: Turns) -> Iterator[threading.Event]:
    """Holds up the thread until it is set: what is submitted meanwhile waits."""
    event = threading.Event()
    turns.submit(event.wait, LIMIT_SECONDS)
    yield event
    event.set()


def test_in_order_in_one_thread(turns: Turns) -> None:
    """Values and errors are given to who waits for them."""
    threads = [turns.submit(threading.get_ident) for _ in range(20)]
    assert len({future.result(LIMIT_SECONDS) for future in threads}) == 1
    with pytest.raises(ZeroDivisionError):
        turns.submit(lambda: 1 // 0).result(LIMIT_SECONDS)
    assert turns.submit(max, 1, 2).result(LIMIT_SECONDS) == 2


def test_long_work_gives_way(turns: Turns, start: threading.Event) -> None:
    """What waits is done in between, in order, in the same thread; then the long work goes on."""
    done: list[object] = []

    def work() -> None:
        for part in range(3):
            done.append((part, threading.get_ident()))
            give_way()

    long = turns.submit(work)
    for name in "ab":
        turns.submit(lambda name=name: done.append((name, threading.get_ident())))
    start.set()
    long.result(LIMIT_SECONDS)
    assert [found[0] for found in done] == [0, "a", "b", 1, 2]  # type: ignore[index]
    assert len({found[1] for found in done}) == 1  # type: ignore[index]


def test_an_error_in_between_is_not_the_long_works(turns: Turns, start: threading.Event) -> None:
    """It is for who submitted it."""
    long = turns.submit(lambda: (give_way(), "done")[1])
    broken = turns.submit(lambda: 1 // 0)
    start.set()
    assert long.result(LIMIT_SECONDS) == "done"
    with pytest.raises(ZeroDivisionError):
        broken.result(LIMIT_SECONDS)


def test_long_work_in_between_does_not_give_way(turns: Turns, start: threading.Event) -> None:
    """Else a hundred sweeps at once would be a hundred calls within each other."""
    depth, deepest = 0, 0

    def work() -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        give_way()
        depth -= 1

    waiting = [turns.submit(work) for _ in range(2000)]
    start.set()
    for future in waiting:
        future.result(LIMIT_SECONDS)
    assert deepest == 2


def test_nobody_waits_for_other_threads() -> None:
    """Giving way there does nothing."""
    give_way()


def test_what_was_cancelled_is_not_done(turns: Turns, start: threading.Event) -> None:
    """Neither by its submitter, nor at the end."""
    done: list[int] = []
    first, second = (turns.submit(done.append, number) for number in range(2))
    assert first.cancel()
    start.set()
    second.result(LIMIT_SECONDS)
    assert done == [1]


def test_the_end(start: threading.Event, turns: Turns) -> None:
    """What was submitted is done, or cancelled where that is asked for; nothing more is taken."""
    waiting = turns.submit(int)
    turns.shutdown(wait=False, cancel_futures=True)
    start.set()
    with pytest.raises(CancelledError):
        waiting.result(LIMIT_SECONDS)
    with pytest.raises(RuntimeError):
        turns.submit(int)

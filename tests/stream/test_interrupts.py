"""KeyboardInterrupt at every line of an append, with other threads' appends in the same commit and behind it.

Only the main thread gets it. Wherever it strikes, the interrupted append happened whole or not at all, everybody else's
happened once and said so, and the stream goes on.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.support.background import Background, wait_until
from tests.support.faults import FaultyFiles, open_with
from tests.support.history import Append, batch, check_holds, new_stream

import shardlog
from shardlog import Appended, Store, Stream

ENGINE = str(Path(shardlog.__file__).parent)
BATCH_SIZE = 3
LINES_MAX = 2000


def interrupted(function: Any, line: int) -> tuple[Any, str | None]:
    """Call a function with a KeyboardInterrupt at its `line`-th line within the engine: its result, and where it struck.

    The place is None where the function has fewer lines.
    """
    passed = 0
    place: str | None = None

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed, place
        if not frame.f_code.co_filename.startswith(ENGINE):
            return None
        if event == "line":
            passed += 1
            if passed == line:
                place = f"{frame.f_code.co_filename.removeprefix(ENGINE)}:{frame.f_lineno} {frame.f_code.co_name}"
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        return function(), place
    except KeyboardInterrupt:
        return None, place
    finally:
        sys.settrace(None)


def queued(stream: Stream) -> int:
    """How many appends wait for a leader, the leader's own not counted."""
    return len(stream._stream.commits._gathering._pending)


class Crowd:
    """Appends that meet in one stream: one that holds the others up, the main thread's, and two more."""

    def __init__(self, stream: Stream, files: FaultyFiles) -> None:
        self.stream = stream
        self.files = files
        self.acknowledged: dict[Append, list[int]] = {}
        self.attempted: set[Append] = set()
        self._round = 0

    def append(self, who: str) -> None:
        append = who, self._round
        self.attempted.add(append)
        result = self.stream.append(batch(*append, BATCH_SIZE))
        assert not result.duplicate
        self.acknowledged[append] = result.sequences

    def meet_in_one_commit(self, line: int) -> str | None:
        """The main thread is the next leader, and takes the two others along."""
        self._round += 1
        reached, release = threading.Event(), threading.Event()

        def hold_up() -> None:
            reached.set()
            assert release.wait(20)

        self.files.arm(lambda step: step.operation == "pwrite" and step.is_segment, hold_up)
        plug = Background(self.append, "plug")
        assert reached.wait(20)
        main_is_done = threading.Event()

        def bring_others() -> list[Background[None]]:
            wait_until(lambda: main_is_done.is_set() or queued(self.stream))
            others = []
            for who in ("one", "two"):
                before = queued(self.stream)
                others.append(Background(self.append, who))
                wait_until(lambda before=before: queued(self.stream) > before)  # type: ignore[misc]
            release.set()
            return others

        coordinator = Background(bring_others)
        _, place = interrupted(lambda: self.append("main"), line)
        self.place = place
        main_is_done.set()
        for other in (plug, *coordinator.result(3)):
            other.result(3)
        return place

    def meet_behind(self, line: int) -> str | None:
        """The main thread leads alone; the two others come while it writes."""
        self._round += 1
        others: list[Background[None]] = []

        def bring_others() -> None:
            others.extend(Background(self.append, who) for who in ("one", "two"))
            wait_until(lambda: queued(self.stream) == len(others))

        fault = self.files.arm(lambda step: step.operation == "pwrite" and step.is_segment, bring_others)
        _, place = interrupted(lambda: self.append("main"), line)
        self.place = place
        fault.times = 0
        for other in others:
            other.result(3)
        return place

    def check(self) -> None:
        Background(self.append, "after").result(3)
        found = check_holds(self.stream, self.acknowledged)
        assert found.keys() <= self.attempted
        self._round += 1


@pytest.fixture
def files() -> FaultyFiles:
    """Files of the crowd."""
    return FaultyFiles()


@pytest.fixture(params=["fsync", "os"])
def crowded(store_path: Path, files: FaultyFiles, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store with a stream of either level."""
    store = open_with(store_path, files)
    new_stream(store, durability=request.param, shards=2)
    yield store
    store.close()


@pytest.mark.parametrize("way", ["meet_in_one_commit", "meet_behind"])
def test_an_interrupt_at_any_line(crowded: Store, files: FaultyFiles, way: str) -> None:
    """The others' appends have their outcome, once; the interrupted one is whole or not there; appends go on."""
    crowd = Crowd(crowded.stream("s"), files)
    places = []
    wrong = []
    import os
    for line in range(1, LINES_MAX):
        try:
            place = getattr(crowd, way)(line)
            places.append(place)
            crowd.check()
        except BaseException as e:
            print(line, crowd.place, repr(e)[:300], flush=True)
            wrong.append(line)
            crowd = Crowd(new_stream(crowded, f"s{line}", shards=2), files)
            files.faults.clear()
            if len(wrong) > 30: break
        if place is None:
            break
    print(len(places))
    assert not wrong

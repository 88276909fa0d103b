"""KeyboardInterrupt at any moment of an append, with other threads' appends in the same commit and behind it.

Only the main thread gets it. Wherever it strikes, the interrupted append happened whole or not at all, everybody else's
happened once and said so, and the stream goes on.
"""

from __future__ import annotations

import dis
import os
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
from tests.support.history import Append, appends_of, batch, check_holds, new_stream

import shardlog
from shardlog import Store, Stream

ENGINE = str(Path(shardlog.__file__).parent)
BATCH_SIZE = 3
OCCASIONS_MAX = 5000
LOOKS_FOR_SIGNALS = ("CALL", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD", "FOR_ITER")


def interrupted(function: Any, occasion: int) -> tuple[Any, str | None]:
    """Call a function with a KeyboardInterrupt at the `occasion`-th moment when the engine could get one.

    Its result, and where it struck: None where there are fewer occasions. The interpreter looks for signals after a
    call of a C function, when a function of Python begins, and when a loop turns: between two bytecodes, which may be
    in the middle of a line.
    """
    passed = 0
    place: str | None = None
    before: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal passed, place
        if not frame.f_code.co_filename.startswith(ENGINE):
            return None
        if event == "call":
            frame.f_trace_opcodes = True
        elif event == "opcode":
            looks = before.get(frame, "").startswith(LOOKS_FOR_SIGNALS)
            before[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            passed += looks
            if looks and passed == occasion:
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
        before.clear()


def is_queued(stream: Stream, append: Append) -> bool:
    """Whether an append waits for a leader."""
    first = batch(*append, 1)[0].keys
    pending = list(stream._stream.commits._gathering._pending)
    return any(ticket.requests[0].rows[0][1] == first for ticket in pending)


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

    def meet_in_one_commit(self, occasion: int) -> str | None:
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
            wait_until(lambda: main_is_done.is_set() or is_queued(self.stream, ("main", self._round)))
            others = self._queue_others()
            release.set()
            return others

        coordinator = Background(bring_others)
        _, place = interrupted(lambda: self.append("main"), occasion)
        main_is_done.set()
        for other in (plug, *coordinator.result()):
            other.result()
        return place

    def meet_behind(self, occasion: int) -> str | None:
        """The main thread leads alone; the two others come while it writes."""
        self._round += 1
        others: list[Background[None]] = []

        def bring_others() -> None:
            others.extend(self._queue_others())

        fault = self.files.arm(lambda step: step.operation == "pwrite" and step.is_segment, bring_others)
        _, place = interrupted(lambda: self.append("main"), occasion)
        fault.times = 0
        for other in others:
            other.result()
        return place

    def _queue_others(self) -> list[Background[None]]:
        others = []
        for who in ("one", "two"):
            others.append(Background(self.append, who))
            wait_until(lambda who=who: is_queued(self.stream, (who, self._round)))  # type: ignore[misc]
        return others

    def check(self) -> None:
        Background(self.append, "after").result()
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
def test_an_interrupt_at_any_moment(crowded: Store, files: FaultyFiles, way: str, seed: int) -> None:
    """The others' appends have their outcome, once; the interrupted one is whole or not there; appends go on.

    A run tries every eighth moment; SHARDLOG_TEST_EVERY=1 tries all.
    """
    crowd = Crowd(crowded.stream("s"), files)
    every = int(os.environ.get("SHARDLOG_TEST_EVERY", "8"))
    tried = 0
    for occasion in range(1 + seed % every, OCCASIONS_MAX, every):
        place = getattr(crowd, way)(occasion)
        print(occasion, place)
        crowd.check()
        if place is None:
            break
        tried += 1
    assert tried > 100 // every


def test_an_interrupt_while_waiting_takes_the_append_back(crowded: Store, files: FaultyFiles) -> None:
    """Ctrl-C in an append that waits for another's commit: it is not in the log, and does not turn up there later."""
    stream = crowded.stream("s")
    crowd = Crowd(stream, files)

    def interrupt_main() -> None:
        wait_until(lambda: is_queued(stream, ("main", 0)))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        wait_until(lambda: not is_queued(stream, ("main", 0)))

    reached = threading.Event()

    def hold_up() -> None:
        reached.set()
        interrupt_main()

    files.arm(lambda step: step.operation == "pwrite" and step.is_segment, hold_up)
    plug = Background(crowd.append, "plug")
    assert reached.wait(20)
    with pytest.raises(KeyboardInterrupt):
        crowd.append("main")
    plug.result()
    crowd.check()
    assert ("main", 0) not in appends_of(stream.read())


def test_an_interrupt_while_reading_leaves_the_stream_usable(stream: Stream) -> None:
    """A reader that was interrupted is lost; the stream reads and appends as before."""
    stream.append(batch("a", 0, BATCH_SIZE))
    for occasion in range(1, OCCASIONS_MAX):
        _, place = interrupted(lambda: appends_of(stream.read()), occasion)
        if place is None:
            break
    assert occasion > 50
    stream.append(batch("a", 1, BATCH_SIZE))
    assert list(appends_of(stream.read())) == [("a", 0), ("a", 1)]

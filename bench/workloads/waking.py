"""Waiting for records: how soon a follower has one that was committed, and what followers cost that wait."""

from __future__ import annotations

import asyncio
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Final

import shardlog
from bench.children import Appender
from bench.settings import Settings
from bench.workloads.consuming import Idle
from shardlog import Change, Closed, Record, Stream
from shardlog_tools.measuring.contestants import STREAM
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Row, Table, at_most
from shardlog_tools.measuring.rounds import take_turns

_APPENDS_AT_LEAST: Final = 10
_PAUSE_SECONDS: Final = 0.002
_LIMIT_SECONDS: Final = 30.0
_PERCENTILE: Final = 0.99
_NEVER_LESS_US: Final = 1.0
_NOW: Final = timedelta(0)

Seen = Callable[[int], None]
Follow = Callable[[Stream, Seen, int], None]
Append = Callable[[], tuple[int, int]]
"""Appends a record: its sequence number, and the monotonic time in nanoseconds when that was done."""


def follow_by_read(stream: Stream, seen: Seen, _number: int) -> None:
    """`read(follow=True)`."""
    for record in stream.read("LATEST", follow=True):
        assert isinstance(record, Record)
        seen(record.sequence)


def follow_by_worker(stream: Stream, seen: Seen, number: int) -> None:
    """`worker.batches`, of a group of its own."""
    with stream.group(f"group{number}", start="LATEST").worker("worker") as worker:
        for batch in worker.batches(wait=_NOW):
            for record in batch.records:
                seen(record.sequence)


def follow_by_task(stream: Stream, seen: Seen, _number: int) -> None:
    """`read_async(follow=True)`."""

    async def run() -> None:
        async for record in stream.read_async("LATEST", follow=True):
            assert isinstance(record, Record)
            seen(record.sequence)

    asyncio.run(run())


KINDS: Final[dict[str, Follow]] = {
    "read": follow_by_read,
    "worker.batches": follow_by_worker,
    "read_async": follow_by_task,
}


class Waking:
    """One follower; somebody appends now and then. The figure: 99 of 100 records are there after so many ms."""

    def __init__(self, name: str, stream: Stream, follow: Follow, append: Append, number: int) -> None:
        self.name = name
        self._append = append
        self._seen: dict[int, int] = {}
        self._came = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(stream, follow, number), daemon=True)
        self._thread.start()

    def _run(self, stream: Stream, follow: Follow, number: int) -> None:
        try:
            follow(stream, self._note, number)
        except Closed:
            return  # as it is meant to end

    def _note(self, sequence: int) -> None:
        self._seen[sequence] = time.monotonic_ns()
        self._came.set()

    def start(self) -> None:
        """Append until the follower is at work."""
        while not self._came.wait(_PAUSE_SECONDS):
            self._append()

    def turn(self, seconds: float) -> float:
        times_us: list[float] = []
        deadline = time.perf_counter() + seconds
        while len(times_us) < _APPENDS_AT_LEAST or time.perf_counter() < deadline:
            time.sleep(_PAUSE_SECONDS)  # so that it waits again
            sequence, done_ns = self._append()
            times_us.append(max(_NEVER_LESS_US, (self._when_seen(sequence) - done_ns) / 1e3))
        return percentile(times_us) / 1e3

    def _when_seen(self, sequence: int) -> int:
        deadline = time.perf_counter() + _LIMIT_SECONDS
        while sequence not in self._seen:
            self._came.clear()
            if sequence not in self._seen and not self._came.wait(_LIMIT_SECONDS):
                raise RuntimeError(f"{self.name}: record {sequence} did not come")
            if time.perf_counter() > deadline:
                raise RuntimeError(f"{self.name}: record {sequence} did not come")
        return self._seen[sequence]

    def join(self) -> None:
        """Wait for its thread, when the stream was closed."""
        self._thread.join(_LIMIT_SECONDS)


def percentile(values: Sequence[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    return sorted(values)[math.ceil(_PERCENTILE * len(values)) - 1]


def wake_up(settings: Settings) -> Table:
    """From the end of `append`, in the same process or another, until a follower that waited has the record."""
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory:
        path = os.path.join(directory, "store")
        sync = sync_times(settings.directory)
        waking: list[Waking] = []
        with shardlog.open(path) as store, ExitStack() as children:
            here = [store.create_stream(f"here{number}", retention=None) for number in range(len(KINDS))]
            there = [store.create_stream(f"there{number}", retention=None) for number in range(len(KINDS))]
            for stream, (name, follow) in zip(here, KINDS.items(), strict=True):
                waking.append(Waking(f"{name}, same process", stream, follow, _appender(stream), 0))
            for stream, (name, follow) in zip(there, KINDS.items(), strict=True):
                child = children.enter_context(Appender(path, stream.name))
                waking.append(Waking(f"{name}, other process", stream, follow, child.append, 0))
            for one in waking:
                one.start()
            series = take_turns(waking, settings)
        for one in waking:
            one.join()
    goals = [at_most(1)] * len(KINDS) + [at_most(5)] * len(KINDS)
    rows = tuple(Row(one, goal=goal) for one, goal in zip(series, goals, strict=True))
    return Table("wake-up", "99 of 100 commits reach a follower that waits within", "ms", rows, sync)


def idle_followers(settings: Settings) -> Table:
    """What many followers of one stream cost while nothing is appended."""
    count = settings.followers
    series = []
    for name, follow in KINDS.items():
        with _followers(settings, follow, count):
            series += take_turns([Idle(f"{count} x {name}", settings.idle_seconds)], settings)
    rows = tuple(Row(one, goal=at_most(1)) for one in series)
    title = f"{count} followers of one stream that wait"
    return Table("idle-followers", title, "% of a core", rows, sync_times(settings.directory))


@contextmanager
def _followers(settings: Settings, follow: Follow, count: int) -> Iterator[None]:
    """Followers that wait, each in a thread; tasks all in one."""
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory:
        with shardlog.open(os.path.join(directory, "store")) as store:
            stream = store.create_stream(STREAM, retention=None)
            append = _appender(stream)
            if follow is follow_by_task:
                waking = [Waking("tasks", stream, _tasks(count), append, 0)]
            else:
                waking = [Waking("one", stream, follow, append, number) for number in range(count)]
            for one in waking:
                one.start()
            yield
        for one in waking:
            one.join()


def _tasks(count: int) -> Follow:
    """So many tasks of one loop; each tells of its first record when all the others have one."""

    def follow(stream: Stream, seen: Seen, _number: int) -> None:
        waiting = count

        async def one() -> None:
            nonlocal waiting
            is_first = True
            async for record in stream.read_async("LATEST", follow=True):
                assert isinstance(record, Record)
                waiting -= is_first
                is_first = False
                if not waiting:
                    seen(record.sequence)

        async def run() -> None:
            await asyncio.gather(*(one() for _ in range(count)))

        asyncio.run(run())

    return follow


def _appender(stream: Stream) -> Append:
    change = Change.insert(keys={"id": 1}, new={"id": 1})

    def append() -> tuple[int, int]:
        (sequence,) = stream.append([change]).sequences
        return sequence, time.monotonic_ns()

    return append

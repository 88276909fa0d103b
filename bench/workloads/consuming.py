"""Consumers: checkpoints of many threads, and leases of many workers.

What a killed or frozen worker leaves is taken over by those that live; it is a process of its own (`bench.children`).
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import islice
from typing import Final

import shardlog
from bench.children import working
from bench.settings import Settings
from shardlog import Batch, Change, Group, Stream, Worker
from shardlog_tools.measuring.contestants import STREAM
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Row, Series, Table, at_least, at_most
from shardlog_tools.measuring.rounds import take_turns

GROUP: Final = "bench"
_CHECKPOINTS_PER_SECOND_MAX: Final = 60_000
"""Records are laid in for so many."""
_CHECKPOINTS_AT_LEAST: Final = 100
_RECORDS_PER_APPEND: Final = 1_000
_RECORDS_PER_BATCH: Final = 10_000
_PAUSE_SECONDS: Final = 0.002
_LIMIT_SECONDS: Final = 120.0
_USUAL_LEASE: Final = timedelta(seconds=30)
_LONG_LEASE: Final = timedelta(hours=1)


class Checkpoints:
    """Threads, each with batches of its own, checkpoint record by record. The figure: checkpoints per second in all."""

    def __init__(self, name: str, batches: list[list[Batch]]) -> None:
        self.name = name
        self._moves = [iter([(batch, record.sequence) for batch in own for record in batch.records]) for own in batches]

    def turn(self, seconds: float) -> float:
        counts = [0] * len(self._moves)
        ends = [0.0] * len(self._moves)
        started = threading.Barrier(len(self._moves) + 1)
        deadline = 0.0

        def run(number: int) -> None:
            started.wait()
            for batch, sequence in self._moves[number]:
                batch.checkpoint(sequence)
                counts[number] += 1
                if time.perf_counter() >= deadline:
                    break
            ends[number] = time.perf_counter()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(self._moves))]
        for thread in threads:
            thread.start()
        start = time.perf_counter()
        deadline = start + seconds
        started.wait()
        for thread in threads:
            thread.join()
        return sum(counts) / (max(ends) - start)


def checkpoint(settings: Settings) -> Table:
    """Durable checkpoints of many workers' threads in one process; one synced transaction holds those of many."""
    many = settings.checkpoint_threads
    needed = max(_CHECKPOINTS_AT_LEAST, int(settings.seconds * _CHECKPOINTS_PER_SECOND_MAX / many))
    with _stream(settings, shards=many) as (stream, stack):
        _fill(stream, many * needed)
        workers = _workers(stream.group(GROUP), many, _USUAL_LEASE, stack)
        wait_until(lambda: _is_balanced(stream.group(GROUP), many))
        batches = [[_only_batch(worker)] for worker in workers]
        alone = _workers(stream.group("alone"), 1, _LONG_LEASE, stack)[0]
        contestants = [
            Checkpoints(f"{many} threads", batches),
            Checkpoints("1 thread", [list(islice(alone.batches(_RECORDS_PER_BATCH, timedelta(0)), many))]),
        ]
        sync = sync_times(settings.directory)
        threads, one = take_turns(contestants, settings)
    rows = (Row(threads, goal=at_least(20_000)), Row(one))
    return Table("checkpoints", "durable checkpoints, each of one record", "checkpoints/s", rows, sync)


def share_leases(settings: Settings) -> Table:
    """From the start of many workers until all have their share; and what a killed and a frozen one leave."""
    lease = timedelta(seconds=settings.lease_seconds)
    values: dict[str, list[float]] = {"balanced": [], "taken over from a killed worker": [], "from a frozen one": []}
    sync = sync_times(settings.directory)
    for _ in range(settings.rounds):
        with _stream(settings, shards=settings.leases) as (stream, stack):
            group = stream.group(GROUP)
            start = time.perf_counter()
            _workers(group, settings.lease_workers, lease, stack)
            wait_until(lambda group=group: _is_balanced(group, settings.lease_workers))  # type: ignore[misc]
            values["balanced"].append((time.perf_counter() - start) / settings.lease_seconds)
            for name, with_what in (
                ("taken over from a killed worker", signal.SIGKILL),
                ("from a frozen one", signal.SIGSTOP),
            ):
                left = _time_to_take_over(settings, stream, with_what)
                values[name].append(left / settings.lease_seconds)
    goals = (at_most(3), at_most(1.5), at_most(1.5))
    rows = tuple(Row(Series(name, tuple(values[name])), goal=goal) for name, goal in zip(values, goals, strict=True))
    title = f"{settings.leases} shards, {settings.lease_workers} workers in one process, leases of {lease}"
    return Table("leases", title, "lease durations", rows, sync)


class Idle:
    """Looks on, for so long, while others wait for something to do. The figure: per cent of a core that they take."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self._seconds = seconds

    def turn(self, _seconds: float) -> float:
        used, start = time.process_time(), time.perf_counter()
        time.sleep(self._seconds)
        return 100 * (time.process_time() - used) / (time.perf_counter() - start)


def idle_leases(settings: Settings) -> Table:
    """What looking after leases costs while nothing happens: the usual lease duration, all workers in one process."""
    series = []
    for shards, count in ((settings.leases, settings.lease_workers), (4, 1)):
        with _stream(settings, shards=shards) as (stream, stack):
            group = stream.group(GROUP)
            _workers(group, count, _USUAL_LEASE, stack)
            wait_until(lambda group=group, count=count: _is_balanced(group, count))  # type: ignore[misc]
            series += take_turns([Idle(f"{count} workers, {shards} leases", settings.idle_seconds)], settings)
    rows = (Row(series[0]), Row(series[1], goal=at_most(1)))
    return Table(
        "idle-leases", "workers that wait, leases of 30 s", "% of a core", rows, sync_times(settings.directory)
    )


def _time_to_take_over(settings: Settings, stream: Stream, with_what: signal.Signals) -> float:
    """Seconds from the end of a process with a share of the leases until others have all of them."""
    group = stream.group(GROUP)
    path = stream._stream.path.rsplit("/streams/", 1)[0]
    with working(path, GROUP, "victim", settings.lease_seconds) as process:
        wait_until(lambda: _is_balanced(group, settings.lease_workers + 1))
        process.send_signal(with_what)
        start = time.perf_counter()
        try:
            wait_until(lambda: all(lease.owner not in ("victim", None) for lease in group.leases()))
            return time.perf_counter() - start
        finally:
            process.kill()


@contextmanager
def _stream(settings: Settings, shards: int) -> Iterator[tuple[Stream, ExitStack]]:
    """A stream, and what has to end before it does."""
    with (
        tempfile.TemporaryDirectory(dir=settings.directory) as directory,
        shardlog.open(os.path.join(directory, "store")) as store,
        ExitStack() as stack,
    ):
        yield store.create_stream(STREAM, shards=shards, retention=None), stack


def _fill(stream: Stream, records: int) -> None:
    for first in range(0, records, _RECORDS_PER_APPEND):
        stream.append(
            [
                Change.insert(keys={"id": number}, new={"id": number})
                for number in range(first, first + _RECORDS_PER_APPEND)
            ]
        )


def _workers(group: Group, count: int, lease: timedelta, stack: ExitStack) -> list[Worker]:
    return [stack.enter_context(group.worker(f"worker{number}", lease_duration=lease)) for number in range(count)]


def _only_batch(worker: Worker) -> Batch:
    return next(iter(worker.batches(_RECORDS_PER_BATCH, timedelta(0))))


def _is_balanced(group: Group, workers: int) -> bool:
    """Whether every lease is held, and no worker has two more than another."""
    loads = Counter(lease.owner for lease in group.leases())
    return None not in loads and len(loads) == workers and max(loads.values()) - min(loads.values()) <= 1


def wait_until(condition: Callable[[], bool]) -> None:
    """Look now and then whether it is so."""
    deadline = time.perf_counter() + _LIMIT_SECONDS
    while not condition():
        if time.perf_counter() > deadline:
            raise RuntimeError(f"not so after {_LIMIT_SECONDS:g} s")
        time.sleep(_PAUSE_SECONDS)

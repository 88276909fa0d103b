"""Appending, one durable commit after the other, from changes that exist already: by one thread, threads, or tasks."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, pairwise
from typing import Final, Protocol

from shardlog import Change
from shardlog.format.values import encode
from shardlog_tools.measuring.changes import change_commits
from shardlog_tools.measuring.contestants import Limit, Peer, Shardlog, WriteAndSync, block_bytes
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Goal, Table, at_least, compare_by_name
from shardlog_tools.measuring.rounds import Contestant, Settings, Turn, take_turns

Commits = list[list[Change]]
MakePeer = Callable[[str], Peer]

LIMIT_GOALS: Final = {1: 0.75, 100: 0.6, 1000: 0.7}
BEST_GOALS: Final = {100: 1.2, 1000: 1.5}
BEST_OF: Final = ("SQLite", "LMDB", "RocksDB")
# Not for one record per commit: there all of them wait for the same device.
OTHER_GOALS: Final = {"Redis Streams": at_least(5.0), "NATS JetStream": at_least(5.0)}


class Appending:
    """One thread commits lists of changes. The figure: records per second."""

    def __init__(self, peer: Peer, commits: Commits) -> None:
        self.name = peer.name
        self.setting = peer.setting
        self._peer = peer
        self._commits = cycle(commits)
        self._records_per_commit = len(commits[0])

    def turn(self, seconds: float) -> Turn:
        """See `Contestant`."""
        peer, now = self._peer, time.perf_counter
        commit = peer.commit
        untimed = peer.untimed_seconds
        ends = [now()]
        note = ends.append
        deadline = ends[0] + seconds
        for changes in self._commits:
            commit(changes)
            note(end := now())
            if end >= deadline:
                break
        elapsed = ends[-1] - ends[0] - (peer.untimed_seconds - untimed)
        return Turn((len(ends) - 1) * self._records_per_commit / elapsed, _differences_us(ends))


class ThreadsAppending:
    """Many threads commit lists of changes at the same time, each through its own peer. Records per second in all."""

    def __init__(self, peers: Sequence[Peer], commits: Commits) -> None:
        self.name = f"{peers[0].name}, {len(peers)} threads"
        self.setting = peers[0].setting
        self._peers = peers
        self._commits = commits

    def turn(self, seconds: float) -> Turn:
        """See `Contestant`."""
        ends: list[list[float]] = [[] for _ in self._peers]
        started = threading.Barrier(len(self._peers) + 1)
        deadline = 0.0

        def run(number: int) -> None:
            commit, note, now = self._peers[number].commit, ends[number].append, time.perf_counter
            started.wait()
            note(now())
            for changes in cycle(self._commits):
                commit(changes)
                note(end := now())
                if end >= deadline:
                    return

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(self._peers))]
        for thread in threads:
            thread.start()
        start = time.perf_counter()
        deadline = start + seconds
        started.wait()
        for thread in threads:
            thread.join()
        return _turn_of(start, ends, len(self._commits[0]))


class AsyncPeer(Protocol):
    """A store that tasks commit to."""

    name: str
    setting: str

    def commit_async(self, changes: list[Change]) -> Awaitable[object]:
        """Make the changes durable, all or none."""
        ...


class TasksAppending:
    """Many asyncio tasks commit lists of changes at the same time. Records per second in all."""

    def __init__(self, peer: AsyncPeer, tasks: int, commits: Commits) -> None:
        self.name = f"{peer.name}, {tasks} tasks"
        self.setting = peer.setting
        self._peer = peer
        self._tasks = tasks
        self._commits = commits

    def turn(self, seconds: float) -> Turn:
        """See `Contestant`."""
        return asyncio.run(self._turn(seconds))

    async def _turn(self, seconds: float) -> Turn:
        now = time.perf_counter
        start = now()
        deadline = start + seconds
        ends: list[list[float]] = [[start] for _ in range(self._tasks)]

        async def run(note: Callable[[float], None]) -> None:
            for changes in cycle(self._commits):
                await self._peer.commit_async(changes)
                note(end := now())
                if end >= deadline:
                    return

        await asyncio.gather(*(run(times.append) for times in ends))
        return _turn_of(start, ends, len(self._commits[0]))


class ShardlogTasks(Shardlog):
    """shardlog for asyncio."""

    def commit_async(self, changes: list[Change]) -> Awaitable[object]:
        """See `AsyncPeer`."""
        return self.stream.append_async(changes)


def append_many(settings: Settings, records: int, make_peers: Sequence[MakePeer] = ()) -> Table:
    """Commits of so many records, one thread, against the limit and peers."""
    commits = change_commits(records)
    goals = dict(OTHER_GOALS) if records in BEST_GOALS else {}
    if records in LIMIT_GOALS:
        goals["limit"] = at_least(LIMIT_GOALS[records])
    best = at_least(BEST_GOALS[records]) if records in BEST_GOALS else None
    with in_directory(settings) as (directory, stack):
        peers = opened(stack, directory, settings, make_peers)
        if records == 1:
            # One record takes so little that the device's own time is worth knowing.
            peers.insert(2, stack.enter_context(closing(WriteAndSync(directory, bytes(block_bytes(commits[0]))))))
        return append_table(
            f"append-{records}", _title(records), [Appending(peer, commits) for peer in peers], settings, commits,
            goals=goals, best=best,
        )  # fmt: skip


def append_threads(settings: Settings, threads: int, make_peers: Sequence[MakePeer] = ()) -> Table:
    """One record per append, many threads; a peer gets a connection for each."""
    commits = change_commits(1)
    with in_directory(settings) as (directory, stack):
        subject = stack.enter_context(closing(Shardlog(directory, settings.shards)))
        contestants = [ThreadsAppending([subject] * threads, commits)]
        for make in make_peers:
            connections = [stack.enter_context(closing(make(directory))) for _ in range(threads)]
            contestants.append(ThreadsAppending(connections, commits))
        return append_table(
            f"append-{threads}-threads", f"one record per append, {threads} threads at once", contestants, settings,
            commits, goals={f"SQLite, {threads} threads": at_least(5.0)} if threads == 16 else {},
        )  # fmt: skip


def append_tasks(settings: Settings, tasks: int, make_peers: Sequence[Callable[[str], AsyncPeer]] = ()) -> Table:
    """One record per append, many asyncio tasks."""
    commits = change_commits(1)
    with in_directory(settings) as (directory, stack):
        subject = stack.enter_context(closing(ShardlogTasks(directory, settings.shards)))
        contestants = [TasksAppending(subject, tasks, commits)]
        for make in make_peers:
            peer = make(directory)
            stack.callback(peer.close)  # type: ignore[attr-defined]
            contestants.append(TasksAppending(peer, tasks, commits))
        return append_table(
            f"append-{tasks}-tasks", f"one record per append, {tasks} asyncio tasks at once", contestants, settings,
            commits, goals={f"SQLite, {tasks} tasks": at_least(8.0)} if tasks == 64 else {},
        )  # fmt: skip


def opened(stack: ExitStack, directory: str, settings: Settings, make_peers: Sequence[MakePeer]) -> list[Peer]:
    """shardlog, the limit and the peers, open; closed with the stack."""
    peers: list[Peer] = [stack.enter_context(closing(Shardlog(directory, settings.shards)))]
    peers += [stack.enter_context(closing(make(directory))) for make in (Limit, *make_peers)]
    return peers


def append_table(
    name: str,
    title: str,
    contestants: Sequence[Contestant],
    settings: Settings,
    commits: Commits,
    *,
    goals: dict[str, Goal],
    best: Goal | None = None,
) -> Table:
    """Let the contestants, the subject first, take turns."""
    sync = sync_times(settings.directory)
    subject, *peers = take_turns(contestants, settings)
    rows = compare_by_name(subject, peers, goals, BEST_OF, best)
    encoded = [len(encode(change.row)) for changes in commits for change in changes]
    note = f"{sum(encoded) / len(encoded):,.0f} bytes per encoded record"
    return Table(name, title, "records/s", rows, sync, (note,))


@contextmanager
def in_directory(settings: Settings) -> Iterator[tuple[str, ExitStack]]:
    """A directory of its own, and what is closed before it goes."""
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory, ExitStack() as stack:
        yield directory, stack


def _title(records: int) -> str:
    return f"{records} record{'s' if records > 1 else ''} per durable commit, one thread"


def _turn_of(start: float, ends: Sequence[Sequence[float]], records_per_commit: int) -> Turn:
    elapsed = max(times[-1] for times in ends) - start
    times_us = [time_us for times in ends for time_us in _differences_us(times)]
    return Turn(len(times_us) * records_per_commit / elapsed, times_us)


def _differences_us(ends: Sequence[float]) -> list[float]:
    return [(later - earlier) * 1e6 for earlier, later in pairwise(ends)]

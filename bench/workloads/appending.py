"""Appending, one durable commit after the other, from changes that exist already."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle
from typing import Final

from bench.changes import change_commits
from bench.machine import sync_times
from bench.peers import Peer
from bench.peers.engine import Shardlog, block_bytes
from bench.peers.limit import Limit, WriteAndSync
from bench.peers.plain_lmdb import PlainLmdb
from bench.peers.sqlite import Sqlite
from bench.results import Goal, Table, at_least, at_most, compare
from bench.rounds import Contestant, Settings, take_turns
from shardlog import Change
from shardlog.format.values import encode

THREADS: Final = 16
_LIMIT_GOALS: Final = {100: at_least(0.5), 1000: at_least(0.6)}


class Appending:
    """One thread commits lists of changes. The figure: records per second, or microseconds per commit."""

    def __init__(self, peer: Peer, commits: list[list[Change]], *, is_time: bool = False) -> None:
        self.name = peer.name
        self._peer = peer
        self._commits = cycle(commits)
        self._records_per_commit = len(commits[0])
        self._is_time = is_time

    def turn(self, seconds: float) -> float:
        peer, now = self._peer, time.perf_counter
        commit = peer.commit
        untimed = peer.untimed_seconds
        count = 0
        start = now()
        deadline = start + seconds
        for changes in self._commits:
            commit(changes)
            count += 1
            if (end := now()) >= deadline:
                break
        elapsed = end - start - (peer.untimed_seconds - untimed)
        return elapsed / count * 1e6 if self._is_time else count * self._records_per_commit / elapsed


class ThreadsAppending:
    """Many threads commit lists of changes at the same time, each through its own peer. Records per second in all."""

    def __init__(self, peers: Sequence[Peer], commits: list[list[Change]]) -> None:
        self.name = f"{peers[0].name}, {len(peers)} threads"
        self._peers = peers
        self._commits = commits

    def turn(self, seconds: float) -> float:
        counts = [0] * len(self._peers)
        ends = [0.0] * len(self._peers)
        started = threading.Barrier(len(self._peers) + 1)
        deadline = 0.0

        def run(number: int) -> None:
            commit = self._peers[number].commit
            started.wait()
            for changes in cycle(self._commits):
                commit(changes)
                counts[number] += len(changes)
                if (now := time.perf_counter()) >= deadline:
                    ends[number] = now
                    return

        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(self._peers))]
        for thread in threads:
            thread.start()
        start = time.perf_counter()
        deadline = start + seconds
        started.wait()
        for thread in threads:
            thread.join()
        return sum(counts) / (max(ends) - start)


def append_many(settings: Settings, records: int) -> Table:
    """Many records per commit against the limit, SQLite and LMDB."""
    commits = change_commits(records)
    with _in_directory(settings) as (directory, stack):
        peers: list[Peer] = [
            Shardlog(directory, settings.shards),
            Limit(directory),
            Sqlite(directory),
            PlainLmdb(directory),
        ]
        for peer in peers:
            stack.enter_context(closing(peer))
        goals = (_LIMIT_GOALS.get(records), at_least(1.0), None)
        return _table(
            f"append-{records}",
            f"{records} records per durable commit, one thread",
            "records/s",
            [Appending(peer, commits) for peer in peers],
            goals,
            settings,
            commits,
        )


def append_one(settings: Settings) -> Table:
    """One record per commit against the write and the sync alone."""
    commits = change_commits(1)
    with _in_directory(settings) as (directory, stack):
        peers: list[Peer] = [
            Shardlog(directory, settings.shards),
            WriteAndSync(directory, os.urandom(block_bytes(commits[0]))),
            Sqlite(directory),
        ]
        for peer in peers:
            stack.enter_context(closing(peer))
        return _table(
            "append-1",
            "one record per durable commit, one thread",
            "us",
            [Appending(peer, commits, is_time=True) for peer in peers],
            (at_most(1.4), None),
            settings,
            commits,
        )


def append_threads(settings: Settings) -> Table:
    """Sixteen threads, one record per append, against as many of SQLite's."""
    commits = change_commits(1)
    with _in_directory(settings) as (directory, stack):
        subject = stack.enter_context(closing(Shardlog(directory, settings.shards)))
        connections = [stack.enter_context(closing(Sqlite(directory))) for _ in range(THREADS)]
        return _table(
            "append-16-threads",
            f"one record per append, {THREADS} threads at once",
            "records/s",
            [ThreadsAppending([subject] * THREADS, commits), ThreadsAppending(connections, commits)],
            (at_least(5.0),),
            settings,
            commits,
        )


@contextmanager
def _in_directory(settings: Settings) -> Iterator[tuple[str, ExitStack]]:
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory, ExitStack() as stack:
        yield directory, stack


def _table(
    name: str,
    title: str,
    unit: str,
    contestants: Sequence[Contestant],
    goals: Sequence[Goal | None],
    settings: Settings,
    commits: list[list[Change]],
) -> Table:
    sync = sync_times(settings.directory)
    subject, *peers = take_turns(contestants, settings)
    rows = compare(subject, list(zip(peers, goals, strict=True)))
    encoded = [len(encode(change.row)) for changes in commits for change in changes]
    return Table(name, title, unit, rows, sync, (f"{sum(encoded) / len(encoded):.0f} bytes per encoded record",))

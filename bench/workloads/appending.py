"""Appending by several processes, of records of other sizes, and to many shards."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from bench.children import Committer
from bench.peers import makers
from bench.settings import Settings
from shardlog_tools.measuring.appending import Appending, append_table, in_directory, opened
from shardlog_tools.measuring.changes import change_commits, sized_commits
from shardlog_tools.measuring.results import Table, at_least
from shardlog_tools.measuring.rounds import Turn

_COMMIT_BYTES = 100_000
_RECORDS_MAX = 100


class ProcessesAppending:
    """Processes commit one record after the other at the same time. Records per second in all."""

    def __init__(self, name: str, kind: str, directory: str, processes: int, stack: ExitStack) -> None:
        self.name = f"{name}, {processes} processes"
        self._committers = [stack.enter_context(Committer(kind, directory)) for _ in range(processes)]

    def turn(self, seconds: float) -> Turn:
        for committer in self._committers:
            committer.begin(seconds)
        outcomes = [committer.outcome() for committer in self._committers]
        elapsed = max(end for _, end, _ in outcomes) - min(start for start, _, _ in outcomes)
        return Turn(sum(count for _, _, count in outcomes) / elapsed)


def append_processes(settings: Settings, processes: int) -> Table:
    """One record per append, several processes; SQLite with a connection in each."""
    with in_directory(settings) as (directory, stack):
        contestants: Sequence[ProcessesAppending] = [
            ProcessesAppending(name, kind, directory, processes, stack)
            for name, kind in (("shardlog", "shardlog"), ("SQLite", "sqlite"))
        ]
        title = f"one record per append, {processes} processes at once"
        return append_table(f"append-{processes}-processes", title, contestants, settings, change_commits(1), goals={})


def append_sized(settings: Settings, record_bytes: int, name: str) -> Table:
    """About 100 KB per commit, at most 100 records, of one size."""
    records = max(1, min(_RECORDS_MAX, _COMMIT_BYTES // record_bytes))
    commits = sized_commits(record_bytes, records)
    with in_directory(settings) as (directory, stack):
        peers = opened(stack, directory, settings, makers("SQLite", "LMDB", "RocksDB"))
        title = f"records of {name}, {records} per durable commit, one thread"
        contestants = [Appending(peer, commits) for peer in peers]
        return append_table(
            f"append-{name}", title, contestants, settings, commits, goals={}, best=at_least(1.0)
        )  # fmt: skip

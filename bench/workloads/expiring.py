"""Expiry against what one would do elsewhere: DELETE of the same records in SQLite, which is one synced transaction."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import closing
from datetime import timedelta
from itertools import cycle, islice
from typing import Final

import shardlog
from bench.peers.sqlite import Sqlite
from bench.settings import Settings
from shardlog.testing.clock import ManualClock
from shardlog_tools.measuring.changes import change_commits
from shardlog_tools.measuring.contestants import STREAM
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Table, at_least, compare
from shardlog_tools.measuring.rounds import take_turns

_RECORDS_PER_COMMIT: Final = 1_000
_SEGMENT_BYTES: Final = 1 << 20
_RETENTION: Final = timedelta(hours=1)


class Expiring:
    """Fills a store and expires half of it. The figure: records per second of the latter."""

    def __init__(self, name: str, directory: str, records: int) -> None:
        self.name = name
        self._directory = directory
        self._commits = max(4, records // _RECORDS_PER_COMMIT)

    def turn(self, seconds: float) -> float:  # noqa: ARG002 - it takes as long as it takes
        with tempfile.TemporaryDirectory(dir=self._directory) as directory:
            removed, elapsed = self._fill_and_expire(directory)
        return removed / elapsed

    def _fill_and_expire(self, directory: str) -> tuple[int, float]:
        clock = ManualClock()
        with shardlog.open(os.path.join(directory, "store"), clock=clock) as store:
            stream = store.create_stream(STREAM, retention=_RETENTION, segment_bytes=_SEGMENT_BYTES, durability="os")
            for number, changes in enumerate(islice(cycle(change_commits(_RECORDS_PER_COMMIT)), self._commits)):
                if number == self._commits // 2:
                    clock.advance(2 * _RETENTION)
                stream.append(changes)
            stream.sync()
            before = stream.trim_horizon
            start = time.perf_counter()
            stream.expire()
            elapsed = time.perf_counter() - start
            return stream.trim_horizon - before, elapsed


class Deleting(Expiring):
    """The same with rows of a table."""

    def _fill_and_expire(self, directory: str) -> tuple[int, float]:
        with closing(Sqlite(directory)) as peer:
            for changes in islice(cycle(change_commits(_RECORDS_PER_COMMIT)), self._commits):
                peer.commit(changes)
            start = time.perf_counter()
            removed = peer.delete_before(self._commits * _RECORDS_PER_COMMIT // 2)
            return removed, time.perf_counter() - start


def expire_against_delete(settings: Settings) -> Table:
    """Half of the records expire in one pass."""
    contestants = [
        Expiring("expire", settings.directory, settings.read_records),
        Deleting("SQLite, DELETE", settings.directory, settings.read_records),
    ]
    sync = sync_times(settings.directory)
    subject, peer = take_turns(contestants, settings)
    title = f"half of {settings.read_records:,} records expire in one pass"
    return Table("expire-half", title, "records/s", compare(subject, [(peer, at_least(1.0))]), sync)

"""Growth: the same work on a log that is small and on one that is large. For `make bench-full`.

The large log and a fresh one take turns, so that whatever the machine does meets both.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import closing

from bench.children import build_and_kill, time_opening
from bench.settings import Settings
from shardlog_tools.measuring.appending import Appending
from shardlog_tools.measuring.changes import change_commits
from shardlog_tools.measuring.contestants import Shardlog
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.reading import Passes, p99_row, seeks
from shardlog_tools.measuring.results import Row, Series, Table, at_least, at_most
from shardlog_tools.measuring.rounds import take_turns

_RECORDS_PER_COMMIT = 1_000
_SEGMENT_BYTES = 64 << 20
_SLOWER_MAX = 1.15
_OPENINGS = 5
_READ_RECORDS = 100_000


class Named(Shardlog):
    """shardlog under another name."""

    def __init__(self, directory: str, name: str) -> None:
        super().__init__(directory)
        self.name = name


def grow(settings: Settings) -> Table:
    """Append at 1,000 per commit, replay, seek and open, at each of the sizes."""
    rows: list[Row] = []
    sync = sync_times(settings.directory)
    for records in settings.growth_records:
        rows += _measure(settings, records)
    return Table("growth", "the same work on logs of more and more records", "", tuple(rows), sync)


def _measure(settings: Settings, records: int) -> list[Row]:
    commits = change_commits(_RECORDS_PER_COMMIT)
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory:
        large, small = os.path.join(directory, "large"), os.path.join(directory, "small")
        os.mkdir(large)
        os.mkdir(small)
        store = os.path.join(large, "shardlog")
        build_and_kill(
            store, records_per_commit=_RECORDS_PER_COMMIT, records=records, log_bytes=0, segments=0,
            segment_bytes=_SEGMENT_BYTES,
        )  # fmt: skip
        openings = tuple(time_opening(store) for _ in range(_OPENINGS))
        label = f"{records:,} records: "
        names = [f"{label}append, records/s", "a fresh log: append, records/s"]
        with closing(Named(large, names[0])) as big, closing(Named(small, names[1])) as fresh:
            grown, young = take_turns([Appending(big, commits), Appending(fresh, commits)], settings)
            end = big.stream.next_sequence
            first, last = (Passes(name, lambda at=at: _read(big, at)) for name, at in (
                (f"{label}replay of its last, records/s", max(1, end - _READ_RECORDS)),
                (f"{label}replay of its first, records/s", 1),
            ))  # fmt: skip
            first_read, last_read = take_turns([first, last], settings)
            by_sequence, by_time = take_turns(seeks(big.stream), settings)
    return [
        Row(grown),
        Row(young, grown, at_least(1 / _SLOWER_MAX)),
        Row(first_read),
        Row(last_read, first_read),
        p99_row(f"{label}seek by number, p99 us", Row(by_sequence)),
        p99_row(f"{label}seek by time, p99 us", Row(by_time)),
        Row(Series(f"{label}open after close, ms", openings), goal=at_most(50)),
    ]


def _read(peer: Shardlog, first: int) -> int:
    count = 0
    for _ in peer.stream.read(first, stop=first + _READ_RECORDS):
        count += 1
    return count

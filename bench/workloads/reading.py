"""Reading a whole stream, images left encoded or decoded, against a bare loop over the same bodies."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle, islice

import shardlog
from bench.changes import change_commits
from bench.machine import sync_times
from bench.peers.bare_reading import BodyFile
from bench.peers.engine import STREAM
from bench.results import Table, at_least, compare
from bench.rounds import Settings, take_turns
from shardlog import Change, Stream


class Passes:
    """Goes through all records again and again. The figure: records per second."""

    def __init__(self, name: str, go_through: Callable[[], int]) -> None:
        self.name = name
        self.go_through = go_through

    def turn(self, seconds: float) -> float:
        start = time.perf_counter()
        records = 0
        while True:
            records += self.go_through()
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return records / elapsed


def read(settings: Settings, records_per_commit: int) -> Table:
    """`read` of the whole stream, images undecoded: a loop over records against one over bodies."""
    with read_passes(settings, records_per_commit) as passes:
        sync = sync_times(settings.directory)
        subject, limit = take_turns(passes, settings)
    title = f"the whole stream, images undecoded, commits of {records_per_commit} records"
    return Table(f"read-{records_per_commit}", title, "records/s", compare(subject, [(limit, at_least(0.6))]), sync)


def get_records(settings: Settings, records_per_commit: int) -> Table:
    """`get_records`, page by page, every image decoded."""
    with record_passes(settings, records_per_commit) as passes:
        sync = sync_times(settings.directory)
        subject, limit = take_turns(passes, settings)
    title = f"pages of 1,000 records, all images decoded, commits of {records_per_commit} records"
    rows = compare(subject, [(limit, at_least(0.6))])
    return Table(f"get-records-{records_per_commit}", title, "records/s", rows, sync)


@contextmanager
def read_passes(settings: Settings, records_per_commit: int) -> Iterator[list[Passes]]:
    """`read` and its limit, over the same records."""
    with _log(settings, records_per_commit) as (stream, bodies):

        def count_records() -> int:
            count = 0
            for _ in stream.read():
                count += 1
            return count

        yield [
            Passes("read", count_records),
            Passes("read, checksum, decode", lambda: sum(map(len, bodies.raw_rows()))),
        ]


@contextmanager
def record_passes(settings: Settings, records_per_commit: int = 100) -> Iterator[list[Passes]]:
    """`get_records` and its limit, over the same records."""
    with _log(settings, records_per_commit) as (stream, bodies):

        def touch_rows() -> int:
            count = 0
            for rows in bodies.decoded_rows():
                for row in rows:
                    _ = row.keys, row.new, row.old
                count += len(rows)
            return count

        yield [
            Passes("get_records", lambda: sum(_touch_pages(stream))),
            Passes("read, checksum, decode", touch_rows),
        ]


def _touch_pages(stream: Stream) -> Iterator[int]:
    for shard in stream.describe().shards:
        iterator = stream.iterator(shard.shard_id, "TRIM_HORIZON")
        while True:
            page = stream.get_records(iterator)
            for record in page.records:
                _ = record.keys, record.new_image, record.old_image
            yield len(page.records)
            if not page.records or page.next_iterator is None:
                break
            iterator = page.next_iterator


@contextmanager
def _log(settings: Settings, records_per_commit: int) -> Iterator[tuple[Stream, BodyFile]]:
    commits = max(1, settings.read_records // records_per_commit)
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory, ExitStack() as stack:
        bodies = BodyFile(os.path.join(directory, "bodies"), _commits(records_per_commit, commits))
        stack.enter_context(closing(bodies))
        store = stack.enter_context(shardlog.open(os.path.join(directory, "shardlog")))
        stream = store.create_stream(STREAM, shards=settings.shards, durability="os")
        for changes in _commits(records_per_commit, commits):
            stream.append(changes)
        stream.sync()
        yield stream, bodies


def _commits(records_per_commit: int, count: int) -> Iterator[list[Change]]:
    return islice(cycle(change_commits(records_per_commit)), count)

"""Reading a whole stream, images left encoded or decoded, against the limit of reading, and finding a place in it.

The limit: large preads, a checksum and a decoder's call per body, and nothing else. Its file holds the bodies of the
same commits, one after the other; where they lie is known beforehand.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from itertools import cycle, islice
from typing import Any, Final, Protocol

import google_crc32c
import msgspec

import shardlog
from shardlog import Change, Stream
from shardlog.format.values import encode
from shardlog_tools.measuring.appending import in_directory
from shardlog_tools.measuring.changes import change_commits
from shardlog_tools.measuring.contestants import STREAM
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Row as TableRow
from shardlog_tools.measuring.results import Table, at_least, at_most, compare_by_name
from shardlog_tools.measuring.rounds import Settings, Turn, take_turns

_PIECE_BYTES: Final = 256 << 10
_SEEKS_PER_LOOK: Final = 16
_SEEK_GOAL_US: Final = 200.0


class RawRow(msgspec.Struct, array_like=True, gc=False):
    """A row whose images stay encoded."""

    code: int
    keys: msgspec.Raw
    new: msgspec.Raw
    old: msgspec.Raw


class DecodedRow(msgspec.Struct, array_like=True, gc=False):
    """A row whose images are decoded."""

    code: int
    keys: dict[str, Any]
    new: dict[str, Any] | None
    old: dict[str, Any] | None


class BodyFile:
    """Bodies in a file, and their places and checksums in memory."""

    def __init__(self, path: str, commits: Iterable[list[Change]]) -> None:
        self._pieces: list[tuple[int, int, list[tuple[int, int, int]]]] = []
        with open(path, "wb") as file:
            places: list[tuple[int, int, int]] = []
            offset = length = 0
            for changes in commits:
                body = encode([change.row for change in changes])
                file.write(body)
                places.append((length, length + len(body), google_crc32c.value(body)))
                length += len(body)
                if length >= _PIECE_BYTES:
                    self._pieces.append((offset, length, places))
                    offset, length, places = offset + length, 0, []
            if places:
                self._pieces.append((offset, length, places))
        self._descriptor = os.open(path, os.O_RDONLY)

    def raw_rows(self) -> Iterator[list[RawRow]]:
        """Every body's rows, images undecoded."""
        return self._decoded(msgspec.msgpack.Decoder(list[RawRow]))

    def decoded_rows(self) -> Iterator[list[DecodedRow]]:
        """Every body's rows, images decoded."""
        return self._decoded(msgspec.msgpack.Decoder(list[DecodedRow]))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _decoded(self, decoder: msgspec.msgpack.Decoder[Any]) -> Iterator[list[Any]]:
        decode = decoder.decode
        for offset, length, places in self._pieces:
            piece = os.pread(self._descriptor, length, offset)
            for first, end, checksum in places:
                body = piece[first:end]
                if google_crc32c.value(body) != checksum:
                    raise OSError(f"the body at {offset + first} changed")
                yield decode(body)


class ReadingPeer(Protocol):
    """A store that holds the same changes and reads them back in order."""

    name: str
    setting: str

    def commit(self, changes: list[Change]) -> None:
        """Add changes."""
        ...

    def count_raw(self) -> int:
        """Go through all values as they are stored; how many."""
        ...

    def count_decoded(self) -> int:
        """Go through all values, decoded; how many."""
        ...

    def find(self, sequence: int) -> object:
        """The change of a sequence number, decoded; the first is 1."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class Passes:
    """Goes through all records again and again. The figure: records per second."""

    def __init__(self, name: str, go_through: Callable[[], int]) -> None:
        self.name = name
        self.go_through = go_through

    def turn(self, seconds: float) -> float:
        """See `Contestant`."""
        start = time.perf_counter()
        records = 0
        while True:
            records += self.go_through()
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return records / elapsed


class Seeks:
    """Finds places drawn at random. The figure: the median of microseconds each takes."""

    def __init__(self, name: str, find: Callable[[int], object], end: int) -> None:
        self.name = name
        self._find = find
        self._end = end
        self._places = random.Random(1)

    def turn(self, seconds: float) -> Turn:
        """See `Contestant`."""
        now = time.perf_counter
        times: list[float] = []
        deadline = now() + seconds
        while not times or now() < deadline:
            for place in [self._places.randrange(1, self._end) for _ in range(_SEEKS_PER_LOOK)]:
                start = now()
                self._find(place)
                times.append((now() - start) * 1e6)
        return Turn(sorted(times)[len(times) // 2], times)


def read(settings: Settings, records_per_commit: int, make_peers: Sequence[Callable[[str], ReadingPeer]] = ()) -> Table:
    """`read` of the whole stream, images undecoded."""
    with read_passes(settings, records_per_commit, make_peers) as passes:
        sync = sync_times(settings.directory)
        subject, *others = take_turns(passes, settings)
    title = f"the whole stream, images undecoded, commits of {records_per_commit} records"
    best_of = [series.name for series in others[1:]]
    rows = compare_by_name(subject, others, {}, best_of, at_least(1.0))
    return Table(f"read-{records_per_commit}", title, "records/s", rows, sync)


def get_records(
    settings: Settings, records_per_commit: int, make_peers: Sequence[Callable[[str], ReadingPeer]] = ()
) -> Table:
    """`read` with every image decoded, and `get_records`, page by page."""
    with record_passes(settings, records_per_commit, make_peers) as passes:
        sync = sync_times(settings.directory)
        subject, *others = take_turns(passes, settings)
    title = f"the whole stream, all images decoded, commits of {records_per_commit} records"
    rows = compare_by_name(subject, others, {LIMIT: at_least(0.7)})
    return Table(f"decoded-{records_per_commit}", title, "records/s", rows, sync)


LIMIT: Final = "limit: read, checksum, decode"


@contextmanager
def read_passes(
    settings: Settings, records_per_commit: int, make_peers: Sequence[Callable[[str], ReadingPeer]] = ()
) -> Iterator[list[Passes]]:
    """`read`, its limit, and peers, over the same records."""
    with _log(settings, records_per_commit, make_peers) as (stream, bodies, peers):

        def count_records() -> int:
            count = 0
            for _ in stream.read():
                count += 1
            return count

        yield [
            Passes("read", count_records),
            Passes(LIMIT, lambda: sum(map(len, bodies.raw_rows()))),
            *(Passes(peer.name, peer.count_raw) for peer in peers),
        ]


@contextmanager
def record_passes(
    settings: Settings, records_per_commit: int = 100, make_peers: Sequence[Callable[[str], ReadingPeer]] = ()
) -> Iterator[list[Passes]]:
    """`read`, its limit, `get_records`, and peers, over the same records, all decoded."""
    with _log(settings, records_per_commit, make_peers) as (stream, bodies, peers):

        def touch_rows() -> int:
            count = 0
            for rows in bodies.decoded_rows():
                for row in rows:
                    _ = row.keys, row.new, row.old
                count += len(rows)
            return count

        def touch_records() -> int:
            count = 0
            for record in stream.read():
                _ = record.keys, record.new_image, record.old_image  # type: ignore[union-attr]
                count += 1
            return count

        yield [
            Passes("read", touch_records),
            Passes(LIMIT, touch_rows),
            Passes("get_records", lambda: sum(_touch_pages(stream))),
            *(Passes(peer.name, peer.count_decoded) for peer in peers),
        ]


def seek(settings: Settings, make_peers: Sequence[Callable[[str], ReadingPeer]] = ()) -> Table:
    """The record of a sequence number, and the first from a time on, anywhere in a log in the page cache."""
    with _log(settings, 1000, make_peers) as (stream, _, peers):
        end = stream.next_sequence
        contestants = [
            *seeks(stream),
            *(Seeks(peer.name, peer.find, min(end, settings.read_records)) for peer in peers),
        ]
        sync = sync_times(settings.directory)
        by_sequence, by_time, *others = take_turns(contestants, settings)
    rows = (TableRow(by_sequence), TableRow(by_time), *(TableRow(series, by_sequence) for series in others))
    return Table("seek", f"one record, decoded, anywhere among {end - 1:,}", "us", rows, sync)


def seeks(stream: Stream) -> list[Seeks]:
    """By sequence number, and by time."""
    end = stream.next_sequence
    times = _times(stream, end)

    def by_sequence(place: int) -> object:
        return next(iter(stream.read(place))).new_image  # type: ignore[union-attr]

    def by_time(place: int) -> object:
        return next(iter(stream.read(times[place * len(times) // end]))).new_image  # type: ignore[union-attr]

    return [Seeks("by sequence number", by_sequence, end), Seeks("by time", by_time, end)]


def p99_row(name: str, row: TableRow) -> TableRow:
    """A row for the 99th percentile of another, with the goal for seeking."""
    latency = row.series.latency
    assert latency is not None
    series = type(row.series)(name, (latency.p99_us,), row.series.operations, latency)
    return TableRow(series, goal=at_most(_SEEK_GOAL_US))


def _times(stream: Stream, end: int) -> list[datetime]:
    """Append times of some records, first to last."""
    places = range(1, end, max(1, end // 512))
    return [next(iter(stream.read(place))).created_at for place in places]  # type: ignore[union-attr]


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
def _log(
    settings: Settings, records_per_commit: int, make_peers: Sequence[Callable[[str], ReadingPeer]]
) -> Iterator[tuple[Stream, BodyFile, list[ReadingPeer]]]:
    commits = max(1, settings.read_records // records_per_commit)
    with in_directory(settings) as (directory, stack):
        bodies = BodyFile(os.path.join(directory, "bodies"), _commits(records_per_commit, commits))
        stack.enter_context(closing(bodies))
        stream = _filled(stack, directory, settings, _commits(records_per_commit, commits))
        peers = [stack.enter_context(closing(make(directory))) for make in make_peers]
        for peer in peers:
            for changes in _commits(1000, max(1, settings.read_records // 1000)):
                peer.commit(changes)
        yield stream, bodies, peers


def _filled(stack: ExitStack, directory: str, settings: Settings, commits: Iterable[list[Change]]) -> Stream:
    store = stack.enter_context(shardlog.open(os.path.join(directory, "shardlog")))
    stream = store.create_stream(STREAM, shards=settings.shards, durability="os")
    for changes in commits:
        stream.append(changes)
    stream.sync()
    return stream


def _commits(records_per_commit: int, count: int) -> Iterator[list[Change]]:
    return islice(cycle(change_commits(records_per_commit)), count)

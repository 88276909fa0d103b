"""Many shards in one log: appending to 64, reading one of them, finding a place, what a policy costs, and expiry.

The bare loops do what cannot be left out: they route each record, and write one directory entry and one checksum per
shard and commit; or they step the commits of the engine's own log, verify each header, and decode the bodies of one
shard. They know beforehand where the log ends and which commits there are.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import struct
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import google_crc32c
import msgspec

import shardlog
from bench.settings import Settings
from shardlog import Change, Record, ShardingPolicy, Store, Stream
from shardlog.format.commit import ENTRY_BYTES, HEADER_BYTES, encode_block, padded
from shardlog.format.values import encode
from shardlog.model import HASH_RANGE_END
from shardlog.testing.clock import ManualClock
from shardlog_tools.measuring.appending import Appending
from shardlog_tools.measuring.changes import change_commits
from shardlog_tools.measuring.contestants import STREAM, Limit
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.reading import Passes, RawRow
from shardlog_tools.measuring.results import Row, Series, Table, at_least, at_most, compare
from shardlog_tools.measuring.rounds import take_turns

SHARDS: Final = 64
_KEY: Final = "sku"
_RECORDS: Final = 100
_SEGMENT_BYTES: Final = 64 << 20
_COLD_SEGMENT_BYTES: Final = 4 << 20
_PIECE_BYTES: Final = 256 << 10
_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE, fallocate(2)
_ENTRY = struct.Struct("<IIII")
_HEADER = struct.Struct("<IBBHIII")
_BEHIND_CRC: Final = 60


class Sharded:
    """shardlog with a stream of many shards, routed by one key attribute."""

    name = "shardlog"
    setting = ""
    untimed_seconds = 0.0

    def __init__(
        self,
        directory: str,
        *,
        shards: int = SHARDS,
        sharding: ShardingPolicy | None = None,
        durability: str = "fsync",
        name: str = "shardlog",
    ) -> None:
        self.name = name
        self._store = shardlog.open(os.path.join(directory, name))
        self._stream = self._store.create_stream(
            STREAM, shards=shards, partition_key=_KEY, retention=None, sharding=sharding, durability=durability
        )

    def commit(self, changes: list[Change]) -> None:
        self._stream.append(changes)

    def close(self) -> None:
        self._store.close()


class RoutingLimit(Limit):
    """The limit of appending to many shards: one body, one directory entry and one checksum for each of them."""

    name = "limit, routing"

    def __init__(self, directory: str, shards: int) -> None:
        super().__init__(directory)
        self._bounds = [(number * HASH_RANGE_END // shards).to_bytes(16, "big") for number in range(shards)]
        self._routes: dict[str, int] = {}

    def commit(self, changes: list[Change]) -> None:
        routes = self._routes
        groups: dict[int, list[list[object]]] = {}
        for change in changes:
            row = change.row
            key = row[1][_KEY]
            shard = routes.get(key)
            if shard is None:
                shard = routes[key] = self._route(key)
            group = groups.get(shard)
            if group is None:
                groups[shard] = [row]
            else:
                group.append(row)
        entries = []
        bodies = []
        for shard, rows in groups.items():
            body = encode(rows)
            entries.append(_ENTRY.pack(shard, len(rows), len(body), google_crc32c.value(body)))
            bodies.append(body)
        block, self.checksum = encode_block(
            entries,
            bodies,
            seed=0,
            record_count=len(changes),
            first_sequence=1,
            durable_sequence=1,
            records_before=0,
            timestamp_us=0,
            previous_crc=self.checksum,
        )
        self._file.write(block)

    def _route(self, key: str) -> int:
        return bisect_right(self._bounds, hashlib.md5(key.encode(), usedforsecurity=False).digest()) - 1


def append_to_shards(settings: Settings, shards: int) -> Table:
    """100 records per commit to many shards against the bare loop."""
    commits = change_commits(_RECORDS)
    with _in_directory(settings) as (directory, stack):
        subject = stack.enter_context(closing(Sharded(directory, shards=shards)))
        limit = stack.enter_context(closing(RoutingLimit(directory, shards)))
        sync = sync_times(settings.directory)
        series = take_turns([Appending(subject, commits), Appending(limit, commits)], settings)
    rows = compare(series[0], [(series[1], at_least(0.5))])
    title = f"{_RECORDS} records per durable commit to {shards} shard{'s' if shards > 1 else ''}, one thread"
    return Table(f"append-{shards}-shards", title, "records/s", rows, sync)


def append_with_policy(settings: Settings) -> Table:
    """The same with a sharding policy, at level "os", so that no sync hides what it costs."""
    commits = change_commits(_RECORDS)
    # Ten times as many samples as by default.
    policy = ShardingPolicy(records_per_second=1e9, bytes_per_second=1e12, merge_below=0, window=timedelta(seconds=6))
    with _in_directory(settings) as (directory, stack):
        peers = [
            stack.enter_context(closing(Sharded(directory, sharding=policy, durability="os", name="with a policy"))),
            stack.enter_context(closing(Sharded(directory, durability="os", name="without"))),
        ]
        sync = sync_times(settings.directory)
        subject, without = take_turns([Appending(peer, commits) for peer in peers], settings)
    title = f'{_RECORDS} records per commit to {SHARDS} shards at level "os", a sample every 0.75 s'
    return Table("append-policy", title, "records/s", compare(subject, [(without, at_least(0.95))]), sync)


class SteppedLog:
    """The engine's log, and a bare loop over its commits that takes the records of one shard."""

    def __init__(self, store: str, stream: Stream, shard: int) -> None:
        (log,) = Path(store).glob("streams/*/*/log")
        segments = stream._stream.segments
        self._shard = shard
        self._parts: list[tuple[int, int, int, int]] = []
        tail = stream._stream.tail()
        listed = stream._stream.index.segments()
        for number, segment in enumerate(listed):
            header = segments.header(*segment)
            if number + 1 < len(listed):
                end = segments.header(*listed[number + 1]).predecessor.end
            else:
                end = tail.offset
            descriptor = os.open(log / os.path.basename(segments.path_of(*segment)), os.O_RDONLY)
            self._parts.append((descriptor, header.header_bytes, end, segments.seed_of(segment.segment_id)))
        self._decode = msgspec.msgpack.Decoder(list[RawRow]).decode

    def records(self) -> int:
        """How many records of the shard there are; all decoded, images left raw."""
        return sum(len(rows) for part in self._parts for rows in self._rows(*part))

    def close(self) -> None:
        for descriptor, *_ in self._parts:
            os.close(descriptor)

    def _rows(self, descriptor: int, offset: int, end: int, seed: int) -> Iterator[list[RawRow]]:
        crc32c = google_crc32c.extend
        while offset < end:
            piece = os.pread(descriptor, min(_PIECE_BYTES, end - offset), offset)
            position = 0
            while position + HEADER_BYTES <= len(piece):
                _, _, _, _, length, batches, _ = _HEADER.unpack_from(piece, position)
                block_end = position + padded(HEADER_BYTES + length)
                if block_end > len(piece):
                    break
                start = position + HEADER_BYTES
                body = start + batches * ENTRY_BYTES
                directory = piece[start:body]
                crc = crc32c(crc32c(seed, piece[position : position + _BEHIND_CRC]), directory)
                if crc != int.from_bytes(piece[start - 4 : start], "little"):
                    raise OSError(f"the commit at {offset + position} changed")
                for shard, _count, body_bytes, body_crc in _ENTRY.iter_unpack(directory):
                    if shard == self._shard:
                        content = piece[body : body + body_bytes]
                        if google_crc32c.value(content) != body_crc:
                            raise OSError(f"the batch at {offset + body} changed")
                        yield self._decode(content)
                    body += body_bytes
                position = block_end
            offset += position


def read_one_shard(settings: Settings) -> Table:
    """`read` of one shard of 64, images undecoded, against the bare loop over the same commits."""
    with _in_directory(settings) as (directory, stack):
        path = os.path.join(directory, "store")
        store = stack.enter_context(shardlog.open(path))
        stream = _filled(store, settings.read_records, _SEGMENT_BYTES)
        shard = stream.describe().shards[SHARDS // 2]
        stepped = stack.enter_context(closing(SteppedLog(path, stream, SHARDS // 2)))
        wanted = sum(1 for _ in stream.read(shard_id=shard.shard_id))
        if wanted != stepped.records():
            raise RuntimeError(f"expected {wanted} records of {shard.shard_id}, found {stepped.records()}")

        def count_records() -> int:
            count = 0
            for _ in stream.read(shard_id=shard.shard_id):
                count += 1
            return count

        sync = sync_times(settings.directory)
        subject, limit = take_turns(
            [Passes("read of one shard", count_records), Passes("step, checksum, decode", stepped.records)], settings
        )
    title = f"one shard of {SHARDS}, images undecoded, commits of {_RECORDS} records"
    return Table("read-shard", title, "records of it/s", compare(subject, [(limit, at_least(0.6))]), sync)


class FirstRecord:
    """Opens a large log, forgets what is cached of it, and finds a first record. The figure: milliseconds of that."""

    def __init__(self, name: str, path: str, find: Callable[[Stream, int], object]) -> None:
        self.name = name
        self._path = path
        self._find = find
        self._places = random.Random(1)

    def turn(self, seconds: float) -> float:  # noqa: ARG002 - it takes as long as it takes
        with shardlog.open(self._path) as store:
            stream = store.stream(STREAM)
            end = stream.next_sequence
            place = self._places.randrange(end // 4, 3 * end // 4)
            _forget(self._path)
            start = time.perf_counter()
            self._find(stream, place)
            return (time.perf_counter() - start) * 1e3


def find_first(settings: Settings) -> Table:
    """The first record from somewhere in the middle of a large log that is not in the page cache."""

    def by_sequence(stream: Stream, place: int) -> object:
        return next(iter(stream.read(place)))

    def of_one_shard(stream: Stream, place: int) -> object:
        return next(iter(stream.read(place, shard_id=shard_id)))

    def by_time(stream: Stream, place: int) -> object:
        return next(iter(stream.read(times[place * len(times) // stream.next_sequence])))

    with _in_directory(settings) as (directory, _):
        path = os.path.join(directory, "store")
        with shardlog.open(path) as store:
            stream = _filled(store, 5 * settings.read_records, _COLD_SEGMENT_BYTES)
            shard_id = stream.describe().shards[SHARDS // 2].shard_id
            times = [record.created_at for record in islice(stream.read(), 0, None, 997) if isinstance(record, Record)]
            segments = stream.statistics().segments
        finders = [
            FirstRecord(name, path, find)
            for name, find in (("by sequence", by_sequence), ("of one shard", of_one_shard), ("by time", by_time))
        ]
        sync = sync_times(settings.directory)
        series = take_turns(finders, settings)
    title = f"the first of {5 * settings.read_records:,} records in {segments} cold segments, from the middle"
    return Table("first-record", title, "ms", tuple(Row(figures, goal=at_most(5)) for figures in series), sync)


class Expiry:
    """Expires a log of full segments. Once: the figures are taken by the workload."""

    def __init__(self, directory: str, segments: int) -> None:
        clock = ManualClock()
        self.path = os.path.join(directory, "store")
        self._store = shardlog.open(self.path, clock=clock)
        self._stream = self._store.create_stream(STREAM, shards=SHARDS, retention=timedelta(hours=24))
        (log,) = Path(self.path).glob("streams/*/*/log")
        for changes in islice(cycle(change_commits(_RECORDS)), segments):
            self._stream.append(changes)
            self._stream._stream.commits.roll(lambda _: True)
        for path in sorted(log.glob("*.seg"))[:-1]:
            _allocate(path, _SEGMENT_BYTES)
        clock.advance(timedelta(days=2))

    def expire(self) -> tuple[float, float, int]:
        """Milliseconds, kB written, and bytes freed."""
        before, start = _written(), time.perf_counter()
        trimmed = self._stream.expire(force=True)
        elapsed = time.perf_counter() - start
        return elapsed * 1e3, (_written() - before) / 1e3, trimmed.bytes

    def close(self) -> None:
        self._store.close()


def expire_much(settings: Settings) -> Table:
    """10 GB of records expire in one pass."""
    segments = settings.expired_segments
    milliseconds, kilobytes = [], []
    sync = sync_times(settings.directory)
    for _ in range(min(3, settings.rounds)):
        with _in_directory(settings) as (directory, stack):
            spent, written, freed = stack.enter_context(closing(Expiry(directory, segments))).expire()
            milliseconds.append(spent)
            kilobytes.append(written)
    rows = (
        Row(Series("time, ms", tuple(milliseconds)), goal=at_most(1000)),
        Row(Series("written, kB", tuple(kilobytes)), goal=at_most(1000)),
    )
    return Table("expire", f"one pass over {segments} segments, {freed / 1e9:.2f} GB", "", rows, sync)


def _filled(store: Store, records: int, segment_bytes: int) -> Stream:
    stream = store.create_stream(
        STREAM, shards=SHARDS, partition_key=_KEY, retention=None, durability="os", segment_bytes=segment_bytes
    )
    for changes in islice(cycle(change_commits(_RECORDS)), max(1, records // _RECORDS)):
        stream.append(changes)
    stream.sync()
    return stream


def _forget(path: str) -> None:
    """Drop the log from the page cache: what was written back already, so nothing is lost (posix_fadvise(2))."""
    for segment in Path(path).glob("streams/*/*/log/*.seg"):
        descriptor = os.open(segment, os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _allocate(path: Path, length: int) -> None:
    """Give a file that much space without changing its length."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(path, os.O_RDWR)
    try:
        if library.fallocate(descriptor, _KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(length)):
            raise OSError(ctypes.get_errno(), f"fallocate {path}")
    finally:
        os.close(descriptor)


def _written() -> int:
    """Bytes that this process has written so far, as proc(5) counts system calls."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


@contextmanager
def _in_directory(settings: Settings) -> Iterator[tuple[str, ExitStack]]:
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory, ExitStack() as stack:
        yield directory, stack

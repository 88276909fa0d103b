"""`Stream`: the public face of one open stream."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self

from shardlog.api.groups import copy_consumers, group_names, open_group
from shardlog.clock import Clock
from shardlog.consumer import Group, checked_name
from shardlog.errors import (
    Closed,
    InvalidArgument,
    ReadOnly,
)
from shardlog.format.control import Control
from shardlog.format.record import Record
from shardlog.model import Appended, Backlog, Change, Gap, Statistics, StreamDescription, Throughput
from shardlog.options import (
    ShardingPolicy,
    StreamOptions,
    checked_hold,
    checked_producer,
    checked_producer_name,
    checked_retention,
    checked_retention_bytes,
    checked_sharding,
)
from shardlog.stream.append import Request, new_request
from shardlog.stream.backlog import backlog_of
from shardlog.stream.following import Reading
from shardlog.stream.iterators import Page, get_page, new_iterator
from shardlog.stream.lineage import plan_configure, plan_merge, plan_roll_over, plan_split
from shardlog.stream.log_reader import LogReader, OnDamage, Position, sequence_of
from shardlog.stream.open_stream import OpenStream, registry
from shardlog.stream.retention import Trimmed
from shardlog.stream.sampling import recent_throughput
from shardlog.stream.snapshot import take_snapshot
from shardlog.stream.state import StreamState
from shardlog.stream.statistics import statistics_of
from shardlog.stream.together import AsyncAppends

_log = logging.getLogger("shardlog")


class Stream:
    """One stream of a store. Any number of threads, tasks and processes may use it at once.

    Closed with its store; every method then raises `Closed`.
    """

    def __init__(self, stream: OpenStream, name: str, label: str, read_only: bool) -> None:
        self.name = name
        self.label = label
        self._stream = stream
        self._read_only = read_only
        self._closed = False
        self._async_appends = AsyncAppends(stream)

    def append(
        self, changes: Iterable[Change], *, producer: str | None = None, position: int | None = None
    ) -> Appended:
        """Append changes atomically; durable at the stream's level, and readable, when it returns.

        With a producer and a position, effectively once: at or below the producer's last committed position nothing is
        appended and `duplicate` is True.

        Raises InvalidArgument and StorageFull having appended nothing, StreamDisabled, ReadOnly, Closed; after
        StorageFailed the outcome is unknown.
        """
        return self._writable().append(self._request(changes, producer, position))

    async def append_async(
        self, changes: Iterable[Change], *, producer: str | None = None, position: int | None = None
    ) -> Appended:
        """`append` for asyncio: tasks that append at the same time share a sync."""
        self._writable()
        return await self._async_appends.append(self._request(changes, producer, position))

    def position(self, producer: str) -> int | None:
        """A producer's last committed position; None if it never appended."""
        return self._open().index.producer_position(checked_producer_name(producer))

    def sync(self) -> None:
        """Make durable what was appended: for streams of level "os"."""
        self._writable().commits.sync()

    def read(
        self,
        start: Position = "TRIM_HORIZON",
        *,
        stop: Position | None = None,
        shard_id: str | None = None,
        follow: bool = False,
        timeout: float | None = None,
        on_damage: OnDamage = "raise",
    ) -> Iterator[Record | Gap]:
        """Records from `start` (inclusive) to `stop` (exclusive), in total order over all shards, or of one shard.

        A position is "TRIM_HORIZON", "LATEST", a sequence number or an aware datetime, and is settled by this call.
        `follow` waits for more, until `timeout` seconds without a record. `on_damage="gap"` yields `Gap` values where
        "raise" raises `CorruptLog`; its `sequences[1]` is where reading can go on.

        Raises TrimmedData, InvalidArgument, ShardNotFound now; CorruptLog, TrimmedData, Closed while iterating.
        """
        return self._reading(start, stop, shard_id, follow, timeout, on_damage).records()

    def read_async(
        self,
        start: Position = "TRIM_HORIZON",
        *,
        stop: Position | None = None,
        shard_id: str | None = None,
        follow: bool = False,
        timeout: float | None = None,
        on_damage: OnDamage = "raise",
    ) -> AsyncIterator[Record | Gap]:
        """`read` for asyncio."""
        return _each(self._reading(start, stop, shard_id, follow, timeout, on_damage))

    def describe(self) -> StreamDescription:
        """The stream and its shards."""
        return self._open().state().description

    def group(self, name: str, *, start: Position = "TRIM_HORIZON") -> Group:
        """The consumers of one application: their leases and checkpoints are kept under its name.

        Made where there is none; then it begins at `start`: TRIM_HORIZON, LATEST, a sequence number or an aware
        datetime, settled now. Raises InvalidArgument (in a store that is open to read: also where there is none),
        CorruptLog where leases and checkpoints are damaged, StorageFull, StorageFailed.
        """
        return open_group(self, self._open(), checked_name("group", name), start, self._read_only)

    def groups(self) -> list[str]:
        """The names of all groups."""
        return group_names(self._open(), self._read_only)

    def reader(
        self, start: int, shard_ids: Collection[str] | None = None, *, on_damage: OnDamage = "raise"
    ) -> LogReader:
        """Reads on from a sequence number, batch by batch, whatever is published whenever it is asked.

        All shards (None), or some. Raises InvalidArgument.
        """
        return LogReader(self._open(), self._check_open, start, shard_ids, on_damage=on_damage)

    def sequence_of(self, position: Position) -> int:
        """The sequence number of a position, now. Raises InvalidArgument."""
        return sequence_of(self._open(), position, "position")

    def backlog(self, positions: Mapping[str, int]) -> dict[str, Backlog]:
        """What each shard holds from a sequence number on, by shard id; of shards that have expired: nothing."""
        return backlog_of(self._open(), positions)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback`, from another thread, whenever something may have been appended, and when this is closed.

        It must be quick and must not raise. Returns what ends it.
        """
        watch = self._open().watch
        watch.add_callback(callback)
        watch.turn()  # starts watching
        return lambda: watch.remove_callback(callback)

    @property
    def clock(self) -> Clock:
        """The clock that the store was opened with."""
        return self._stream.clock

    def split_shard(self, shard_id: str, at: int | None = None) -> list[str]:
        """Split an open shard at a hash (the first of the second child), or where half of what it took lately went.

        Returns the children's ids. Raises ShardNotFound, ShardClosed, InvalidArgument.
        """
        stream = self._writable()
        chosen = stream.hash_to_split_at(shard_id) if at is None else at
        return self._reshard(lambda state, now_ms: plan_split(state, shard_id, chosen, now_ms))

    def merge_shards(self, left_id: str, right_id: str) -> str:
        """Merge two open neighbours; returns the child's id. Raises ShardNotFound, ShardClosed, InvalidArgument."""
        return self._reshard(lambda state, now_ms: plan_merge(state, left_id, right_id, now_ms))[0]

    def roll_shard(self, shard_id: str) -> str:
        """Replace an open shard by one child of the same range; returns its id. Raises ShardNotFound, ShardClosed."""
        return self._reshard(lambda state, now_ms: plan_roll_over(state, shard_id, now_ms))[0]

    def set_retention(
        self,
        retention: timedelta | None,
        *,
        retention_bytes: int | None = None,
        hold: Sequence[str] = (),
        hold_bytes_max: int | None = None,
    ) -> None:
        """Keep records for so long (None: for ever), and at most so many bytes of log (None: any number).

        What the groups in `hold` have not checkpointed stays nevertheless, until the log takes `hold_bytes_max` (None:
        without end). Raises InvalidArgument, also for a group that does not exist.
        """
        groups = checked_hold(hold, hold_bytes_max)
        if missing := sorted(set(groups) - set(self.groups() if groups else ())):
            raise InvalidArgument(f"hold: expected groups of stream {self.name}, found {', '.join(missing)}")
        checked_retention(retention)
        checked_retention_bytes(retention_bytes)
        self._configure(
            lambda old: replace(
                old, retention=retention, retention_bytes=retention_bytes, hold=groups, hold_bytes_max=hold_bytes_max
            )
        )

    def set_sharding(self, policy: ShardingPolicy | None) -> None:
        """Change when shards change by themselves; None: never."""
        checked_sharding(policy)
        self._configure(lambda old: replace(old, sharding=policy))

    def expire(self, *, force: bool = False) -> Trimmed:
        """Remove the segments whose records are all older than the retention (or over the cap by bytes).

        `force`: also right after the wall clock jumped, and if it would remove every one of several sealed segments.
        """
        return self._writable().retention.expire(force)

    def snapshot(self, dest: str | os.PathLike[str], *, links: bool = False) -> None:
        """Copy the stream, as of now, into a new store at `dest`, while others append: a prefix of its records.

        Damage to either leaves the other good. `links`: hard-link the sealed segments where that is possible, which
        takes no space; what is appended, expires, is repaired or deleted on one side still does not touch the other,
        but a bit that flips on the disk is flipped in both.

        Raises InvalidArgument where there is something at `dest` already, CorruptLog where the stream's end is damaged,
        StorageFull, StorageFailed.
        """
        stream = self._open()
        copy = partial(copy_consumers, stream, self._read_only)
        take_snapshot(stream, os.path.abspath(os.fspath(dest)), links=links, copy_consumers=copy)

    def statistics(self) -> Statistics:
        """How much it and its shards hold, where it starts and ends, and what it takes on disk."""
        return statistics_of(self._open())

    def throughput(self, over: timedelta = timedelta(minutes=1)) -> Throughput:
        """What the open shards took lately, and the keys that dominate one: read back from the last MiBs of the log."""
        return recent_throughput(self._open(), over)

    @property
    def trim_horizon(self) -> int:
        """The first readable sequence number."""
        return self._open().tail().trim_horizon

    @property
    def next_sequence(self) -> int:
        """The sequence number that the next record will have at least."""
        return self._open().tail().next_sequence

    @property
    def commits(self) -> int:
        """Commits since its index was made: by all processes, since the first of them opened it."""
        return self._open().tail().commits

    def iterator(
        self, shard_id: str, kind: str, *, sequence: int | None = None, timestamp: datetime | None = None
    ) -> str:
        """A shard iterator: TRIM_HORIZON, LATEST, AT_SEQUENCE_NUMBER, AFTER_SEQUENCE_NUMBER or AT_TIMESTAMP.

        Expires after 15 minutes. Raises ShardNotFound, TrimmedData, InvalidArgument.
        """
        return new_iterator(self._open(), shard_id, kind, sequence, timestamp)

    def get_records(self, iterator: str, limit: int = 1000) -> Page:
        """A page of at most `limit` (1 to 1000) records or 1 MB of them, whichever is first; it may be empty.

        Raises IteratorExpired, TrimmedData, CorruptLog, InvalidArgument.
        """
        return get_page(self._open(), iterator, limit)

    def close(self) -> None:
        """Close it; `sync()` first for level "os". Twice is harmless."""
        if not self._closed:
            self._closed = True
            self._stream.watch.announce()
            registry().release(self._stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Stream {self.name!r} {self.label}{' (closed)' if self._closed else ''}>"

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"stream {self.name} {self.label} was closed")
        self._stream.check_open()

    def _open(self) -> OpenStream:
        self._check_open()
        return self._stream

    def _writable(self) -> OpenStream:
        stream = self._open()
        if self._read_only:
            raise ReadOnly(f"stream {self.name}: the store was opened to read")
        return stream

    def _reshard(self, plan: Callable[[StreamState, int], Control]) -> list[str]:
        made: list[int] = []

        def decide(state: StreamState, now_us: int) -> list[Control]:
            record = plan(state, now_us // 1000)
            made[:] = range(state.next_shard, state.next_shard + len(record["children"]))
            return [record]

        state = self._writable().commits.change(decide)
        return [state.by_number[number].shard_id for number in made]

    def _configure(self, changed: Callable[[StreamOptions], StreamOptions]) -> None:
        self._writable().commits.change(lambda state, _: [plan_configure(changed(state.options))])

    def _request(self, changes: Iterable[Change], producer: str | None, position: int | None) -> Request:
        return new_request(changes, self._stream.commits.options, checked_producer(producer, position))

    def _reading(
        self,
        start: Position,
        stop: Position | None,
        shard_id: str | None,
        follow: bool,
        timeout: float | None,
        on_damage: OnDamage,
    ) -> Reading:
        return Reading(
            self._open(),
            self._check_open,
            start,
            stop=stop,
            shard_id=shard_id,
            follow=follow,
            timeout=timeout,
            on_damage=on_damage,
        )


async def _each(reading: Reading) -> AsyncIterator[Record | Gap]:
    async for batch in reading.batches_async():
        for record in batch:
            yield record

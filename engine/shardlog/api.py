"""`Store` and `Stream`: the public faces over what is below.

A store is a directory with an identity, a lock for creating and deleting, and one directory per incarnation of a
stream. It keeps nothing else: each stream's directory is complete in itself.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from shardlog.clock import Clock, SystemClock
from shardlog.errors import (
    Closed,
    CorruptLog,
    InvalidArgument,
    ReadOnly,
    StorageFailed,
    StreamDisabled,
    StreamExists,
    StreamNotFound,
    UnsupportedVersion,
)
from shardlog.files.gate import gate_held
from shardlog.files.mounts import check_filesystem
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Files, Site
from shardlog.format import names
from shardlog.format.control import Control
from shardlog.format.record import Record
from shardlog.model import Appended, Change, Gap, Statistics, StreamDescription
from shardlog.options import (
    SEGMENT_BYTES_DEFAULT,
    ShardingPolicy,
    StreamOptions,
    checked_producer,
    checked_producer_name,
    checked_retention,
    checked_retention_bytes,
    checked_shard_count,
    checked_sharding,
    checked_stream_name,
    stream_options,
)
from shardlog.stream.append import Request, new_request
from shardlog.stream.directories import create_stream_directory, labels, remove_stream_directory
from shardlog.stream.following import OnDamage, Position, Reading
from shardlog.stream.iterators import Page, get_page, new_iterator
from shardlog.stream.lineage import plan_configure, plan_merge, plan_roll_over, plan_split
from shardlog.stream.maintenance import Maintenance
from shardlog.stream.open_stream import OpenStream, Surroundings, registry
from shardlog.stream.retention import Trimmed
from shardlog.stream.state import StreamState
from shardlog.stream.together import AsyncAppends

_log = logging.getLogger("shardlog")

_STORE_FORMAT = 1


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

    async def read_async(
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
        async for batch in self._reading(start, stop, shard_id, follow, timeout, on_damage).batches_async():
            for record in batch:
                yield record

    def describe(self) -> StreamDescription:
        """The stream and its shards."""
        return self._open().state().describe()

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

    def set_retention(self, retention: timedelta | None, *, retention_bytes: int | None = None) -> None:
        """Keep records for so long (None: for ever), and at most so many bytes of log (None: any number)."""
        checked_retention(retention)
        checked_retention_bytes(retention_bytes)
        self._configure(lambda old: replace(old, retention=retention, retention_bytes=retention_bytes))

    def set_sharding(self, policy: ShardingPolicy | None) -> None:
        """Change when shards change by themselves; None: never."""
        checked_sharding(policy)
        self._configure(lambda old: replace(old, sharding=policy))

    def expire(self, *, force: bool = False) -> Trimmed:
        """Remove the segments whose records are all older than the retention (or over the cap by bytes).

        `force`: also right after the wall clock jumped, and if it would remove every one of several sealed segments.
        """
        return self._writable().retention.expire(force)

    def statistics(self) -> Statistics:
        """How much it holds, where it starts and ends, and what it takes on disk."""
        return self._open().statistics()

    @property
    def trim_horizon(self) -> int:
        """The first readable sequence number."""
        return self._open().tail().trim_horizon

    @property
    def next_sequence(self) -> int:
        """The sequence number that the next record will have at least."""
        return self._open().tail().next_sequence

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


class Store:
    """A directory of streams. Made by `open`; a context manager."""

    def __init__(self, path: str, store_uuid: bytes, read_only: bool, surroundings: Surroundings) -> None:
        self.path = path
        self._uuid = store_uuid
        self._read_only = read_only
        self._surroundings = surroundings
        self._files = surroundings.files
        self._root = f"{path}/{names.STREAMS}"
        self._streams: dict[str, Stream] = {}
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._maintenance: Maintenance | None = None
        self._closed = False

    def create_stream(
        self,
        name: str,
        *,
        view_type: str = "NEW_AND_OLD_IMAGES",
        key_names: Sequence[str] | None = None,
        partition_key: str | None = None,
        shards: int = 1,
        retention: timedelta | None = timedelta(hours=24),
        durability: str = "fsync",
        sharding: ShardingPolicy | None = None,
        segment_bytes: int = SEGMENT_BYTES_DEFAULT,
        retention_bytes: int | None = None,
    ) -> Stream:
        """Create a stream and open it.

        `view_type`: KEYS_ONLY, NEW_IMAGE, OLD_IMAGE or NEW_AND_OLD_IMAGES. `key_names`: if given, every record's keys
        are exactly these. `partition_key`: the attribute of the keys that routes to a shard; None: the whole of them.
        `retention` None: for ever. `durability`: "fsync" (durable when append returns) or "os" (when synced).
        `segment_bytes`: size of a log segment, preallocated.

        Raises StreamExists where one of the name is enabled, InvalidArgument, ReadOnly, StorageFull.
        """
        self._check_writable()
        options = stream_options(
            view_type=view_type,
            key_names=key_names,
            partition_key=partition_key,
            durability=durability,
            segment_bytes=segment_bytes,
            retention=retention,
            retention_bytes=retention_bytes,
            sharding=sharding,
        )
        checked_stream_name(name)
        checked_shard_count(shards)
        with self._gate():
            existing = self._labels(name)
            if existing and self.stream(name).describe().status == "ENABLED":
                raise StreamExists(f"{self.path}: stream {name} exists already, as {existing[-1]}")
            now_us = self._surroundings.clock.wall_us()
            label = create_stream_directory(self._files, self._root, name, options, shards, self._uuid, now_us)
        return self.stream(name, label)

    def stream(self, name: str, label: str | None = None) -> Stream:
        """Open a stream; `label` None: the newest of the name. Raises StreamNotFound, CorruptLog, StoreLocked."""
        self._check_open()
        checked_stream_name(name)
        found = self._labels(name)
        if not found or (label is not None and label not in found):
            raise StreamNotFound(f"{self.path}: stream {name}{'' if label is None else ' ' + repr(label)} not found")
        chosen = found[-1] if label is None else label
        path = f"{self._root}/{name}/{chosen}"
        with self._lock:
            stream = self._streams.get(path)
            if stream is None or stream._closed or stream._stream._closed:
                opened = self._acquire(path, self._read_only)
                stream = self._streams[path] = Stream(opened, name, chosen, self._read_only)
            return stream

    def names(self) -> list[tuple[str, str]]:
        """(name, label) of all streams, without opening them: also of those that cannot be opened."""
        self._check_open()
        if not self._files.exists(self._root):
            return []
        return [(name, label) for name in sorted(self._files.names(self._root)) for label in self._labels(name)]

    def streams(self) -> list[StreamDescription]:
        """All streams, by name and label. Raises CorruptLog where one is damaged beyond description."""
        return [self._describe(name, label) for name, label in self.names()]

    def disable_stream(self, name: str) -> None:
        """Take no more records; what is there stays readable until it has expired.

        Raises StreamNotFound, StreamDisabled where it is already.
        """
        self._check_writable()
        self.stream(name)._stream.commits.close_stream()

    def delete_stream(self, name: str) -> None:
        """Remove a stream and all its records, those of its disabled predecessors included. Raises StreamNotFound."""
        self._check_writable()
        checked_stream_name(name)
        with self._gate():
            found = self._labels(name)
            if not found:
                raise StreamNotFound(f"{self.path}: stream {name} not found")
            for label in found:
                self._delete(name, label)

    def close(self) -> None:
        """Close all its streams; who waits for records gets `Closed`. Twice is harmless."""
        with self._lock:
            self._closed = True
            streams, self._streams = self._streams, {}
            maintenance, self._maintenance = self._maintenance, None
        if maintenance is not None and self._process == os.getpid():
            maintenance.close()
        with ExitStack() as closing:  # one that fails does not keep the others
            for stream in streams.values():
                closing.callback(stream.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.path!r}{' (closed)' if self._closed else ''}>"

    def start_maintenance(self) -> None:
        """Look after the streams that are opened through this store, in a thread; see `open`."""
        with self._lock:
            self._check_writable()
            if self._maintenance is None:
                self._maintenance = Maintenance(self._open_streams)

    def _open_streams(self) -> list[OpenStream]:
        with self._lock:
            return [stream._stream for stream in self._streams.values() if not stream._closed]

    def _check_open(self) -> None:
        if self._closed or self._process != os.getpid():
            raise Closed(f"{self.path}: the store was closed, or inherited through a fork")

    def _check_writable(self) -> None:
        self._check_open()
        if self._read_only:
            raise ReadOnly(f"{self.path}: the store was opened to read")

    @contextmanager
    def _gate(self) -> Iterator[None]:
        lock = self._files.open_lock(f"{self.path}/{names.LOCK}")
        try:
            with self._lock, gate_held(lock, self.path, self._surroundings.lock_timeout):
                yield
        finally:
            lock.close()

    def _acquire(self, path: str, read_only: bool) -> OpenStream:
        try:
            return registry().acquire(path, read_only, self._surroundings)
        except FileNotFoundError as error:
            if self._files.exists(path):
                raise CorruptLog(f"{path}: expected {error.filename}, found nothing of the name") from error
            raise StreamNotFound(f"{path}: the stream was deleted") from error

    def _labels(self, name: str) -> list[str]:
        return labels(self._files, f"{self._root}/{name}")

    def _describe(self, name: str, label: str) -> StreamDescription:
        path = f"{self._root}/{name}/{label}"
        opened = self._acquire(path, True)
        try:
            return opened.state().describe()
        finally:
            registry().release(opened)

    def _delete(self, name: str, label: str) -> None:
        try:
            self.stream(name, label)._stream.commits.close_stream()
        except (StreamDisabled, CorruptLog, StorageFailed, UnsupportedVersion) as error:
            _log.info("%s %s is deleted without closing it first: %s", name, label, error)
        path = f"{self._root}/{name}/{label}"
        self._streams.pop(path, None)
        registry().evict(path)
        remove_stream_directory(self._files, f"{self._root}/{name}", label)


def open(  # noqa: A001 - `shardlog.open`, as `gzip.open`
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    read_only: bool = False,
    maintenance: bool = False,
    lock_timeout: float = 10.0,
    clock: Clock | None = None,
) -> Store:
    """Open a store; `create` makes one where there is none.

    `read_only` changes nothing on disk, and serves a damaged store as far as it goes. `maintenance` starts a thread that
    expires records and lets shards follow the load, for the streams that are opened through this store. `lock_timeout`:
    seconds to wait for another process that is opening or repairing. `clock` is for tests.

    Raises InvalidArgument where there is no store, StoreLocked, UnsupportedVersion, StorageFailed (a file system that
    does not keep the promises).
    """
    if sys.platform != "linux":
        raise StorageFailed(f"shardlog needs Linux (open-file-description locks, fallocate); this is {sys.platform}")
    if maintenance and read_only:
        raise InvalidArgument("maintenance: a store that is open to read changes nothing; leave one of the two out")
    surroundings = Surroundings(PosixFiles(), clock or SystemClock(), lock_timeout)
    store = open_store(os.path.abspath(os.fspath(path)), create and not read_only, read_only, surroundings)
    if maintenance:
        store.start_maintenance()
    return store


def open_store(path: str, create: bool, read_only: bool, surroundings: Surroundings) -> Store:
    """`open` with its surroundings injected."""
    files = surroundings.files
    identity = f"{path}/{names.STORE}"
    if not files.exists(identity):
        if not create:
            raise InvalidArgument(
                f"{path}: expected a store, found {'no STORE file' if files.exists(path) else 'nothing'}"
            )
        if files.exists(f"{path}/{names.STREAMS}") and files.names(f"{path}/{names.STREAMS}"):
            raise CorruptLog(f"{identity}: expected the identity of the store whose streams are here, found no file")
        _create_store(files, path)
    check_filesystem(path)
    return Store(path, _read_identity(files, identity), read_only, surroundings)


def _create_store(files: Files, path: str) -> None:
    _make_directories(files, path)
    check_filesystem(path)
    if not files.exists(f"{path}/{names.STREAMS}"):
        with suppress(FileExistsError):
            files.make_directory(f"{path}/{names.STREAMS}")
    content = json.dumps({"format": _STORE_FORMAT, "uuid": uuid.uuid4().hex}).encode() + b"\n"
    temporary = f"{path}/{names.STORE}-{uuid.uuid4().hex}{names.TEMPORARY}"
    file = files.create(temporary)
    try:
        file.pwrite(content, 0)
        file.sync(Site.STORE_IDENTITY)
    finally:
        file.close()
    lock = files.open_lock(f"{path}/{names.LOCK}")
    try:
        with gate_held(lock, path, 10.0):
            if files.exists(f"{path}/{names.STORE}"):
                files.unlink(temporary)  # another process was faster
            else:
                files.rename(temporary, f"{path}/{names.STORE}")
            files.sync_directory(path, Site.STORE_ENTRY)
    finally:
        lock.close()


def _make_directories(files: Files, path: str) -> None:
    if files.exists(path):
        return
    parent = os.path.dirname(path)
    _make_directories(files, parent)
    with suppress(FileExistsError):
        files.make_directory(path)
    files.sync_directory(parent, Site.STORE_ENTRY)


def _read_identity(files: Files, path: str) -> bytes:
    file = files.open_to_read(path)
    try:
        content = file.pread(4096, 0)
    finally:
        file.close()
    try:
        fields = json.loads(content)
        store_format, store_uuid = fields["format"], bytes.fromhex(fields["uuid"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptLog(f"{path}: expected a store's identity, found {content[:80]!r}") from error
    if store_format != _STORE_FORMAT:
        raise UnsupportedVersion(f"{path}: the store has format {store_format}; this release knows {_STORE_FORMAT}")
    return store_uuid

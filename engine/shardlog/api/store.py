"""`Store` and `open`: the public face of a directory of streams.

A store is a directory with an identity, a lock for creating and deleting, and one directory per incarnation of a
stream. It keeps nothing else: each stream's directory is complete in itself.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

from shardlog.api.groups import held_from
from shardlog.api.identity import create_store, read_identity
from shardlog.api.stream import Stream
from shardlog.clock import Clock, SystemClock
from shardlog.consumer import highest_checkpoint
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
from shardlog.format import names
from shardlog.model import StreamDescription
from shardlog.options import (
    SEGMENT_BYTES_DEFAULT,
    ShardingPolicy,
    checked_shard_count,
    checked_stream_name,
    stream_options,
)
from shardlog.stream.directories import create_stream_directory, labels, remove_stream_directory
from shardlog.stream.maintenance import Maintenance
from shardlog.stream.open_stream import OpenStream, Surroundings, registry

_log = logging.getLogger("shardlog")


class Store:
    """A directory of streams. Made by `open`; a context manager."""

    def __init__(self, path: str, store_uuid: bytes, read_only: bool, surroundings: Surroundings) -> None:
        self.path = path
        self._uuid = store_uuid
        self._read_only = read_only
        self._surroundings = replace(surroundings, held_from=held_from, checkpointed=highest_checkpoint)
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
        table_arn: str | None = None,
    ) -> Stream:
        """Create a stream and open it.

        `view_type`: KEYS_ONLY, NEW_IMAGE, OLD_IMAGE or NEW_AND_OLD_IMAGES. `key_names`: if given, every record's keys
        are exactly these. `partition_key`: the attribute of the keys that routes to a shard; None: the whole of them.
        `retention` None: for ever. `durability`: "fsync" (durable when append returns) or "os" (when synced).
        `segment_bytes`: size of a log segment, preallocated. `table_arn`: the DynamoDB table whose changes these are;
        keys and images then are DynamoDB-typed values (`{"id": {"S": "Fred"}}`, binary as bytes).

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
            table_arn=table_arn,
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
            self._check_open()
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

    def delete_stream(self, name: str, label: str | None = None) -> None:
        """Remove a stream and all its records, those of its disabled predecessors included; or one of them, by label.

        Raises StreamNotFound.
        """
        self._check_writable()
        checked_stream_name(name)
        with self._gate():
            doomed = [found for found in self._labels(name) if label in (None, found)]
            if not doomed:
                raise StreamNotFound(f"{self.path}: stream {name}{f' {label}' if label else ''} not found")
            for found in doomed:
                self._delete(name, found)

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
            return opened.state().description
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

    `read_only` changes nothing on disk, and serves a damaged store as far as it goes. `maintenance` starts a thread
    that expires records and lets shards follow the load, for the streams opened through this store. `lock_timeout`:
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
    try:
        return _open_store(path, create, read_only, surroundings)
    except (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InvalidArgument(f"{path}: expected a store, found something else at {error.filename}: {error}") from error


def _open_store(path: str, create: bool, read_only: bool, surroundings: Surroundings) -> Store:
    files = surroundings.files
    identity = f"{path}/{names.STORE}"
    if not files.exists(identity):
        if not create:
            found = "no STORE file" if files.exists(path) else "nothing"
            raise InvalidArgument(f"{path}: expected a store, found {found}")
        has_streams = files.exists(f"{path}/{names.STREAMS}") and files.names(f"{path}/{names.STREAMS}")
        # Asked again: somebody else may have made the store, and streams in it, since.
        if has_streams and not files.exists(identity):
            raise CorruptLog(f"{identity}: expected the identity of the store whose streams are here, found no file")
        create_store(files, path)
    check_filesystem(path)
    return Store(path, read_identity(files, identity), read_only, surroundings)

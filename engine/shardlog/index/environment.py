"""The index's LMDB environment.

Derived from the log and never synced: it is made anew whenever nobody has the stream open, so it must only survive the
death of a process. Its write transaction is the lock between the processes that append; the kernel releases it when
its holder dies. One environment per process and file: `stream.registry` sees to that. Nothing here opens `lock.mdb` by
path, because closing it would drop the process's locks on it.

Rows of the one database:

| key | value |
|-----|-------|
| `T` | the tail row |
| `S` | the stream's state, as in a segment header's snapshot, without the producers |
| `i` + first sequence u64 | a block of the active segment: offset u64, timestamp i64, records before u64 |
| `s` + first sequence u64 | a segment: id u32 |
| `w` + producer | its last committed position, i64 |
| `c` + shard u32 | since the stream was created: records u64, bytes of bodies u64 |

Keys are big-endian, so that they sort by number. The position rows of a sealed segment are in its footer.
"""

from __future__ import annotations

import os
import resource
import struct
import threading
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, NamedTuple, Self

import lmdb

from shardlog.errors import Closed, ShardlogError, StorageFailed, StorageFull
from shardlog.files.posix import NO_ROOM, translated
from shardlog.format.segment import SparsePosition
from shardlog.index.tail import Tail, decode_tail, encode_tail

MAP_BYTES: Final = 1 << 30
READERS_MAX: Final = 1024
LMDB_0_9: Final = 0  # LMDB 1.0, which the binding also brings, has another file format

_TAIL_KEY = b"T"
_STATE_KEY = b"S"
_POSITION_PREFIX = b"i"
_SEGMENT_PREFIX = b"s"
_PRODUCER_PREFIX = b"w"
_COUNT_PREFIX = b"c"
_SEQUENCE = struct.Struct(">Q")
_POSITION = struct.Struct("<QqQ")
_SEGMENT = struct.Struct("<I")
_PRODUCER = struct.Struct("<q")
_SHARD = struct.Struct(">I")
_COUNT = struct.Struct("<QQ")
_DATA_FILE: Final = "data.mdb"
_LOCK_FILE: Final = "lock.mdb"
_LOCK_FILE_BYTES: Final = READERS_MAX * 64 + 4096  # a cache line for each reader, and some for the mutexes
_FREE_BYTES_SCARCE: Final = 1 << 20


class SegmentName(NamedTuple):
    """What a segment's file name says."""

    first_sequence: int
    segment_id: int


class IndexContent(NamedTuple):
    """All that an index holds."""

    tail: Tail
    state: bytes
    segments: Iterable[SegmentName]
    positions: Iterable[SparsePosition]
    producers: Iterable[tuple[str, int]]
    counts: dict[int, tuple[int, int]]


class Index:
    """An open environment."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._environment: lmdb.Environment | None = None
        self._is_closed = False
        # Closing while another thread is inside LMDB would crash the interpreter: reads hold this, writers are waited
        # for by their owner.
        self._reading = threading.Lock()
        self._translated = _Translated(self)
        with translated("open the index", path), self._translated:
            self._environment = lmdb.open(
                path,
                map_size=MAP_BYTES,
                max_readers=READERS_MAX,
                sync=False,
                metasync=False,
                lib_version=LMDB_0_9,
            )
            self._environment.reader_check()

    @classmethod
    def make(cls, path: str, content: IndexContent) -> Index:
        """Make the index anew in the directory `path`; nobody may have it open. Raises StorageFull, StorageFailed."""
        with translated("clear the directory", path):
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
        _allocate_lock_file(path)
        index = cls(path)
        try:
            with index.write() as transaction:
                transaction.put_tail(content.tail)
                transaction.put_state(content.state)
                transaction.put_segments(content.segments)
                transaction.put_positions(content.positions)
                transaction.put_producers(content.producers)
                transaction.add_counts(content.counts)
                transaction.commit()
        except BaseException:
            index.close()
            raise
        return index

    def close(self) -> None:
        """Close it; twice is harmless."""
        self._is_closed = True
        with self._reading:
            if self._environment is not None:
                environment, self._environment = self._environment, None
                environment.close()

    def abandon(self) -> None:
        """Forget it in a forked child: LMDB environments do not survive a fork, not even to be closed."""
        self._reading = threading.Lock()
        if self._environment is not None:
            _abandoned.append(self._environment)
            self._environment = None

    def write(self) -> IndexWrite:
        """A write transaction, the lock between processes: a context manager, aborted at its end unless committed."""
        environment = self._open()
        with self._translated:
            return IndexWrite(environment.begin(write=True), self._translated)

    def tail(self) -> Tail:
        """The tail row as published now."""
        with self._translated, self._reading, self._open().begin() as transaction:
            return decode_tail(_present(transaction.get(_TAIL_KEY)))

    def state(self) -> tuple[bytes, int]:
        """The state and its version."""
        with self._read() as transaction:
            tail = decode_tail(_present(transaction.get(_TAIL_KEY)))
            return _present(transaction.get(_STATE_KEY)), tail.state_version

    def segments(self) -> list[SegmentName]:
        """All segments, oldest first."""
        with self._read() as transaction:
            return [_segment_row(key, value) for key, value in _rows(transaction, _SEGMENT_PREFIX)]

    def segment_at(self, sequence: int) -> SegmentName | None:
        """The last segment that starts at or before a sequence number."""
        with self._read() as transaction:
            row = _row_at_or_before(transaction, _SEGMENT_PREFIX, sequence)
        return _segment_row(*row) if row else None

    def segment_after(self, first_sequence: int) -> SegmentName | None:
        """The segment after the one that starts at `first_sequence`."""
        with self._read() as transaction, transaction.cursor() as cursor:
            if cursor.set_range(_SEGMENT_PREFIX + _SEQUENCE.pack(first_sequence + 1)):
                key, value = cursor.item()
                if bytes(key).startswith(_SEGMENT_PREFIX):
                    return _segment_row(key, value)
        return None

    def position_at(self, sequence: int) -> SparsePosition | None:
        """The last indexed block of the active segment that starts at or before a sequence number."""
        with self._read() as transaction:
            row = _row_at_or_before(transaction, _POSITION_PREFIX, sequence)
        return _position_row(*row) if row else None

    def positions(self) -> list[SparsePosition]:
        """All indexed blocks of the active segment, in order."""
        with self._read() as transaction:
            return [_position_row(key, value) for key, value in _rows(transaction, _POSITION_PREFIX)]

    def producer_position(self, producer: str) -> int | None:
        """A producer's last committed position."""
        with self._read() as transaction:
            return _producer_position(transaction, producer)

    def counts(self) -> dict[int, tuple[int, int]]:
        """Records and bytes of bodies per shard number, since the stream was created."""
        with self._read() as transaction:
            return dict(_counts(transaction))

    def copy_to(self, directory: str) -> None:
        """Copy what is published now into an empty directory, while others go on writing."""
        with self._translated:
            self._open().copy(directory)

    def check_readers(self) -> None:
        """Free the slots of readers that died, which would make the file grow."""
        with self._translated:
            self._open().reader_check()

    def _open(self) -> lmdb.Environment:
        if self._environment is None:
            raise Closed(f"{self._path}: the stream was closed")
        return self._environment

    @contextmanager
    def _read(self) -> Iterator[lmdb.Transaction]:
        with self._translated, self._reading, self._open().begin() as transaction:
            yield transaction


class _Translated:
    """Turns LMDB's errors into ours at the end of a with statement. Has no state, so one serves for everything."""

    __slots__ = ("_index",)

    def __init__(self, index: Index) -> None:
        self._index = index

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, lmdb.Error):
            raise self._storage_error(error) from error

    def _storage_error(self, error: lmdb.Error) -> ShardlogError:
        path = self._index._path
        if self._index._is_closed:
            return Closed(f"{path}: the stream was closed")  # by another thread, under our hands
        if isinstance(error, lmdb.MapFullError):
            return StorageFull(f"index {path}: its {MAP_BYTES >> 20} MiB are full")
        kind = StorageFull if error.code in NO_ROOM or _is_room_scarce(path) else StorageFailed
        return kind(f"index {path}: {error}")


class IndexWrite:
    """A write transaction on the index. It belongs to the thread that began it."""

    def __init__(self, transaction: lmdb.Transaction, translated: _Translated) -> None:
        self._transaction = transaction
        self._translated = translated
        self._is_aborted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.was_committed():
            self.abort()
        self._translated.__exit__(kind, error, trace)

    def abort(self) -> None:
        """Forget what was put."""
        self._is_aborted = True
        self._transaction.abort()

    def tail(self) -> Tail:
        """The tail row."""
        return decode_tail(_present(self._transaction.get(_TAIL_KEY)))

    def put_tail(self, tail: Tail) -> None:
        """Replace the tail row: what it says is published by `commit`."""
        self._transaction.put(_TAIL_KEY, encode_tail(tail))

    def state(self) -> bytes:
        """The stream's state."""
        return _present(self._transaction.get(_STATE_KEY))

    def put_state(self, state: bytes) -> None:
        """Replace the stream's state."""
        self._transaction.put(_STATE_KEY, state)

    def put_segments(self, segments: Iterable[SegmentName]) -> None:
        """Add segments, in order."""
        self._put_sorted((_SEGMENT_PREFIX + _SEQUENCE.pack(first), _SEGMENT.pack(number)) for first, number in segments)

    def put_positions(self, positions: Iterable[SparsePosition]) -> None:
        """Add blocks of the active segment, in order."""
        self._put_sorted(
            (
                _POSITION_PREFIX + _SEQUENCE.pack(row.first_sequence),
                _POSITION.pack(row.offset, row.timestamp_us, row.records_before),
            )
            for row in positions
        )

    def delete_counts_but(self, shards: Container[int]) -> None:
        """Forget the counts of shards that are not among these."""
        for shard in [shard for shard, _ in _counts(self._transaction) if shard not in shards]:
            self._transaction.delete(_COUNT_PREFIX + _SHARD.pack(shard))

    def delete_segments_before(self, first_sequence: int) -> None:
        """Forget the segments that start before a sequence number."""
        end = _SEGMENT_PREFIX + _SEQUENCE.pack(first_sequence)
        with self._transaction.cursor() as cursor:
            found = cursor.set_range(_SEGMENT_PREFIX)
            while found and bytes(cursor.key()) < end:
                found = cursor.delete()

    def delete_position(self, first_sequence: int) -> None:
        """Forget one block of the active segment."""
        self._transaction.delete(_POSITION_PREFIX + _SEQUENCE.pack(first_sequence))

    def delete_positions(self) -> None:
        """Forget the blocks of a segment that was sealed."""
        with self._transaction.cursor() as cursor:
            found = cursor.set_range(_POSITION_PREFIX)
            while found and bytes(cursor.key()).startswith(_POSITION_PREFIX):
                found = cursor.delete()

    def positions(self) -> list[SparsePosition]:
        """All indexed blocks of the active segment, in order."""
        return [_position_row(key, value) for key, value in _rows(self._transaction, _POSITION_PREFIX)]

    def producer_position(self, producer: str) -> int | None:
        """A producer's last committed position."""
        return _producer_position(self._transaction, producer)

    def producers(self) -> list[tuple[str, int]]:
        """All producers and their positions."""
        return [
            (bytes(key[1:]).decode(), _PRODUCER.unpack(value)[0])
            for key, value in _rows(self._transaction, _PRODUCER_PREFIX)
        ]

    def put_producers(self, producers: Iterable[tuple[str, int]]) -> None:
        """Set producers' positions."""
        for producer, position in producers:
            self._transaction.put(_PRODUCER_PREFIX + producer.encode(), _PRODUCER.pack(position))

    def counts(self) -> dict[int, tuple[int, int]]:
        """Records and bytes of bodies per shard number, since the stream was created."""
        return dict(_counts(self._transaction))

    def add_counts(self, counts: dict[int, tuple[int, int]]) -> None:
        """Add to the records and bytes of some shards."""
        for shard, (records, body_bytes) in counts.items():
            key = _COUNT_PREFIX + _SHARD.pack(shard)
            before = self._transaction.get(key)
            if before is not None:
                records_before, bytes_before = _COUNT.unpack(before)
                records, body_bytes = records + records_before, body_bytes + bytes_before
            self._transaction.put(key, _COUNT.pack(records, body_bytes))

    def commit(self) -> None:
        """Publish what was put, to all processes at once."""
        try:
            self._transaction.commit()
        except lmdb.Error as error:
            self._is_aborted = True
            self._translated.__exit__(type(error), error, None)

    def was_committed(self) -> bool:
        """Whether `commit` published: an interrupted writer has to know, wherever it was interrupted."""
        if self._is_aborted:
            return False
        try:
            self._transaction.id()
        except lmdb.Error:
            return True
        return False

    def _put_sorted(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        with self._transaction.cursor() as cursor:
            cursor.putmulti(list(rows))


def _allocate_lock_file(path: str) -> None:
    """Give LMDB's lock file its space before LMDB maps it: a mapped hole on a full disk kills whoever touches it.

    That is SIGBUS, whereas no room is an error here. LMDB takes the file as it finds it.
    """
    lock_path = os.path.join(path, _LOCK_FILE)
    with translated(f"allocate {_LOCK_FILE_BYTES} bytes for", lock_path):
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
        finally:
            os.close(descriptor)


def _is_room_scarce(path: str) -> bool:
    """LMDB reports a short write as EIO, also on a full disk: ask how much room there is before believing it."""
    try:
        status = os.statvfs(path)
        size = os.path.getsize(os.path.join(path, _DATA_FILE))
    except OSError:
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = status.f_bavail * status.f_frsize
    return min(room, room if limit == resource.RLIM_INFINITY else limit - size) < _FREE_BYTES_SCARCE


# Environments inherited through a fork: referenced for ever, so that they are never closed.
_abandoned: list[lmdb.Environment] = []


def _present(value: bytes | memoryview | None) -> bytes:
    if value is None:
        raise StorageFailed("the index lacks its tail or state row; close the stream everywhere, then open it again")
    return bytes(value)


def _rows(transaction: lmdb.Transaction, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    with transaction.cursor() as cursor:
        found = cursor.set_range(prefix)
        while found:
            key, value = cursor.item()
            if not bytes(key).startswith(prefix):
                return
            yield bytes(key), bytes(value)
            found = cursor.next()


def _row_at_or_before(transaction: lmdb.Transaction, prefix: bytes, sequence: int) -> tuple[bytes, bytes] | None:
    wanted = prefix + _SEQUENCE.pack(sequence)
    with transaction.cursor() as cursor:
        if not (cursor.set_range(wanted) and cursor.key() == wanted) and not (
            cursor.prev() if cursor.key() else cursor.last()
        ):
            return None
        key, value = cursor.item()
        return (bytes(key), bytes(value)) if bytes(key).startswith(prefix) else None


def _counts(transaction: lmdb.Transaction) -> Iterator[tuple[int, tuple[int, int]]]:
    for key, value in _rows(transaction, _COUNT_PREFIX):
        yield _SHARD.unpack(key[1:])[0], _COUNT.unpack(value)


def _segment_row(key: bytes | memoryview, value: bytes | memoryview) -> SegmentName:
    return SegmentName(_SEQUENCE.unpack(key[1:])[0], _SEGMENT.unpack(value)[0])


def _position_row(key: bytes, value: bytes) -> SparsePosition:
    return SparsePosition(_SEQUENCE.unpack(key[1:])[0], *_POSITION.unpack(value))


def _producer_position(transaction: lmdb.Transaction, producer: str) -> int | None:
    value = transaction.get(_PRODUCER_PREFIX + producer.encode())
    return None if value is None else int(_PRODUCER.unpack(value)[0])

"""Transactions on the index: its rows, read and written.

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

import struct
from collections.abc import Container, Iterable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

import lmdb

from shardlog.errors import StorageFailed
from shardlog.format.segment import SparsePosition
from shardlog.index.lmdb_files import Translated
from shardlog.index.tail import Tail, decode_tail, encode_tail

_TAIL_KEY: Final = b"T"
_STATE_KEY: Final = b"S"
_POSITION_PREFIX: Final = b"i"
_SEGMENT_PREFIX: Final = b"s"
_PRODUCER_PREFIX: Final = b"w"
_COUNT_PREFIX: Final = b"c"
_SEQUENCE = struct.Struct(">Q")
_POSITION = struct.Struct("<QqQ")
_SEGMENT = struct.Struct("<I")
_PRODUCER = struct.Struct("<q")
_SHARD = struct.Struct(">I")
_COUNT = struct.Struct("<QQ")


class SegmentName(NamedTuple):
    """What a segment's file name says."""

    first_sequence: int
    segment_id: int


class IndexRead:
    """A transaction's view of the index. It belongs to the thread that began it."""

    def __init__(self, transaction: lmdb.Transaction) -> None:
        self._transaction = transaction

    def tail(self) -> Tail:
        """The tail row."""
        return decode_tail(_present(self._transaction.get(_TAIL_KEY)))

    def state(self) -> bytes:
        """The stream's state."""
        return _present(self._transaction.get(_STATE_KEY))

    def segments(self) -> list[SegmentName]:
        """All segments, oldest first."""
        return [_segment_row(key, value) for key, value in self._rows(_SEGMENT_PREFIX)]

    def segment_at(self, sequence: int) -> SegmentName | None:
        """The last segment that starts at or before a sequence number."""
        row = self._row_at_or_before(_SEGMENT_PREFIX, sequence)
        return _segment_row(*row) if row else None

    def segment_after(self, first_sequence: int) -> SegmentName | None:
        """The segment after the one that starts at `first_sequence`."""
        with self._transaction.cursor() as cursor:
            if cursor.set_range(_SEGMENT_PREFIX + _SEQUENCE.pack(first_sequence + 1)):
                key, value = cursor.item()
                if bytes(key).startswith(_SEGMENT_PREFIX):
                    return _segment_row(key, value)
        return None

    def position_at(self, sequence: int) -> SparsePosition | None:
        """The last indexed block of the active segment that starts at or before a sequence number."""
        row = self._row_at_or_before(_POSITION_PREFIX, sequence)
        return _position_row(*row) if row else None

    def position_before_time(self, first: int, end: int, wanted_us: int) -> SparsePosition | None:
        """The last indexed block that is older than a time, among those that start in `[first, end)`."""
        found = None
        while first < end:
            middle = (first + end) // 2
            row = self.position_at(middle)
            if row is not None and row.first_sequence >= first and row.timestamp_us >= wanted_us:
                end = row.first_sequence
            elif row is not None and row.timestamp_us < wanted_us:
                found, first = row, middle + 1
            else:
                first = middle + 1
        return found

    def positions(self) -> list[SparsePosition]:
        """All indexed blocks of the active segment, in order."""
        return [_position_row(key, value) for key, value in self._rows(_POSITION_PREFIX)]

    def producer_position(self, producer: str) -> int | None:
        """A producer's last committed position."""
        value = self._transaction.get(_PRODUCER_PREFIX + producer.encode())
        return None if value is None else int(_PRODUCER.unpack(value)[0])

    def producers(self) -> list[tuple[str, int]]:
        """All producers and their positions."""
        return [(key[1:].decode(), _PRODUCER.unpack(value)[0]) for key, value in self._rows(_PRODUCER_PREFIX)]

    def counts(self) -> dict[int, tuple[int, int]]:
        """Records and bytes of bodies per shard number, since the stream was created."""
        return {_SHARD.unpack(key[1:])[0]: _COUNT.unpack(value) for key, value in self._rows(_COUNT_PREFIX)}

    def _rows(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._transaction.cursor() as cursor:
            found = cursor.set_range(prefix)
            while found:
                key, value = cursor.item()
                if not bytes(key).startswith(prefix):
                    return
                yield bytes(key), bytes(value)
                found = cursor.next()

    def _row_at_or_before(self, prefix: bytes, sequence: int) -> tuple[bytes, bytes] | None:
        wanted = prefix + _SEQUENCE.pack(sequence)
        with self._transaction.cursor() as cursor:
            if not (cursor.set_range(wanted) and cursor.key() == wanted) and not (
                cursor.prev() if cursor.key() else cursor.last()
            ):
                return None
            key, value = cursor.item()
            return (bytes(key), bytes(value)) if bytes(key).startswith(prefix) else None


class IndexWrite(IndexRead):
    """A write transaction: the lock between the processes that append. Aborted at its end unless committed."""

    def __init__(self, transaction: lmdb.Transaction, translated: Translated) -> None:
        super().__init__(transaction)
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

    def put_tail(self, tail: Tail) -> None:
        """Replace the tail row: what it says is published by `commit`."""
        self._transaction.put(_TAIL_KEY, encode_tail(tail))

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
        for shard in [shard for shard in self.counts() if shard not in shards]:
            self._transaction.delete(_COUNT_PREFIX + _SHARD.pack(shard))

    def delete_segments_before(self, first_sequence: int) -> None:
        """Forget the segments that start before a sequence number."""
        end = _SEGMENT_PREFIX + _SEQUENCE.pack(first_sequence)
        with self._transaction.cursor() as cursor:
            found = cursor.set_range(_SEGMENT_PREFIX)
            while found and bytes(cursor.key()) < end:
                found = cursor.delete()

    def delete_positions(self) -> None:
        """Forget the blocks of a segment that was sealed."""
        with self._transaction.cursor() as cursor:
            found = cursor.set_range(_POSITION_PREFIX)
            while found and bytes(cursor.key()).startswith(_POSITION_PREFIX):
                found = cursor.delete()

    def put_producers(self, producers: Iterable[tuple[str, int]]) -> None:
        """Set producers' positions."""
        for producer, position in producers:
            self._transaction.put(_PRODUCER_PREFIX + producer.encode(), _PRODUCER.pack(position))

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


def _present(value: bytes | memoryview | None) -> bytes:
    if value is None:
        raise StorageFailed("the index lacks its tail or state row; close the stream everywhere, then open it again")
    return bytes(value)


def _segment_row(key: bytes | memoryview, value: bytes | memoryview) -> SegmentName:
    return SegmentName(_SEQUENCE.unpack(key[1:])[0], _SEGMENT.unpack(value)[0])


def _position_row(key: bytes, value: bytes) -> SparsePosition:
    return SparsePosition(_SEQUENCE.unpack(key[1:])[0], *_POSITION.unpack(value))

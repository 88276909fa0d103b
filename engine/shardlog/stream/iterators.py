"""Shard iterators and pages, with the rules of DynamoDB Streams' GetShardIterator and GetRecords.

An iterator is a token that holds a sequence number; it expires 15 minutes after it was given, by the injected clock. A
page is at most 1000 records or 1 MB of encoded records, whichever is first, and always at least one if there is one
within the stretch of log that a page looks through; an empty page is legal and its next iterator goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shardlog.clock import MICROSECOND
from shardlog.errors import InvalidArgument, IteratorExpired, TrimmedData
from shardlog.format.record import Record, StoredBatch
from shardlog.format.token import TRIM_HORIZON_SEQUENCE, Token, decode_token, encode_token
from shardlog.options import PAGE_BYTES_MAX, RECORDS_PER_PAGE_MAX
from shardlog.stream.lineage import children_of
from shardlog.stream.open_stream import OpenStream
from shardlog.stream.reading import SegmentDamage
from shardlog.stream.state import Shard

ITERATOR_LIFE: Final = timedelta(minutes=15)
KINDS: Final = ("TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP")

PAGE_LOOK_BYTES_MAX: Final = 16 << 20
"""How much log one page looks through: a shard with few records must not make a page take for ever."""

_NO_DELAY: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Page:
    """What `get_records` returns.

    `next_iterator` None: the shard is closed and drained; its children are in `child_shard_ids`. `behind` is the time
    between the last record looked at and the newest of the stream; zero at the end, and only there.
    """

    records: list[Record]
    next_iterator: str | None
    behind: timedelta
    child_shard_ids: tuple[str, ...]


def new_iterator(stream: OpenStream, shard_id: str, kind: str, sequence: int | None, timestamp: datetime | None) -> str:
    """A token at the position that `kind` asks for. Raises ShardNotFound, TrimmedData, InvalidArgument."""
    shard = stream.state().shard(shard_id)
    _check_arguments(kind, sequence, timestamp)
    tail = stream.tail()
    if kind == "TRIM_HORIZON":
        position = TRIM_HORIZON_SEQUENCE
    elif kind == "LATEST":
        position = tail.next_sequence
    elif timestamp is not None:
        position = stream.sequence_at(timestamp)
    else:
        assert sequence is not None
        end = shard.end_sequence if shard.end_sequence is not None else tail.next_sequence
        if not shard.first_sequence <= sequence <= end:
            raise InvalidArgument(
                f"sequence: expected a number of shard {shard_id}, {shard.first_sequence} to {end}, found {sequence}"
            )
        if sequence < tail.trim_horizon:
            raise TrimmedData(f"sequence number {sequence} lies before the trim horizon {tail.trim_horizon}")
        position = sequence + (kind == "AFTER_SEQUENCE_NUMBER")
    return _token(stream, shard, position)


def _check_arguments(kind: str, sequence: int | None, timestamp: datetime | None) -> None:
    if kind not in KINDS:
        raise InvalidArgument(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    wants_sequence = kind.endswith("SEQUENCE_NUMBER")
    if wants_sequence is (sequence is None) or (sequence is not None and type(sequence) is not int):
        raise InvalidArgument(
            f"sequence: {kind} {'needs' if wants_sequence else 'takes no'} number, found {sequence!r}"
        )
    wants_timestamp = kind == "AT_TIMESTAMP"
    if wants_timestamp is (timestamp is None):
        raise InvalidArgument(
            f"timestamp: {kind} {'needs' if wants_timestamp else 'takes no'} time, found {timestamp!r}"
        )
    if timestamp is not None and (not isinstance(timestamp, datetime) or timestamp.tzinfo is None):
        raise InvalidArgument(f"timestamp: expected an aware datetime, found {timestamp!r}")


def _token(stream: OpenStream, shard: Shard, sequence: int) -> str:
    return encode_token(Token(stream.stream_uuid, shard.number, sequence, stream.clock.wall_us()))


def get_page(stream: OpenStream, iterator: str, limit: int) -> Page:
    """The records at an iterator. Raises IteratorExpired, TrimmedData, CorruptLog, InvalidArgument."""
    if type(limit) is not int or not 1 <= limit <= RECORDS_PER_PAGE_MAX:
        raise InvalidArgument(f"limit: expected 1 to {RECORDS_PER_PAGE_MAX}, found {limit!r}")
    shard, sequence = _position_of(stream, iterator)
    tail = stream.tail()
    end = tail.next_sequence if shard.end_sequence is None else min(shard.end_sequence, tail.next_sequence)
    records: list[Record] = []
    position: int | None = None
    room = PAGE_BYTES_MAX
    reader = stream.reader(max(sequence, shard.first_sequence), (shard.number,))
    for batch in reader.batches(tail, end, PAGE_LOOK_BYTES_MAX):
        if isinstance(batch, SegmentDamage):
            if not records:
                raise batch.error()
            position = batch.damage.first
            break
        taken, position, room = _take(batch, sequence, end, limit - len(records), room, is_first=not records)
        records += taken
        if position < min(batch.next_sequence, end) or len(records) >= limit or room <= 0:
            break
        position = None
    if position is None:
        position = min(end, max(reader.cursor.next_sequence, sequence))
        seen_us = reader.cursor.seen_us or tail.timestamp_us
    else:
        seen_us = records[-1].timestamp_us
    is_drained = shard.end_sequence is not None and position >= shard.end_sequence
    return Page(
        records,
        None if is_drained else _token(stream, shard, max(position, sequence)),
        _NO_DELAY if position >= end else max(MICROSECOND, timedelta(microseconds=tail.timestamp_us - seen_us)),
        _children(stream, shard) if is_drained else (),
    )


def _position_of(stream: OpenStream, iterator: str) -> tuple[Shard, int]:
    token = decode_token(iterator)
    state = stream.state()
    if token.stream_uuid != stream.stream_uuid:
        raise InvalidArgument(f"iterator: expected one of stream {state.name} {state.label}, found another stream's")
    shard = state.by_number.get(token.shard)
    if shard is None:
        raise TrimmedData(f"iterator: all records of its shard, number {token.shard}, have expired")
    age = timedelta(microseconds=stream.clock.wall_us() - token.issued_us)
    if age > ITERATOR_LIFE:
        raise IteratorExpired(f"iterator: expected one of at most {ITERATOR_LIFE}, found one that is {age} old")
    horizon = stream.tail().trim_horizon
    if token.sequence == TRIM_HORIZON_SEQUENCE:
        return shard, horizon
    if token.sequence < horizon and shard.first_sequence < horizon:
        raise TrimmedData(f"iterator: its position {token.sequence} lies before the trim horizon {horizon}")
    return shard, token.sequence


def _take(
    batch: StoredBatch, sequence: int, end: int, limit: int, room: int, is_first: bool
) -> tuple[list[Record], int, int]:
    """The records of a batch that fit, the number to go on at, and the bytes left."""
    is_inside = sequence <= batch.first_sequence and batch.next_sequence <= end
    if is_inside and batch.count <= limit and len(batch.body) <= room:
        return batch.decoded_records(), batch.next_sequence, room - len(batch.body)
    records = batch.records(sequence, end)
    for index, record in enumerate(records):
        room -= record.encoded_bytes
        if index == limit or (room < 0 and not (is_first and index == 0)):
            return records[:index], record.sequence, room
    return records, min(batch.next_sequence, end), room


def _children(stream: OpenStream, shard: Shard) -> tuple[str, ...]:
    return tuple(sorted(child.shard_id for child in children_of(stream.state(), shard)))

"""Records, and the batch body that holds them.

A body is a MessagePack array with one array per record:

| index | field | type |
|-------|-------|------|
| 0 | event | 1 INSERT, 2 MODIFY, 3 REMOVE |
| 1 | keys | map |
| 2 | new image | map; nil where there is none or the view type does not carry it |
| 3 | old image | likewise |
| 4 | optional fields | map; left out where there are none. `identity`: str, the service that made the change |

What all records of a batch share (shard, time, first sequence number) is in the commit header and directory; a
`BatchContext` carries it to the records. Images stay encoded until they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import repeat
from typing import Annotated, Any, Final, cast

import msgpack
import msgspec

from shardlog.clock import datetime_of
from shardlog.errors import CorruptLog, InvalidArgument
from shardlog.format import values
from shardlog.model import EVENT_CODES, EVENT_NAMES, IDENTITY, INSERT, REMOVE, Event, Image
from shardlog.options import APPEND_BYTES_MAX, RECORD_BYTES_MAX

Row = list[Any]
ROW_FIELDS = ("event", "keys", "new", "old", "optional")


class BatchContext(msgspec.Struct, frozen=True, gc=False):
    """What the records of one batch share. `event_prefix` makes their event ids unique over all streams."""

    shard_id: str
    timestamp_us: int
    event_prefix: str


class Record:
    """One change record as it was appended."""

    __slots__ = ()

    sequence: int
    """The record's sequence number within the stream."""
    _context: BatchContext

    @property
    def event(self) -> Event:
        """INSERT, MODIFY or REMOVE."""
        raise NotImplementedError

    @property
    def keys(self) -> Image:
        """The item's key attributes."""
        raise NotImplementedError

    @property
    def new_image(self) -> Image | None:
        """The item after the change; None for a REMOVE, or where the view type does not carry it."""
        raise NotImplementedError

    @property
    def old_image(self) -> Image | None:
        """The item before the change; None for an INSERT, or where the view type does not carry it."""
        raise NotImplementedError

    @property
    def optional_fields(self) -> dict[str, Any]:
        """The optional fields of its row."""
        raise NotImplementedError

    @property
    def identity(self) -> str | None:
        """The service that made the change (a time-to-live sweep, say); None: the application."""
        return self.optional_fields.get(IDENTITY)

    @property
    def row(self) -> Row:
        """What was encoded: event code, keys, images, and the optional fields where there are any."""
        optional = self.optional_fields
        row = [EVENT_CODES[self.event], self.keys, self.new_image, self.old_image]
        return [*row, optional] if optional else row

    @property
    def encoded_bytes(self) -> int:
        """Bytes that its row takes in the log; 0 once it is decoded."""
        return 0

    @property
    def is_decoded(self) -> bool:
        """Whether its images were decoded already."""
        return True

    @property
    def shard_id(self) -> str:
        """The shard that holds the record."""
        return self._context.shard_id

    @property
    def created_at(self) -> datetime:
        """When it was appended, in UTC."""
        return datetime_of(self._context.timestamp_us)

    @property
    def timestamp_us(self) -> int:
        """When it was appended, in microseconds since 1970."""
        return self._context.timestamp_us

    @property
    def event_id(self) -> str:
        """Unique over all streams: 32 hexadecimal digits."""
        return f"{self._context.event_prefix}{self.sequence:016x}"

    @property
    def size_bytes(self) -> int:
        """Size as DynamoDB Streams counts it: names and values of keys and images (Developer Guide, item sizes)."""
        return sum(_image_size(image) for image in (self.keys, self.new_image, self.old_image) if image)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (self.sequence, self.event, self.keys, self.new_image, self.old_image, self.event_id) == (
            other.sequence,
            other.event,
            other.keys,
            other.new_image,
            other.old_image,
            other.event_id,
        )

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        return (
            f"Record({self.sequence}, {self.event!r}, keys={self.keys!r}, "
            f"new_image={self.new_image!r}, old_image={self.old_image!r}, shard_id={self.shard_id!r})"
        )


# Structs are made in C. The garbage collector need not track them: what they refer to does not refer back.
class _DecodedRecord(Record, msgspec.Struct, array_like=True, gc=False, eq=False):
    """A row as it is decoded, and behind the fields that a row may have what its batch knows."""

    code: Annotated[int, msgspec.Meta(ge=INSERT, le=REMOVE)]
    keys: Image
    new_image: Image | None
    old_image: Image | None
    optional: msgspec.Raw = msgspec.Raw()
    sequence: int = 0
    _context: BatchContext = cast("BatchContext", None)

    @property
    def event(self) -> Event:
        return EVENT_NAMES[self.code]

    @property
    def optional_fields(self) -> dict[str, Any]:
        if not len(memoryview(self.optional)):
            return {}
        try:
            return _decode_optional(self.optional)
        except ValueError as error:
            raise CorruptLog(f"the optional fields of record {self.sequence} do not decode: {error}") from error


_set_sequence = _DecodedRecord.__dict__["sequence"].__set__
_set_context = _DecodedRecord.__dict__["_context"].__set__


class _EncodedRecord(Record, msgspec.Struct, gc=False, eq=False):
    """A row that is decoded when an image is first asked for: until then it knows the batch that it lies in."""

    _source: StoredBatch | _DecodedRecord
    sequence: int

    @property
    def _context(self) -> BatchContext:  # type: ignore[override]  # of the batch, or of the record that it became
        source = self._source
        return source._context if type(source) is _DecodedRecord else source.context  # type: ignore[union-attr]

    @property
    def event(self) -> Event:
        source = self._source
        if type(source) is StoredBatch:
            content = memoryview(source.row(self.sequence))
            # The byte after the head of the row's array.
            event = EVENT_NAMES.get(content[1]) if len(content) > 1 else None
            if event is not None:
                return event
        return self._decoded().event

    @property
    def keys(self) -> Image:
        source = self._source
        return source.keys if type(source) is _DecodedRecord else self._decoded().keys

    @property
    def new_image(self) -> Image | None:
        source = self._source
        return source.new_image if type(source) is _DecodedRecord else self._decoded().new_image

    @property
    def old_image(self) -> Image | None:
        source = self._source
        return source.old_image if type(source) is _DecodedRecord else self._decoded().old_image

    @property
    def optional_fields(self) -> dict[str, Any]:
        return self._decoded().optional_fields

    @property
    def encoded_bytes(self) -> int:
        source = self._source
        return len(memoryview(source.row(self.sequence))) if type(source) is StoredBatch else 0

    @property
    def is_decoded(self) -> bool:
        return type(self._source) is _DecodedRecord

    def _decoded(self) -> _DecodedRecord:
        source = self._source
        if type(source) is StoredBatch:
            try:
                row = _decode_row(source.row(self.sequence))
            except ValueError as error:
                raise CorruptLog(
                    f"record {self.sequence} does not decode: {error}", sequences=(self.sequence, self.sequence + 1)
                ) from error
            row.sequence, row._context = self.sequence, source.context
            source = self._source = row
        assert type(source) is _DecodedRecord
        return source


_decode_row = msgspec.msgpack.Decoder(_DecodedRecord, ext_hook=values.decode_extension).decode
_decode_rows = msgspec.msgpack.Decoder(list[_DecodedRecord], ext_hook=values.decode_extension).decode
_decode_optional = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=values.decode_extension).decode
_split_rows = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


_LENGTH_BYTES: Final = {0xDC: 2, 0xDD: 4}
"""Of the heads of longer arrays."""

FIRST_PART_RECORDS: Final = 32
"""How many records of a batch are made at once for who may want one only."""


def _array_head(length: int) -> bytes:
    return b"\xdd" + length.to_bytes(4, "big")


def _count_of(body: bytes) -> int:
    """How many elements the array has that a body is; -1: it is none (MessagePack, array format family)."""
    head = body[0] if body else 0
    if head & 0xF0 == 0x90:
        return head & 0x0F
    length_bytes = _LENGTH_BYTES.get(head)
    return -1 if length_bytes is None else int.from_bytes(body[1 : 1 + length_bytes], "big")


class StoredBatch(msgspec.Struct, gc=False):
    """A verified body of `count` records that start at `first_sequence`, not decoded yet."""

    body: bytes
    count: int
    first_sequence: int
    context: BatchContext
    _rows: list[msgspec.Raw] | None = None
    """The body, split, once a row was asked for."""

    @property
    def next_sequence(self) -> int:
        """The sequence number after its last record."""
        return self.first_sequence + self.count

    def row(self, sequence: int) -> msgspec.Raw:
        """One record's row, undecoded. Raises CorruptLog where the body cannot be split."""
        rows = self._rows
        if rows is None:
            rows = self._rows = self._decoded(_split_rows)
        return rows[sequence - self.first_sequence]

    def records(self, first: int, end: int) -> list[Record]:
        """The records with numbers in `[first, end)`, undecoded. Raises CorruptLog where it does not hold so many."""
        count = _count_of(self.body)
        if count != self.count:
            raise self._corrupt(f"expected a batch of {self.count} records, found {'no list' if count < 0 else count}")
        numbers = range(max(first, self.first_sequence), min(end, self.next_sequence))
        return list(map(_EncodedRecord, repeat(self), numbers))

    def records_in_parts(self, first: int, end: int) -> Iterator[list[Record]]:
        """The same, a short list first: who looks for one record need not wait until a thousand are made."""
        first, end = max(first, self.first_sequence), min(end, self.next_sequence)
        middle = first + FIRST_PART_RECORDS
        places = self._places_of(first, middle) if end - first > 2 * FIRST_PART_RECORDS else None
        if places is None:
            yield self.records(first, end)
            return
        yield self._part(self.body[places[0] : places[1]], first, middle)
        yield self._part(self.body[places[1] :], middle, self.next_sequence)[: end - middle]

    def _places_of(self, first: int, middle: int) -> tuple[int, int] | None:
        """Where two rows start in the body; None where it does not hold what it should, which `records` will tell."""
        unpacker = msgpack.Unpacker(max_buffer_size=len(self.body))
        unpacker.feed(self.body)
        try:
            if unpacker.read_array_header() != self.count:
                return None
            for _ in range(first - self.first_sequence):
                unpacker.skip()
            start = unpacker.tell()
            for _ in range(middle - first):
                unpacker.skip()
        except (ValueError, msgpack.OutOfData, msgpack.UnpackException):
            return None
        return start, unpacker.tell()

    def _part(self, rows: bytes, first: int, end: int) -> list[Record]:
        part = StoredBatch(_array_head(end - first) + rows, end - first, first, self.context)
        return part.records(first, end)

    def decoded_records(self) -> list[Record]:
        """All records, all images decoded: the fastest way if every image will be looked at. Raises CorruptLog."""
        records = self._decoded(_decode_rows)
        if self.count == 1:
            records[0].sequence, records[0]._context = self.first_sequence, self.context
            return records
        deque(map(_set_sequence, records, range(self.first_sequence, self.next_sequence)), maxlen=0)
        deque(map(_set_context, records, repeat(self.context)), maxlen=0)
        return records

    def _decoded(self, decode: Callable[[bytes], list[Any]]) -> list[Any]:
        try:
            rows = decode(self.body)
        except ValueError as error:
            raise self._corrupt(f"a batch does not decode: {error}") from error
        if len(rows) != self.count:
            raise self._corrupt(f"expected a batch of {self.count} records, found {len(rows)}")
        return rows

    def _corrupt(self, message: str) -> CorruptLog:
        return CorruptLog(message, sequences=(self.first_sequence, self.next_sequence))


def encode_batch(rows: list[Row], positions: Sequence[int], levels_max: int = values.LEVELS_MAX) -> bytes:
    """The body of some rows. `positions` are their indexes within the append, for errors.

    `levels_max`: how deep their images may be nested.

    Raises InvalidArgument that names the record and the field.
    """
    try:
        body = values.encode(rows)
        exact = values.are_kept(rows, levels_max)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        _check_rows(rows, positions, levels_max)
        raise InvalidArgument(f"records cannot be encoded: {error}") from error
    if not exact:
        _check_rows(rows, positions, levels_max)
    if len(body) > RECORD_BYTES_MAX:
        _check_sizes(rows, positions)
    return body


def _check_rows(rows: Sequence[Row], positions: Sequence[int], levels_max: int) -> None:
    for row, position in zip(rows, positions, strict=True):
        for image, name in zip(row[1:], ROW_FIELDS[1:], strict=False):  # optional fields are mostly left out
            if image is not None:
                values.check_image(image, name, position, levels_max)


def _check_sizes(rows: Sequence[Row], positions: Sequence[int]) -> None:
    total = 0
    for row, position in zip(rows, positions, strict=True):
        size = len(values.encode(row))
        if size > RECORD_BYTES_MAX:
            sizes = {name: len(values.encode(image)) for name, image in zip(ROW_FIELDS[1:], row[1:], strict=False)}
            field = max(sizes, key=sizes.__getitem__)
            raise InvalidArgument(
                f"record {position}, field {field}: expected a record of at most {RECORD_BYTES_MAX} bytes, "
                f"found {size} (of them {sizes[field]} in {field})",
                position=position,
                field=field,
            )
        total += size
        if total > APPEND_BYTES_MAX:
            raise InvalidArgument(
                f"record {position}: expected an append of at most {APPEND_BYTES_MAX} bytes, found {total} up to here",
                position=position,
            )


def _image_size(image: Image) -> int:
    return sum(len(name.encode()) + _value_size(value) for name, value in image.items())


def _value_size(value: object) -> int:
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, int | float | Decimal):
        mantissa = str(value).upper().partition("E")[0]
        digits = mantissa.lstrip("-").replace(".", "").strip("0")
        return (len(digits) + 1) // 2 + 1
    if isinstance(value, datetime):
        return len(value.isoformat())
    if isinstance(value, dict):
        return 3 + len(value) + _image_size(value)
    if isinstance(value, list):
        return 3 + sum(1 + _value_size(element) for element in value)
    return sum(_value_size(element) for element in cast("set[object]", value))

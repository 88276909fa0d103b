"""Records, and the batch body that holds them.

A body is a MessagePack array with one array per record:

| index | field | type |
|-------|-------|------|
| 0 | event | 1 INSERT, 2 MODIFY, 3 REMOVE |
| 1 | keys | map |
| 2 | new image | map; nil where there is none or the view type does not carry it |
| 3 | old image | likewise |
| 4 | optional fields | map; not written by version 1 |

What all records of a batch share (shard, time, first sequence number) is in the commit header and directory; a
`BatchContext` carries it to the records. Images stay encoded until they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Annotated, Any, cast

import msgspec

from shardlog.clock import datetime_of
from shardlog.errors import InvalidArgument
from shardlog.format import values
from shardlog.model import EVENT_NAMES, INSERT, REMOVE, Event, Image
from shardlog.options import APPEND_BYTES_MAX, RECORD_BYTES_MAX

Row = list[Any]
ROW_FIELDS = ("event", "keys", "new", "old")


class BatchContext:
    """What the records of one batch share. `event_prefix` makes their event ids unique over all streams."""

    __slots__ = ("body_bytes", "event_prefix", "shard_id", "timestamp_us")

    def __init__(self, shard_id: str, timestamp_us: int, event_prefix: str, body_bytes: int) -> None:
        self.body_bytes = body_bytes
        self.shard_id = shard_id
        self.timestamp_us = timestamp_us
        self.event_prefix = event_prefix


# msgspec decodes it straight from a body: the first five fields are the row, the last two are set by `decode_batch`.
# An image's field holds msgspec.Raw until the image is asked for, then the dict. The garbage collector need not track
# records: they refer to nothing that refers back.
class Record(msgspec.Struct, array_like=True, gc=False, eq=False):
    """One change record as it was appended; images are decoded on first access."""

    _code: Annotated[int, msgspec.Meta(ge=INSERT, le=REMOVE)]
    _keys: msgspec.Raw
    _new: msgspec.Raw
    _old: msgspec.Raw
    _optional: msgspec.Raw = msgspec.Raw()  # in a union it would take nil only
    sequence: int = 0
    """The record's sequence number within the stream."""
    _context: Any = None

    @property
    def event(self) -> Event:
        """INSERT, MODIFY or REMOVE."""
        return EVENT_NAMES[self._code]

    @property
    def keys(self) -> Image:
        """The item's key attributes."""
        if type(self._keys) is msgspec.Raw:
            self._keys = values.decode_image(self._keys)
        return cast(Image, self._keys)

    @property
    def new_image(self) -> Image | None:
        """The item after the change; None for a REMOVE, or where the view type does not carry it."""
        if type(self._new) is msgspec.Raw:
            self._new = values.decode_image(self._new)
        return cast("Image | None", self._new)

    @property
    def old_image(self) -> Image | None:
        """The item before the change; None for an INSERT, or where the view type does not carry it."""
        if type(self._old) is msgspec.Raw:
            self._old = values.decode_image(self._old)
        return cast("Image | None", self._old)

    @property
    def shard_id(self) -> str:
        """The shard that holds the record."""
        return cast(str, self._context.shard_id)

    @property
    def created_at(self) -> datetime:
        """When it was appended, in UTC."""
        return datetime_of(self.timestamp_us)

    @property
    def event_id(self) -> str:
        """Unique over all streams: 32 hexadecimal digits."""
        return f"{self._context.event_prefix}{self.sequence:016x}"

    @property
    def size_bytes(self) -> int:
        """Size as DynamoDB Streams counts it: names and values of keys and images (Developer Guide, item sizes)."""
        return sum(_image_size(image) for image in (self.keys, self.new_image, self.old_image) if image)

    @property
    def timestamp_us(self) -> int:
        """When it was appended, in microseconds since 1970."""
        return cast(int, self._context.timestamp_us)

    @property
    def batch_bytes(self) -> int:
        """Encoded size of the batch that it is part of."""
        return cast(int, self._context.body_bytes)

    def encoded_bytes(self) -> int:
        """Bytes of its images as stored; only before they are decoded."""
        return sum(len(memoryview(raw)) for raw in (self._keys, self._new, self._old))

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


_decode_rows = msgspec.msgpack.Decoder(list[Record]).decode


def decode_batch(body: bytes, count: int, first_sequence: int, context: BatchContext) -> list[Record]:
    """The records of a body. Raises ValueError where it is not `count` records of format version 1."""
    records = _decode_rows(body)
    if len(records) != count:
        raise ValueError(f"expected {count} records, found {len(records)}")
    sequence = first_sequence
    for record in records:
        record.sequence = sequence
        record._context = context
        sequence += 1
    return records


def encode_batch(rows: list[Row], positions: Sequence[int]) -> bytes:
    """The body of some rows. `positions` are their indexes within the append, for errors.

    Raises InvalidArgument that names the record and the field.
    """
    try:
        body = values.encode(rows)
        exact = _is_plainly_exact(body, len(rows)) or _is_flat(rows)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        _check_rows(rows, positions)
        raise InvalidArgument(f"records cannot be encoded: {error}") from error
    if not exact:
        _check_rows(rows, positions)
    if len(body) > RECORD_BYTES_MAX:
        _check_sizes(rows, positions)
    return body


def _is_plainly_exact(body: bytes, count: int) -> bool:
    # Each row has a telling byte for itself and for each of its three images. If there is none beyond those,
    # nothing is nested and nothing of another type was taken: one pass in C instead of a look at every value.
    header_bytes = 1 if count < 16 else 3 if count < 65536 else 5
    return values.telling_bytes(body) == count * len(ROW_FIELDS) + values.telling_bytes(body[:header_bytes])


def _is_flat(rows: list[Row]) -> bool:
    images = [image for row in rows for image in row[1:] if image is not None]
    return values.are_flat(chain.from_iterable(map(dict.values, images)))


def _check_rows(rows: Sequence[Row], positions: Sequence[int]) -> None:
    for row, position in zip(rows, positions, strict=True):
        for image, name in zip(row[1:], ROW_FIELDS[1:], strict=True):
            if image is not None:
                values.check_image(image, name, position)


def _check_sizes(rows: Sequence[Row], positions: Sequence[int]) -> None:
    total = 0
    for row, position in zip(rows, positions, strict=True):
        size = len(values.encode(row))
        if size > RECORD_BYTES_MAX:
            sizes = {name: len(values.encode(image)) for name, image in zip(ROW_FIELDS[1:], row[1:], strict=True)}
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

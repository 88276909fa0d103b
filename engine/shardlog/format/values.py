"""The values that a record may hold, as MessagePack.

A value is None, bool, int (-2^63 to 2^64-1), float, str, bytes, list, dict with string keys, `Decimal`, set (of scalar
values), or datetime, nested to 32 levels within an image; each comes back equal and of the same type. MessagePack's own
types carry the first eight, extension types the others:

| ext | value | body |
|-----|-------|------|
| 1 | Decimal | its text, ASCII |
| 2 | set | a MessagePack array of its elements, sorted by their encoding |
| 3 | aware datetime | int64 little-endian: microseconds since 1970-01-01 UTC |
| 4 | naive datetime | int64 little-endian: microseconds since 1970-01-01 of the same calendar |

The encoder refuses most other types by itself. What it would take silently although it does not come back as it was
(bytearray, memoryview, its own Ext), and nesting deeper than 32, is found by looking at the types of the values: one
pass in C settles the usual flat images, and only those with something nested or odd are walked in Python (`are_kept`).
`check_value` is the definition of the rules, and finds the place; the other is a short cut to it.
"""

from __future__ import annotations

import gc
import struct
from datetime import UTC, datetime, timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from typing import Any, Final

import msgspec
import ormsgpack

from shardlog.clock import EPOCH, MICROSECOND
from shardlog.errors import InvalidArgument

DECIMAL: Final = 1
SET: Final = 2
AWARE_DATETIME: Final = 3
NAIVE_DATETIME: Final = 4

LEVELS_MAX: Final = 32
TYPED_LEVELS_MAX: Final = 2 * LEVELS_MAX + 1
"""Of DynamoDB-typed values: each level of theirs is two, and a map around each scalar."""
INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**64 - 1

_SCALARS = frozenset({type(None), bool, int, float, str, bytes, Decimal, datetime})
_NAIVE_EPOCH = datetime(1970, 1, 1)  # naive on purpose
_INT64 = struct.Struct("<q")
# The current context belongs to the caller's thread, and may round.
_EXACT = Context(prec=MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX, capitals=1, traps=[])
_PASSTHROUGH = (
    ormsgpack.OPT_PASSTHROUGH_TUPLE
    | ormsgpack.OPT_PASSTHROUGH_SUBCLASS
    | ormsgpack.OPT_PASSTHROUGH_DATACLASS
    | ormsgpack.OPT_PASSTHROUGH_ENUM
    | ormsgpack.OPT_PASSTHROUGH_UUID
    | ormsgpack.OPT_PASSTHROUGH_DATETIME
)


def encode(value: object) -> bytes:
    """The encoding of a value. Raises TypeError or OverflowError for most, not all, values that break the rules."""
    return ormsgpack.packb(value, default=_extension, option=_PASSTHROUGH)


def encode_for_routing(value: object) -> bytes:
    """An encoding that is the same for keys that are equal and of the same types.

    Maps are sorted; an int and a Decimal of the same number are the same key, as in DynamoDB. A float or a bool that
    equals an int is another key.
    """
    return ormsgpack.packb(value, default=_routing_extension, option=_PASSTHROUGH | ormsgpack.OPT_SORT_KEYS)


def _extension(value: object) -> Any:
    if type(value) is Decimal:
        return ormsgpack.Ext(DECIMAL, str(value).encode())
    if type(value) is set:
        return ormsgpack.Ext(SET, _encode_set(value))
    if type(value) is datetime:
        if value.utcoffset() is None:
            return ormsgpack.Ext(NAIVE_DATETIME, _INT64.pack((value - _NAIVE_EPOCH) // MICROSECOND))
        return ormsgpack.Ext(AWARE_DATETIME, _INT64.pack((value.astimezone(UTC) - EPOCH) // MICROSECOND))
    raise TypeError(f"a {type(value).__name__} is not a value")


def _routing_extension(value: object) -> Any:
    if type(value) is Decimal and value.is_finite():
        if value == value.to_integral_value() and INTEGER_MIN <= value <= INTEGER_MAX:
            return int(value)
        return ormsgpack.Ext(DECIMAL, _EXACT.to_sci_string(value.normalize(_EXACT)).encode())
    return _extension(value)


def _encode_set(elements: set[Any]) -> bytes:
    for element in elements:
        if type(element) not in _SCALARS:
            raise TypeError(f"a {type(element).__name__} is not a scalar")
    encoded = sorted(map(encode, elements))
    # An array whose header counts `encoded`: the header of as many nils, without the nils.
    header = ormsgpack.packb([None] * len(encoded))[: -len(encoded) or None]
    return header + b"".join(encoded)


def decode_extension(code: int, content: memoryview) -> Any:
    """The value of an extension type: the hook of msgspec's decoders. Raises ValueError."""
    if code == DECIMAL:
        return Decimal(bytes(content).decode("ascii"))
    if code == SET:
        return set(_decode_list(content))
    if code in (AWARE_DATETIME, NAIVE_DATETIME):
        (microseconds,) = _INT64.unpack(content)
        return (EPOCH if code == AWARE_DATETIME else _NAIVE_EPOCH) + timedelta(microseconds=microseconds)
    raise ValueError(f"extension type {code} is not one of format version 1")


_decode_list = msgspec.msgpack.Decoder(list[Any], ext_hook=decode_extension).decode


def are_kept(rows: list[list[Any]], levels_max: int = LEVELS_MAX) -> bool:
    """Whether the images in rows that the encoder took come back as they are: all their values are of the types above.

    For images that the encoder refused the answer means nothing.
    """
    # What CPython's collector sees in a dict is its values (and keys, if not all were always strings): so this is a
    # flat list of all values in two calls. Most images are flat, and the types of their values settle it.
    values = gc.get_referents(*gc.get_referents(*rows))
    if _SCALARS.issuperset(map(type, values)):
        return True
    return all(_is_kept(image, levels_max + 1) for row in rows for image in row if type(image) is dict)


def _is_kept(value: Any, levels: int) -> bool:
    """Whether a value comes back as it is, and has so many levels at most."""
    kind = type(value)
    if kind is dict or kind is list:
        if levels <= 0:
            return False
        for element in value.values() if kind is dict else value:
            if type(element) not in _SCALARS and not _is_kept(element, levels - 1):
                return False
        return True
    if kind is set:
        return levels > 0 and _SCALARS.issuperset(map(type, value))
    return kind in _SCALARS


def check_value(value: Any, field: str, position: int, levels: int = LEVELS_MAX) -> None:
    """Raise InvalidArgument, naming the record's position and the field, unless the value is one that is kept exactly.

    `levels`: how many levels of containers it may have.
    """
    kind = type(value)
    if kind is int:
        if not INTEGER_MIN <= value <= INTEGER_MAX:
            raise _refused(position, field, f"an integer of -2^63 to 2^64-1, found one of {value.bit_length()} bits")
    elif kind is str or kind is datetime:
        try:
            encode(value)
        except (TypeError, OverflowError, ValueError):
            expected = "text without lone surrogates" if kind is str else "a time that UTC can tell"
            raise _refused(position, field, f"{expected}, found {value!r:.60}") from None
    elif kind in _SCALARS:
        pass
    elif kind in (list, dict, set) and levels <= 0:
        raise _refused(position, field, f"at most {LEVELS_MAX} levels of nesting, found more")
    elif kind is list:
        for index, element in enumerate(value):
            check_value(element, f"{field}[{index}]", position, levels - 1)
    elif kind is dict:
        for key, element in value.items():
            if type(key) is not str:
                raise _refused(position, field, f"string keys, found the {type(key).__name__} {key!r:.60}")
            check_value(key, f"{field}: key", position)
            check_value(element, f"{field}.{key}", position, levels - 1)
    elif kind is set:
        for element in value:
            if type(element) not in _SCALARS:
                raise _refused(position, field, f"a set of scalar values, found a {type(element).__name__} in it")
            check_value(element, f"{field}{{}}", position)
    else:
        raise _refused(
            position,
            field,
            "None, bool, int, float, str, bytes, list, dict, Decimal, set or datetime (no subclass), "
            f"found a {kind.__name__}",
        )


def check_image(image: object, name: str, position: int, levels_max: int = LEVELS_MAX) -> None:
    """`check_value` for a whole image: a dict of values, its own level not counted."""
    if type(image) is not dict:
        raise _refused(position, name, f"a dict, found {'None' if image is None else f'a {type(image).__name__}'}")
    check_value(image, name, position, levels_max + 1)


def _refused(position: int, field: str, expectation: str) -> InvalidArgument:
    return InvalidArgument(f"record {position}, field {field}: expected {expectation}", position=position, field=field)

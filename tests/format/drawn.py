"""Hypothesis strategies for values, and what "equal and of the same type" means."""

from __future__ import annotations

import dataclasses
import enum
import struct
import uuid
from collections import OrderedDict, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import ormsgpack
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# No deadline: a machine that runs several jobs at once must not fail a test. The blob replays a failure.
thorough = settings(max_examples=60, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**64 - 1


def identity(value: object) -> object:
    """A value whose equality is "equal and of the same type", NaN and -0.0 told apart; times by their instant."""
    kind = type(value).__name__
    match value:
        case bool() | None | int() | str() | bytes():
            return kind, value
        case float():
            return kind, struct.pack("<d", value)
        case Decimal():
            return kind, str(value)
        case datetime() if value.utcoffset() is None:
            return "naive datetime", value.replace(fold=0, tzinfo=None)
        case datetime():
            return "aware datetime", value.astimezone(UTC)
        case set():
            return kind, frozenset(map(identity, value))
        case list():
            return kind, tuple(map(identity, value))
        case dict():
            return kind, tuple((key, identity(element)) for key, element in value.items())
    raise AssertionError(f"no value of a record: {value!r}")


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
offsets = st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23)).map(timezone)
# A year from either end, so that UTC can tell them in every offset; the ends themselves have tests of their own.
aware_datetimes = st.datetimes(
    min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=st.one_of(st.just(UTC), offsets)
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=INTEGER_MIN, max_value=INTEGER_MAX),
    st.sampled_from([INTEGER_MIN, INTEGER_MAX, 2**63, -33, -32, 127, 128, 0x80, 0xC0, 0xDC]),
    st.floats(allow_nan=True),
    text,
    st.binary(max_size=20),
    st.decimals(),
    st.datetimes(),
    aware_datetimes,
)
set_elements = scalars.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))  # has no hash
values = st.recursive(
    st.one_of(scalars, st.sets(set_elements, max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=6,
)
images = st.dictionaries(text, values, max_size=3)
flat_images = st.dictionaries(text, scalars, max_size=6)


class Text(str):
    """A str that is none."""


class Integer(int):
    """An int that is none."""


class Real(float):
    """A float that is none."""


class Bytes(bytes):
    """A bytes that is none."""


class Map(dict[str, Any]):
    """A dict that is none."""


class Sequence(list[Any]):
    """A list that is none."""


class Collection(set[Any]):
    """A set that is none."""


class Exact(Decimal):
    """A Decimal that is none."""


class Moment(datetime):
    """A datetime that is none."""


class Colour(enum.Enum):
    """Its values would do by themselves."""

    RED = 1


class Level(enum.IntEnum):
    """An int as well."""

    LOW = 1


class Word(enum.StrEnum):
    """A str as well."""

    YES = "yes"


@dataclasses.dataclass
class Point:
    """Encoders like to take it for a map."""

    x: int = 1


class Struct(msgspec.Struct):
    """The decoder's own."""

    x: int = 1


Pair = namedtuple("Pair", "x y")

# What is no value, whatever an encoder may think of it, with the type's name or the words that an error has for it.
REFUSED: list[tuple[object, str]] = [
    ((1, 2), "tuple"),
    (Pair(1, 2), "Pair"),
    (frozenset({1}), "frozenset"),
    (bytearray(b"x"), "bytearray"),
    (memoryview(b"x"), "memoryview"),
    (Text("x"), "Text"),
    (Integer(1), "Integer"),
    (Real(1.5), "Real"),
    (Bytes(b"x"), "Bytes"),
    (Map(a=1), "Map"),
    (OrderedDict(a=1), "OrderedDict"),
    (Sequence([1]), "Sequence"),
    (Collection({1}), "Collection"),
    (Exact("1.5"), "Exact"),
    (Moment(2026, 1, 1), "Moment"),
    (Colour.RED, "Colour"),
    (Level.LOW, "Level"),
    (Word.YES, "Word"),
    (Point(), "Point"),
    (Struct(), "Struct"),
    (uuid.UUID(int=1), "UUID"),
    (date(2026, 1, 1), "date"),
    (time(12), "time"),
    (timedelta(1), "timedelta"),
    (1j, "complex"),
    (range(3), "range"),
    (object(), "object"),
    (int, "type"),
    (ormsgpack.Ext(1, b"1"), "Ext"),
    (msgspec.msgpack.Ext(1, b"1"), "Ext"),
    (msgspec.Raw(b"\x01"), "Raw"),
    (2**64, "65 bits"),
    (-(2**63) - 1, "64 bits"),
    ("\ud800", "surrogates"),
    (datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))), "UTC can tell"),
    (datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), "UTC can tell"),
    ({1: 1}, "the int 1"),
    ({None: 1}, "the NoneType None"),
    ({True: 1}, "the bool True"),
    ({b"k": 1}, "the bytes b'k'"),
    ({1.5: 1}, "the float 1.5"),
    ({Text("k"): 1}, "the Text 'k'"),
    ({Word.YES: 1}, "the Word"),
    ({"\ud800": 1}, "surrogates"),
    ({(1,)}, "set of scalar values, found a tuple"),
    ({frozenset({1})}, "set of scalar values, found a frozenset"),
    ({Integer(1)}, "set of scalar values, found a Integer"),
    ({Word.YES}, "set of scalar values, found a Word"),
    ({2**64}, "65 bits"),
    ({"\ud800"}, "surrogates"),
]
refused_values = st.sampled_from([value for value, _ in REFUSED])


def nested(kind: type, levels: int) -> object:
    """So many lists, or dicts, one in the other."""
    value: object = 1
    for _ in range(levels):
        value = [value] if kind is list else {"in": value}
    return value

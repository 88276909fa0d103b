from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlog_tools import json_values

NAN = float("nan")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.sampled_from(["$", "$$", "$bytes", "$5", '"$', "\\u0024"])
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.just(UTC)).map(lambda moment: moment.replace(fold=0))
)
names = st.text() | st.sampled_from(["$", "$$", "$bytes", "$$bytes", "$set", "$float", "a"])
elements = scalars.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan()))
values = st.recursive(
    scalars | st.sets(elements),
    lambda inner: st.lists(inner) | st.dictionaries(names, inner),
    max_leaves=20,
)


def exactly(value: Any) -> Any:
    """Something that is equal only for values that are equal in type, bits and order."""
    if isinstance(value, float):
        return ("float", struct.pack(">d", value))
    if isinstance(value, Decimal):
        return ("Decimal", str(value))
    if isinstance(value, list):
        return [exactly(element) for element in value]
    if isinstance(value, set):
        return ("set", sorted((exactly(element) for element in value), key=repr))
    if isinstance(value, dict):
        return [(name, exactly(element)) for name, element in value.items()]
    return (type(value), repr(value))


@given(values)
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    """What goes out as JSON comes in again, of the same type, to the last bit, sign and digit."""
    text = json_values.to_json(value)
    assert exactly(json_values.from_json(text)) == exactly(value)


@given(values)
def test_the_text_is_one_line_of_standard_json(value: Any) -> None:
    """Any reader of JSON can read it: no NaN, no raw line break."""

    def refuse(text: str) -> None:
        raise AssertionError(text)

    text = json_values.to_json(value)
    assert len(text.splitlines()) == 1
    json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"\0\xff", '{"$bytes":"AP8="}'),
        (Decimal("1.0"), '{"$decimal":"1.0"}'),
        (Decimal("-0E+3"), '{"$decimal":"-0E+3"}'),
        ({"b", "a"}, '{"$set":["a","b"]}'),
        (set(), '{"$set":[]}'),
        ({b"\0"}, '{"$set":[{"$bytes":"AA=="}]}'),
        (datetime(2026, 1, 2, 3, 4, 5, 6, UTC), '{"$datetime":"2026-01-02T03:04:05.000006+00:00"}'),
        (datetime(2026, 1, 2), '{"$datetime":"2026-01-02T00:00:00"}'),
        (NAN, '{"$float":"NaN"}'),
        (-math.inf, '{"$float":"-Infinity"}'),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (2**64 - 1, "18446744073709551615"),
        ({"$bytes": "AP8="}, '{"$$bytes":"AP8="}'),
        ({"$$": {"$": 1}}, '{"$$$":{"$$":1}}'),
        ("$bytes", '"$bytes"'),
        ({"é": "\u2028\x85"}, '{"é":"\\u2028\\u0085"}'),
    ],
)
def test_forms(value: Any, text: str) -> None:
    """The forms are these, because others read and write them too."""
    assert json_values.to_json(value) == text
    assert exactly(json_values.from_json(text)) == exactly(value)


def test_a_nan_keeps_its_bits() -> None:
    """A NaN that a computation left with another sign or payload stays that one."""
    (value,) = struct.unpack(">d", bytes.fromhex("fff8000000000001"))
    assert json_values.to_json(value) == '{"$float":"NaN(fff8000000000001)"}'
    assert struct.pack(">d", json_values.from_json(json_values.to_json(value))).hex() == "fff8000000000001"


def test_an_escaped_dollar_is_seen() -> None:
    """A writer may escape any character; the form is the same."""
    assert json_values.from_json('{"\\u0024bytes": "AP8="}') == b"\0\xff"


def test_an_offset_is_kept_until_the_log_turns_it_to_utc() -> None:
    """Times with any offset are taken."""
    moment = json_values.from_json('{"$datetime": "2026-01-02T03:04:05+01:30"}')
    assert moment == datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1.5)))
    assert json_values.from_json('{"$datetime": "2026-01-02T03:04:05Z"}').tzinfo is not None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1', "not JSON: Expecting ',' delimiter at column 8"),
        ('{"a": 1, "a": 2}', "'a' stands twice in one object"),
        ('{"a": NaN}', 'NaN is not JSON; write {"$float": "NaN"}'),
        ("1e400", "too large for a float"),
        ("9" * 5000, "limit"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 200 + '{"$bytes":""}' + "}" * 200, "nested too deeply"),
        ('{"$bytes": "AP8"}', "$bytes: expected base64, found 'AP8'"),
        ('{"$bytes": 1}', "$bytes: expected a string, found 1"),
        ('{"$bytes": "", "a": 1}', "$bytes: expected to stand alone"),
        ('{"$decimal": "one"}', "$decimal: expected a decimal number"),
        ('{"$decimal": 1.5}', "$decimal: expected a string"),
        ('{"$set": {}}', "$set: expected an array"),
        ('{"$set": [1, 1.0]}', "$set: expected elements that differ"),
        ('{"$set": [[]]}', "$set: unhashable"),
        ('{"$set": [{"$decimal": "sNaN"}]}', "$set: Cannot hash"),
        ('{"$datetime": "2026-01-02T03:04:05.1234567Z"}', "$datetime: expected such as"),
        ('{"$datetime": "2026-13-02T03:04:05"}', "$datetime: month"),
        ('{"$float": "1.0"}', "$float: expected NaN"),
        ('{"$float": "NaN(3ff0000000000000)"}', "$float: expected NaN"),
        ('{"$float": 1}', "$float: expected NaN"),
        ('{"$x": 1}', "$x: expected one of $bytes, $decimal, $set, $datetime, $float, or '$$x' for the name itself"),
    ],
)
def test_what_would_be_guessed_is_refused(text: str, reason: str) -> None:
    """Nothing is dropped, rounded or made up: the text is refused with a reason."""
    with pytest.raises(ValueError, match=r".") as refusal:
        json_values.from_json(text)
    assert reason in str(refusal.value)

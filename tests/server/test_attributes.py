from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer
from hypothesis import given
from hypothesis import strategies as st

from shardlog.format.record import BatchContext, StoredBatch, encode_batch
from shardlog.server.attributes import canonical, image_size, number_text, typed, typed_image


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("1", "1"),
        ("1.0", "1"),
        ("0100", "100"),
        ("1.50", "1.5"),
        ("-0", "0"),
        ("0.000", "0"),
        ("1E+3", "1000"),
        ("1e-3", "0.001"),
        ("-12.340", "-12.34"),
        ("12345678901234567890123456789012345678", "12345678901234567890123456789012345678"),
        ("9.9999999999999999999999999999999999999E+125", "99999999999999999999999999999999999999" + "0" * 88),
    ],
)
def test_numbers_lose_superfluous_digits(given_text: str, expected: str) -> None:
    """As the service returns them."""
    assert number_text(given_text) == expected


def test_what_is_no_number_stays() -> None:
    """Somebody else refuses it, or not."""
    assert number_text("twelve") == "twelve"
    assert number_text("Infinity") == "Infinity"


def test_equal_items_have_one_canonical_form() -> None:
    """Maps in another order, sets in another order, numbers written otherwise, base64 and bytes."""
    one = {"n": {"N": "1.0"}, "m": {"M": {"a": {"S": "x"}, "b": {"NS": ["2", "1"]}}}, "b": {"B": b"hi"}}
    other = {"b": {"B": "aGk="}, "m": {"M": {"b": {"NS": ["1.0", "2.00"]}, "a": {"S": "x"}}}, "n": {"N": "1"}}
    assert canonical(one) == canonical(other)


def test_lists_keep_their_order() -> None:
    """[1, 2] is not [2, 1]."""
    assert canonical({"l": {"L": [{"N": "1"}, {"N": "2"}]}}) != canonical({"l": {"L": [{"N": "2"}, {"N": "1"}]}})


def test_empty_sets_are_no_attributes() -> None:
    """An update that takes the last element out of a set removes the attribute."""
    assert canonical({"id": {"S": "a"}, "tags": {"SS": []}}) == {"id": {"S": "a"}}


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ({"id": {"S": "Fred"}}, 6),
        ({"ü": {"S": "ü"}}, 4),
        ({"n": {"N": "0"}}, 2),
        ({"n": {"N": "12345"}}, 5),
        ({"n": {"N": "-1200.50"}}, 5),
        ({"b": {"B": b"\0\1\2"}}, 4),
        ({"t": {"BOOL": True}, "z": {"NULL": True}}, 4),
        ({"l": {"L": []}}, 4),
        ({"l": {"L": [{"S": "ab"}]}}, 7),
        ({"m": {"M": {"k": {"S": "v"}}}}, 7),
        ({"s": {"SS": ["ab", "c"]}}, 4),
        ({"s": {"BS": [b"ab", b"c"]}}, 4),
    ],
)
def test_sizes(image: dict[str, Any], size: int) -> None:
    """Names and values: {id: "Fred"} is 6 bytes."""
    assert image_size(image) == size


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20
)


def _plain(value: Any) -> Any:
    """As boto3 gives it."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, list):
        return [_plain(element) for element in value]
    if isinstance(value, dict):
        return {name: _plain(element) for name, element in value.items()}
    return value


@given(values)
def test_plain_values_become_what_boto3_reads_back(value: Any) -> None:
    """An image that a program appended is an item to SDKs."""
    try:
        read = TypeDeserializer().deserialize(typed(value))
    except ArithmeticError:  # boto3 refuses numbers of more than 38 digits
        return
    assert _unwrapped(read) == _plain(value)


def _unwrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_unwrapped(element) for element in value]
    if isinstance(value, dict):
        return {name: _unwrapped(element) for name, element in value.items()}
    return getattr(value, "value", value)


def test_sets_of_one_kind_are_sets() -> None:
    """Strings, numbers, bytes; anything else is a list."""
    assert typed({"b", "a"}) == {"SS": ["a", "b"]}
    assert typed({10, 9}) == {"NS": ["9", "10"]}
    assert typed({b"b", b"a"}) == {"BS": [b"a", b"b"]}
    assert typed({"a", 1}) == {"L": [{"N": "1"}, {"S": "a"}]}
    assert typed(set()) == {"L": []}


def test_what_dynamodb_lacks_becomes_text() -> None:
    """Times, and numbers that are not finite."""
    assert typed(datetime(2026, 1, 2, tzinfo=UTC)) == {"S": "2026-01-02T00:00:00+00:00"}
    assert typed(float("inf")) == {"S": "inf"}
    assert typed(Decimal("NaN")) == {"S": "NaN"}
    assert typed(0.1) == {"N": "0.1"}


@given(st.dictionaries(st.text(min_size=1), values, max_size=5))
def test_the_size_of_a_typed_image_is_that_of_the_plain_one(image: dict[str, Any]) -> None:
    """The engine's own count of plain values is the same rule."""
    body = encode_batch([[1, image, None, None]], [0])
    (record,) = StoredBatch(body, 1, 1, BatchContext("", 0, "")).decoded_records()
    assert image_size(typed_image(image)) == record.size_bytes

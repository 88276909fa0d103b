"""What a record may hold comes back as it was, and all else is refused by the name of its place."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.format.drawn import (
    INTEGER_MAX,
    INTEGER_MIN,
    REFUSED,
    flat_images,
    identity,
    images,
    nested,
    scalars,
    set_elements,
    text,
    thorough,
    values,
)

from shardlog.errors import InvalidArgument
from shardlog.format.values import (
    AWARE_DATETIME,
    DECIMAL,
    LEVELS_MAX,
    NAIVE_DATETIME,
    SET,
    are_kept,
    check_image,
    check_value,
    decode_extension,
    encode,
    encode_for_routing,
)

decode_image = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=decode_extension).decode


def _kept(drawn: list[dict[str, Any]]) -> bool:
    return are_kept([[1, image, None, None] for image in drawn])


def _back(value: object) -> Any:
    return decode_image(encode({"v": value}))["v"]


@given(value=values)
@thorough
def test_every_value_comes_back_equal_and_of_the_same_type(value: object) -> None:
    """None, bool, int, float, str, bytes, list, dict, Decimal, set, datetime, in any nesting."""
    check_value(value, "new", 0)
    assert identity(_back(value)) == identity(value)


@given(image=images)
@thorough
def test_an_image_keeps_the_order_of_its_attributes(image: dict[str, Any]) -> None:
    """An image is encoded as it is: a plain map in its own order."""
    check_image(image, "new", 0)
    assert identity(decode_image(encode(image))) == identity(image)


@pytest.mark.parametrize(
    "value",
    [
        math.nan, -math.nan, -0.0, 0.0, math.inf, -math.inf, 5e-324, 1.7976931348623157e308,
        INTEGER_MIN, INTEGER_MAX, 2**63, 2**63 - 1, -1, 0, True, False, None,
        "", "\0", "\U0010ffff", b"", b"\xc1", "é" * 40_000, b"\0" * 70_000,
        Decimal("NaN"), Decimal("-NaN123"), Decimal("sNaN"), Decimal("Infinity"), Decimal("-0.00"), Decimal("1E+5"),
        Decimal("1.10"), Decimal("1E-999999"), Decimal("9" * 60 + "." + "1" * 60),
        datetime.min, datetime.max, datetime(2026, 10, 25, 2, 30, fold=1), datetime(1969, 12, 31, 23, 59, 59, 999_999),
        datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=-23, minutes=-59))),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=23, minutes=59))),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(seconds=1, microseconds=1))),
        {None, True, 2, 1.5, "a", b"a", Decimal("1.50"), datetime(2026, 1, 1)}, set(), {1}, {1.5},
        [], {}, [[], {}, set()], {"": {}}, list(range(70_000)), set(range(70_000)), {math.nan},
        {str(number): number for number in range(70_000)},
    ],
    ids=lambda value: f"{value!r:.40}",
)  # fmt: skip
def test_the_extremes_come_back(value: object) -> None:
    """Edges of each type and of each of MessagePack's lengths."""
    check_value(value, "new", 0)
    assert identity(_back(value)) == identity(value)


def test_an_aware_datetime_comes_back_in_utc() -> None:
    """The instant is kept; the offset it was written in is not."""
    back = _back(datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert (back, back.tzinfo) == (datetime(2026, 1, 1, 10, tzinfo=UTC), UTC)


def test_a_time_zone_that_does_not_know_its_offset_makes_no_instant() -> None:
    """Python calls such a datetime naive; taking the machine's own zone for it would move it."""

    class Nowhere(tzinfo):
        def utcoffset(self, moment: datetime | None) -> None:
            return None

    value = datetime(2026, 1, 1, 12, tzinfo=Nowhere())
    back = _back(value)
    assert (back, back.tzinfo) == (value, None)


@pytest.mark.parametrize("kind", [list, dict])
def test_nesting_has_32_levels(kind: type) -> None:
    """32 containers within an image; the 33rd is refused."""
    image = {"v": nested(kind, LEVELS_MAX)}
    check_image(image, "new", 0)
    assert decode_image(encode(image)) == image
    with pytest.raises(InvalidArgument, match="32 levels") as refusal:
        check_image({"v": nested(kind, LEVELS_MAX + 1)}, "new", 3)
    assert refusal.value.position == 3
    assert refusal.value.field is not None
    assert refusal.value.field.startswith("new.v")


def test_a_set_is_a_level_too() -> None:
    """A set at the 32nd level is the last container."""
    check_image({"v": [_wrapped({1}, LEVELS_MAX - 2)]}, "new", 0)
    with pytest.raises(InvalidArgument, match="32 levels"):
        check_image({"v": [_wrapped({1}, LEVELS_MAX - 1)]}, "new", 0)


def _wrapped(value: object, levels: int) -> object:
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(("value", "found"), REFUSED, ids=lambda value: f"{value!r:.30}")
def test_all_else_is_refused_by_its_place(value: object, found: str) -> None:
    """The error names the record's position, the path of the value, and what was found there."""
    for wrap, path in (
        (lambda value: value, "new.v"),
        (lambda value: [0, value], "new.v[1]"),
        (lambda value: {"in": [value]}, "new.v.in[0]"),
    ):
        with pytest.raises(InvalidArgument) as refusal:
            check_image({"id": 1, "v": wrap(value)}, "new", 7)
        assert refusal.value.position == 7
        assert refusal.value.field is not None
        assert refusal.value.field.startswith(path)
        assert "record 7" in str(refusal.value)
        assert refusal.value.field in str(refusal.value)
        assert found in str(refusal.value)


@pytest.mark.parametrize("image", [None, [], "x", b"x", 1, [("a", 1)], (), memoryview(b"")])
def test_an_image_is_a_dict(image: object) -> None:
    """Nothing else is taken for one."""
    with pytest.raises(InvalidArgument, match="expected a dict"):
        check_image(image, "keys", 0)


def test_the_surrogate_in_an_error_can_be_printed() -> None:
    """A message must not fail where it is written to a terminal: what cannot be encoded is escaped."""
    with pytest.raises(InvalidArgument) as refusal:
        check_image({"v": {"\ud800": 1}}, "new", 0)
    str(refusal.value).encode()


@given(mapping=st.dictionaries(text, scalars, max_size=4))
@settings(thorough, max_examples=25)
def test_bytes_that_are_no_image_are_no_image(mapping: dict[str, Any]) -> None:
    """Truncated anywhere, or followed by anything, an image raises ValueError and yields nothing."""
    content = encode(mapping)
    for length in range(len(content)):
        with pytest.raises(ValueError, match=r"\S"):
            decode_image(content[:length])
    with pytest.raises(ValueError, match="trailing"):
        decode_image(content + b"\0")


def test_an_extension_that_is_not_known_is_an_error() -> None:
    """A value of a later format version is not taken for something else."""
    with pytest.raises(ValueError, match="extension type 9"):
        decode_image(msgpack.packb({"v": msgpack.ExtType(9, b"")}))


@given(value=values)
@thorough
def test_another_decoder_reads_the_same(value: object) -> None:
    """The encoding is plain MessagePack with the four extension types of the table: msgpack agrees on every value."""

    def extension(code: int, content: bytes) -> Any:
        match code:
            case 1:
                return Decimal(content.decode("ascii"))
            case 2:
                return set(msgpack.unpackb(content, ext_hook=extension, strict_map_key=False))
            case 3:
                return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=_int64(content))
            case 4:
                return datetime(1970, 1, 1) + timedelta(microseconds=_int64(content))
        raise AssertionError(code)

    assert (DECIMAL, SET, AWARE_DATETIME, NAIVE_DATETIME) == (1, 2, 3, 4)
    assert identity(msgpack.unpackb(encode(value), ext_hook=extension)) == identity(value)


def _int64(content: bytes) -> int:
    return int.from_bytes(content, "little", signed=True)


@given(elements=st.sets(set_elements, max_size=12), seed=st.randoms(use_true_random=False))
@thorough
def test_a_set_has_one_encoding(elements: set[Any], seed: Any) -> None:
    """Sets that hold the same are the same bytes, in whatever order they were filled."""
    shuffled = list(elements)
    seed.shuffle(shuffled)
    assert encode({"v": set(shuffled)}) == encode({"v": elements})


@given(drawn=st.lists(images, max_size=4))
@thorough
def test_images_of_values__kept(drawn: list[dict[str, Any]]) -> None:
    """The short cut never refuses what is right: whether flat or nested, one image or many, the same one twice."""
    assert _kept(drawn)
    assert _kept(drawn + drawn)


@given(
    flat=flat_images,
    odd=st.sampled_from([value for value, found in REFUSED if "bits" not in found and "surrogates" not in found]),
)
@thorough
def test_images_of_anything_else_are_not_kept(flat: dict[str, Any], odd: Any) -> None:
    """What the encoder may take although it does not come back: wherever it is, among whatever else."""
    try:
        encode([flat, {"v": odd}])
    except (TypeError, ValueError, OverflowError):
        return  # then nobody asks
    for wrong in ({"v": odd}, {**flat, "v": odd}, {"v": [odd]}, {"v": {"in": odd}}):
        assert not _kept([wrong])
        assert not _kept([flat, wrong])
        assert not _kept([wrong, flat])


class Attributes:
    """Its dict is kept in another way than a display's."""

    def __init__(self, value: object) -> None:
        self.a, self.b = 1, value


@pytest.mark.parametrize(("value", "is_right"), [(2, True), (bytearray(b"x"), False), (None, True), ([1], True)])
def test_dicts_of_every_making_are_looked_at(value: object, is_right: bool) -> None:
    """CPython keeps a dict's values in several ways: as an object's attributes, after another key, after deletions."""
    had_another_key: dict[Any, Any] = {7: 1, "a": 1, "b": value}
    del had_another_key[7]
    had_more = {str(number): number for number in range(100)} | {"b": value}
    for number in range(100):
        del had_more[str(number)]
    for image in (vars(Attributes(value)), had_another_key, had_more, dict.fromkeys("ab", value), {"b": value}):
        assert _kept([image]) is is_right
        assert _kept([{"id": 1}, image, {}]) is is_right
        assert _kept([image, had_another_key, image]) is is_right


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": Decimal("1.0")}, {"a": Decimal("1.00")}),
        ({"a": Decimal("1.0")}, {"a": 1}),
        ({"a": Decimal("1E+3")}, {"a": 1000}),
        ({"a": Decimal("0.50")}, {"a": Decimal("0.5")}),
        ({"a": Decimal("-0.0")}, {"a": 0}),
        ({"a": Decimal("1E+40")}, {"a": Decimal(10**40)}),
        ({"a": datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))}, {"a": datetime(2026, 1, 1, tzinfo=UTC)}),
    ],
)
def test_equal_keys_route_alike(one: object, other: object) -> None:
    """The order of attributes, and the zeros at the end of a Decimal, do not send an item to another shard."""
    assert encode_for_routing(one) == encode_for_routing(other)


def test_routing_does_not_depend_on_the_thread_that_appends() -> None:
    """A thread may set its own decimal precision; its records of an item still go to the item's shard."""
    keys = [Decimal("9" * 40 + suffix) for suffix in (".1", ".2")]
    usual = [encode_for_routing(key) for key in keys]
    assert usual[0] != usual[1]
    with localcontext(Context(prec=3, Emax=5, Emin=-5)):
        assert [encode_for_routing(key) for key in keys] == usual
        assert encode_for_routing(Decimal("1E+1000")) == encode_for_routing(Decimal("10E+999"))

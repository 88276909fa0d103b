"""Rows to a batch body and back, what is refused on the way, and sizes as DynamoDB Streams counts them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgpack
import msgspec
import ormsgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.format.drawn import (
    REFUSED,
    Text,
    flat_images,
    identity,
    images,
    nested,
    refused_values,
    scalars,
    text,
    thorough,
    values,
)

from shardlog import Change, Stream
from shardlog.errors import CorruptLog, InvalidArgument
from shardlog.format import record as record_module
from shardlog.format.record import BatchContext, Record, Row, StoredBatch, encode_batch
from shardlog.format.values import check_image, encode
from shardlog.options import APPEND_BYTES_MAX, RECORD_BYTES_MAX

CONTEXT = BatchContext("shardId-00000001767225600000-00000003", 1_767_225_600_000_000, "0123456789abcdef")


def _stored(body: bytes, count: int = 1, first: int = 1) -> StoredBatch:
    return StoredBatch(body, count, first, CONTEXT)


def _read(body: bytes, count: int = 1, first: int = 1) -> list[Record]:
    return _stored(body, count, first).records(first, first + count)


def _look_at(records: list[Record]) -> list[object]:
    return [(record.event, record.keys, record.new_image, record.old_image) for record in records]


def _insert(new: Any, keys: Any = None) -> Row:
    return [1, keys or {"id": 1}, new, None]


rows = st.lists(
    st.one_of(
        st.tuples(st.just(1), images, st.one_of(st.none(), images), st.none()),
        st.tuples(st.just(2), images, st.one_of(st.none(), images), st.one_of(st.none(), images)),
        st.tuples(st.just(3), images, st.none(), st.one_of(st.none(), images)),
    ).map(list),
    min_size=1,
    max_size=3,
)


@given(given_rows=rows, first=st.integers(min_value=1, max_value=2**63))
@thorough
def test_records_come_back_as_they_were(given_rows: list[Row], first: int) -> None:
    """Events, keys and images are those of the rows, numbered from the batch's first, decoded late or at once."""
    stored = _stored(encode_batch(given_rows, range(len(given_rows))), len(given_rows), first)
    for records in (stored.records(0, 2**64), stored.decoded_records()):
        assert [record.sequence for record in records] == list(range(first, first + len(given_rows)))
        for row, record in zip(given_rows, records, strict=True):
            assert record.event == {1: "INSERT", 2: "MODIFY", 3: "REMOVE"}[row[0]]
            for image, back in zip(row[1:], (record.keys, record.new_image, record.old_image), strict=True):
                assert (back is None) if image is None else identity(back) == identity(image)


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [
        (0, 99, "01234"),
        (10, 15, "01234"),
        (11, 15, "1234"),
        (10, 14, "0123"),
        (12, 13, "2"),
        (14, 99, "4"),
        (0, 11, "0"),
    ],
)
def test_a_part_of_a_batch(first: int, end: int, expected: str) -> None:
    """A reader that starts or stops within a batch gets the records of its range, with their own numbers."""
    stored = _stored(encode_batch([_insert({"id": str(number)}) for number in range(5)], range(5)), 5, 10)
    assert (stored.first_sequence, stored.next_sequence) == (10, 15)
    records = stored.records(first, end)
    assert "".join((record.new_image or {})["id"] for record in records) == expected
    assert [record.sequence for record in records] == [10 + int(digit) for digit in expected]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 65_535, 65_536])
def test_every_length_of_a_batch(count: int) -> None:
    """MessagePack writes the length of a batch in three ways; each is read, and each is seen as flat."""
    rows = [[3, {"id": number}, None, None] for number in range(count)]
    records = _read(encode_batch(rows, range(count)), count)
    assert [record.keys["id"] for record in records] == list(range(count))


def test_what_a_record_shares_with_its_batch() -> None:
    """Shard, time and event id come from the commit; they are not stored with each record."""
    (record,) = _read(encode_batch([_insert({"id": 1})], [0]), first=0xABC)
    assert record.shard_id == CONTEXT.shard_id
    assert record.created_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert record.timestamp_us == CONTEXT.timestamp_us
    assert record.event_id == "0123456789abcdef0000000000000abc"


def test_a_row_is_decoded_once() -> None:
    """With the first look at an image; what it took in the log is known until then, the event always."""
    body = encode_batch([[2, {"id": 1}, {"id": 1}, {"id": 1, "was": True}]], [0])
    (record,) = _read(body)
    assert record.event == "MODIFY"
    assert record.encoded_bytes == len(body) - 1
    assert record.keys is record.keys
    assert record.encoded_bytes == 0
    assert record.new_image is record.new_image
    assert record.old_image is record.old_image
    (decoded,) = _stored(body).decoded_records()
    assert decoded.encoded_bytes == 0
    assert decoded == record


def test_records_are_equal_by_content() -> None:
    """The same record read twice is equal, decoded or not; another number or image is another record."""
    body = encode_batch([_insert({"id": 1}), _insert({"id": 2})], range(2))
    (one, two), (again, _) = _read(body, 2), _read(body, 2)
    assert one.keys == {"id": 1}
    assert one == again
    assert hash(one) == hash(again)
    assert one != two
    assert one != "INSERT"
    assert "Record(1, 'INSERT', keys={'id': 1}" in repr(again)


@given(given_rows=rows)
@settings(thorough, max_examples=25)
def test_a_body_that_is_cut_or_followed_by_anything_is_none(given_rows: list[Row]) -> None:
    """Cut anywhere, and with garbage behind it, a body raises CorruptLog, at the first look at a record at latest."""
    body = encode_batch(given_rows, range(len(given_rows)))
    for wrong in [body[:length] for length in range(len(body))] + [body + b"\xc0"]:
        stored = _stored(wrong, len(given_rows), 7)
        with pytest.raises(CorruptLog, match="a batch does not decode") as error:
            stored.decoded_records()
        assert error.value.sequences == (7, 7 + len(given_rows))
        with pytest.raises(CorruptLog, match=r"a batch does not decode|expected a batch") as error:
            _look_at(stored.records(0, 99))
        assert error.value.sequences == (7, 7 + len(given_rows))


@pytest.mark.parametrize("count", [1, 15, 16, 65_535, 65_536])
def test_a_batch_of_any_length_is_split_when_it_is_looked_at(count: int) -> None:
    """MessagePack has three heads for arrays; each row comes back in its place."""
    records = _read(encode_batch([_insert({"id": number}) for number in range(count)], range(count)), count)
    assert [record.sequence for record in records] == list(range(1, count + 1))
    assert not any(record.is_decoded for record in records)
    assert (records[0].new_image, records[-1].new_image) == ({"id": 0}, {"id": count - 1})
    assert [record.is_decoded for record in (records[0], records[-1])] == [True, True]
    with pytest.raises(CorruptLog, match=f"expected a batch of {count + 1} records, found {count}"):
        _read(encode_batch([_insert({"id": number}) for number in range(count)], range(count)), count + 1)


def test_the_count_of_the_directory_holds() -> None:
    """A body with fewer or more records than its directory entry says is not read."""
    body = encode_batch([_insert({"id": 1}), _insert({"id": 2})], range(2))
    for count in (0, 1, 3):
        with pytest.raises(CorruptLog, match=f"expected a batch of {count} records, found 2"):
            _read(body, count)
        with pytest.raises(CorruptLog, match=f"expected a batch of {count} records, found 2"):
            _stored(body, count).decoded_records()


@pytest.mark.parametrize(
    "content",
    [
        {}, 1, None, [1], [[]], [{}], [None], ["x"], [""], [[1]], [[1, {}]], [[1, {}, None]], [[1, None, None, None]],
        [[1, {1: 1}, None, None]], [[1, [], None, None]], [["INSERT", {}, None, None]], [[None, {}, None, None]],
        [[0, {}, None, None]], [[4, {}, None, None]], [[-1, {}, None, None]], [[2**40, {}, None, None]],
        [[1, {"v": msgpack.ExtType(9, b"")}, None, None]], [{1: 2, 3: 4}],
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_list_of_rows_is_corrupt(content: object) -> None:
    """A body whose checksum is right but whose content is another, such as an event of a later version.

    It is noticed when the batch is decoded, or with the first look at an image, and never as another error.
    """
    body = msgpack.packb(content)
    with pytest.raises(CorruptLog, match=r"does not decode|expected a batch"):
        _stored(body).decoded_records()
    with pytest.raises(CorruptLog, match=r"does not decode|expected a batch") as error:
        _look_at(_read(body))
    assert error.value.sequences == (1, 2)


def test_optional_fields_of_a_later_release_do_no_harm() -> None:
    """The fifth field is kept for what later releases add: a map that this one passes over."""
    body = msgpack.packb([[1, {"id": 1}, {"id": 1}, None, {"origin": "x", "at": msgpack.ExtType(9, b"")}]])
    for record in (*_read(body), *_stored(body).decoded_records()):
        assert (record.sequence, record.event, record.shard_id) == (1, "INSERT", CONTEXT.shard_id)
        assert (record.keys, record.new_image, record.old_image) == ({"id": 1}, {"id": 1}, None)


# Mixtures of what is allowed and what is not: in images of scalars, where the fast path decides, and in deeper ones.
odd_values = st.one_of(scalars, values, refused_values, st.sampled_from([nested(list, 33), nested(dict, 33)]))
odd_images = st.one_of(
    flat_images,
    flat_images,
    st.dictionaries(text, odd_values, max_size=3),
    st.dictionaries(st.one_of(text, st.sampled_from([Text("id"), 1, None, b"id", "\ud800"])), scalars, max_size=3),
)
odd_rows = st.lists(
    st.tuples(st.sampled_from([1, 2, 3]), odd_images, st.none() | odd_images, st.none() | odd_images),
    min_size=1,
    max_size=4,
).map(lambda drawn: [list(row) for row in drawn])


def _by_definition(given_rows: list[Row]) -> InvalidArgument | None:
    """The plain reference of what `encode_batch` refuses."""
    try:
        for position, row in enumerate(given_rows):
            for image, name in zip(row[1:], ("keys", "new", "old"), strict=True):
                if image is not None:
                    check_image(image, name, position)
    except InvalidArgument as error:
        return error
    return None


def _check_short_cuts(given_rows: list[Row]) -> None:
    refusal = _by_definition(given_rows)
    if refusal is not None:
        with pytest.raises(InvalidArgument) as raised:
            encode_batch(given_rows, range(len(given_rows)))
        assert (raised.value.position, raised.value.field) == (refusal.position, refusal.field)
        return
    records = _read(encode_batch(given_rows, range(len(given_rows))), len(given_rows))
    for row, record in zip(given_rows, records, strict=True):
        found = (record.keys, record.new_image, record.old_image)
        assert [identity(image) for image in found] == [identity(image) for image in row[1:]]


@given(given_rows=odd_rows)
@example(given_rows=[[1, {"id": bytearray(b"")}, None, None]])
@example(given_rows=[[1, {}, {}, {}], [1, {"a": None}, None, None]])
@example(given_rows=[[3, {"a": 0xC0}, None, None], [3, {"a": -32}, None, {"é": "\x80Àܐ"}]])
@settings(thorough, max_examples=150)
def test_the_short_cuts_agree_with_the_definition(given_rows: list[Row]) -> None:
    """What `check_image` refuses is refused, by the same name; all else is accepted and comes back exactly."""
    _check_short_cuts(given_rows)


@pytest.mark.parametrize("count", [1, 16, 5000])
def test_one_odd_value_among_many_is_found(count: int) -> None:
    """In the last of many records, whatever the length of the batch: position and field are those of the culprit."""
    rows = [_insert({"id": 1, "v": "x"}) for _ in range(count)]
    encode_batch(rows, range(count))
    rows[-1] = _insert({"id": 1, "v": bytearray(b"x")})
    with pytest.raises(InvalidArgument, match="found a bytearray") as refusal:
        encode_batch(rows, range(count))
    assert (refusal.value.position, refusal.value.field) == (count - 1, "new.v")


@pytest.mark.parametrize(("value", "found"), REFUSED, ids=lambda value: f"{value!r:.30}")
def test_a_refusal_names_the_position_within_the_append(value: object, found: str) -> None:
    """A batch is one shard's part of an append: positions are those of the append, not of the batch."""
    with pytest.raises(InvalidArgument) as refusal:
        encode_batch([_insert({"id": 1}), _insert({"id": 1, "v": value})], [4, 9])
    assert refusal.value.position == 9
    assert (refusal.value.field or "").startswith("new.v")
    assert found in str(refusal.value)


def test_an_endless_value_is_refused() -> None:
    """A list that holds itself is nested too deep; it neither hangs nor crashes."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(InvalidArgument, match="32 levels"):
        encode_batch([_insert({"id": 1, "v": endless})], [0])


@pytest.mark.parametrize("encoded", [b"\xa1x", b"\x07", b"\x81\xa1x\x01", b"\xc4\x01x", b"\xd4\x09x", b"\xc0"])
def test_what_is_encoded_already_is_refused(encoded: bytes) -> None:
    """The encoder's own way to pass bytes through: nothing but the types of the values shows it."""
    with pytest.raises(InvalidArgument, match="found a Fragment"):
        encode_batch([_insert({"id": 1, "v": ormsgpack.Fragment(encoded)})], [0])


@pytest.mark.parametrize(
    "image", [[0], [0] * 40, b"\0", bytearray(1), memoryview(b"\0"), (0,), range(1), "a"], ids=repr
)
@pytest.mark.parametrize("count", [1, 50])
def test_keys_and_images_are_dicts(stream: Stream, image: Any, count: int) -> None:
    """Found once: what answers to the same subscripts as a dict was taken for one, and could not be read again."""
    with pytest.raises(InvalidArgument, match="expected a dict of key attributes") as refusal:
        stream.append([Change.insert(keys=image, new=image)] * count)
    assert (refusal.value.position, refusal.value.field) == (0, "keys")
    assert list(stream.read()) == []


def test_a_record_has_a_largest_size() -> None:
    """16 MiB as encoded: one byte more is refused with the field that holds most of it."""
    spare = len(encode(_insert({"id": 1, "v": b"x" * 70_000}))) - 70_000
    fits = _insert({"id": 1, "v": bytes(RECORD_BYTES_MAX - spare)})
    assert len(encode_batch([fits], [0])) == RECORD_BYTES_MAX + 1
    with pytest.raises(InvalidArgument, match=f"at most {RECORD_BYTES_MAX} bytes, found {RECORD_BYTES_MAX + 1}") as big:
        encode_batch([_insert({"id": 1}), _insert({"id": 1, "v": bytes(RECORD_BYTES_MAX - spare + 1)})], [2, 5])
    assert (big.value.position, big.value.field) == (5, "new")


def test_an_append_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that fit each by itself do not exceed an append together; the first that is too much is named."""
    assert (RECORD_BYTES_MAX, APPEND_BYTES_MAX) == (16 << 20, 64 << 20)
    monkeypatch.setattr(record_module, "RECORD_BYTES_MAX", 1_000)
    monkeypatch.setattr(record_module, "APPEND_BYTES_MAX", 3_000)
    rows = [_insert({"id": 1, "v": "x" * 900}) for _ in range(4)]
    encode_batch(rows[:3], range(3))
    with pytest.raises(InvalidArgument, match="an append of at most 3000 bytes") as refusal:
        encode_batch(rows, range(4))
    assert refusal.value.position == 3


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("", 0), ("Fred", 4), ("é", 2), (b"", 0), (b"abc", 3), (None, 1), (True, 1), (False, 1),
        # Numbers: a byte per two significant digits, and one; zeros at either end are not significant.
        (0, 1), (7, 2), (12, 2), (123, 3), (-123, 3), (1000, 2), (120, 2), (1.5, 2), (0.001, 2), (100.25, 4),
        (Decimal("0.00"), 1), (Decimal("1.50"), 2), (Decimal("1E+5"), 2), (Decimal("12345E-10"), 4), (1e22, 2),
        (1.5e-7, 2), (10**18, 2), (2**64 - 1, 11),
        # Lists and maps: three bytes, and one for each element.
        ([], 3), ([1], 6), (["a", "bc"], 8), ({}, 3), ({"a": 1}, 7), ({"a": [1, 2], "b": {}}, 19),
        # Sets: the sum of their elements.
        ({"a", "bc"}, 3), ({1, 22}, 4), ({b"a"}, 1),
    ],
    ids=lambda value: f"{value!r:.30}",
)  # fmt: skip
def test_sizes_are_dynamodb_s(value: object, size: int) -> None:
    """The length of a value as DynamoDB's guide on item sizes gives it; the name counts its UTF-8 bytes."""
    (record,) = _read(encode_batch([[1, {}, {"é": value}, None]], [0]))
    assert record.size_bytes == 2 + size


def test_a_record_s_size_is_that_of_its_images() -> None:
    """SizeBytes = Keys + NewImage + OldImage: the example of DynamoDB Streams counts 12."""
    (insert,) = _read(encode_batch([[1, {"id": "Fred"}, {"id": "Fred"}, None]], [0]))
    assert insert.size_bytes == 12
    (modify,) = _read(encode_batch([[2, {"id": "Fred"}, {"id": "Fred", "n": 1}, {"id": "Fred"}]], [0]))
    assert modify.size_bytes == 6 + 9 + 6
    (keys_only,) = _read(encode_batch([[3, {"id": "Fred"}, None, None]], [0]))
    assert keys_only.size_bytes == 6


def test_a_record_cannot_be_taken_for_a_row() -> None:
    """What the engine puts into a record does not go into the log by accident: a record is no value."""
    (record,) = _read(encode_batch([_insert({"id": 1})], [0]))
    with pytest.raises(InvalidArgument, match="found a _EncodedRecord"):
        encode_batch([_insert({"id": 1, "v": record})], [0])
    assert isinstance(record, msgspec.Struct)

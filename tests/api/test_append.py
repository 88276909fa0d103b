from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.support.history import PADDING, change, changes, new_stream, numbers, records_only

import shardlog
from shardlog import Change, InvalidArgument, Store, Stream

HOUR_EAST = timezone(timedelta(hours=1))


def nested(levels: int) -> Any:
    """A value of so many levels of lists and dicts."""
    value: Any = 7
    for level in range(levels):
        value = [value] if level % 2 else {"deeper": value}
    return value


VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    127,
    128,
    -(2**63),
    2**63,
    2**64 - 1,
    0.0,
    -0.0,
    1.5,
    1e308,
    5e-324,
    float("inf"),
    float("-inf"),
    "",
    "text",
    "\u0000\ud7ff\U0001f600 ünïcode",
    "x" * 70_000,
    b"",
    b"\x00\xff" * 500,
    [],
    [1, "a", None, [b"x", [2.5]]],
    {},
    {"a": {"b": {"": [1]}}},
    {"$bytes": "not special here", "ключ": 1},
    Decimal("0"),
    Decimal("-0.00"),
    Decimal("1.10"),
    Decimal("1E+400"),
    Decimal("123456789012345678901234567890.123456789"),
    Decimal("Infinity"),
    set(),
    {1, 2, 3},
    {"a", b"a", None, 2.5, Decimal("1.5")},
    datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1969, 7, 20, 20, 17, 40, 1),
    datetime(1, 1, 1),
    datetime(9999, 12, 31, 23, 59, 59, 999_999),
    [{1}, Decimal("1.0"), datetime(2026, 1, 1, tzinfo=UTC), {"in": {"a": {Decimal("2")}}}],
    nested(31),
]


def same(found: Any, wanted: Any) -> bool:
    """Equal and of the same types, all the way down; 0.0 is not -0.0, 1.0 is not 1.00."""
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return list(found) == list(wanted) and all(same(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(wanted, set):
        return sorted(map(repr, found)) == sorted(map(repr, wanted))
    return repr(found) == repr(wanted)


# Values


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:40])
def test_values_come_back_as_they_went_in(stream: Stream, value: Any) -> None:
    """Every kind of value, equal and of the same type, in keys and in both images, beside others of one append."""
    keys: dict[str, Any] = {"id": 1} if value in ({}, None) or value != value else {"id": 1, "k": value}
    image = {**keys, "value": value}
    stream.append([change(0), Change.modify(keys=keys, old=image, new={**image, "n": 1}), change(2)])
    record = records_only(stream.read())[1]
    assert record.event == "MODIFY"
    assert same(record.keys, keys)
    assert same(record.old_image, image)
    assert same(record.new_image, {**image, "n": 1})


def test_not_a_number_comes_back(stream: Stream) -> None:
    """NaN, of both kinds, is a value as well."""
    stream.append([Change.insert(keys={"id": 1}, new={"id": 1, "f": float("nan"), "d": Decimal("NaN")})])
    (record,) = records_only(stream.read())
    assert record.new_image is not None
    assert repr(record.new_image["f"]) == "nan"
    assert same(record.new_image["d"], Decimal("NaN"))


def test_aware_times_come_back_in_utc(stream: Stream) -> None:
    """The same moment, in UTC; a naive time stays naive."""
    moment = datetime(2026, 6, 1, 12, 30, tzinfo=HOUR_EAST)
    stream.append([Change.insert(keys={"id": 1}, new={"id": 1, "at": moment, "local": moment.replace(tzinfo=None)})])
    (record,) = records_only(stream.read())
    assert record.new_image is not None
    assert same(record.new_image["at"], datetime(2026, 6, 1, 11, 30, tzinfo=UTC))
    assert same(record.new_image["local"], datetime(2026, 6, 1, 12, 30))


def test_what_the_caller_does_with_its_dicts_later_changes_nothing(stream: Stream) -> None:
    """An append takes what the images hold at that time."""
    image = {"id": 1, "tags": ["a"]}
    stream.append([Change.insert(keys={"id": 1}, new=image)])
    image["tags"].append("b")  # type: ignore[attr-defined]
    (record,) = records_only(stream.read())
    assert record.new_image == {"id": 1, "tags": ["a"]}


class Text(str):
    __slots__ = ()


@dataclass
class Point:
    x: int


REFUSED: list[tuple[Any, str]] = [
    ((1, 2), "new.value"),
    (2**64, "new.value"),
    (-(2**63) - 1, "new.value"),
    (bytearray(b"x"), "new.value"),
    (memoryview(b"x"), "new.value"),
    (frozenset({1}), "new.value"),
    (Text("x"), "new.value"),
    (Point(1), "new.value"),
    (object(), "new.value"),
    (1j, "new.value"),
    (datetime(2026, 1, 1).date(), "new.value"),
    (timedelta(1), "new.value"),
    ("\ud800", "new.value"),
    (datetime.min.replace(tzinfo=HOUR_EAST), "new.value"),
    ({1: "a"}, "new.value"),
    ({None: "a"}, "new.value"),
    ({b"a": 1}, "new.value"),
    ({"\ud800": 1}, "new.value"),
    ([1, [2, (3,)]], "new.value[1][1]"),
    ({"a": {"b": bytearray()}}, "new.value.a.b"),
    ({(1, 2)}, "new.value"),
    (nested(40), "new.value"),
]


@pytest.mark.parametrize(("value", "field"), REFUSED, ids=lambda value: repr(value)[:40])
def test_other_values_are_refused_by_record_and_field(stream: Stream, value: Any, field: str) -> None:
    """InvalidArgument names the record's position and the field; nothing is in the log, no number is used."""
    stream.append(changes(0, 2))
    bad = Change.insert(keys={"id": 3}, new={"id": 3, "ok": 1, "value": value})
    with pytest.raises(InvalidArgument) as caught:
        stream.append([change(2), change(3), bad, change(4)])
    assert caught.value.position == 2
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
    assert "record 2" in str(caught.value)
    assert field in str(caught.value)
    assert stream.next_sequence == 3
    assert numbers(stream.read()) == [0, 1]
    assert stream.append(changes(2, 1)).sequences == [3]


# Keys and images


@pytest.mark.parametrize("key_names", [None, ["id"]])
@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (Change.insert(keys={}, new={"id": 1}), "keys"),
        (Change.insert(keys=None, new={"id": 1}), "keys"),  # type: ignore[arg-type]
        (Change.insert(keys=[("id", 1)], new={"id": 1}), "keys"),  # type: ignore[arg-type]
        (Change.insert(keys={"id": 1}, new={"other": 1}), "new.id"),
        (Change.insert(keys={"id": 1}, new={"id": 2}), "new.id"),
        (Change.insert(keys={"id": 1}, new={}), "new.id"),
        (Change.insert(keys={"id": 1}, new=[1]), "new"),  # type: ignore[arg-type]
        (Change.insert(keys={"id": 1}), "new"),
        (Change.modify(keys={"id": 1}, new={"id": 1}), "old"),
        (Change.modify(keys={"id": 1}, old={"id": 1}), "new"),
        (Change.modify(keys={"id": 1}, old={"id": 2}, new={"id": 1}), "old.id"),
        (Change.remove(keys={"id": 1}), "old"),
        (Change.remove(keys={"id": 1}, old={"x": 1}), "old.id"),
    ],
)
def test_images_without_their_keys_are_refused(
    store: Store, bad: Change, field: str, key_names: list[str] | None
) -> None:
    """Keys are a dict that is not empty, every image holds them, and what the view type carries is there."""
    stream = new_stream(store, key_names=key_names)
    with pytest.raises(InvalidArgument) as caught:
        stream.append([change(0), bad])
    assert (caught.value.position, caught.value.field) == (1, field)
    assert list(stream.read()) == []
    assert stream.next_sequence == 1


@pytest.mark.parametrize(
    "keys", [{"id": 1}, {"id": 1, "region": "x", "more": 1}, {"id": 1, "regio": "x"}, {"region": 1}]
)
def test_keys_that_miss_the_schema_are_refused(store: Store, keys: dict[str, Any]) -> None:
    """With a key schema, keys are exactly these: none missing, none more."""
    stream = new_stream(store, key_names=["region", "id"])
    good = {"id": 1, "region": "x"}
    with pytest.raises(InvalidArgument, match="record 1, field keys"):
        stream.append([Change.insert(keys=good, new=good), Change.insert(keys=keys, new={**keys})])
    assert list(stream.read()) == []
    assert stream.append([Change.insert(keys=good, new={**good, "v": 1})]).sequences == [1]


def test_without_a_schema_records_may_have_different_keys(stream: Stream) -> None:
    """No key schema: any keys, also different ones in one append."""
    given = [{"a": 1}, {"b": "x", "c": None}, {"a": {"deep": [1]}}]
    stream.append([Change.insert(keys=keys, new={**keys, "v": 1}) for keys in given])
    assert [record.keys for record in records_only(stream.read())] == given


def test_a_partition_key_must_be_in_the_keys(store: Store) -> None:
    """Records without the attribute that routes them are refused."""
    stream = new_stream(store, partition_key="region", shards=2)
    with pytest.raises(InvalidArgument, match="region"):
        stream.append([Change.insert(keys={"id": 1}, new={"id": 1})])
    assert stream.append([Change.insert(keys={"region": 1}, new={"region": 1})]).sequences == [1]


@pytest.mark.parametrize("given", [[None], ["x"], [{"keys": {}}], [("INSERT", {}, {})]])
def test_only_changes_can_be_appended(stream: Stream, given: list[Any]) -> None:
    """Anything else is InvalidArgument that names its position."""
    with pytest.raises(InvalidArgument) as caught:
        stream.append([change(0), *given])
    assert caught.value.position == 1
    assert list(stream.read()) == []


def test_changes_are_checked_when_they_are_made() -> None:
    """An INSERT has no old image, a REMOVE no new one, and there is no other event."""
    for event, new, old in [("INSERT", {"id": 1}, {"id": 1}), ("REMOVE", {"id": 1}, None), ("UPSERT", None, None)]:
        with pytest.raises(InvalidArgument):
            Change(event, {"id": 1}, new, old)  # type: ignore[arg-type]


@pytest.mark.parametrize("view_type", ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"])
def test_a_stream_stores_what_its_view_type_carries(store: Store, view_type: str) -> None:
    """Images that the view type does not carry are ignored, and may be left out."""
    stream = new_stream(store, view_type=view_type)
    new, old = {"id": 1, "v": "new"}, {"id": 1, "v": "old"}
    stream.append(
        [
            Change.insert(keys={"id": 1}, new=new),
            Change.modify(keys={"id": 1}, old=old, new=new),
            Change.remove(keys={"id": 1}, old=old),
        ]
    )
    carries_new = view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
    carries_old = view_type in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")
    stream.append([Change.modify(keys={"id": 1}, old=old if carries_old else None, new=new if carries_new else None)])
    found = [(record.event, record.keys, record.new_image, record.old_image) for record in records_only(stream.read())]
    wanted_new, wanted_old = new if carries_new else None, old if carries_old else None
    assert found == [
        ("INSERT", {"id": 1}, wanted_new, None),
        ("MODIFY", {"id": 1}, wanted_new, wanted_old),
        ("REMOVE", {"id": 1}, None, wanted_old),
        ("MODIFY", {"id": 1}, wanted_new, wanted_old),
    ]


# Results and order


def test_sequences_are_in_the_order_given(store: Store, seed: int) -> None:
    """Over many shards, `sequences[i]` is the number of change i; reading gives them in the order of the numbers."""
    choices = random.Random(seed)
    stream = new_stream(store, shards=7)
    wanted: dict[int, int] = {}
    for _ in range(20):
        items = [choices.randrange(1000) for _ in range(choices.randrange(1, 30))]
        result = stream.append([Change.insert(keys={"id": item}, new={"id": item}) for item in items])
        assert not result.duplicate
        assert len(result.sequences) == len(items)
        wanted |= dict(zip(result.sequences, items, strict=True))
    found = records_only(stream.read())
    assert {record.sequence: record.keys["id"] for record in found} == wanted
    assert [record.sequence for record in found] == sorted(wanted)
    assert min(wanted) == 1


def test_order_holds_per_item_within_an_append_and_between_appends(store: Store, seed: int) -> None:
    """Within one append, changes of an item (and all of a shard) keep their order; between appends all do."""
    choices = random.Random(seed)
    stream = new_stream(store, shards=5)
    version = 0
    order: list[int] = []
    for _ in range(15):
        items = [choices.randrange(6) for _ in range(20)]
        made = []
        for item in items:
            version += 1
            made.append(Change.insert(keys={"id": item}, new={"id": item, "version": version}))
        order.append(max(stream.append(made).sequences))
    assert order == sorted(order)
    for item in range(6):
        versions = [record.new_image["version"] for record in records_only(stream.read()) if record.keys["id"] == item]  # type: ignore[index]
        assert versions == sorted(versions)
    for shard in stream.describe().shards:
        found = records_only(stream.read(shard_id=shard.shard_id))
        assert [record.new_image["version"] for record in found] == sorted(  # type: ignore[index]
            record.new_image["version"]
            for record in found  # type: ignore[index]
        )


def test_equal_keys_go_to_one_shard(store: Store, store_path: Path) -> None:
    """Whatever order a dict has, whoever appends, before and after a restart: an item's records are in one shard."""
    new_stream(store, shards=16)
    for _ in range(2):
        with shardlog.open(store_path) as opened:
            stream = opened.stream("s")
            for item in range(40):
                for keys in ({"a": item, "b": "x"}, {"b": "x", "a": item}):
                    stream.append([Change.insert(keys=keys, new=keys)])
    places: dict[int, set[str]] = {}
    for record in records_only(store.stream("s").read()):
        places.setdefault(record.keys["a"], set()).add(record.shard_id)
    assert {len(shards) for shards in places.values()} == {1}
    assert len({min(shards) for shards in places.values()}) > 8


def test_the_partition_key_alone_routes(store: Store) -> None:
    """Items of one partition key share a shard, whatever their other keys."""
    stream = new_stream(store, shards=8, partition_key="region", key_names=["region", "id"])
    keys = [{"region": f"r{item % 5}", "id": item} for item in range(50)]
    stream.append([Change.insert(keys=key, new=key) for key in keys])
    places: dict[str, set[str]] = {}
    for record in records_only(stream.read()):
        places.setdefault(record.keys["region"], set()).add(record.shard_id)
    assert {len(shards) for shards in places.values()} == {1}


def test_an_empty_append_does_nothing(stream: Stream) -> None:
    """No changes: no numbers, nothing in the log."""
    stream.append(changes(0, 1))
    result = stream.append([])
    assert (result.sequences, result.duplicate) == ([], False)
    assert stream.append(iter(())).sequences == []
    assert stream.next_sequence == 2


def test_any_iterable_of_changes_will_do(stream: Stream) -> None:
    """A generator, too; one that fails appends nothing."""

    def failing() -> Any:
        yield change(2)
        raise RuntimeError("no more")

    assert stream.append(change(number) for number in range(2)).sequences == [1, 2]
    with pytest.raises(RuntimeError, match="no more"):
        stream.append(failing())
    assert numbers(stream.read()) == [0, 1]


# Sizes


@pytest.mark.parametrize("shards", [1, 4])
def test_a_record_that_is_too_large_is_refused(store: Store, shards: int) -> None:
    """Over 16 MiB: InvalidArgument with position and field; just below is taken, though a segment is smaller."""
    stream = new_stream(store, shards=shards)
    large = Change.modify(keys={"id": 1}, old={"id": 1}, new={"id": 1, "blob": b"x" * (16 << 20)})
    with pytest.raises(InvalidArgument) as caught:
        stream.append([change(0), large, change(2)])
    assert (caught.value.position, caught.value.field) == (1, "new")
    assert stream.next_sequence == 1
    blob = b"x" * ((16 << 20) - 1000)
    stream.append([change(0), Change.insert(keys={"id": 1}, new={"id": 1, "blob": blob}), change(2)])
    stream.append(changes(3, 1))
    assert sorted(numbers(stream.read())) == [0, 1, 2, 3]
    (found,) = [record for record in records_only(stream.read()) if record.keys["id"] == 1]
    assert found.new_image == {"id": 1, "blob": blob}


@pytest.mark.parametrize("shards", [1, 4])
def test_an_append_that_is_too_large_is_refused(store: Store, shards: int) -> None:
    """Over 64 MiB in all: InvalidArgument, and nothing of it is in the log."""
    stream = new_stream(store, shards=shards)
    blob = b"x" * (9 << 20)
    with pytest.raises(InvalidArgument, match="67108864"):
        stream.append([Change.insert(keys={"id": item}, new={"id": item, "blob": blob}) for item in range(8)])
    assert stream.next_sequence == 1
    assert list(stream.read()) == []


def test_records_larger_than_a_segment_are_atomic_and_ordered(store: Store, store_path: Path) -> None:
    """An append over many segments' worth of bytes is one commit, read back after a restart."""
    stream = new_stream(store, shards=3)
    for first in range(0, 60, 20):
        stream.append([change(item, PADDING * 300) for item in range(first, first + 20)])
    store.close()
    with shardlog.open(store_path) as again:
        assert sorted(numbers(again.stream("s").read())) == list(range(60))


# Several ways to append


def test_append_async_gives_the_same(store: Store) -> None:
    """Results, errors and atomicity as with `append`; the loop is not blocked meanwhile."""
    stream = new_stream(store, shards=2)

    async def run() -> None:
        assert (await stream.append_async(changes(0, 2))).sequences == [1, 2]
        with pytest.raises(InvalidArgument) as caught:
            await stream.append_async([change(2), Change.insert(keys={"id": 1}, new={"id": 2})])
        assert caught.value.position == 1
        assert (await stream.append_async([])).sequences == []
        assert not (await stream.append_async(changes(2, 1), producer="p", position=1)).duplicate
        assert (await stream.append_async(changes(2, 1), producer="p", position=1)).duplicate
        results = await asyncio.gather(*(stream.append_async(changes(10 * n, 3)) for n in range(1, 20)))
        used = [sequence for result in results for sequence in result.sequences]
        assert len(used) == len(set(used)) == 57

    asyncio.run(run())
    found = numbers(stream.read())
    assert sorted(found) == sorted([0, 1, 2, *(10 * n + k for n in range(1, 20) for k in range(3))])


def test_a_task_that_is_cancelled_does_not_disturb_the_others(stream: Stream) -> None:
    """Cancelling one append of many leaves the others' results right; its own is whole or not there."""

    async def run() -> list[list[int]]:
        tasks = [asyncio.create_task(stream.append_async(changes(10 * n, 2))) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[::3])
        return [result.sequences for result in results if isinstance(result, shardlog.Appended)]

    acknowledged = asyncio.run(run())
    found = {record.sequence: record.keys["id"] for record in records_only(stream.read())}
    assert all(found[sequence + 1] == found[sequence] + 1 for sequence, _ in acknowledged)
    items = sorted(found.values())
    assert len(items) == len(set(items))
    assert all(item + 1 in items for item in items if item % 10 == 0)


def test_one_stream_serves_several_event_loops(stream: Stream) -> None:
    """Loops one after the other may use one stream."""
    for number in range(3):
        asyncio.run(stream.append_async(changes(number, 1)))
    assert numbers(stream.read()) == [0, 1, 2]


# What a record tells


def test_what_a_record_tells(store: Store) -> None:
    """Number, shard, event, times in UTC, size and a unique event id; equal records are equal."""
    before = datetime.now(UTC)
    stream, other = new_stream(store, shards=3), new_stream(store, "other", shards=3)
    for appended in (stream, other):
        appended.append(changes(0, 30))
    records = records_only(stream.read())
    shards = {shard.shard_id for shard in stream.describe().shards}
    assert {record.shard_id for record in records} <= shards
    for record in records:
        assert record.created_at.tzinfo is UTC
        assert before - timedelta(seconds=1) <= record.created_at <= datetime.now(UTC)
        assert record.size_bytes > len(PADDING)
        assert type(record.event_id) is str
    ids = [record.event_id for record in [*records, *records_only(other.read())]]
    assert len(set(ids)) == 60
    assert records == records_only(stream.read())
    assert records[0] != records[1]
    assert repr(records[0].keys) in repr(records[0])


LATER: list[Callable[[Stream], object]] = [
    lambda stream: stream.append(changes(0, 1), producer="p"),
    lambda stream: stream.append(changes(0, 1), position=1),
    lambda stream: stream.append(changes(0, 1), producer="", position=1),
    lambda stream: stream.append(changes(0, 1), producer="x" * 257, position=1),
    lambda stream: stream.append(changes(0, 1), producer=7, position=1),  # type: ignore[arg-type]
    lambda stream: stream.append(changes(0, 1), producer="p", position=-1),
    lambda stream: stream.append(changes(0, 1), producer="p", position=2**63),
    lambda stream: stream.append(changes(0, 1), producer="p", position=1.0),  # type: ignore[arg-type]
    lambda stream: stream.append(changes(0, 1), producer="p", position=True),
    lambda stream: stream.append(changes(0, 1), producer="\ud800", position=1),
    lambda stream: stream.position(""),
    lambda stream: stream.position(None),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("call", LATER)
def test_producers_that_are_refused(stream: Stream, call: Callable[[Stream], object]) -> None:
    """Producer and position go together and have their limits; nothing is appended otherwise."""
    with pytest.raises(InvalidArgument):
        call(stream)
    assert stream.next_sequence == 1

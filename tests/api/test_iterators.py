from __future__ import annotations

import base64
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.children import Channel, Children
from tests.support.history import change, changes, new_stream, numbers, records_only

import shardlog
from shardlog import InvalidArgument, IteratorExpired, Page, Record, ShardNotFound, Store, Stream, TrimmedData
from shardlog.testing.clock import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> ManualClock:
    """The clock of `timed`."""
    return ManualClock(NOON)


@pytest.fixture
def timed(store_path: Path, clock: ManualClock) -> Any:
    """A stream of three shards over some segments, with an append of five every second."""
    with shardlog.open(store_path, clock=clock) as store:
        stream = new_stream(store, shards=3)
        for first in range(0, 200, 5):
            stream.append(changes(first, 5), producer="p", position=first)
            clock.advance(SECOND)
        assert stream.statistics().segments > 2
        yield stream


def shard_ids(stream: Stream) -> list[str]:
    """The shards of a stream."""
    return [shard.shard_id for shard in stream.describe().shards]


def drain(stream: Stream, iterator: str | None, limit: int = 1000) -> tuple[list[Record], int]:
    """All records from an iterator to the end of what there is, and how many pages that took."""
    records: list[Record] = []
    pages = 0
    while iterator is not None:
        page = stream.get_records(iterator, limit)
        assert len(page.records) <= limit
        records += page.records
        pages += 1
        if not page.records and not page.behind:
            break
        iterator = page.next_iterator
        assert pages < 1000
    return records, pages


# Kinds


def test_every_kind_begins_where_it_says(timed: Stream, seed: int) -> None:
    """TRIM_HORIZON, LATEST, AT and AFTER a sequence number, AT a time: each shard's records from there on."""
    choices = random.Random(seed)
    for shard_id in shard_ids(timed):
        everything = records_only(timed.read(shard_id=shard_id))
        assert drain(timed, timed.iterator(shard_id, "TRIM_HORIZON"))[0] == everything
        assert drain(timed, timed.iterator(shard_id, "LATEST"))[0] == []
        for index in [0, len(everything) - 1, *(choices.randrange(len(everything)) for _ in range(10))]:
            record = everything[index]
            at = timed.iterator(shard_id, "AT_SEQUENCE_NUMBER", sequence=record.sequence)
            after = timed.iterator(shard_id, "AFTER_SEQUENCE_NUMBER", sequence=record.sequence)
            assert drain(timed, at)[0] == everything[index:]
            assert drain(timed, after)[0] == everything[index + 1 :]
        for seconds in (-1, 0, 0.5, 7, 39, 40):
            moment = NOON + timedelta(seconds=seconds)
            found, _ = drain(timed, timed.iterator(shard_id, "AT_TIMESTAMP", timestamp=moment))
            assert found == [record for record in everything if record.created_at >= moment]


def test_numbers_of_other_shards_will_do(timed: Stream) -> None:
    """A position is a number of the stream: at one that another shard has, this shard's next record comes."""
    for shard_id in shard_ids(timed):
        everything = records_only(timed.read(shard_id=shard_id))
        for sequence in range(1, timed.next_sequence, 7):
            found, _ = drain(timed, timed.iterator(shard_id, "AT_SEQUENCE_NUMBER", sequence=sequence))
            assert found == [record for record in everything if record.sequence >= sequence]


def test_latest_begins_after_what_was_there(stream: Stream) -> None:
    """Nothing at first, then everything that was appended since the iterator was asked for."""
    stream.append(changes(0, 3))
    (shard_id,) = shard_ids(stream)
    iterator = stream.iterator(shard_id, "LATEST")
    page = stream.get_records(iterator)
    assert (page.records, page.behind) == ([], timedelta(0))
    assert page.next_iterator is not None
    stream.append(changes(3, 2))
    assert numbers(stream.get_records(iterator).records) == [3, 4]
    assert numbers(stream.get_records(page.next_iterator).records) == [3, 4]


def test_an_iterator_can_be_used_again(timed: Stream) -> None:
    """It is a position, not a state: the same iterator gives the same page."""
    iterator = timed.iterator(shard_ids(timed)[0], "TRIM_HORIZON")
    first, second = timed.get_records(iterator, 7), timed.get_records(iterator, 7)
    assert first.records == second.records
    assert len(first.records) == 7


BAD: list[tuple[str, dict[str, Any]]] = [
    ("latest", {}),
    ("", {}),
    (None, {}),  # type: ignore[list-item]
    ("AT_SEQUENCE_NUMBER", {}),
    ("AFTER_SEQUENCE_NUMBER", {}),
    ("AT_TIMESTAMP", {}),
    ("TRIM_HORIZON", {"sequence": 1}),
    ("LATEST", {"timestamp": NOON}),
    ("AT_TIMESTAMP", {"sequence": 1}),
    ("AT_TIMESTAMP", {"timestamp": NOON, "sequence": 1}),
    ("AT_TIMESTAMP", {"timestamp": NOON.replace(tzinfo=None)}),
    ("AT_TIMESTAMP", {"timestamp": 17}),
    ("AT_SEQUENCE_NUMBER", {"sequence": 1, "timestamp": NOON}),
    ("AT_SEQUENCE_NUMBER", {"sequence": "1"}),
    ("AT_SEQUENCE_NUMBER", {"sequence": 1.0}),
    ("AT_SEQUENCE_NUMBER", {"sequence": True}),
    ("AT_SEQUENCE_NUMBER", {"sequence": -1}),
    ("AT_SEQUENCE_NUMBER", {"sequence": 10**6}),
    ("AFTER_SEQUENCE_NUMBER", {"sequence": 10**6}),
]


@pytest.mark.parametrize(("kind", "options"), BAD)
def test_iterators_that_are_refused(timed: Stream, kind: str, options: dict[str, Any]) -> None:
    """A kind with what it needs, and nothing else, and a number that the shard can have."""
    with pytest.raises(InvalidArgument):
        timed.iterator(shard_ids(timed)[0], kind, **options)


def test_a_shard_that_is_not_there(timed: Stream) -> None:
    """ShardNotFound."""
    for shard_id in ("", "shardId-1", shard_ids(timed)[0] + "0"):
        with pytest.raises(ShardNotFound):
            timed.iterator(shard_id, "LATEST")


@pytest.mark.parametrize("limit", [0, -1, 1001, 1.0, None, "10", True])
def test_limits_that_are_refused(timed: Stream, limit: Any) -> None:
    """A page has 1 to 1000 records."""
    iterator = timed.iterator(shard_ids(timed)[0], "TRIM_HORIZON")
    with pytest.raises(InvalidArgument, match="limit"):
        timed.get_records(iterator, limit)


# Tokens


def test_what_is_not_an_iterator_is_refused(timed: Stream) -> None:
    """Any other text, a damaged iterator, one cut short: InvalidArgument, never a wrong place."""
    iterator = timed.iterator(shard_ids(timed)[0], "TRIM_HORIZON")
    content = bytearray(base64.urlsafe_b64decode(iterator))
    others: list[Any] = ["", "x", "ä", None, 7, iterator[:-4], iterator + "AAAA", iterator[::-1], " " + iterator]
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1
        others.append(base64.urlsafe_b64encode(changed).decode())
    for other in others:
        with pytest.raises(InvalidArgument, match="iterator"):
            timed.get_records(other)


def test_an_iterator_of_another_stream_is_refused(store: Store) -> None:
    """Also one of an earlier incarnation, and of a stream that looks the same."""
    first, second = new_stream(store), new_stream(store, "other")
    iterator = first.iterator(shard_ids(first)[0], "TRIM_HORIZON")
    with pytest.raises(InvalidArgument, match="another stream"):
        second.get_records(iterator)
    store.disable_stream("s")
    with pytest.raises(InvalidArgument, match="another stream"):
        new_stream(store).get_records(iterator)
    assert first.get_records(iterator).records == []


def test_iterators_expire_after_fifteen_minutes(timed: Stream, clock: ManualClock) -> None:
    """By the injected clock, from when it was given; each page gives a new one."""
    (shard_id, *_) = shard_ids(timed)
    iterator = timed.iterator(shard_id, "TRIM_HORIZON")
    clock.advance(15 * MINUTE)
    page = timed.get_records(iterator, 5)
    clock.advance(SECOND)
    with pytest.raises(IteratorExpired, match="0:15:00"):
        timed.get_records(iterator)
    assert page.next_iterator is not None
    clock.advance(14 * MINUTE)
    assert timed.get_records(page.next_iterator).records[0].sequence > page.records[-1].sequence
    clock.advance(MINUTE)
    with pytest.raises(IteratorExpired):
        timed.get_records(page.next_iterator)


def test_a_clock_that_was_set_back_does_not_expire_iterators(timed: Stream, clock: ManualClock) -> None:
    """An iterator from the future is as good as a new one."""
    iterator = timed.iterator(shard_ids(timed)[0], "TRIM_HORIZON")
    clock.advance(timedelta(hours=-5))
    assert timed.get_records(iterator).records


def _reads_a_page(channel: Channel, path: Path) -> None:
    with shardlog.open(path, read_only=True) as store:
        iterator, limit = channel.receive()
        page = store.stream("s").get_records(iterator, limit)
        channel.send((numbers(page.records), page.next_iterator))


def test_iterators_survive_restarts_and_processes(store: Store, store_path: Path, children: Children) -> None:
    """An iterator goes on where it was, in another process, and after the stream was closed and opened again."""
    stream = new_stream(store)
    for first in range(0, 300, 10):
        stream.append(changes(first, 10))
    page = stream.get_records(stream.iterator(shard_ids(stream)[0], "TRIM_HORIZON"), 100)
    child = children.start(_reads_a_page, store_path)
    child.send((page.next_iterator, 100))
    found, iterator = child.receive()
    assert found == list(range(100, 200))
    store.close()
    with shardlog.open(store_path) as again:
        assert numbers(drain(again.stream("s"), iterator, 30)[0]) == list(range(200, 300))


# Pages


def test_pages_give_everything_once(timed: Stream, seed: int) -> None:
    """Whatever the limits, paging gives each shard's records in order, none twice, none left out."""
    choices = random.Random(seed)
    for shard_id in shard_ids(timed):
        iterator: str | None = timed.iterator(shard_id, "TRIM_HORIZON")
        records: list[Record] = []
        while True:
            assert iterator is not None
            limit = choices.choice([1, 2, 3, 10, 1000])
            page = timed.get_records(iterator, limit)
            assert len(page.records) <= limit
            records += page.records
            iterator = page.next_iterator
            if not page.records:
                break
        assert records == records_only(timed.read(shard_id=shard_id))


def test_a_page_has_at_most_a_thousand_records(store: Store) -> None:
    """1000 by default, though they are small and of one append."""
    stream = store.create_stream("s", view_type="KEYS_ONLY")
    stream.append(changes(0, 2500))
    iterator: str | None = stream.iterator(shard_ids(stream)[0], "TRIM_HORIZON")
    sizes = []
    while iterator is not None and (page := stream.get_records(iterator)).records:
        sizes.append(len(page.records))
        iterator = page.next_iterator
    assert sizes == [1000, 1000, 500]


def test_a_page_has_at_most_a_megabyte(store: Store, seed: int) -> None:
    """Records up to 1 MB in all, of one append or of many; a page could not have taken one more."""
    choices = random.Random(seed)
    stream = store.create_stream("s", segment_bytes=1 << 20)
    sizes = [choices.choice([10, 1000, 90_000, 400_000]) for _ in range(60)]
    number = 0
    while number < len(sizes):
        count = choices.randrange(1, 8)
        some = [change(n, "x" * sizes[n]) for n in range(number, min(number + count, len(sizes)))]
        stream.append(some)
        number += len(some)
    iterator: str | None = stream.iterator(shard_ids(stream)[0], "TRIM_HORIZON")
    found: list[int] = []
    while iterator is not None and (page := stream.get_records(iterator)).records:
        taken = numbers(page.records)
        found += taken
        assert sum(sizes[number] for number in taken) <= 1_000_000
        if found[-1] + 1 < len(sizes):
            assert sum(sizes[number] for number in [*taken, found[-1] + 1]) > 1_000_000 - 100 * (len(taken) + 1)
        iterator = page.next_iterator
    assert found == list(range(len(sizes)))


def test_a_page_has_at_least_one_record(store: Store) -> None:
    """A record over 1 MB makes a page of its own; what is before and behind it comes with other pages."""
    stream = new_stream(store)
    large = "x" * 3_000_000
    stream.append([change(0), change(1, large), change(2)])
    stream.append([change(3, large)])
    stream.append([change(4, large), change(5)])
    iterator: str | None = stream.iterator(shard_ids(stream)[0], "TRIM_HORIZON")
    pages = []
    while iterator is not None and (page := stream.get_records(iterator)).records:
        pages.append(numbers(page.records))
        iterator = page.next_iterator
    assert pages == [[0], [1], [2], [3], [4], [5]]


def test_a_rare_shard_is_found_in_a_long_log(store: Store) -> None:
    """Pages look through a limited stretch of log: empty ones are legal, and their iterators come to the record."""
    stream = store.create_stream("s", shards=2, segment_bytes=8 << 20, view_type="KEYS_ONLY")
    rare, _common = shard_ids(stream)
    keys = {True: [], False: []}  # type: dict[bool, list[str]]
    number = 0
    while min(map(len, keys.values())) < 1:
        key = f"{number:03}" + "x" * 400_000
        result = stream.append([shardlog.Change.insert(keys={"id": key})])
        (record,) = records_only(stream.read(result.sequences[0]))
        keys[record.shard_id == rare].append(key)
        number += 1
    before = stream.next_sequence
    for _ in range(60):
        stream.append([shardlog.Change.insert(keys={"id": keys[False][0]})])
    stream.append([shardlog.Change.insert(keys={"id": keys[True][0]})])
    records, pages = drain(stream, stream.iterator(rare, "AT_SEQUENCE_NUMBER", sequence=before))
    assert [record.keys["id"] for record in records] == [keys[True][0]]
    assert pages > 1


# Behind


def test_behind_is_the_time_to_the_newest_record(timed: Stream, clock: ManualClock) -> None:
    """Zero at the end; else the time between the last record looked at and the newest of the stream."""
    for shard_id in shard_ids(timed):
        everything = records_only(timed.read(shard_id=shard_id))
        newest = max(record.created_at for record in records_only(timed.read()))
        page = timed.get_records(timed.iterator(shard_id, "TRIM_HORIZON"), 10)
        assert page.behind == newest - everything[9].created_at > timedelta(0)
        assert timed.get_records(timed.iterator(shard_id, "TRIM_HORIZON")).behind == timedelta(0)
        assert timed.get_records(timed.iterator(shard_id, "LATEST")).behind == timedelta(0)
    clock.advance(MINUTE)
    assert timed.get_records(timed.iterator(shard_id, "LATEST")).behind == timedelta(0)


# Ends


def test_a_disabled_stream_is_drained(store: Store) -> None:
    """After the last record of a closed shard there is no next iterator, and no child."""
    stream = new_stream(store, shards=2)
    stream.append(changes(0, 20))
    before = [stream.iterator(shard_id, "LATEST") for shard_id in shard_ids(stream)]
    store.disable_stream("s")
    for shard_id, latest in zip(shard_ids(stream), before, strict=True):
        everything = numbers(stream.read(shard_id=shard_id))
        iterator = stream.iterator(shard_id, "TRIM_HORIZON")
        page = stream.get_records(iterator, len(everything) - 1)
        assert numbers(page.records) == everything[:-1]
        assert page.next_iterator is not None
        last = stream.get_records(page.next_iterator)
        assert numbers(last.records) == everything[-1:]
        assert (last.next_iterator, last.child_shard_ids) == (None, ())
        for ended in (latest, stream.iterator(shard_id, "LATEST")):
            assert stream.get_records(ended) == Page([], None, timedelta(0), ())
        assert stream.get_records(iterator).next_iterator is None


def test_an_open_shard_has_always_a_next_iterator(timed: Stream) -> None:
    """At the end of an open shard, the next iterator waits for what comes."""
    iterator: str | None = timed.iterator(shard_ids(timed)[0], "LATEST")
    for _ in range(5):
        assert iterator is not None
        page = timed.get_records(iterator)
        assert (page.records, page.child_shard_ids) == ([], ())
        iterator = page.next_iterator


def test_an_iterator_behind_the_horizon(store_path: Path, clock: ManualClock) -> None:
    """What it points at has expired: TrimmedData; TRIM_HORIZON means the horizon of the moment when it is used."""
    with shardlog.open(store_path, clock=clock) as store:
        stream = new_stream(store, retention=timedelta(minutes=10))
        for first in range(0, 200, 10):
            stream.append(changes(first, 10))
            clock.advance(30 * SECOND)
        (shard_id,) = shard_ids(stream)
        at = stream.iterator(shard_id, "AT_SEQUENCE_NUMBER", sequence=1)
        from_horizon = stream.iterator(shard_id, "TRIM_HORIZON")
        clock.advance(8 * MINUTE)
        stream.expire(force=True)
        assert stream.trim_horizon > 1
        with pytest.raises(TrimmedData):
            stream.get_records(at)
        assert stream.get_records(from_horizon).records == list(stream.read())

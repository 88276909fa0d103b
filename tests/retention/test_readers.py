"""Readers whose records expire: before they begin, between two pages, or under their hands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Literal

import pytest
from tests.retention.aging import DAY, HOUR, Aging
from tests.support.background import Background, wait_until
from tests.support.children import Channel, Children
from tests.support.history import change, numbers, records_only

import shardlog
from shardlog import Gap, Record, Store, TrimmedData
from shardlog.clock import datetime_of
from shardlog.testing.clock import ManualClock

OnDamage = Literal["raise", "gap"]


def expire_all_but_last(aging: Aging) -> None:
    """All that was appended so far expires; one more record comes."""
    aging.clock.advance(2 * DAY)
    aging.fill(2)
    assert aging.stream.expire().segments > 0


def fill_with_many(aging: Aging, segments: int, pause: timedelta = timedelta(0)) -> list[int]:
    """So many segments of dozens of commits each; the first item of each segment."""
    firsts: list[int] = []
    item = 0
    while len(aging.segments) < segments + 1 or not firsts:
        known = len(aging.segments)
        aging.stream.append([change(item, "x" * 300)])
        if len(aging.segments) > known or not firsts:
            firsts.append(item)
            aging.clock.advance(pause)
        item += 1
    return firsts


def test_positions_behind_the_horizon_are_refused(aging: Aging) -> None:
    """Of `read` and of iterators; the horizon itself, TRIM_HORIZON and any time are not."""
    stream = aging.stream
    sequences = aging.fill(4, HOUR)
    (shard,) = stream.describe().shards
    long_ago = datetime_of(aging.clock.wall_us()) - 3 * HOUR
    expire_all_but_last(aging)
    horizon = stream.trim_horizon
    assert horizon == sequences[-1] + 1
    for sequence in (0, 1, horizon - 1):
        with pytest.raises(TrimmedData):
            stream.read(sequence)
    for sequence in sequences:
        with pytest.raises(TrimmedData):
            stream.iterator(shard.shard_id, "AT_SEQUENCE_NUMBER", sequence=sequence)
        with pytest.raises(TrimmedData):
            stream.iterator(shard.shard_id, "AFTER_SEQUENCE_NUMBER", sequence=sequence)
    assert numbers(stream.read(horizon)) == numbers(stream.read()) == numbers(stream.read(long_ago)) == [4, 5]
    for iterator in (
        stream.iterator(shard.shard_id, "TRIM_HORIZON"),
        stream.iterator(shard.shard_id, "AT_TIMESTAMP", timestamp=long_ago),
        stream.iterator(shard.shard_id, "AT_SEQUENCE_NUMBER", sequence=horizon),
    ):
        assert numbers(stream.get_records(iterator).records) == [4, 5]


def test_iterators_between_two_pages(aging: Aging) -> None:
    """The next page of what has expired is refused; one from TRIM_HORIZON begins at the horizon of then."""
    stream = aging.stream
    aging.fill(4)
    (shard,) = stream.describe().shards
    from_horizon = stream.iterator(shard.shard_id, "TRIM_HORIZON")
    from_first = stream.iterator(shard.shard_id, "AT_SEQUENCE_NUMBER", sequence=1)
    second = stream.get_records(from_first, 1).next_iterator
    assert second is not None
    aging.stream.set_retention(timedelta(minutes=5))
    aging.clock.advance(timedelta(minutes=6))
    aging.fill(2)
    stream.expire()
    for iterator in (from_first, second):
        with pytest.raises(TrimmedData):
            stream.get_records(iterator)
    assert numbers(stream.get_records(from_horizon).records) == [4, 5]


def test_an_idle_poller_is_not_thrown_out(aging: Aging) -> None:
    """It has read everything: what expires behind it is none of its business, pass after pass."""
    stream = aging.stream
    stream.set_retention(timedelta(minutes=10))
    aging.fill(2)
    (shard,) = stream.describe().shards
    iterator: str | None = stream.iterator(shard.shard_id, "TRIM_HORIZON")
    found = []
    for minute in range(60):
        assert iterator is not None
        page = stream.get_records(iterator)
        found += numbers(page.records)
        iterator = page.next_iterator
        aging.clock.advance(timedelta(minutes=1))
        stream.expire(force=True)
        if minute % 20 == 10:
            aging.fill(1)
    assert found == [0, 1, 2, 3, 4]
    assert stream.trim_horizon > 4


def test_iterators_of_a_shard_that_has_expired(aging: Aging) -> None:
    """TrimmedData, not "unknown": there was such a shard."""
    stream = aging.stream
    aging.fill(1)
    (shard,) = stream.describe().shards
    stream.roll_shard(shard.shard_id)
    iterators = [stream.iterator(shard.shard_id, kind) for kind in ("TRIM_HORIZON", "LATEST")]
    aging.clock.advance(2 * DAY)
    aging.fill(2)
    stream.expire()
    assert len(stream.describe().shards) == 1
    for iterator in iterators:
        with pytest.raises(TrimmedData):
            stream.get_records(iterator)


def test_a_reading_that_had_not_begun(aging: Aging) -> None:
    """Its start was settled when it was made; it says that it is gone, and not that the log is damaged."""
    aging.fill(4)
    readings: list[Iterator[Record | Gap]] = [
        aging.stream.read(),
        aging.stream.read(3, on_damage="gap"),
        aging.stream.read(follow=True, timeout=5),
    ]
    expire_all_but_last(aging)
    for reading in readings:
        with pytest.raises(TrimmedData):
            next(reading)


@pytest.mark.parametrize("on_damage", ["raise", "gap"])
def test_a_reading_in_a_segment_that_expires_goes_on_to_its_end(aging: Aging, on_damage: OnDamage) -> None:
    """Its file stays open; then comes TrimmedData, for the next segment has expired as well, and never a gap."""
    _, second, *_ = fill_with_many(aging, 4)
    reading = aging.stream.read(on_damage=on_damage)
    assert numbers([next(reading)]) == [0]
    oldest = aging.segments[0]
    expire_all_but_last(aging)
    assert oldest not in aging.segments
    assert numbers(islice(reading, second - 1)) == list(range(1, second))
    with pytest.raises(TrimmedData):
        next(reading)


def test_a_reading_does_not_notice_what_expires_behind_it(aging: Aging) -> None:
    """Only the segment that it is in expires: it goes on into the next."""
    _, second, third, *_ = fill_with_many(aging, 5, 5 * HOUR)
    reading = aging.stream.read()
    assert numbers(islice(reading, second + 3)) == list(range(second + 3))
    horizon_item = third
    while numbers(aging.stream.read())[0] < horizon_item:
        aging.clock.advance(HOUR)
        aging.stream.expire()
    assert numbers(aging.stream.read())[0] == horizon_item
    rest = numbers(reading)
    assert rest == list(range(second + 3, rest[-1] + 1))
    assert rest[-1] > third


def expire_all(channel: Channel, path: str, wall_us: int, rolls: bool) -> None:
    """Expire all that can be, on a clock as it stands elsewhere; with a few appends to be the last ones."""
    clock = ManualClock(datetime_of(wall_us))
    with shardlog.open(path, clock=clock) as store:
        stream = store.stream("s")
        if rolls:
            stream.append([change(1000 + number, "x" * 6000) for number in range(2)])
        trimmed = stream.expire(force=True)
        channel.send((trimmed.segments, trimmed.horizon_after))


@pytest.mark.parametrize("on_damage", ["raise", "gap"])
def test_another_process_expires_what_is_being_read(
    aging: Aging, timed_store: Store, children: Children, on_damage: OnDamage
) -> None:
    """Open files are read to their end; then TrimmedData, and never corruption."""
    firsts = fill_with_many(aging, 6)
    readings = []
    for taken in (1, firsts[1] + 1, firsts[2] - 1, firsts[2]):
        reading = aging.stream.read(on_damage=on_damage)
        assert numbers(islice(reading, taken)) == list(range(taken))
        readings.append((taken, reading))
    aging.clock.advance(2 * DAY)
    child = children.start(expire_all, timed_store.path, aging.clock.wall_us(), True)
    segments, horizon = child.receive()
    assert segments >= 6
    assert child.wait() == 0
    for taken, reading in readings:
        found: list[int] = []
        with pytest.raises(TrimmedData):
            found.extend(record.keys["id"] for record in reading if isinstance(record, Record) or pytest.fail("a gap"))
        assert found == list(range(taken, taken + len(found)))
        assert taken + len(found) in firsts
    assert aging.stream.trim_horizon == horizon
    assert numbers(aging.stream.read()) == [1000, 1001]


def reshard_in_between(channel: Channel, path: str, wall_us: int) -> None:
    """Append, split, append; later expire all of it."""
    clock = ManualClock(datetime_of(wall_us))
    with shardlog.open(path, clock=clock) as store:
        stream = store.stream("s")
        stream.append([change(0, "")])
        left, right = stream.split_shard(stream.describe().shards[0].shard_id)
        stream.append([change(number, "") for number in range(1, 20)])
        stream.merge_shards(left, right)
        channel.send("appended")
        assert channel.receive() == "expire"
        clock.advance(2 * DAY)
        stream.append([change(20, "")])
        assert stream.expire(force=True).segments > 0
        channel.send("expired")


def test_a_reader_meets_shards_that_came_and_went_unseen(
    aging: Aging, timed_store: Store, children: Children, clock: ManualClock
) -> None:
    """It goes on in the file that it has open, and finds records of shards that nobody knows any more: TrimmedData."""
    child = children.start(reshard_in_between, timed_store.path, clock.wall_us())
    assert child.receive() == "appended"
    reading = aging.stream.read(on_damage="gap")
    assert numbers([next(reading)]) == [0]
    child.send("expire")
    assert child.receive() == "expired"
    with pytest.raises(TrimmedData):
        next(reading)
    assert child.wait() == 0
    assert numbers(aging.stream.read()) == [20]


def deleted_files_open(process: int) -> list[str]:
    """Files that a process has open and that have no name any more."""
    directory = Path(f"/proc/{process}/fd")
    targets = []
    for entry in directory.iterdir():
        with suppress(FileNotFoundError):  # the one of the listing itself
            targets.append(str(entry.readlink()))
    return [target for target in targets if target.endswith(".seg (deleted)")]


def test_space_is_free_when_another_process_expires(
    aging: Aging, timed_store: Store, children: Children, clock: ManualClock
) -> None:
    """Who has read, or only appended, keeps no file of an expired segment open after its next read, or append."""
    fill_with_many(aging, 5)
    assert len(records_only(aging.stream.read())) > 50
    clock.advance(2 * DAY)
    child = children.start(expire_all, timed_store.path, clock.wall_us(), True)
    assert child.receive()[0] >= 5
    assert child.wait() == 0
    aging.stream.append([change(2000, "")])
    assert deleted_files_open(os.getpid()) == []
    fill_with_many(aging, len(aging.segments) + 3)
    clock.advance(2 * DAY)
    child = children.start(expire_all, timed_store.path, clock.wall_us(), True)
    assert child.receive()[0] >= 3
    assert numbers(aging.stream.read())[-1] == 1001
    assert len(deleted_files_open(os.getpid())) <= 1, "only the one that it appended to, until it appends again"
    aging.stream.append([change(2000, "")])
    assert deleted_files_open(os.getpid()) == []


def test_a_follower_that_has_read_everything_is_not_thrown_out(aging: Aging) -> None:
    """An idle stream's last segment rolls and expires under it; it waits on, and gets what comes next."""
    found: list[int] = []

    def follow() -> None:
        for record in aging.stream.read(follow=True, timeout=20):
            found.extend(numbers([record]))
            if found[-1] == 3:
                return

    follower = Background(follow)
    for item in range(4):
        aging.fill(1)
        wait_until(lambda item=item: item in found or not follower.is_running)
        for _ in range(3):
            aging.clock.advance(2 * DAY)
            aging.stream.expire(force=True)
    follower.result()
    assert found == [0, 1, 2, 3]
    assert aging.stream.trim_horizon > 4


def test_an_idle_stream_comes_to_rest(aging: Aging) -> None:
    """When everything has expired, passes write nothing more, and remove nothing more."""
    aging.fill(3)
    aging.stream.roll_shard(aging.stream.describe().shards[0].shard_id)
    aging.clock.advance(2 * DAY)
    aging.stream.expire(force=True)
    aging.clock.advance(2 * DAY)
    aging.stream.expire(force=True)
    assert len(aging.stream.describe().shards) == 1
    before = aging.stream.next_sequence, aging.segments
    for _ in range(5):
        aging.clock.advance(2 * DAY)
        trimmed = aging.stream.expire()
        assert (trimmed.segments, trimmed.held_back) == (0, None)
    assert (aging.stream.next_sequence, aging.segments) == before


def test_a_follower_that_stopped_between_two_records(aging: Aging) -> None:
    """Its consumer took its time, and everything expired meanwhile: it had read it all, or it had not."""
    aging.fill(1)
    complete = aging.stream.read(follow=True, timeout=20)
    assert numbers([next(complete)]) == [0]
    aging.fill(2)
    behind = aging.stream.read(follow=True, timeout=20)
    assert numbers(islice(behind, 2)) == [0, 1]
    assert numbers(islice(complete, 2)) == [1, 2]
    aging.clock.advance(2 * DAY)
    assert aging.stream.expire(force=True).segments > 0
    aging.fill(1)
    assert numbers([next(complete)]) == [3]
    with pytest.raises(TrimmedData):
        next(behind)


def test_a_follower_of_a_shard_that_expires_while_it_is_held_up(aging: Aging) -> None:
    """It cannot tell whether it has read all of it: TrimmedData. One that came to the end before has ended."""
    aging.fill(1)
    (shard,) = aging.stream.describe().shards
    held_up = aging.stream.read(shard_id=shard.shard_id, follow=True, timeout=20)
    assert numbers([next(held_up)]) == [0]
    in_time = aging.stream.read(shard_id=shard.shard_id, follow=True, timeout=20)
    aging.stream.roll_shard(shard.shard_id)
    assert numbers(in_time) == [0]
    aging.clock.advance(2 * DAY)
    assert aging.stream.expire(force=True).segments > 0
    assert shard.shard_id not in [shard.shard_id for shard in aging.stream.describe().shards]
    with pytest.raises(TrimmedData):
        next(held_up)


def test_a_tail_of_before_an_expiry(aging: Aging) -> None:
    """A reader that looked at the tail just before: what it wants has expired, nothing is damaged."""
    aging.fill(5)
    stream = aging.stream._stream
    tail = stream.tail()
    expire_all_but_last(aging)
    for sequence in (1, 2, tail.next_sequence - 1):
        with pytest.raises(TrimmedData):
            list(stream.reader(sequence, None).batches(tail, None))

"""Readers whose records expire: before they begin, between two pages, or under their hands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.retention.aging import DAY, HOUR, Aging
from tests.support.background import Background, wait_until
from tests.support.children import Channel, Children
from tests.support.history import change, numbers, records_only

import shardlog
from shardlog import Gap, Record, Store, TrimmedData
from shardlog.clock import datetime_of
from shardlog.testing.clock import ManualClock


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
        if minute == 50:
            aging.fill(1)
    assert found == [0, 1, 2]
    assert stream.trim_horizon > 3


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


def test_a_reading_in_a_segment_that_expires_goes_on_to_its_end(aging: Aging) -> None:
    """Its file stays open; then comes TrimmedData, where the next segment has expired as well, and never a gap."""
    first, second, *_ = fill_with_many(aging, 4)
    assert first == 0
    assert second > 20
    for on_damage in ("raise", "gap"):
        reading = aging.stream.read(on_damage=on_damage)  # type: ignore[arg-type]
        assert numbers([next(reading)]) == [0]
        if on_damage == "gap":
            expire_all_but_last(aging)
            assert not (aging.log / f"{1:020d}-00000001.seg").exists()
            found = []
            with pytest.raises(TrimmedData):
                found += [numbers([record]) for record in reading]
            assert len(found) <= second
        else:
            reading.close() if hasattr(reading, "close") else None

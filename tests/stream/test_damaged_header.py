"""A segment in the middle whose header is damaged: what tells no time by itself keeps nobody from asking for one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.history import changes, new_stream

import shardlog
from shardlog import Gap, Record, Stream
from shardlog.testing.clock import ManualClock

COMMITS = 60
HOUR_US = 3_600_000_000


def spoil_a_header(store_path: Path) -> None:
    """Of the third segment."""
    middle = sorted(store_path.glob("streams/s/*/log/*.seg"))[2]
    content = bytearray(middle.read_bytes())
    content[8:24] = bytes(16)
    middle.write_bytes(content)


def filled(stream: Stream, clock: ManualClock) -> list[tuple[int, Record]]:
    """Commits a minute apart, over several segments."""
    for number in range(COMMITS):
        clock.advance(timedelta(minutes=1))
        stream.append(changes(number * 20, 20))
    return [(record.sequence, record) for record in stream.read() if isinstance(record, Record)]


@pytest.mark.parametrize("is_repaired", [False, True])
def test_a_time_finds_its_records_beside_a_damaged_header(store_path: Path, is_repaired: bool) -> None:
    """Reading from a time, and an iterator at one, work wherever their records are not in the damaged range."""
    clock = ManualClock()
    with shardlog.open(store_path, clock=clock) as store:
        records = filled(new_stream(store, retention=None), clock)
    spoil_a_header(store_path)
    if is_repaired:
        shardlog.plan_repair(shardlog.fsck(store_path)).apply()
    with shardlog.open(store_path, read_only=True, clock=clock) as store:
        stream = store.stream("s")
        good = [found for found in stream.read(on_damage="gap") if isinstance(found, Record)]
        shard_id = stream.describe().shards[0].shard_id
        for _, record in records[:: COMMITS // 2]:
            wanted = [one.sequence for one in good if one.created_at >= record.created_at]
            found = list(stream.read(record.created_at, on_damage="gap"))
            assert [one.sequence for one in found if not isinstance(one, Gap)] == wanted
            iterator = stream.iterator(shard_id, "AT_TIMESTAMP", timestamp=record.created_at)
            page = stream.get_records(iterator, 10)
            assert page.records
            assert [one.sequence for one in page.records] == wanted[: len(page.records)]


@pytest.mark.parametrize("is_repaired", [False, True])
def test_records_expire_beside_a_damaged_header(store_path: Path, is_repaired: bool) -> None:
    """Retention goes on, before a repair and after it: never too early, and in the end all of the segment is gone."""
    clock = ManualClock()
    with shardlog.open(store_path, clock=clock) as store:
        records = filled(new_stream(store, retention=timedelta(hours=2)), clock)
    spoil_a_header(store_path)
    if is_repaired:
        shardlog.plan_repair(shardlog.fsck(store_path)).apply()
    with shardlog.open(store_path, clock=clock) as store:
        stream = store.stream("s")
        horizons = []
        for _ in range(8):
            clock.advance(timedelta(minutes=20))
            horizons.append(stream.expire(force=True).horizon_after)
            young = [number for number, record in records if clock.wall_us() - record.timestamp_us < 2 * HOUR_US]
            assert horizons[-1] <= min(young, default=stream.next_sequence)
        assert horizons == sorted(horizons)
        assert len(set(horizons)) > 2, "in several steps"
        clock.advance(timedelta(hours=3))
        stream.expire(force=True)
        assert list(stream.read(on_damage="gap")) == []

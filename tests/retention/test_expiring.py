"""Expiring: what goes, what stays, what is said of it, and what holds it back."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from tests.retention.aging import DAY, HOUR, TEXT, Aging
from tests.support.faults import FaultyFiles, no_room, open_with
from tests.support.history import change, changes, numbers, records_only

import shardlog
from shardlog import (
    InvalidArgument,
    ReadOnly,
    ShardNotFound,
    StorageFull,
    Store,
    Stream,
    StreamDisabled,
    StreamNotFound,
    Trimmed,
)
from shardlog.testing.clock import ManualClock


def test_nothing_expires_before_its_time(aging: Aging) -> None:
    """A pass that finds nothing says so, and writes nothing."""
    aging.fill(4, HOUR)
    segments, next_sequence = aging.segments, aging.stream.next_sequence
    assert aging.stream.expire() == Trimmed(1, 1, 0, 0, None)
    assert aging.segments == segments
    assert aging.stream.next_sequence == next_sequence
    assert numbers(aging.stream.read()) == list(range(4))


def test_segments_expire_oldest_first(aging: Aging) -> None:
    """The horizon is the first record that stays; the pass tells what it removed, and the files are gone."""
    sequences = aging.fill(6, 2 * HOUR)
    aging.clock.advance(DAY - 8 * HOUR + timedelta(seconds=1))
    before = aging.segments
    freed = sum(aging.space(name) for name in before[:3])
    trimmed = aging.stream.expire()
    assert trimmed == Trimmed(1, sequences[3], 3, freed, None)
    assert aging.segments[: len(before) - 3] == before[3:]
    assert aging.stream.trim_horizon == sequences[3]
    assert numbers(aging.stream.read()) == [3, 4, 5]
    assert aging.stream.expire() == Trimmed(sequences[3], sequences[3], 0, 0, None)
    statistics = aging.stream.statistics()
    assert (statistics.records, statistics.trim_horizon) == (3, sequences[3])
    assert statistics.bytes == sum(map(aging.space, aging.segments))


def test_an_idle_stream_expires_whole(aging: Aging) -> None:
    """Its last segment rolls by age, and goes; numbers go on, and nothing of it is left after a reopening."""
    sequences = aging.fill(1)
    aging.clock.advance(DAY - timedelta(seconds=1))
    assert aging.stream.expire().segments == 0
    assert numbers(aging.stream.read()) == [0]
    aging.clock.advance(timedelta(seconds=1))
    trimmed = aging.stream.expire()
    assert (trimmed.segments, trimmed.held_back) == (1, None)
    assert records_only(aging.stream.read()) == []
    assert len(aging.segments) == 1
    (later,) = aging.fill(1)
    assert later > sequences[-1]
    assert numbers(aging.stream.read()) == [1]


def test_segments_roll_by_age_so_that_records_expire_one_after_the_other(aging: Aging) -> None:
    """A stream of small appends: nothing is kept for much longer than its time."""
    for hour in range(60):
        aging.stream.append([change(hour, "")])
        aging.stream.expire()
        aging.clock.advance(HOUR)
        kept = numbers(aging.stream.read())
        assert kept == list(range(kept[0], hour + 1))
        assert hour - 24 - 4 <= kept[0] <= max(0, hour - 23)
    assert len(aging.segments) < 16


def test_a_pass_that_would_take_every_sealed_segment_is_held_back(aging: Aging) -> None:
    """A wrong clock looks the same. Forced, it goes; the reason is told and nothing was removed before."""
    sequences = aging.fill(5)
    aging.clock.advance(10 * DAY)
    before = aging.segments
    held = aging.stream.expire()
    assert (held.horizon_before, held.horizon_after, held.segments, held.bytes) == (1, 1, 0, 0)
    assert held.held_back is not None
    assert "force" in held.held_back
    assert set(before) <= set(aging.segments)
    assert numbers(aging.stream.read()) == list(range(5))
    forced = aging.stream.expire(force=True)
    assert (forced.segments, forced.held_back) == (5, None)
    assert forced.horizon_after > sequences[-1]
    assert records_only(aging.stream.read()) == []


def test_one_sealed_segment_that_stays_lets_the_others_go(aging: Aging) -> None:
    """Then the clock cannot be all wrong."""
    aging.fill(5)
    aging.clock.advance(10 * DAY)
    aging.fill(2)
    assert aging.stream.expire().segments == 5
    assert numbers(aging.stream.read()) == [5, 6]


@pytest.mark.parametrize("by", [timedelta(days=30), -timedelta(days=30), timedelta(minutes=2)])
def test_a_clock_that_jumped_suspends_expiry(aging: Aging, by: timedelta) -> None:
    """Until it has run true for an hour; not if forced."""
    aging.fill(3)
    aging.clock.advance(2 * DAY)
    aging.fill(2)
    aging.jump(by)
    held = aging.stream.expire()
    assert numbers(aging.stream.read()) == list(range(5))
    aging.clock.advance(timedelta(minutes=59))
    assert aging.stream.expire().segments == 0
    if by < timedelta(0):
        assert held.held_back is None, "seen from before, nothing is old"
        return
    assert held.held_back is not None
    assert "clock" in held.held_back
    aging.clock.advance(timedelta(minutes=1))
    assert aging.stream.expire(force=by > DAY).segments >= 3


def test_force_does_not_wait_for_the_clock(aging: Aging) -> None:
    """Whoever forces knows that the time is right now."""
    aging.fill(3)
    aging.jump(2 * DAY)
    assert aging.stream.expire().segments == 0
    assert aging.stream.expire(force=True).segments == 3


def test_a_clock_that_was_ahead_for_some_time_neither_pins_nor_evicts(aging: Aging) -> None:
    """Segments made meanwhile, the active one too, expire a day after they really were written."""
    aging.fill(2, HOUR)
    aging.jump(365 * DAY)
    aging.fill(2, HOUR)
    aging.jump(-365 * DAY)
    aging.clock.advance(2 * HOUR)  # the stream is idle; its active segment is of the future
    assert aging.stream.expire().segments == 0
    for hour in range(30):
        aging.clock.advance(HOUR)
        aging.stream.expire()
        if hour < 17:
            assert len(records_only(aging.stream.read())) == 4, f"evicted after {hour} hours"
    aging.stream.expire(force=True)
    assert records_only(aging.stream.read()) == [], "pinned"


def test_retention_can_be_changed_later(aging: Aging) -> None:
    """Longer keeps what would have gone, shorter lets go at the next pass, for ever keeps everything; also reopened."""
    aging.fill(6, 5 * HOUR)
    aging.stream.set_retention(None)
    aging.clock.advance(3 * DAY)
    aging.fill(1)
    assert aging.stream.expire().segments == 0
    aging.stream.set_retention(30 * DAY)
    assert aging.stream.describe().retention == 30 * DAY
    assert aging.stream.expire().segments == 0
    aging.stream.set_retention(3 * DAY + 12 * HOUR)
    assert aging.stream.expire().segments >= 2
    kept = numbers(aging.stream.read())
    assert kept[0] in (2, 3, 4)
    aging.stream.set_retention(timedelta(seconds=1))
    aging.clock.advance(timedelta(seconds=2))
    aging.stream.expire(force=True)
    assert records_only(aging.stream.read()) == []


@pytest.mark.parametrize("retention", [timedelta(0), timedelta(milliseconds=999), -DAY, 86400, "24h"])
def test_retentions_that_are_refused(aging: Aging, retention: object) -> None:
    """At creation and later; nothing changes."""
    with pytest.raises(InvalidArgument):
        aging.stream.set_retention(retention)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        aging.stream.set_retention(DAY, retention_bytes=0)
    assert aging.stream.describe().retention == DAY


@pytest.mark.parametrize("retention", [None, DAY])
def test_by_bytes_the_log_stays_below_its_cap(timed_store: Store, clock: ManualClock, retention: timedelta) -> None:
    """Whatever the age, and without being forced: the cap has nothing to do with the clock."""
    cap = 5 * 16384
    aging = Aging(timed_store, clock, retention=retention, retention_bytes=cap)
    for turn in range(12):
        aging.fill(3)
        trimmed = aging.stream.expire()
        assert trimmed.held_back is None
        assert sum(map(aging.space, aging.segments)) <= cap
        assert numbers(aging.stream.read())[-1] == 3 * turn + 2
    aging.stream.set_retention(retention, retention_bytes=1)
    aging.stream.expire()
    assert len(aging.segments) == 1, "only the active one is left"
    aging.stream.set_retention(retention)
    aging.fill(9)
    assert aging.stream.expire().segments == 0


def test_closed_shards_stay_until_their_last_record_has_expired(aging: Aging) -> None:
    """Then they vanish from the description; their children still name them."""
    stream = aging.stream
    aging.fill(2, HOUR)
    (parent,) = stream.describe().shards
    left, right = stream.split_shard(parent.shard_id)
    aging.fill(2, HOUR)
    child = stream.merge_shards(left, right)
    aging.fill(3, HOUR)
    aging.clock.advance(DAY - 6 * HOUR)
    assert stream.expire().segments == 1
    assert [shard.shard_id for shard in stream.describe().shards] == [parent.shard_id, left, right, child]
    aging.clock.advance(HOUR)
    stream.expire()
    assert [shard.shard_id for shard in stream.describe().shards] == [left, right, child]
    assert {shard.parent_ids for shard in stream.describe().shards[:2]} == {(parent.shard_id,)}
    aging.clock.advance(2 * HOUR)
    stream.expire()
    (survivor,) = stream.describe().shards
    assert (survivor.shard_id, survivor.parent_ids) == (child, (left, right))
    for gone in (parent.shard_id, left, right):
        with pytest.raises(ShardNotFound):
            stream.iterator(gone, "TRIM_HORIZON")
        with pytest.raises(ShardNotFound):
            stream.read(shard_id=gone)
        with pytest.raises(ShardNotFound):
            stream.split_shard(gone)
    grandchild = stream.roll_shard(child)
    assert max(shard.shard_id for shard in stream.describe().shards) == grandchild


def test_the_lineage_survives_the_segment_that_told_of_it(aging: Aging, timed_store: Store) -> None:
    """Every later header carries it: after all control records have expired, a reopening finds the same shards."""
    stream = aging.stream
    for _ in range(5):
        aging.fill(1)
        stream.split_shard(stream.describe().shards[-1].shard_id)
    stream.set_retention(2 * DAY, retention_bytes=1 << 30)
    open_shards = [shard for shard in stream.describe().shards if shard.end_sequence is None]
    aging.clock.advance(3 * DAY)
    stream.expire(force=True)
    described = stream.describe()
    assert list(described.shards) == open_shards
    assert len(aging.segments) == 1
    horizon = stream.trim_horizon
    timed_store.close()
    for read_only in (True, False):
        with shardlog.open(timed_store.path, read_only=read_only, clock=aging.clock) as again:
            assert again.stream("s").describe() == described
            assert again.stream("s").trim_horizon == horizon
            assert again.stream("s").describe().retention_bytes == 1 << 30


def test_a_disabled_stream_expires_until_nothing_is_left_but_its_name(aging: Aging, timed_store: Store) -> None:
    """It stays listed and can be read, as empty; a new one of the name has another label."""
    aging.fill(3)
    timed_store.disable_stream("s")
    aging.clock.advance(2 * DAY)
    assert aging.stream.expire().held_back is not None
    aging.stream.expire(force=True)
    described = aging.stream.describe()
    assert (described.status, described.shards) == ("DISABLED", ())
    assert records_only(aging.stream.read()) == []
    assert records_only(aging.stream.read(follow=True, timeout=20)) == []
    assert len(aging.segments) == 1
    with pytest.raises(StreamDisabled):
        aging.stream.append(changes(0, 1))
    for _ in range(3):
        aging.clock.advance(2 * DAY)
        aging.stream.expire(force=True)
    timed_store.close()
    with shardlog.open(timed_store.path, clock=aging.clock) as again:
        assert [one.status for one in again.streams()] == ["DISABLED"]
        stream = again.stream("s")
        assert stream.describe() == described
        assert stream.statistics().records == 0
        assert stream.throughput().shards == {}
        stream.expire(force=True)
        assert again.create_stream("s").label > described.label
        again.delete_stream("s")
        with pytest.raises(StreamNotFound):
            again.stream("s")


def test_who_may_not_write_may_not_expire(aging: Aging, timed_store: Store) -> None:
    """A store that is open to read, alone or beside a writer."""
    aging.fill(2)
    with shardlog.open(timed_store.path, read_only=True) as reader, pytest.raises(ReadOnly):
        reader.stream("s").expire(force=True)


@pytest.mark.parametrize("producers", [0, 1000])
def test_a_full_disk_can_still_expire(store_path: Path, clock: ManualClock, producers: int) -> None:
    """The control record goes into room that segments keep free, also where a long checkpoint is due.

    No new segment is needed, and appends go on when there is room again.
    """
    files = FaultyFiles()
    with open_with(store_path, files, clock=clock) as store:
        stream = store.create_stream("s", segment_bytes=2_400_000, durability="os")
        for number in range(producers):
            stream.append([change(number, "")], producer=f"{number:0250d}", position=1)
        while stream.statistics().segments < 4:
            stream.append([change(0, "x" * 20_000)])
        clock.advance(2 * DAY)
        stream.append([change(0, "x" * 100_000)])  # rolls by age
        fault = files.arm(lambda step: step.operation == "allocate", no_room, times=10**9)
        with pytest.raises(StorageFull):
            _append_until_full(stream)
        if not producers:
            tail = stream._stream.tail()
            stream.append([change(1, "x" * (tail.limit - tail.offset - 170))])
            assert stream._stream.tail().limit - stream._stream.tail().offset <= 64, "no commit is so short"
        trimmed = stream.expire(force=True)
        assert trimmed.segments >= 3
        assert trimmed.horizon_after == stream.trim_horizon > 1
        with pytest.raises(StorageFull):
            _append_until_full(stream)
        fault.times = 0
        stream.append([change(2, TEXT)])
        assert numbers(stream.read())[-1] == 2


def _append_until_full(stream: Stream) -> None:
    for _ in range(1000):
        stream.append([change(1, "x" * 20_000)])


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_the_horizon_is_durable_before_a_file_goes(store_path: Path, clock: ManualClock, durability: str) -> None:
    """At every level: the control record is written and synced, then the files are unlinked, oldest first."""
    files = FaultyFiles()
    with open_with(store_path, files, clock=clock) as store:
        aging = Aging(store, clock, durability=durability)
        aging.fill(4)
        clock.advance(2 * DAY)
        aging.fill(2)
        files.steps.clear()
        assert aging.stream.expire().segments == 4
        (written,) = [n for n, step in enumerate(files.steps) if step.operation == "pwrite" and b"trim" in step.content]
        synced = next(n for n, step in enumerate(files.steps) if n > written and step.operation == "sync")
        assert files.steps[synced].path == files.steps[written].path
        unlinked = [n for n, step in enumerate(files.steps) if step.operation == "unlink"]
        assert len(unlinked) == 4
        assert min(unlinked) > synced
        names = [os.path.basename(files.steps[n].path) for n in unlinked]
        assert names == sorted(names)


def test_nothing_grows_with_what_has_expired(aging: Aging) -> None:
    """Neither the snapshot of the state nor the index: after many segments and shards both are as in the beginning."""
    stream = aging.stream

    def sizes() -> tuple[int, int, int]:
        open_stream = stream._stream
        header = open_stream.segments.header(open_stream.tail().segment_first, open_stream.tail().segment_id)
        return len(header.snapshot), len(open_stream.index.counts()), len(open_stream.index.segments())

    def live() -> None:
        for _ in range(8):
            stream.roll_shard(stream.describe().shards[-1].shard_id)
            aging.fill(1)
        aging.clock.advance(2 * DAY)
        stream.expire(force=True)
        aging.fill(2)

    live()
    first = sizes()
    for _ in range(2):
        live()
    snapshot, *rest = sizes()
    assert rest == list(first[1:])
    assert abs(snapshot - first[0]) < 32

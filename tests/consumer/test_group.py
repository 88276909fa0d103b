"""Groups: where they begin, what they tell, and beginning anew."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.retention.aging import HOUR
from tests.support.history import change, changes, new_stream, numbers

from shardlog import Group, InvalidArgument, LeaseLost, Store, Stream
from shardlog.clock import datetime_of
from shardlog.testing.clock import ManualClock

AT_ONCE = timedelta(0)


def consumed(group: Group, records_max: int | None = None) -> list[int]:
    """What a worker gets and checkpoints, so many records at most."""
    found: list[int] = []
    with group.worker("w") as worker:
        for batch in worker.batches(1, AT_ONCE, until_drained=True):
            if records_max is not None and len(found) >= records_max:
                break
            found += numbers(batch.records)
            batch.checkpoint()
    return found


STARTS: list[tuple[str, Callable[[Stream, ManualClock], Any], list[int]]] = [
    ("TRIM_HORIZON", lambda stream, clock: "TRIM_HORIZON", list(range(12))),
    ("LATEST", lambda stream, clock: "LATEST", [10, 11]),
    ("sequence", lambda stream, clock: stream.next_sequence - 5, [5, 6, 7, 8, 9, 10, 11]),
    ("time", lambda stream, clock: datetime_of(clock.wall_us()), [5, 6, 7, 8, 9, 10, 11]),
]


def filled(stream: Stream, clock: ManualClock) -> None:
    """Five records, a pause, five more."""
    stream.append(changes(0, 5))
    clock.advance(HOUR)
    stream.append(changes(5, 5))


@pytest.mark.parametrize(("start", "expected"), [start[1:] for start in STARTS], ids=[start[0] for start in STARTS])
def test_where_a_group_begins(stream: Stream, clock: ManualClock, start: Any, expected: list[int]) -> None:
    """At a position that is settled when it is made: what comes later belongs to it, wherever it begins."""
    filled(stream, clock)
    group = stream.group("g", start=start(stream, clock))
    stream.append(changes(10, 2))
    assert sorted(consumed(group)) == expected
    assert sorted(consumed(stream.group("g", start="LATEST"))) == []


@pytest.mark.parametrize(("start", "expected"), [start[1:] for start in STARTS], ids=[start[0] for start in STARTS])
def test_beginning_anew(stream: Stream, clock: ManualClock, start: Any, expected: list[int]) -> None:
    """At each kind of position, whatever was checkpointed."""
    filled(stream, clock)
    group = stream.group("g")
    consumed(group)
    group.reset(start(stream, clock))
    stream.append(changes(10, 2))
    assert sorted(consumed(group)) == expected


def test_a_group_at_latest_reads_children_from_their_beginning(stream: Stream) -> None:
    """Records that were appended to a child before anybody saw it are not left out; older parents are."""
    stream.append(changes(0, 10))
    first, second = (shard.shard_id for shard in stream.describe().shards)
    stream.roll_shard(first)
    stream.append(changes(10, 10))
    group = stream.group("g", start="LATEST")
    stream.split_shard(second)
    stream.append(changes(20, 20))
    assert sorted(consumed(group)) == list(range(20, 40))
    assert first not in [lease.shard_id for lease in group.leases()]


def test_leases_tell_who_holds_what(stream: Stream, group: Group) -> None:
    """In lexical order; nothing before anybody looked, SHARD_END of what is finished."""
    assert group.leases() == []
    stream.append([change(7)])
    shards = [shard.shard_id for shard in stream.describe().shards]
    with group.worker("w") as worker:
        batch = next(iter(worker.batches(wait=AT_ONCE)))
        batch.checkpoint()
        leases = group.leases()
        assert [lease.shard_id for lease in leases] == shards
        assert [lease.owner for lease in leases] == ["w", "w"]
        assert {lease.shard_id: lease.checkpoint for lease in leases if lease.checkpoint} == {
            batch.shard_id: batch.records[-1].sequence
        }
        assert all(lease.counter >= 1 for lease in leases)
    stream.roll_shard(shards[0])
    consumed(group)
    assert group.leases()[0].checkpoint == "SHARD_END"


def counted(stream: Stream, positions: dict[str, int]) -> dict[str, int]:
    """Records of each shard from a position on."""
    counts = dict.fromkeys(positions, 0)
    for record in stream.read():
        if record.shard_id in counts and record.sequence >= positions[record.shard_id]:  # type: ignore[union-attr]
            counts[record.shard_id] += 1  # type: ignore[union-attr]
    return counts


def test_backlog_counts_what_lies_behind_each_position(store: Store, clock: ManualClock, seed: int) -> None:
    """At every position, over segments, expiry and splits: as many as reading finds, the first of them as old."""
    stream = new_stream(store, shards=2, retention=HOUR)
    for step in range(12):
        stream.append([change(number, "x" * 900) for number in range(step * 10, step * 10 + 8)])
        if step in (3, 7):
            open_ones = [shard for shard in stream.describe().shards if shard.end_sequence is None]
            stream.split_shard(open_ones[0].shard_id, sum(open_ones[0].hash_range) // 2)
        clock.advance(HOUR / 8)
        if step == 10:
            stream.expire(force=True)
    assert stream.trim_horizon > 1
    assert stream.statistics().segments > 2
    times = {record.sequence: record.created_at for record in stream.read()}  # type: ignore[union-attr]
    shards = [shard.shard_id for shard in stream.describe().shards]
    for position in range(1, stream.next_sequence + 2):
        positions = dict.fromkeys(shards, position)
        found = stream.backlog(positions)
        assert {shard_id: backlog.records for shard_id, backlog in found.items()} == counted(stream, positions)
        oldest = min((backlog.since for backlog in found.values() if backlog.since), default=None)
        assert oldest == min((time for sequence, time in times.items() if sequence >= position), default=None)
    assert stream.backlog({"shardId-of-nobody": 1})["shardId-of-nobody"].records == 0
    assert stream.backlog({}) == {}


def test_lag_is_what_was_not_checkpointed(stream: Stream, group: Group, clock: ManualClock) -> None:
    """In all and per shard, and the age of the oldest of it; children of unfinished shards count."""
    assert (group.lag().records, group.lag().age) == (0, AT_ONCE)
    filled(stream, clock)
    clock.advance(HOUR)
    assert (group.lag().records, group.lag().age) == (10, 2 * HOUR)
    consumed(group, records_max=4)
    assert group.lag().records == 6
    stream.split_shard(stream.describe().shards[0].shard_id, 1 << 126)
    stream.append(changes(10, 10))
    lag = group.lag()
    assert lag.records == 16 == sum(shard.records for shard in lag.shards.values())
    assert lag.age == max(shard.age for shard in lag.shards.values())
    consumed(group)
    assert (group.lag().records, group.lag().age) == (0, AT_ONCE)


@pytest.mark.parametrize("how", ["reset", "deleted and made anew"])
def test_who_held_a_lease_before_cannot_checkpoint(stream: Stream, group: Group, how: str) -> None:
    """Also where the same worker took the same lease again, under the same counter, at the same microsecond.

    A group that was made anew in the microsecond in which its predecessor had been made took its fences for its own.
    """
    stream.append([change(7) for _ in range(3)])
    worker = group.worker("w")
    worker._join()
    old = worker._next(worker._intake(2, AT_ONCE, "raise"), True)
    assert old is not None
    if how == "reset":
        group.reset("TRIM_HORIZON")
    else:
        group.delete()
        stream.group("g")
    worker._coordinator.cycle()
    new = worker._next(worker._intake(1, AT_ONCE, "raise"), True)
    assert new is not None
    assert new.records[0].sequence == old.records[0].sequence
    with pytest.raises(LeaseLost):
        old.checkpoint()
    assert {lease.checkpoint for lease in group.leases()} == {None}
    new.checkpoint()
    worker.close()


def test_a_deleted_group_is_gone(stream: Stream, group: Group) -> None:
    """Its checkpoints as well; the others stay."""
    stream.append(changes(0, 4))
    other = stream.group("other")
    consumed(group)
    consumed(other)
    group.delete()
    assert stream.groups() == ["other"]
    for call in (group.leases, group.lag, group.delete, lambda: group.reset("LATEST")):
        with pytest.raises(InvalidArgument, match="deleted"):
            call()
    assert sorted(consumed(stream.group("g"))) == [0, 1, 2, 3]
    assert consumed(other) == []


def test_leases_of_expired_shards_go_away(store: Store, clock: ManualClock) -> None:
    """After their children have theirs; the children go on where they are."""
    stream = new_stream(store, retention=HOUR)
    group = stream.group("g")
    parent = stream.describe().shards[0].shard_id
    stream.append(changes(0, 10))
    stream.roll_shard(parent)
    consumed(group)
    for first in (10, 20):
        stream.append([change(number, "x" * 5000) for number in range(first, first + 5)])
        consumed(group)
        clock.advance(2 * HOUR)
    stream.append(changes(30, 2))
    stream.expire(force=True)
    assert parent not in [shard.shard_id for shard in stream.describe().shards]
    assert sorted(consumed(group)) == [30, 31]
    assert parent not in [lease.shard_id for lease in group.leases()]


def test_checkpoints_survive_closing(store: Store, stream: Stream, clock: ManualClock) -> None:
    """A program that is started again goes on where it was."""
    import shardlog

    stream.append(changes(0, 10))
    done = consumed(stream.group("g"), records_max=6)
    store.close()
    with shardlog.open(store.path, clock=clock) as again:
        assert sorted(done + consumed(again.stream("s").group("g"))) == list(range(10))

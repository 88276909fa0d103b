"""Retention that holds for groups of consumers: what they have not checkpointed stays, up to a limit."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.retention.aging import DAY, HOUR, Aging
from tests.support.history import numbers

import shardlog
from shardlog import Group, InvalidArgument, Store, Stream
from shardlog.testing.clock import ManualClock


def consume(group: Group, records: int) -> None:
    """Checkpoint so many records more."""
    with group.worker("worker") as worker:
        for batch in worker.batches(max_records=1, until_drained=True):
            batch.checkpoint()
            records -= 1
            if not records:
                return


def test_what_a_group_did_not_checkpoint_stays(aging: Aging) -> None:
    """However old it is; the pass says who holds it; what was checkpointed goes."""
    group = aging.stream.group("billing")
    aging.stream.set_retention(DAY, hold=["billing"])
    sequences = aging.fill(6)
    consume(group, 2)
    aging.clock.advance(2 * DAY)
    trimmed = aging.stream.expire(force=True)
    assert aging.stream.trim_horizon == sequences[2]
    assert trimmed.held_back is not None
    assert "billing" in trimmed.held_back
    consume(group, 4)
    aging.stream.expire(force=True)
    assert numbers(aging.stream.read()) == []


def test_the_slowest_of_the_groups_decides(aging: Aging) -> None:
    """And a shard that nobody has begun to read counts from the group's start."""
    fast, slow = aging.stream.group("fast"), aging.stream.group("slow")
    aging.stream.set_retention(DAY, hold=["fast", "slow"])
    sequences = aging.fill(4)
    consume(fast, 4)
    aging.clock.advance(2 * DAY)
    aging.stream.expire(force=True)
    assert list(aging.stream.read(sequences[0])), "the first record is there"
    consume(slow, 1)
    aging.stream.expire(force=True)
    assert aging.stream.trim_horizon == sequences[1]


def test_it_holds_up_to_a_limit(aging: Aging) -> None:
    """Beyond `hold_bytes_max` the oldest go, as they would without a hold; young ones never do."""
    aging.stream.group("billing")
    sequences = aging.fill(3)
    aging.clock.advance(2 * DAY)
    sequences += aging.fill(3)
    limit = sum(map(aging.space, aging.segments[2:]))
    aging.stream.set_retention(DAY, hold=["billing"], hold_bytes_max=limit)
    aging.stream.expire()
    assert aging.stream.trim_horizon == sequences[2]
    aging.stream.set_retention(DAY, hold=["billing"], hold_bytes_max=1)
    aging.stream.expire()
    assert aging.stream.trim_horizon == sequences[3]


def test_a_hold_also_keeps_what_a_cap_would_remove(aging: Aging) -> None:
    """`retention_bytes` says what nobody needs any more; the hold's limit says how much more may stay."""
    aging.stream.group("billing")
    aging.stream.set_retention(None, retention_bytes=1, hold=["billing"])
    sequences = aging.fill(4)
    aging.stream.expire()
    assert list(aging.stream.read(sequences[0])), "the first record is there"


def test_a_hold_survives_reopening_and_can_be_given_up(aging: Aging, timed_store: Store, clock: ManualClock) -> None:
    """It is part of the stream, told by `describe`, and ends with the next `set_retention`."""
    aging.stream.group("billing")
    aging.stream.set_retention(HOUR, hold=["billing"], hold_bytes_max=1 << 20)
    timed_store.close()
    with shardlog.open(timed_store.path, clock=clock) as again:
        check_hold_and_give_up(again.stream("s"))


def check_hold_and_give_up(stream: Stream) -> None:
    described = stream.describe()
    assert (described.retention, described.hold, described.hold_bytes_max) == (HOUR, ("billing",), 1 << 20)
    stream.set_retention(HOUR)
    assert (stream.describe().hold, stream.describe().hold_bytes_max) == ((), None)


def test_a_group_that_was_deleted_holds_nothing(aging: Aging, caplog: pytest.LogCaptureFixture) -> None:
    """It would hold for ever; a warning says so."""
    group = aging.stream.group("billing")
    aging.stream.set_retention(DAY, hold=["billing"])
    aging.fill(3)
    group.delete()
    aging.clock.advance(2 * DAY)
    aging.stream.expire(force=True)
    assert numbers(aging.stream.read()) == []
    assert "does not exist" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"hold": ["nobody"]}, "nobody"),
        ({"hold": "billing"}, "'billing'"),
        ({"hold": [1]}, "1"),
        ({"hold": ["billing"], "hold_bytes_max": 0}, "0"),
        ({"hold_bytes_max": 5}, "hold"),
    ],
)
def test_arguments_are_checked(aging: Aging, arguments: dict[str, object], found: str) -> None:
    """What is wrong is named, and the old setting stays."""
    aging.stream.group("billing")
    aging.stream.set_retention(DAY, hold=["billing"])
    with pytest.raises(InvalidArgument, match=found):
        aging.stream.set_retention(timedelta(days=3), **arguments)  # type: ignore[arg-type]
    assert (aging.stream.describe().retention, aging.stream.describe().hold) == (DAY, ("billing",))

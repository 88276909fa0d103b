"""Who should hold what: pure, and balanced within one lease in the end."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from shardlog import ShardDescription
from shardlog.consumer.assignment import Absent, Leases, Me, View, assign, finished, released, renewed, taken_by
from shardlog.format.lease import GroupRow, LeaseRow, WorkerRow

GENERATION = 7
GROUP = GroupRow(GENERATION, 1, 0)
NOBODY = Absent(GENERATION)
FREE = LeaseRow(None, 0, 0, 0, 1, None, False, None)


def shard(number: int, *parents: int, first: int = 1, end: int | None = None) -> ShardDescription:
    """A shard; its range does not matter here."""
    return ShardDescription(f"s{number:02}", tuple(f"s{parent:02}" for parent in parents), (0, 1), first, end)


def me(number: int, *releasable: str) -> Me:
    """A worker."""
    return Me(f"w{number}", number + 1, releasable)


def present(*numbers: int) -> dict[str, WorkerRow]:
    """Workers with their rows."""
    return {f"w{number}": WorkerRow(number + 1, 1, 30_000_000, 1) for number in numbers}


def held_by(number: int, **fields: object) -> LeaseRow:
    """A lease of a worker."""
    return replace(taken_by(me(number), FREE), **fields)  # type: ignore[arg-type]  # named fields of the row


def planned(leases: Leases, shards: list[ShardDescription], who: Me, workers: int, absent: Absent = NOBODY) -> Leases:
    """What one worker makes of the leases."""
    return assign(View(GROUP, leases, present(*range(workers))), shards, who, absent, random.Random(1))


@given(
    st.integers(1, 9), st.integers(1, 5), st.randoms(use_true_random=False), st.lists(st.integers(0, 5), max_size=12)
)
@settings(max_examples=200, deadline=None, print_blob=True)
def test_loads_come_to_differ_by_one_at_most(
    shards: int, workers: int, choice: random.Random, owners: list[int]
) -> None:
    """Whoever holds what at first, and in whatever order they look; and then nothing changes any more."""
    there = [shard(number) for number in range(shards)]
    leases = {
        place.shard_id: held_by(owner) if owner < workers else FREE for place, owner in zip(there, owners, strict=False)
    }
    for _ in range(4 * shards + 4):
        for number in choice.sample(range(workers), workers):
            wanted = [shard_id for shard_id, row in leases.items() if row.wanted_by]
            view = View(GROUP, leases, present(*range(workers)))
            leases = assign(view, there, me(number, *wanted), NOBODY, choice)
    loads = Counter(row.owner for row in leases.values())
    counts = [loads[f"w{number}"] for number in range(workers)]
    assert sum(counts) == shards
    assert max(counts) - min(counts) <= 1
    for number in range(workers):
        view = View(GROUP, leases, present(*range(workers)))
        assert assign(view, there, me(number), NOBODY, choice) == leases


def test_planning_changes_nothing_that_it_is_given() -> None:
    """Pure: the same values and the same seed give the same plan."""
    leases = {"s00": held_by(1), "s01": held_by(1)}
    shards = [shard(0), shard(1), shard(2)]
    before = dict(leases)
    assert planned(leases, shards, me(0), 2) == planned(leases, shards, me(0), 2)
    assert leases == before


def test_free_leases_are_taken_up_to_the_fair_share() -> None:
    """Rounded up, counting the workers that hold nothing; the rest is left to them."""
    leases = planned({}, [shard(number) for number in range(5)], me(0), 2)
    assert Counter(row.owner for row in leases.values()) == {"w0": 3, None: 2}


def test_nothing_is_asked_for_while_a_lease_is_free() -> None:
    """Stealing is the last resort."""
    shards = [shard(number) for number in range(5)]
    leases = {place.shard_id: held_by(1) for place in shards[:4]} | {"s04": FREE}
    after = planned(leases, shards, me(0), 2)
    assert after["s04"].owner == "w0"
    assert not any(row.wanted_by for row in after.values())
    assert sum(row.wanted_by == "w0" for row in planned(after, shards, me(0), 2).values()) == 1


def test_a_lease_that_would_have_to_come_back_is_not_asked_for() -> None:
    """Three leases and two workers: two and one is balanced."""
    leases = {"s00": held_by(1), "s01": held_by(1), "s02": held_by(0)}
    assert planned(leases, [shard(0), shard(1), shard(2)], me(0), 2) == leases


def test_a_wanted_lease_is_handed_over_when_nothing_is_outstanding() -> None:
    """Its owner gives it to the asker itself; until then it stays, asked for once."""
    leases = {"s00": held_by(1, wanted_by="w0"), "s01": held_by(1)}
    shards = [shard(0), shard(1)]
    assert planned(leases, shards, me(1), 2) == leases
    assert planned(leases, shards, me(0), 2) == leases
    after = planned(leases, shards, me(1, "s00"), 2)["s00"]
    assert (after.owner, after.instance, after.wanted_by) == ("w0", 1, None)
    assert after.taken == after.counter == leases["s00"].counter + 1


def test_a_lease_that_is_not_handed_over_in_time_is_taken() -> None:
    """By the asker, if it is still the one that was asked for."""
    row = held_by(1, wanted_by="w0")
    leases, shards = {"s00": row, "s01": held_by(1)}, [shard(0), shard(1)]
    overdue = Absent(GENERATION, overdue={("s00", row.instance, row.taken)})
    assert planned(leases, shards, me(0), 2, overdue)["s00"].owner == "w0"
    other = Absent(GENERATION, overdue={("s00", row.instance, row.taken + 1)})
    assert planned(leases, shards, me(0), 2, other)["s00"].owner == "w1"


def test_who_asks_and_goes_away_asks_no_more() -> None:
    """The owner goes on with it."""
    leases = {"s00": held_by(1, wanted_by="w7")}
    assert planned(leases, [shard(0)], me(1, "s00"), 2)["s00"] == held_by(1)


def test_what_the_absent_hold_is_taken() -> None:
    """The lease of an owner that stood still, is not registered, or whose name another one has by now."""
    row = held_by(1)
    shards = [shard(0)]
    absent = Absent(GENERATION, leases={("s00", row.instance, row.counter)})
    assert planned({"s00": row}, shards, me(0), 2, absent)["s00"].owner == "w0"
    gone = Absent(GENERATION, workers={("w1", 2, 1)})
    assert planned({"s00": row}, shards, me(0), 2, gone)["s00"].owner == "w0"
    assert planned({"s00": replace(row, instance=99)}, shards, me(0), 2)["s00"].owner == "w0"
    assert planned({"s00": row}, shards, me(0), 1)["s00"].owner == "w0"


def test_who_moved_since_it_was_looked_at_is_not_absent() -> None:
    """Between looking and writing the owner may renew, another worker may take, the group may begin anew.

    Judged by the shard alone, two workers that saw the same lease stand still took it from each other; and a worker
    that was started again under its name lost what it had just taken.
    """
    row = held_by(1)
    leases, shards = {"s00": row}, [shard(0)]
    for seen in (("s00", row.instance, row.counter - 1), ("s00", row.instance + 1, row.counter)):
        assert planned(leases, shards, me(0), 2, Absent(GENERATION, leases={seen})) == leases
    for worker in (("w1", 2, 0), ("w1", 99, 1)):
        assert planned(leases, shards, me(0), 2, Absent(GENERATION, workers={worker})) == leases
    earlier = Absent(GENERATION - 1, leases={("s00", row.instance, row.counter)}, workers={("w1", 2, 1)})
    assert planned(leases, shards, me(0), 2, earlier) == leases


def test_a_child_waits_for_all_its_parents() -> None:
    """Its lease is made when they are finished, or have expired, or ended before the group's start."""
    shards = [shard(0, end=10), shard(1, end=10), shard(2, 0, 1, first=11)]
    done = replace(FREE, is_finished=True)
    assert "s02" not in planned({}, shards, me(0), 1)
    assert "s02" not in planned({"s00": done, "s01": FREE}, shards, me(0), 1)
    assert planned({"s00": done, "s01": done}, shards, me(0), 1)["s02"].start == 11
    assert "s02" in planned({"s00": done}, [shards[0], shards[2]], me(0), 1)
    later = View(replace(GROUP, start=10), {}, present(0))
    assert assign(later, shards, me(0), NOBODY, random.Random(1)).keys() == {"s02"}


def test_an_expired_shards_lease_goes_away_after_its_children_have_theirs() -> None:
    """Until then it tells that they may begin."""
    child, grandchild = shard(1, 0, end=20, first=11), shard(2, 1, first=21)
    done = replace(FREE, is_finished=True)
    assert planned({"s00": done}, [child, grandchild], me(0), 1).keys() == {"s01"}
    assert planned({"s00": FREE}, [child, grandchild], me(0), 1).keys() == {"s01"}
    assert planned({"s01": FREE}, [child, grandchild], me(0), 1).keys() == {"s01"}


def test_how_a_lease_changes() -> None:
    """Each change of hands and each renewal grows the counter; the checkpoint stays."""
    row = taken_by(me(1), FREE.at(5))
    assert (row.owner, row.instance, row.counter, row.taken) == ("w1", 2, 1, 1)
    assert renewed(row) == replace(row, counter=2)
    assert released(row) == replace(row, owner=None, instance=0, counter=2)
    assert finished(row) == replace(released(row), is_finished=True)
    assert {changed.checkpoint for changed in (row, renewed(row), released(row), finished(row))} == {5}

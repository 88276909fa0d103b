"""Who is taken for gone: by the observer's own clock, and at once where a lock was given up."""

from __future__ import annotations

from dataclasses import replace

from shardlog.consumer.assignment import Absent, Me, View
from shardlog.consumer.observer import Observer
from shardlog.format.lease import GroupRow, LeaseRow, WorkerRow

SECOND = 1_000_000
LEASE = 30 * SECOND
ROW = LeaseRow("other", 2, 5, 3, 1, None, False, None)
WORKER = WorkerRow(2, 5, LEASE, 1)
ME = Me("me", 1)


def view(row: LeaseRow = ROW, worker: WorkerRow = WORKER, generation: int = 7) -> View:
    """A group with one lease and two workers."""
    return View(GroupRow(generation, 1, 0), {"s": row}, {"me": WorkerRow(1, 1, LEASE, 1), "other": worker})


def observer(*dead: int) -> Observer:
    """One that has just begun; these instances gave up their locks."""
    return Observer(ME, LEASE, lambda instance: instance not in dead)


def test_who_stands_still_for_the_lease_duration_is_absent() -> None:
    """Not a microsecond before, and counted from the first look: nobody knows what was before."""
    seen = observer()
    assert seen.absent(view(), 1000 * SECOND) == Absent(7, set(), set(), set())
    assert seen.absent(view(), 1000 * SECOND + LEASE - 1) == Absent(7, set(), set(), set())
    absent = seen.absent(view(), 1000 * SECOND + LEASE)
    assert absent == Absent(7, {("s", 2, 5)}, {("other", 2, 5)}, set())


def test_who_moves_is_there() -> None:
    """Any change of the counter begins the count anew, of lease and worker each by itself."""
    seen = observer()
    seen.absent(view(), 0)
    moved = view(replace(ROW, counter=6))
    assert seen.absent(moved, LEASE).leases == set()
    assert seen.absent(moved, LEASE).workers == {("other", 2, 5)}
    assert seen.absent(moved, 2 * LEASE).leases == {("s", 2, 6)}


def test_a_lock_that_was_given_up_shows_at_once() -> None:
    """A worker that was killed is gone the first time anybody looks."""
    assert observer(2).absent(view(), 0).workers == {("other", 2, 5)}


def test_nobody_takes_itself_for_gone() -> None:
    """Neither its leases nor its own row, however long it did not renew them."""
    seen = observer(1)
    mine = replace(ROW, owner="me", instance=1)
    seen.absent(view(mine), 0)
    absent = seen.absent(view(mine), 10 * LEASE)
    assert absent.leases == set()
    assert absent.workers == {("other", 2, 5)}


def test_the_owners_lease_duration_counts() -> None:
    """Not the observer's."""
    seen = observer()
    short = view(worker=replace(WORKER, lease_us=SECOND))
    seen.absent(short, 0)
    assert seen.absent(short, SECOND).leases == {("s", 2, 5)}


def test_a_lease_that_was_asked_for_is_overdue_after_its_duration() -> None:
    """Though the owner renews it; only who asked counts, and a lease that changed hands meanwhile counts anew."""
    seen = observer()
    asked = replace(ROW, wanted_by="me")
    seen.absent(view(asked), 0)
    renewed = replace(asked, counter=6)
    assert seen.absent(view(renewed), LEASE - 1).overdue == set()
    assert seen.absent(view(renewed), LEASE).overdue == {("s", 2, 3)}
    assert seen.absent(view(replace(asked, taken=9, counter=9)), 2 * LEASE).overdue == set()
    other = observer()
    for now_us in (0, LEASE):
        assert other.absent(view(replace(ROW, wanted_by="other one")), now_us).overdue == set()


def test_who_was_taken_for_gone_waits_anew_for_what_it_asks_for() -> None:
    """Others had forgotten that it asked; the owner was told anew, and has the whole time again."""
    seen = observer()
    asked = view(replace(ROW, wanted_by="me"))
    seen.absent(asked, 0)
    seen.was_taken_for_gone()
    assert seen.absent(asked, LEASE).overdue == set()
    assert seen.absent(asked, 2 * LEASE).overdue == {("s", 2, 3)}


def test_a_group_that_began_anew_is_watched_anew() -> None:
    """As its counters are: a lease taken after a reset looked like the one before it, and was taken away."""
    seen = observer()
    seen.absent(view(), 0)
    assert seen.absent(view(generation=8), LEASE) == Absent(8, set(), set(), set())
    assert seen.absent(view(generation=8), 2 * LEASE).leases == {("s", 2, 5)}


def test_who_waits_for_a_transaction_does_not_count_that_time() -> None:
    """Somebody was frozen inside one, and nobody could renew."""
    seen = observer()
    seen.absent(view(), 0)
    seen.was_held_up(LEASE)
    assert seen.absent(view(), LEASE + 1).leases == set()
    assert seen.absent(view(), 2 * LEASE).leases == {("s", 2, 5)}

"""A group's promises under schedules that interleave its workers at every lease operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.consumer.simulation import run_schedule
from tests.consumer.witness import BrokenPromise
from tests.support.tally import Figure, Tally

from shardlog import LeaseLost, ShardDescription
from shardlog.consumer import assignment, coordinator
from shardlog.consumer.assignment import Absent, View
from shardlog.consumer.coordinator import Coordinator, Held
from shardlog.consumer.leases import Fence

SCHEDULES = 50
SCHEDULES_OF_TORTURE = 3000
SCHEDULES_OF_CONTROLS = 200
STEPS = 120
HARNESS = "schedules of consumers"


def run_schedules(seed: int, number: int) -> Counter[str]:
    """So many schedules; how often a lease was lost, by reason, and how many records came twice."""
    seen: Counter[str] = Counter()
    for place in range(number):
        witness = run_schedule(f"{seed}-{place}", STEPS).witness
        seen += witness.losses
        seen["duplicates"] += witness.duplicates
    return seen


def test_no_schedule_breaks_a_promise(seed: int) -> None:
    """Whatever is interleaved, killed, frozen, split, merged, expired or reset: see `tests.consumer.witness`."""
    assert run_schedules(seed, SCHEDULES).total(), "nobody lost a lease, nothing came twice: too tame to tell"


@pytest.mark.torture
def test_no_schedule_of_many_breaks_a_promise(seed: int, tally: Tally) -> None:
    """The same for long; leases are lost for every reason there is."""
    seen = run_schedules(seed, SCHEDULES_OF_TORTURE)
    tally.add(Figure.SCHEDULES, number=SCHEDULES_OF_TORTURE)
    assert all(seen[reason] for reason in ("dead", "expired", "overdue", "duplicates")), f"too tame: {seen}"


def without_fences(patch: pytest.MonkeyPatch) -> None:
    """Who lost its lease may checkpoint as long as there is one on the shard."""
    patch.setattr(Fence, "admits", lambda fence, group, row: group is not None and row is not None)


def by_old_looks(patch: pytest.MonkeyPatch) -> None:
    """Whoever stood still when the rows were looked at is taken for gone when they are written."""

    class Names(set[Any]):
        def __contains__(self, found: object) -> bool:
            assert isinstance(found, tuple)
            return any(known[0] == found[0] for known in self)

    real = coordinator.Observer.absent

    def absent(*arguments: Any) -> Absent:
        found = real(*arguments)
        return Absent(found.generation, Names(found.leases), Names(found.workers), Names(found.overdue))

    patch.setattr(coordinator.Observer, "absent", absent)


def by_old_shards(patch: pytest.MonkeyPatch) -> None:
    """The shards are asked for before the rows."""
    real = Coordinator._changed
    asked: list[tuple[ShardDescription, ...]] = []

    def changed(self: Coordinator) -> View:
        asked.append(self._source.describe().shards)
        try:
            return real(self)
        finally:
            asked.pop()

    def assign(view: View, _: object, *rest: Any) -> Any:
        return assignment.assign(view, asked[-1], *rest)

    patch.setattr(Coordinator, "_changed", changed)
    patch.setattr(coordinator, "assign", assign)


def without_waiting_for_parents(patch: pytest.MonkeyPatch) -> None:
    """A child is read as soon as it is there."""
    real = assignment._created

    def created(view: View, shards: tuple[ShardDescription, ...]) -> Any:
        orphans = tuple(
            ShardDescription(shard.shard_id, (), shard.hash_range, shard.first_sequence, shard.end_sequence)
            for shard in shards
        )
        return real(view, orphans)

    patch.setattr(assignment, "_created", created)


def after_a_loss(patch: pytest.MonkeyPatch) -> None:
    """Who was told that it lost a lease goes on delivering until it looks at the rows."""
    real = Coordinator.checkpoint

    def checkpoint(self: Coordinator, held: Held, sequence: int) -> None:
        try:
            real(self, held, sequence)
        except LeaseLost:
            held.is_lost = False
            raise

    patch.setattr(Coordinator, "checkpoint", checkpoint)


@pytest.mark.control(HARNESS)
@pytest.mark.parametrize(
    "mistake",
    [
        without_fences,
        pytest.param(by_old_looks, marks=pytest.mark.torture),
        pytest.param(by_old_shards, marks=pytest.mark.torture),
        without_waiting_for_parents,
        pytest.param(after_a_loss, marks=pytest.mark.torture),
    ],
)
def test_a_mistake_shows(mistake: Callable[[pytest.MonkeyPatch], None], seed: int, monkeypatch: Any) -> None:
    """The control: with one rule less, a schedule breaks a promise."""
    mistake(monkeypatch)
    with pytest.raises(BrokenPromise):
        run_schedules(seed, SCHEDULES_OF_CONTROLS)

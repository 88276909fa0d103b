"""Which worker should hold which lease: pure functions of the rows, the shards and who is absent.

A worker's cycle reads the rows, asks `assign` what they should be, and writes the difference. Rules, mostly of the
Kinesis Client Library:

- a shard's lease is made when all its parents are finished (or expired, or ended before the group's start); it goes
  away when its shard has expired and its children have theirs;
- each worker of a group is registered, also one without leases; the fair share is leases / workers, rounded up;
- free leases and those of absent workers are taken first, up to the fair share;
- where none is free, leases of the most loaded worker are asked for, as long as it has at least two more; the owner
  hands an asked-for lease over when it has nothing outstanding in it.

So loads differ by one at most in the end, and nobody asks for a lease that would have to come back.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from shardlog.format.lease import GroupRow, LeaseRow, WorkerRow
from shardlog.model import ShardDescription

Leases = dict[str, LeaseRow]


@dataclass(frozen=True, slots=True)
class View:
    """The rows of one group."""

    group: GroupRow
    leases: Leases
    workers: Mapping[str, WorkerRow]


Seen = tuple[str, int, int]
"""What was seen to stand still: a shard's or a worker's name, an instance, a counter.

Whoever moved since then is not absent: between looking and writing others look and write, too.
"""


@dataclass(frozen=True, slots=True)
class Absent:
    """Whom the observer takes for gone in one life of a group: owners of leases, workers."""

    generation: int
    leases: Collection[Seen] = ()
    workers: Collection[Seen] = ()
    overdue: Collection[Seen] = ()
    """Leases that were asked for and not handed over in time, with the counter at which they were taken."""

    def of(self, group: GroupRow) -> Absent:
        """The same, or nobody if the group began anew since then: so did the counters."""
        return self if group.generation == self.generation else Absent(group.generation)

    def has_worker(self, name: str, row: WorkerRow) -> bool:
        """Whether a worker is gone."""
        return (name, row.instance, row.counter) in self.workers


@dataclass(frozen=True, slots=True)
class Me:
    """Who plans. `releasable`: shards that it holds and has nothing outstanding in."""

    name: str
    instance: int
    releasable: Collection[str] = ()

    def holds(self, row: LeaseRow) -> bool:
        """Whether a lease is its own."""
        return row.owner == self.name and row.instance == self.instance


def assign(view: View, shards: Iterable[ShardDescription], me: Me, absent: Absent, choice: random.Random) -> Leases:
    """The leases as they should be now, as far as it is this worker's to change them."""
    absent = absent.of(view.group)
    leases = _created(view, tuple(shards))
    present = {name: row for name, row in view.workers.items() if not absent.has_worker(name, row)}
    leases = {shard_id: _settled(shard_id, row, present, me, absent) for shard_id, row in leases.items()}
    free = [shard_id for shard_id, row in leases.items() if row.owner is None and not row.is_finished]
    loads = _loads(leases, {*present, me.name})
    fair = -(-sum(not row.is_finished for row in leases.values()) // len(loads))
    choice.shuffle(free)
    taken = free[: max(0, fair - loads[me.name])]
    leases |= {shard_id: taken_by(me, leases[shard_id]) for shard_id in taken}
    if not free:
        leases |= _asked(leases, loads, fair, me, choice)
    return leases


def taken_by(me: Me, row: LeaseRow) -> LeaseRow:
    """A lease, taken."""
    counter = row.counter + 1
    return replace(row, owner=me.name, instance=me.instance, counter=counter, taken=counter, wanted_by=None)


def released(row: LeaseRow) -> LeaseRow:
    """A lease, given back."""
    return replace(row, owner=None, instance=0, counter=row.counter + 1, wanted_by=None)


def finished(row: LeaseRow) -> LeaseRow:
    """A lease on a shard of which everything was handled."""
    return replace(released(row), is_finished=True)


def renewed(row: LeaseRow) -> LeaseRow:
    """A lease, kept."""
    return replace(row, counter=row.counter + 1)


def _created(view: View, shards: tuple[ShardDescription, ...]) -> Leases:
    """The leases, with those that are due, without those that have had their time."""
    by_id = {shard.shard_id: shard for shard in shards}
    start = view.group.start

    def is_done(shard_id: str) -> bool:
        shard, row = by_id.get(shard_id), view.leases.get(shard_id)
        if shard is None:
            return True
        if row is None:
            return shard.end_sequence is not None and shard.end_sequence <= start
        return row.is_finished

    leases = dict(view.leases)
    for shard in shards:
        if shard.shard_id not in leases and not is_done(shard.shard_id) and all(map(is_done, shard.parent_ids)):
            first = max(start, shard.first_sequence)
            leases[shard.shard_id] = LeaseRow(None, 0, 0, 0, first, None, False, None)
    waiting = {parent for shard in shards if shard.shard_id not in leases for parent in shard.parent_ids}
    return {shard_id: row for shard_id, row in leases.items() if shard_id in by_id or shard_id in waiting}


def _settled(shard_id: str, row: LeaseRow, present: Mapping[str, WorkerRow], me: Me, absent: Absent) -> LeaseRow:
    """A lease without absent owners and askers, and handed over where that is due."""
    if row.owner is None:
        return row
    asker = None if row.wanted_by is None else present.get(row.wanted_by)
    if asker is None and row.wanted_by != me.name:
        row = replace(row, wanted_by=None)
    if me.holds(row):
        if asker is not None and row.wanted_by is not None and shard_id in me.releasable:
            return taken_by(Me(row.wanted_by, asker.instance), row)
        return row
    if row.wanted_by == me.name and (shard_id, row.instance, row.taken) in absent.overdue:
        return taken_by(me, row)
    if (shard_id, row.instance, row.counter) in absent.leases or not _is_present(row, present):
        return released(row)
    return row


def _is_present(row: LeaseRow, present: Mapping[str, WorkerRow]) -> bool:
    owner = None if row.owner is None else present.get(row.owner)
    return owner is not None and owner.instance == row.instance


def _loads(leases: Leases, workers: Iterable[str]) -> dict[str, int]:
    """How many leases each worker has or is about to have."""
    loads = dict.fromkeys(workers, 0)
    for row in leases.values():
        holder = row.wanted_by or row.owner
        if holder is not None and not row.is_finished:
            loads[holder] += 1
    return loads


def _asked(leases: Leases, loads: Mapping[str, int], fair: int, me: Me, choice: random.Random) -> Leases:
    """Leases of the most loaded workers, asked for, as far as we have fewer than our share."""
    left = dict(loads)
    asked: Leases = {}
    while left[me.name] < fair:
        most = max(left.values())
        if most - left[me.name] < 2:
            break
        victim = choice.choice(sorted(name for name, load in left.items() if load == most))
        candidates = sorted(
            shard_id
            for shard_id, row in leases.items()
            if row.owner == victim and row.wanted_by is None and not row.is_finished and shard_id not in asked
        )
        left[victim] -= 1
        if not candidates:
            continue
        shard_id = choice.choice(candidates)
        asked[shard_id] = replace(leases[shard_id], wanted_by=me.name)
        left[me.name] += 1
    return asked

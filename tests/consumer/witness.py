"""What must hold of a group, whatever its workers do and when: checked at every transaction and every delivery.

- one holder at a time: a fence belongs to one worker, and nobody loses a lease that it renewed in time;
- a lease is made when its parents' are finished, and goes away when its shard has expired, not before;
- counters and checkpoints never go back; what is finished stays finished;
- each holder gets the shard's records in order, without a gap, from behind the checkpoint on: so what comes twice was
  outstanding when its lease was lost or given up;
- the parents' records are checkpointed before a child's are delivered, and each key's records come in order.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from shardlog import Batch, Group, Stream
from shardlog.clock import MICROSECOND
from shardlog.consumer.assignment import View
from shardlog.consumer.coordinator import Held
from shardlog.consumer.leases import Fence
from shardlog.format.lease import LeaseRow
from shardlog.model import ShardDescription

_ADMITS = Fence.admits
"""The rule itself, whatever a control puts in its place."""


class BrokenPromise(AssertionError):
    """A schedule that must not happen."""


def promise(holds: object, *found: object) -> None:
    """Raise BrokenPromise where something does not hold."""
    if not holds:
        raise BrokenPromise(" ".join(map(str, found)))


class Witness:
    """Sees everything. `now_us`: the clock of the schedule."""

    def __init__(self, stream: Stream, group: Group, lease: timedelta, now_us: Callable[[], int]) -> None:
        self.duplicates = 0
        self.losses: Counter[str] = Counter()
        self._stream = stream
        self._group = group
        self._lease_us = lease // MICROSECOND
        self._now_us = now_us
        self._instances: dict[str, int] = {}
        self._dead: set[int] = set()
        self._holders: dict[tuple[int, str, int], int] = {}
        self._moved_us: dict[object, int] = {}
        self._asked_us: dict[str, int] = {}
        self._delivered: dict[tuple[str, Fence], int] = {}
        self._lost: set[Held] = set()
        self._given_up: set[tuple[str, Fence]] = set()
        self._handled: set[int] = set()
        self._shard_of: dict[int, str] = {}
        self._keys: dict[object, list[int]] = defaultdict(list)
        self._next = 1

    def began(self, actor: str, instance: int) -> None:
        """A worker is about to start."""
        self._instances[actor] = instance

    def died(self, instance: int) -> None:
        """A worker was killed, and its lock given up."""
        self._dead.add(instance)

    def learned_loss(self, held: Held) -> None:
        """A worker was told that it lost a lease."""
        self._lost.add(held)

    def appended(self) -> None:
        """Take in what is new in the log."""
        for record in self._stream.read(max(self._next, self._stream.trim_horizon)):
            self._shard_of[record.sequence] = record.shard_id  # type: ignore[union-attr]  # damage raises
            self._keys[record.keys["id"]].append(record.sequence)  # type: ignore[union-attr]
            self._next = record.sequence + 1  # type: ignore[union-attr]

    def transaction(self, actor: str, before: View, after: View) -> None:
        """What one transaction made of the rows."""
        if after.group.generation != before.group.generation:
            promise(actor == "reset", actor, "gave the group another generation")
            self._handled.clear()
            return
        shards = {shard.shard_id: shard for shard in self._stream.describe().shards}
        for name, worker in after.workers.items():
            if before.workers.get(name) != worker:
                self._moved_us[worker.instance] = self._now_us()
        for shard_id in before.leases.keys() - after.leases.keys():
            promise(shard_id not in shards, actor, "removed the lease of", shard_id, "which is there")
        for shard_id, row in after.leases.items():
            known = before.leases.get(shard_id)
            if known is None:
                self._check_new(after, shards, shard_id)
            elif known != row:
                self._check_moved(actor, before, shard_id, known, row)
            if row.owner is not None:
                holder = self._holders.setdefault((after.group.generation, shard_id, row.taken), row.instance)
                promise(holder == row.instance, shard_id, "has two holders under the counter", row.taken)
            if known is None or known.counter != row.counter:
                self._moved_us[shard_id] = self._now_us()
            if known is None or known.wanted_by != row.wanted_by:
                self._asked_us[shard_id] = self._now_us()

    def delivery(self, actor: str, batch: Batch) -> None:
        """What a worker gave to its program."""
        self.appended()
        held, sequences = batch._held, [record.sequence for record in batch.records]
        promise(held not in self._lost, actor, "delivers of", held.shard_id, "after it was told that it lost the lease")
        is_given_up = (held.shard_id, held.fence) in self._given_up
        promise(not is_given_up, actor, "delivers of", held.shard_id, "after it gave the lease away")
        promise(all(self._shard_of[sequence] == batch.shard_id for sequence in sequences), "records of other shards")
        view = self._group._table.view()
        row = view.leases.get(batch.shard_id)
        is_current = row is not None and _ADMITS(held.fence, view.group, row)
        first = row.next_sequence if is_current and row is not None else sequences[0]
        before = self._delivered.get((batch.shard_id, held.fence), first - 1)
        self._delivered[batch.shard_id, held.fence] = sequences[-1]
        promise(before < sequences[0], batch.shard_id, sequences, "delivered after", before)
        promise(sequences == sorted(set(sequences)), batch.shard_id, sequences, "out of order")
        horizon = self._stream.trim_horizon
        passed = {
            sequence
            for sequence, shard_id in self._shard_of.items()
            if shard_id == batch.shard_id and before < sequence <= sequences[-1] and sequence >= horizon
        }
        promise(passed <= set(sequences), batch.shard_id, sorted(passed - set(sequences)), "left out")
        if is_current:
            self._check_parents(view, batch.shard_id, horizon)
            self._check_keys(view, sequences, horizon)
            self.duplicates += len(self._handled.intersection(sequences))
            self._handled.update(sequences)

    def is_balanced(self, workers: set[str]) -> bool:
        """Whether all open shards are held, and the loads differ by one at most."""
        leases = self._group._table.view().leases
        is_open = {shard.shard_id: shard.end_sequence is None for shard in self._stream.describe().shards}
        unfinished = {shard_id: row for shard_id, row in leases.items() if not row.is_finished}
        if unfinished.keys() != {shard_id for shard_id, shard_is_open in is_open.items() if shard_is_open}:
            return False
        counts = [sum(row.owner == name for row in unfinished.values()) for name in workers]
        return sum(counts) == len(unfinished) and max(counts) - min(counts) <= 1

    def is_all_checkpointed(self) -> bool:
        """Whether nothing is behind; what the group tells of that is compared with a count."""
        self.appended()
        lag = self._group.lag()
        counted = {shard_id: shard.records for shard_id, shard in lag.shards.items() if shard.records}
        promise(counted == self._behind(), "lag", counted, "counted", self._behind())
        return not counted

    def is_finished(self) -> bool:
        """Whether every shard is finished."""
        leases = self._group._table.view().leases
        start = self._group.start
        return all(
            (row := leases.get(shard.shard_id)) is not None and row.is_finished
            for shard in self._stream.describe().shards
            if shard.end_sequence is not None and shard.end_sequence > start
        )

    def check_all_handled(self) -> None:
        """No record is left out that the group begins with or comes behind, and that has not expired."""
        self.appended()
        least = max(self._group.start, self._stream.trim_horizon)
        missing = {sequence for sequence in self._shard_of if sequence >= least} - self._handled
        promise(not missing, sorted(missing), "never handled")

    def _behind(self) -> dict[str, int]:
        view = self._group._table.view()
        counts: Counter[str] = Counter()
        horizon = self._stream.trim_horizon
        for sequence, shard_id in self._shard_of.items():
            row = view.leases.get(shard_id)
            first = view.group.start if row is None else row.next_sequence
            if sequence >= max(first, horizon) and not (row is not None and row.is_finished):
                counts[shard_id] += 1
        return dict(counts)

    def _check_new(self, view: View, shards: dict[str, ShardDescription], shard_id: str) -> None:
        promise(shard_id in shards, "a lease is made of", shard_id, "which has expired")
        for parent_id in shards[shard_id].parent_ids:
            parent, row = shards.get(parent_id), view.leases.get(parent_id)
            is_before = parent is None or (parent.end_sequence or 0) <= view.group.start
            promise(is_before or (row is not None and row.is_finished), shard_id, "before its parent", parent_id)

    def _check_moved(self, actor: str, view: View, shard_id: str, before: LeaseRow, after: LeaseRow) -> None:
        promise(after.counter >= before.counter, shard_id, "its counter goes back", before, after)
        promise(
            (after.checkpoint or 0) >= (before.checkpoint or 0), shard_id, "its checkpoint goes back", before, after
        )
        promise((after.checkpoint or 0) < self._stream.next_sequence, shard_id, "checkpoint beyond the end", after)
        promise(after.is_finished or not before.is_finished, shard_id, "is finished no more")
        if before.checkpoint != after.checkpoint or before.is_finished != after.is_finished:
            mine = self._instances[actor]
            promise(before.instance == mine, actor, "moves the checkpoint of", shard_id, "which it does not hold")
        if (before.owner, before.instance) == (after.owner, after.instance) or before.owner is None:
            return
        promise(after.counter > before.counter, shard_id, "changes hands under the same counter", before, after)
        if before.instance == self._instances[actor]:
            fence = Fence(view.group.generation, before.instance, before.taken)
            is_settled = self._delivered.get((shard_id, fence), 0) < before.next_sequence
            promise(after.owner is None or is_settled, shard_id, "handed over with records outstanding")
            self._given_up.add((shard_id, fence))
        else:
            self._check_loss(actor, shard_id, before)

    def _check_loss(self, actor: str, shard_id: str, before: LeaseRow) -> None:
        now_us = self._now_us()
        if before.instance in self._dead:
            self.losses["dead"] += 1
        elif before.wanted_by == actor and now_us - self._asked_us[shard_id] >= self._lease_us:
            self.losses["overdue"] += 1
        else:
            moved_us = max(self._moved_us[shard_id], self._moved_us[before.instance])
            has_expired = now_us - moved_us >= self._lease_us
            has_expired |= now_us - self._moved_us[before.instance] >= self._lease_us
            promise(has_expired, actor, "takes", shard_id, "from", before.owner, "which renewed it in time")
            self.losses["expired"] += 1

    def _check_parents(self, view: View, shard_id: str, horizon: int) -> None:
        shards = {shard.shard_id: shard for shard in self._stream.describe().shards}
        shard: Any = shards.get(shard_id)
        least = max(view.group.start, horizon)
        for parent_id in shard.parent_ids if shard else ():
            row = view.leases.get(parent_id)
            checkpoint = row.checkpoint or 0 if row is not None else 0
            open_ones = [
                sequence
                for sequence, owner in self._shard_of.items()
                if owner == parent_id and sequence >= least and sequence > checkpoint
            ]
            promise(not open_ones, shard_id, "delivered before", open_ones, "of its parent", parent_id)

    def _check_keys(self, view: View, sequences: list[int], horizon: int) -> None:
        least = max(view.group.start, horizon)
        wanted = set(sequences)
        for key, all_of_it in self._keys.items():
            of_key = wanted.intersection(all_of_it)
            if of_key:
                missing = (
                    {sequence for sequence in all_of_it if least <= sequence < max(of_key)} - self._handled - wanted
                )
                promise(not missing, "key", key, sorted(of_key), "delivered before", sorted(missing))

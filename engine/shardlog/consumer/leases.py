"""One group's rows: what is read of them and how they change, each change one durable transaction.

Every change compares before it writes: a checkpoint needs the fence under which its lease was
taken, so who lost a lease cannot move its checkpoint, whatever it believes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from shardlog.consumer.assignment import Absent, Leases, Me, View, finished, released, renewed
from shardlog.consumer.environment import Consumers, Result, Rows
from shardlog.errors import InvalidArgument, LeaseLost, ReadOnly
from shardlog.format.lease import GROUP, LEASE, WORKER, GroupRow, LeaseRow, WorkerRow

GENERATION_BITS: Final = 61


@dataclass(frozen=True, slots=True)
class Fence:
    """Under what a lease was taken: in which life of the group, by which instance, at which counter."""

    generation: int
    instance: int
    taken: int

    def admits(self, group: GroupRow | None, row: LeaseRow | None) -> bool:
        """Whether the lease is still the one that was taken."""
        if group is None or row is None:
            return False
        return (group.generation, row.instance, row.taken) == (self.generation, self.instance, self.taken)


class LeaseTable:
    """The rows of one group."""

    def __init__(self, consumers: Consumers, group: str, *, is_read_only: bool = False) -> None:
        self.group = group
        self._consumers = consumers
        self._is_read_only = is_read_only

    def create(self, start: Callable[[], int], now_us: int, generation: int) -> None:
        """Make the group if there is none. `generation` is drawn: no group of the name had it before."""
        with self._consumers.read() as rows:
            if rows.group(self.group) is not None:
                return
        first = start()

        def make(rows: Rows) -> None:
            if rows.group(self.group) is None:
                rows.put_group(self.group, GroupRow(generation, first, now_us))

        self._update(make)

    def view(self) -> View:
        """The rows now. Raises InvalidArgument where the group was deleted."""
        with self._consumers.read() as rows:
            return self._view(rows)

    def is_alive(self, instance: int) -> bool:
        """Whether a worker's lock is held."""
        return self._consumers.is_alive(instance)

    def register(self, me: Me, presence: WorkerRow) -> None:
        """Make a worker known. Raises InvalidArgument where a live one has its name."""

        def put(rows: Rows) -> None:
            self._check_name(self._view(rows), me)
            rows.put_worker(self.group, me.name, presence)

        self._update(put)

    def change(
        self, plan: Callable[[View], Leases], me: Me, presence: WorkerRow, absent: Absent, *, renews: bool
    ) -> View:
        """Write what the leases should be, without the workers that are gone; `renews` what is of `me`.

        `presence` is written then, or where others took this worker for gone; its counter is always another one.
        Returns what is there now, but the workers as they were. Raises InvalidArgument where another one has the
        worker's name by now.
        """

        def write(rows: Rows) -> View:
            before = self._view(rows)
            self._check_name(before, me)
            after = plan(before)
            gone = absent.of(before.group)
            for shard_id, row in after.items():
                known = before.leases.get(shard_id)
                if renews and me.holds(row) and known is not None and known.counter == row.counter:
                    after[shard_id] = renewed(row)
            for name, other in before.workers.items():
                if gone.has_worker(name, other):
                    rows.remove(WORKER, self.group, name)
            worker = before.workers.get(me.name)
            is_known = worker is not None and worker.instance == me.instance
            if renews or not is_known:
                rows.put_worker(self.group, me.name, presence)
            self._put(rows, before.leases, after)
            return View(before.group, after, before.workers)

        return self._update(write)

    def checkpoint(self, shard_id: str, fence: Fence, sequence: int) -> None:
        """Move a checkpoint forward; behind the present one it stays. Raises LeaseLost."""

        def move(rows: Rows) -> None:
            row = self._held(rows, shard_id, fence)
            if row.checkpoint is None or row.checkpoint < sequence:
                rows.put_lease(self.group, shard_id, row.at(sequence))

        self._update(move)

    def finish(self, shard_id: str, fence: Fence) -> None:
        """Everything in a closed shard was handled. Raises LeaseLost."""
        self._update(lambda rows: rows.put_lease(self.group, shard_id, finished(self._held(rows, shard_id, fence))))

    def leave(self, me: Me) -> None:
        """Give back all leases of a worker, and its name."""

        def give_back(rows: Rows) -> None:
            known = rows.worker(self.group, me.name)
            for shard_id, row in rows.leases(self.group).items():
                if me.holds(row):
                    rows.put_lease(self.group, shard_id, released(row))
            if known is not None and known.instance == me.instance:
                rows.remove(WORKER, self.group, me.name)

        self._update(give_back)

    def reset(self, start: int) -> None:
        """Begin anew at a sequence number; who holds a lease loses it."""

        def restart(rows: Rows) -> None:
            view = self._view(rows)
            rows.put_group(self.group, replace(view.group, generation=view.group.generation + 1, start=start))
            for shard_id in view.leases:
                rows.remove(LEASE, self.group, shard_id)

        self._update(restart)

    def delete(self) -> None:
        """Remove the group, its leases and its workers."""

        def remove(rows: Rows) -> None:
            view = self._view(rows)
            for shard_id in view.leases:
                rows.remove(LEASE, self.group, shard_id)
            for name in view.workers:
                rows.remove(WORKER, self.group, name)
            rows.remove(GROUP, self.group)

        self._update(remove)

    def _update(self, operation: Callable[[Rows], Result]) -> Result:
        if self._is_read_only:
            raise ReadOnly(f"group {self.group!r}: the store was opened to read")
        return self._consumers.update(operation)

    def _check_name(self, view: View, me: Me) -> None:
        known = view.workers.get(me.name)
        if known is not None and known.instance != me.instance and self.is_alive(known.instance):
            raise InvalidArgument(
                f"worker {me.name!r} of group {self.group!r} runs already, in process {known.process}; "
                "expected a name of its own for each"
            )

    def _view(self, rows: Rows) -> View:
        group = rows.group(self.group)
        if group is None:
            raise InvalidArgument(f"group {self.group!r}: expected one that exists; it was deleted, or never made")
        return View(group, rows.leases(self.group), rows.workers(self.group))

    def _held(self, rows: Rows, shard_id: str, fence: Fence) -> LeaseRow:
        row = rows.lease(self.group, shard_id)
        if row is None or not fence.admits(rows.group(self.group), row):
            holder = "nobody" if row is None or row.owner is None else f"worker {row.owner!r}"
            raise LeaseLost(
                f"group {self.group!r}, shard {shard_id}: expected the lease taken as number {fence.taken}; "
                f"{holder} holds it now"
            )
        return row

    def _put(self, rows: Rows, before: Leases, after: Leases) -> None:
        for shard_id, row in after.items():
            if before.get(shard_id) != row:
                rows.put_lease(self.group, shard_id, row)
        for shard_id in before.keys() - after.keys():
            rows.remove(LEASE, self.group, shard_id)

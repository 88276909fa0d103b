"""One worker's leases: what it holds now, kept by cycles.

A cycle looks at the rows, takes, asks, hands over and renews as `assignment` says, and then makes `held` what the rows
say: what is gone is marked lost, what is new begins at its checkpoint. Cycles run in the worker's thread, now and then
in the thread that consumes; they exclude each other. Nothing here reads records.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from shardlog.consumer.assignment import Leases, Me, View, assign
from shardlog.consumer.leases import Fence, LeaseTable
from shardlog.consumer.observer import Observer
from shardlog.consumer.source import Source
from shardlog.errors import InvalidArgument, LeaseLost
from shardlog.format.lease import WorkerRow

RENEWALS_PER_LEASE: Final = 3
"""A lease is renewed when so much of its duration has passed."""


@dataclass(slots=True, eq=False)
class Held:
    """A lease that this worker holds, or held: `is_lost`. Reading goes on at `next_sequence`."""

    shard_id: str
    fence: Fence
    next_sequence: int
    """The first number that was not checkpointed."""
    delivered_next: int
    """The number after the last that was given to the program; at `next_sequence` nothing is outstanding."""
    is_wanted: bool = False
    """Another worker asks for it: nothing more is delivered."""
    is_lost: bool = False

    @property
    def is_settled(self) -> bool:
        """Whether all that was delivered is checkpointed."""
        return self.delivered_next <= self.next_sequence

    def delivers(self, following: int) -> bool:
        """Note that all before a number is given to the program; False, and nothing noted, where it must not be.

        First noted, then looked: a cycle tells that the lease is wanted, and not before the next one it is handed over,
        if nothing is outstanding then.
        """
        before, self.delivered_next = self.delivered_next, following
        if self.is_wanted or self.is_lost:
            self.delivered_next = before
            return False
        return True


class Coordinator:
    """The leases of one worker. `held` is replaced as a whole, so it can be read at any time."""

    def __init__(self, source: Source, table: LeaseTable, me: Me, lease_us: int, choice: random.Random) -> None:
        self.held: dict[str, Held] = {}
        self.has_free = False
        """Whether there are leases that nobody holds."""
        self.is_finished = False
        """Whether everything was handled in all shards there are; while one is open, it is not."""
        self._source = source
        self._table = table
        self._me = me
        self._lease_us = lease_us
        self._choice = choice
        self._observer = Observer(me, lease_us, table.is_alive)
        self._cycling = threading.Lock()
        self._noting = threading.Lock()
        self._has_left = False
        self._left_alone: object = None
        """What was looked at when there was nothing to change: seen again, it is not thought through again."""
        self._presences = 0
        self._renewed_us = source.clock.awake_us()

    @property
    def is_fresh(self) -> bool:
        """Whether no other worker can have taken what it holds for expired."""
        return self._source.clock.awake_us() - self._renewed_us < self._lease_us

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is due but for what rings: new records, new leases. Not so while batches are in hand."""
        return all(held.is_settled and not held.is_wanted for held in self.held.values())

    def start(self) -> None:
        """Make the worker known. Raises InvalidArgument where its name is taken."""
        self._table.register(self._me, self._presence())

    def cycle(self) -> None:
        """Look, change what is to change, renew if it is time. After `leave`: nothing.

        Raises InvalidArgument where the group was deleted, or another worker has the name by now.
        """
        with self._cycling:
            if self._has_left:
                return
            try:
                self._adopt(self._changed())
            except InvalidArgument:
                self._replace({})
                raise

    def checkpoint(self, held: Held, sequence: int) -> None:
        """Everything up to a sequence number was handled. Raises LeaseLost."""
        if held.is_lost:
            raise LeaseLost(f"shard {held.shard_id}: the lease was lost")
        try:
            self._table.checkpoint(held.shard_id, held.fence, sequence)
        except LeaseLost:
            held.is_lost = True
            raise
        with self._noting:  # several threads may handle batches of one shard
            held.next_sequence = max(held.next_sequence, sequence + 1)

    def finish(self, held: Held) -> None:
        """Everything in its shard, which is closed, was handled; look for what follows."""
        try:
            self._table.finish(held.shard_id, held.fence)
        except LeaseLost:
            held.is_lost = True
        self.cycle()

    def leave(self) -> None:
        """Give back all leases and the name."""
        with self._cycling:
            self._has_left = True
            try:
                self._table.leave(self._me)
            finally:
                self._replace({})

    def _changed(self) -> View:
        """The rows, with what this worker has to change in them changed."""
        now_us = self._source.clock.awake_us()
        renews = now_us - self._renewed_us >= self._lease_us // RENEWALS_PER_LEASE
        view = self._table.view()
        seen_us = self._source.clock.awake_us()  # not before: what moved while this worker stood still has just moved
        absent = self._observer.absent(view, seen_us)
        me = Me(self._me.name, self._me.instance, self._releasable())
        is_known = self._is_known(view)

        def plan(view: View) -> Leases:
            # The shards are asked for after the rows: leases of shards that are newer would pass for expired ones.
            return assign(view, self._source.describe().shards, me, absent, self._choice)

        looked_at = view, self._source.describe(), me, absent
        if is_known and not renews and looked_at == self._left_alone:
            return view
        self._left_alone = looked_at
        if renews or not is_known or absent.workers or plan(view) != view.leases:
            self._left_alone = None
            view = self._table.change(plan, me, self._presence(), absent, renews=renews or not is_known)
            if renews:
                self._renewed_us = now_us
            self._observer.was_held_up(self._source.clock.awake_us() - seen_us)
            if not self._is_known(view):
                self._observer.was_taken_for_gone()
        return view

    def _is_known(self, view: View) -> bool:
        known = view.workers.get(self._me.name)
        return known is not None and known.instance == self._me.instance

    def _presence(self) -> WorkerRow:
        self._presences += 1
        return WorkerRow(self._me.instance, self._presences, self._lease_us, os.getpid())

    def _releasable(self) -> Collection[str]:
        return {held.shard_id for held in self.held.values() if held.is_wanted and held.is_settled}

    def _adopt(self, view: View) -> None:
        """Make `held` what the rows say."""
        self.has_free = any(row.owner is None and not row.is_finished for row in view.leases.values())
        self.is_finished = all(row.is_finished for row in view.leases.values())
        held: dict[str, Held] = {}
        for shard_id, row in view.leases.items():
            if not self._me.holds(row):
                continue
            fence = Fence(view.group.generation, row.instance, row.taken)
            known = self.held.get(shard_id)
            if known is None or known.fence != fence:
                known = Held(shard_id, fence, row.next_sequence, row.next_sequence)
            if known.is_lost:
                continue  # the rows were read before it was lost
            known.is_wanted = row.wanted_by is not None
            held[shard_id] = known
        self._replace(held)

    def _replace(self, held: dict[str, Held]) -> None:
        for shard_id, known in self.held.items():
            if held.get(shard_id) is not known:
                known.is_lost = True
        self.held = held

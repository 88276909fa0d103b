"""Who is absent, as one observer sees it.

A lease, or a worker, whose counter has not changed for its lease duration by the observer's own clock is taken for
dead, so nobody's wall clock matters, nor a restart. A worker of this machine that died shows at once: it held a lock
that the kernel gave back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from shardlog.consumer.assignment import Absent, Me, View

_ASKED: Final = "asked"


class Observer:
    """What one worker has seen of the others. `is_alive` tells of an instance's lock."""

    def __init__(self, me: Me, lease_us: int, is_alive: Callable[[int], bool]) -> None:
        self._me = me
        self._lease_us = lease_us
        self._is_alive = is_alive
        self._since_us: dict[tuple[str, str], tuple[Any, int]] = {}
        self._generation = 0

    def was_held_up(self, duration_us: int) -> None:
        """So long it waited to write: who also did, behind somebody frozen inside a transaction, is not dead."""
        self._since_us = {key: (value, since_us + duration_us) for key, (value, since_us) in self._since_us.items()}

    def was_taken_for_gone(self) -> None:
        """What it asked for was forgotten then: if it asks again, the owner has the whole time again."""
        self._since_us = {key: since for key, since in self._since_us.items() if key[0] != _ASKED}

    def absent(self, view: View, now_us: int) -> Absent:
        """Whom it takes for gone, given what it sees now and saw before."""
        if view.group.generation != self._generation:  # counters begin anew, too
            self._generation = view.group.generation
            self._since_us.clear()
        seen: dict[tuple[str, str], tuple[Any, int]] = {}

        def has_stood(kind: str, name: str, value: object, duration_us: int) -> bool:
            known = self._since_us.get((kind, name))
            since_us = known[1] if known is not None and known[0] == value else now_us
            seen[kind, name] = value, since_us
            return now_us - since_us >= duration_us

        durations = {name: row.lease_us for name, row in view.workers.items()}
        workers = set()
        for name, row in view.workers.items():
            has_stopped = has_stood("worker", name, (row.instance, row.counter), row.lease_us)
            if row.instance != self._me.instance and (has_stopped or not self._is_alive(row.instance)):
                workers.add((name, row.instance, row.counter))
        leases, overdue = set(), set()
        for shard_id, lease in view.leases.items():
            if lease.owner is None or self._me.holds(lease):
                continue
            duration_us = durations.get(lease.owner, self._lease_us)
            if has_stood("lease", shard_id, (lease.instance, lease.counter), duration_us):
                leases.add((shard_id, lease.instance, lease.counter))
            if lease.wanted_by == self._me.name and has_stood(
                _ASKED, shard_id, (lease.instance, lease.taken), duration_us
            ):
                overdue.add((shard_id, lease.instance, lease.taken))
        self._since_us = seen
        return Absent(view.group.generation, leases, workers, overdue)

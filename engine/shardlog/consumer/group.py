"""A group: the workers of one application, and how far they are."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from shardlog.clock import datetime_of
from shardlog.consumer.assignment import View
from shardlog.consumer.leases import LeaseTable
from shardlog.consumer.source import Source, Start
from shardlog.consumer.worker import Worker
from shardlog.errors import InvalidArgument
from shardlog.files.protocol import LockFile
from shardlog.format.lease import LeaseRow
from shardlog.model import ShardDescription

SHARD_END: Final = "SHARD_END"
LEASE_MIN: Final = timedelta(milliseconds=100)
LEASE_MAX: Final = timedelta(hours=24)

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_NO_TIME: Final = timedelta(0)


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease on one shard. `checkpoint`: the last sequence number handled, SHARD_END, or None: nothing yet."""

    shard_id: str
    owner: str | None
    counter: int
    checkpoint: int | Literal["SHARD_END"] | None


@dataclass(frozen=True, slots=True)
class ShardLag:
    """Records of one shard that were not checkpointed, and the age of the oldest of them."""

    records: int
    age: timedelta


@dataclass(frozen=True, slots=True)
class Lag:
    """The same over all shards, and per shard id."""

    records: int
    age: timedelta
    shards: dict[str, ShardLag]


@dataclass(frozen=True, slots=True)
class WorkerPresence:
    """A worker of a group, in which process. One that is not alive was killed, and what it holds is there to take."""

    name: str
    process: int
    is_alive: bool


class Group:
    """One application that consumes a stream: its leases and checkpoints. Made by `Stream.group`."""

    def __init__(self, source: Source, table: LeaseTable, open_lock: Callable[[], LockFile]) -> None:
        self.name = table.group
        self._source = source
        self._table = table
        self._open_lock = open_lock

    def worker(self, name: str, *, lease_duration: timedelta = timedelta(seconds=30)) -> Worker:
        """A worker, known by its name while it runs. `lease_duration`: so long nobody doubts that it lives.

        A context manager: leaving it gives its leases back. Raises InvalidArgument.
        """
        checked_name("worker", name)
        if not isinstance(lease_duration, timedelta) or not LEASE_MIN <= lease_duration <= LEASE_MAX:
            raise InvalidArgument(
                f"lease_duration: expected a timedelta of {LEASE_MIN} to {LEASE_MAX}, found {lease_duration!r}"
            )
        return Worker(self._source, self._table, name, lease_duration, self._open_lock(), random.Random())

    @property
    def start(self) -> int:
        """The sequence number at which it began, or began anew."""
        return self._table.view().group.start

    def workers(self) -> list[WorkerPresence]:
        """The workers that take part, by name; also those that were killed, until another one notices."""
        return [
            WorkerPresence(name, row.process, self._table.is_alive(row.instance))
            for name, row in sorted(self._table.view().workers.items())
        ]

    def leases(self) -> list[Lease]:
        """All leases, in lexical order of shard id. A shard whose parents are not finished has none yet."""
        return [_lease(shard_id, row) for shard_id, row in sorted(self._table.view().leases.items())]

    def lag(self) -> Lag:
        """What was not checkpointed yet."""
        view = self._table.view()
        positions = positions_of(view, self._source.describe().shards)
        now_us = self._source.clock.wall_us()
        shards = {}
        for shard_id, backlog in sorted(self._source.backlog(positions).items()):
            age = _NO_TIME if backlog.since is None else max(_NO_TIME, datetime_of(now_us) - backlog.since)
            shards[shard_id] = ShardLag(backlog.records, age)
        return Lag(
            sum(lag.records for lag in shards.values()),
            max((lag.age for lag in shards.values()), default=_NO_TIME),
            shards,
        )

    def reset(self, to: Start) -> None:
        """Begin anew at TRIM_HORIZON, LATEST, a sequence number or an aware datetime; workers lose what they hold."""
        self._table.reset(first_of(self._source, to))

    def delete(self) -> None:
        """Forget the group, its leases and its checkpoints."""
        self._table.delete()


def positions_of(view: View, shards: Iterable[ShardDescription]) -> dict[str, int]:
    """Where each shard goes on that a group has not finished, by shard id."""
    positions = {}
    for shard in shards:
        row = view.leases.get(shard.shard_id)
        first = max(view.group.start, shard.first_sequence) if row is None else row.next_sequence
        has_more = shard.end_sequence is None or first < shard.end_sequence
        if has_more and not (row is not None and row.is_finished):
            positions[shard.shard_id] = first
    return positions


def first_of(source: Source, start: Start) -> int:
    """The sequence number of a start, now. Raises InvalidArgument, also for one that would skip records to come."""
    first = source.sequence_of(start)
    if first > source.next_sequence:
        raise InvalidArgument(
            f"start: expected at most {source.next_sequence}, the next sequence number of stream {source.name}, "
            f"found {first}"
        )
    return first


def checked_name(what: str, name: object) -> str:
    """The name of a group or a worker. Raises InvalidArgument."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidArgument(f"{what}: expected a name of 1 to 128 of A-Z a-z 0-9 _ . -, found {name!r}")
    return name


def _lease(shard_id: str, row: LeaseRow) -> Lease:
    return Lease(shard_id, row.owner, row.counter, SHARD_END if row.is_finished else row.checkpoint)

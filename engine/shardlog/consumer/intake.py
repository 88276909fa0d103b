"""Records on their way to a worker: one pass over the log for all its shards, gathered into batches per shard.

Never more is read ahead than what fills one batch, or PREFETCH_BYTES_MAX over all shards, and the commit in hand.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from shardlog.consumer.coordinator import Held
from shardlog.consumer.source import Reader, Source
from shardlog.errors import CorruptLog, TrimmedData
from shardlog.format.record import Record
from shardlog.model import Gap
from shardlog.stream.log_reader import OnDamage, RecordBatch

PREFETCH_BYTES_MAX: Final = 8 << 20

_log = logging.getLogger("shardlog")


@dataclass(slots=True, eq=False)
class Buffer:
    """What was read of one shard and not delivered. `since_us`: when the first of it came."""

    held: Held
    position: int
    """The first number that was not read."""
    records: list[Record] = field(default_factory=list)
    body_bytes: int = 0
    since_us: int = 0


class Intake:
    """Reads for the leases that it is told of, from their checkpoints on."""

    def __init__(self, source: Source, records_max: int, wait_us: int, on_damage: OnDamage) -> None:
        self._source = source
        self._records_max = records_max
        self._wait_us = wait_us
        self._on_damage = on_damage
        self._buffers: dict[str, Buffer] = {}
        self._begun: set[Held] = set()
        """What it reads for, or did until another worker asked for it."""
        self._buffered_bytes = 0
        self._reader: Reader | None = None
        self._published: Iterator[RecordBatch | Gap] | None = None
        self._damage: CorruptLog | None = None

    def follow(self, held: Iterable[Held]) -> None:
        """Read for these leases from now on: drop what was lost, go back for what is new."""
        held = list(held)
        self._begun.intersection_update(held)
        wanted = {lease.shard_id: lease for lease in held if not (lease.is_wanted or lease.is_lost)}
        kept = {shard_id: buffer for shard_id, buffer in self._buffers.items() if wanted.get(shard_id) is buffer.held}
        added = [lease for shard_id, lease in wanted.items() if shard_id not in kept]
        if not added and len(kept) == len(self._buffers):
            return
        if self._reader is not None and self._published is None:
            for buffer in kept.values():  # idle shards have not to be looked through again
                buffer.position = max(buffer.position, self._reader.position)
        for lease in added:
            if lease not in self._begun:
                lease.delivered_next = lease.next_sequence  # what an earlier iteration left outstanding comes again
                self._begun.add(lease)
            kept[lease.shard_id] = Buffer(lease, max(lease.next_sequence, lease.delivered_next))
        self._buffers = kept
        self._buffered_bytes = sum(buffer.body_bytes for buffer in kept.values())
        reader = self._reader if self._damage is None else None
        if reader is not None and kept and all(kept[lease.shard_id].position >= reader.position for lease in added):
            reader.select(kept.keys())
        else:
            self._aim()

    def read(self, now_us: int) -> None:
        """Gather until a batch is full, what may be read ahead is read, or the end is reached.

        Raises CorruptLog when all that comes before the damage was delivered.
        """
        if self._damage is not None:
            self._raise_damage()
        while self._reader is not None and self._buffered_bytes < PREFETCH_BYTES_MAX:
            if self._published is None:
                self._published = self._reader.published()
            try:
                batch = next(self._published, None)
            except TrimmedData:
                self._aim()
                continue
            except CorruptLog as error:
                self._damage = error
                return
            if batch is None:
                self._published = None
                return
            if isinstance(batch, Gap):
                _log.error("skipped records from %d to %d (exclusive): %s", batch.first, batch.next, batch.reason)
            elif self._take(batch, now_us):
                return

    @property
    def is_idle(self) -> bool:
        """Whether all that is published was read and delivered."""
        if any(buffer.records for buffer in self._buffers.values()):
            return False
        return self._reader is None or (self._published is None and self._reader.position >= self._source.next_sequence)

    def drained(self, ends: Mapping[str, int]) -> list[Held]:
        """Leases of shards that ended, and of which all was delivered and checkpointed.

        What is left of such a shard is due at once: nothing more will come.
        """
        if self._reader is None or self._published is not None:
            return []
        ended = [self._buffers[shard_id] for shard_id in self._buffers.keys() & ends.keys()]
        found = []
        for buffer in ended:
            if self._reader.position >= ends[buffer.held.shard_id]:
                if buffer.records:
                    buffer.since_us = -self._wait_us
                elif buffer.held.is_settled:
                    found.append(buffer.held)
        return found

    def ready(self, now_us: int, at_once: bool) -> tuple[Held, list[Record]] | None:
        """The next batch: a full one, or that of the shard that has waited longest, for long enough (or `at_once`)."""
        waiting = [buffer for buffer in self._buffers.values() if buffer.records]
        if not waiting:
            return None
        oldest = min(waiting, key=lambda buffer: buffer.since_us)
        is_at_limit = self._damage is not None or self._buffered_bytes >= PREFETCH_BYTES_MAX
        if at_once or is_at_limit or now_us - oldest.since_us >= self._wait_us:
            return self._delivered(oldest, now_us)
        full = next((buffer for buffer in waiting if len(buffer.records) >= self._records_max), None)
        return None if full is None else self._delivered(full, now_us)

    def next_due_us(self) -> int | None:
        """When the next batch has waited long enough; None: nothing is gathered."""
        return min(
            (buffer.since_us + self._wait_us for buffer in self._buffers.values() if buffer.records), default=None
        )

    def _aim(self) -> None:
        """Go on where all that is followed was read."""
        self._damage = None
        if not self._buffers:
            self._reader = self._published = None
            return
        self._skip_what_expired()
        start = min(buffer.position for buffer in self._buffers.values())
        self._reader = self._source.reader(start, self._buffers.keys(), on_damage=self._on_damage)
        self._published = None

    def _take(self, batch: RecordBatch, now_us: int) -> bool:
        """Add to a shard's buffer; whether it has enough for a batch."""
        buffer = self._buffers.get(batch.shard_id)
        records = batch.records
        if buffer is None or not records or records[-1].sequence < buffer.position:
            return False
        if records[0].sequence < buffer.position:
            records = records[bisect_left(records, buffer.position, key=lambda record: record.sequence) :]
        if not buffer.records:
            buffer.since_us = now_us
        buffer.records += records
        buffer.body_bytes += batch.body_bytes
        self._buffered_bytes += batch.body_bytes
        buffer.position = records[-1].sequence + 1
        return len(buffer.records) >= self._records_max

    def _delivered(self, buffer: Buffer, now_us: int) -> tuple[Held, list[Record]] | None:
        """A shard's next batch, unless its lease is about to go."""
        records = buffer.records[: self._records_max]
        if not buffer.held.delivers(records[-1].sequence + 1):
            return None
        delivered_bytes = buffer.body_bytes * len(records) // len(buffer.records)
        buffer.records = buffer.records[self._records_max :]
        buffer.body_bytes -= delivered_bytes
        self._buffered_bytes -= delivered_bytes
        buffer.since_us = now_us
        return buffer.held, records

    def _raise_damage(self) -> None:
        assert self._damage is not None
        if not any(buffer.records for buffer in self._buffers.values()):
            raise self._damage

    def _skip_what_expired(self) -> None:
        horizon = self._source.trim_horizon
        for buffer in self._buffers.values():
            if buffer.position < horizon:
                _log.warning(
                    "shard %s: what it had from %d to %d (exclusive) expired before it was consumed",
                    buffer.held.shard_id,
                    buffer.position,
                    horizon,
                )
                buffer.position = horizon

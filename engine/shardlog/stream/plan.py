"""What one commit will do, worked out before anything is written: its block, the tail after it, who gets which numbers.

Reads the index's transaction, and neither writes nor decides whether the block fits: `stream.commit` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from shardlog.errors import InvalidArgument, ShardlogError
from shardlog.format import control
from shardlog.format.commit import CONTROL_SHARD, encode_block, encode_entry
from shardlog.format.control import Control, encode_controls
from shardlog.format.segment import SparsePosition
from shardlog.index.tail import CLOSED, Tail
from shardlog.index.transaction import IndexWrite
from shardlog.log.recovery import INDEX_STRIDE_BYTES, Counts, add_counts
from shardlog.model import Appended
from shardlog.options import PRODUCERS_MAX
from shardlog.stream.append import Request
from shardlog.stream.lineage import fold
from shardlog.stream.state import StreamState, decode_state, encode_state

CHECKPOINT_STRIDE_BYTES: Final = 1 << 20
"""One checkpoint for so many bytes of a segment: recovery steps through little more than that."""


@dataclass(slots=True)
class Plan:
    """`tail` None: there is nothing to write, and only outcomes to give."""

    outcomes: list[tuple[Request, Appended | ShardlogError]] = field(default_factory=list)
    producers: dict[str, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    block: bytes = b""
    tail: Tail | None = None
    position: SparsePosition | None = None
    state: StreamState | None = None
    """The new state, where the commit changes it."""


class Planner:
    """Plans one commit on top of a tail."""

    def __init__(self, transaction: IndexWrite, tail: Tail, state: StreamState, seed: int, now_us: int) -> None:
        self._transaction = transaction
        self._tail = tail
        self._state = state
        self._seed = seed
        self._timestamp_us = max(now_us, tail.timestamp_us)  # append time never goes back
        self._plan = Plan()
        self._entries: list[bytes] = []
        self._bodies: list[bytes] = []
        self._sequence = tail.next_sequence

    def plan(self, requests: list[Request], controls: list[Control]) -> Plan:
        """Take what the requests bring, in their order, then the control records."""
        for request in requests:
            refusal = self._settle_producer(request)
            self._plan.outcomes.append((request, refusal if refusal is not None else self._take(request)))
        controls = controls + [
            {"kind": control.POSITION, "producer": producer, "position": position}
            for producer, position in self._plan.producers.items()
        ]
        if self._entries or controls:
            self._finish(controls)
        return self._plan

    def _settle_producer(self, request: Request) -> Appended | ShardlogError | None:
        """The outcome of a request that appends nothing; else None, its producer's position taken."""
        if request.producer is None:
            return None
        producer, position = request.producer
        advanced = self._plan.producers
        last = advanced.get(producer)
        if last is None:
            last = self._transaction.producer_position(producer)
        if last is not None and position <= last:
            return Appended([], True)
        if last is None and len(self._transaction.producers()) + len(advanced) >= PRODUCERS_MAX:
            return InvalidArgument(f"producer {producer!r}: the stream has {PRODUCERS_MAX} producers already, the most")
        advanced[producer] = position
        return None

    def _take(self, request: Request) -> Appended:
        counts = self._plan.counts
        firsts = []
        for batch in request.batches:
            firsts.append(self._sequence)
            self._sequence += len(batch.positions)
            self._entries.append(batch.entry)
            self._bodies.append(batch.body)
            counts[batch.shard] = add_counts(counts.get(batch.shard), len(batch.positions), len(batch.body))
        return Appended(request.sequences(firsts), False)

    def _finish(self, controls: list[Control]) -> None:
        plan, tail = self._plan, self._tail
        checkpoint_offset = tail.checkpoint_offset
        # Not with control records alone: they go into the last room that there is, and are short.
        if self._bodies and tail.offset - checkpoint_offset >= CHECKPOINT_STRIDE_BYTES:
            controls = [*controls, self._checkpoint()]
            checkpoint_offset = tail.offset
        control_sequence = self._sequence
        next_sequence = control_sequence + len(controls)
        if controls:
            body = encode_controls(controls)
            self._entries.append(encode_entry(CONTROL_SHARD, len(controls), body))
            self._bodies.append(body)
        plan.block, crc = encode_block(
            self._entries,
            self._bodies,
            seed=self._seed,
            record_count=next_sequence - tail.next_sequence,
            first_sequence=tail.next_sequence,
            durable_sequence=tail.durable_sequence,
            records_before=tail.records,
            timestamp_us=self._timestamp_us,
            previous_crc=tail.last_crc,
        )
        indexed_offset = tail.indexed_offset
        if not indexed_offset or tail.offset - indexed_offset >= INDEX_STRIDE_BYTES:
            plan.position = SparsePosition(tail.next_sequence, tail.offset, self._timestamp_us, tail.records)
            indexed_offset = tail.offset
        state = fold(self._state, enumerate(controls, control_sequence)) if controls else self._state
        if state.version != tail.state_version:
            plan.state = state
        is_synced = state.options.durability == "fsync"
        plan.tail = Tail(
            flags=tail.flags | (CLOSED if state.closed else 0),
            segment_id=tail.segment_id,
            offset=tail.offset + len(plan.block),
            limit=tail.limit,
            next_sequence=next_sequence,
            durable_sequence=next_sequence if is_synced else tail.durable_sequence,
            records=tail.records + control_sequence - tail.next_sequence,
            commits=tail.commits + 1,
            last_crc=crc,
            timestamp_us=self._timestamp_us,
            segment_first=tail.segment_first,
            segment_created_us=tail.segment_created_us,
            checkpoint_offset=checkpoint_offset,
            indexed_offset=indexed_offset,
            state_version=state.version,
            rolling_id=tail.rolling_id,
            trim_horizon=state.trim_horizon,
        )

    def _checkpoint(self) -> Control:
        transaction = self._transaction
        state = decode_state(transaction.state()).state
        return {
            "kind": control.CHECKPOINT,
            "snapshot": encode_state(state, transaction.producers(), transaction.counts()),
            "positions": [
                (row.first_sequence, row.offset, row.timestamp_us, row.records_before)
                for row in transaction.positions()
            ],
        }

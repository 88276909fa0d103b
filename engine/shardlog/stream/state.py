"""A stream's state: what it is, which shards it has, whether it takes records. A frozen value, replaced as a whole.

State is the fold of control records (`stream.lineage`) over the snapshot in a segment header. Nothing here does I/O.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, NamedTuple

import msgpack

from shardlog.clock import datetime_of
from shardlog.errors import CorruptLog, ShardNotFound
from shardlog.format import control, names
from shardlog.format.control import Control
from shardlog.model import HASH_RANGE_END, ShardDescription, StreamDescription
from shardlog.options import ShardingPolicy, StreamOptions

Counts = dict[int, tuple[int, int]]


HASH_BYTES: Final = 16


@dataclass(frozen=True)
class Shard:
    """One shard. `end_sequence` None: it is open. `hash_next` is exclusive."""

    number: int
    created_ms: int
    parent_ids: tuple[str, ...]
    hash_first: int
    hash_next: int
    first_sequence: int
    end_sequence: int | None

    @cached_property
    def shard_id(self) -> str:
        """Its public id."""
        return names.shard_id(self.created_ms, self.number)


class KnownGap(NamedTuple):
    """Numbers `[first, next)` that a repair found lost, with the segment of the damage; it may have cost none."""

    first: int
    next: int
    segment_id: int
    reason: str


@dataclass(frozen=True)
class StreamState:
    """All that a stream is, but for its records and its producers' positions."""

    name: str
    label: str
    created_us: int
    options: StreamOptions
    shards: tuple[Shard, ...]
    version: int = 0
    """Grows with every control record that changes the state."""
    closed: bool = False
    next_shard: int = 0
    """Number of the next shard; numbers are never used twice."""
    trim_horizon: int = 1
    """First readable sequence number."""
    gaps: tuple[KnownGap, ...] = ()
    """Damage that a repair has recorded, until it is behind the horizon."""

    @cached_property
    def open_shards(self) -> tuple[Shard, ...]:
        """Open shards by hash range; they partition the whole range."""
        return tuple(
            sorted((shard for shard in self.shards if shard.end_sequence is None), key=lambda shard: shard.hash_first)
        )

    @cached_property
    def _first_digests(self) -> list[bytes]:
        return [shard.hash_first.to_bytes(HASH_BYTES, "big") for shard in self.open_shards]

    @cached_property
    def by_number(self) -> dict[int, Shard]:
        """All shards by number."""
        return {shard.number: shard for shard in self.shards}

    @cached_property
    def _by_id(self) -> dict[str, Shard]:
        return {shard.shard_id: shard for shard in self.shards}

    def shard_of_digest(self, digest: bytes) -> int:
        """Number of the open shard whose range holds an MD5 digest; compared as bytes, which sorts like integers."""
        return self.open_shards[bisect_right(self._first_digests, digest) - 1].number

    def shard(self, shard_id: str) -> Shard:
        """The shard of an id. Raises ShardNotFound."""
        found = self._by_id.get(shard_id)
        if found is None:
            raise ShardNotFound(f"stream {self.name}: expected the id of one of its shards, found {shard_id!r}")
        return found

    @cached_property
    def description(self) -> StreamDescription:
        """The public description."""
        return StreamDescription(
            name=self.name,
            label=self.label,
            arn=names.stream_arn(self.name, self.label, self.options.table_arn),
            status="DISABLED" if self.closed else "ENABLED",
            view_type=self.options.view_type,
            key_names=self.options.key_names,
            partition_key=self.options.partition_key,
            durability=self.options.durability,
            retention=self.options.retention,
            retention_bytes=self.options.retention_bytes,
            sharding=self.options.sharding,
            hold=self.options.hold,
            hold_bytes_max=self.options.hold_bytes_max,
            table_arn=self.options.table_arn,
            created_at=datetime_of(self.created_us),
            shards=tuple(sorted(map(self._describe_shard, self.shards), key=lambda shard: shard.shard_id)),
        )

    def _describe_shard(self, shard: Shard) -> ShardDescription:
        return ShardDescription(
            shard.shard_id,
            shard.parent_ids,
            (shard.hash_first, shard.hash_next),
            shard.first_sequence,
            shard.end_sequence,
        )


class Snapshot(NamedTuple):
    """What a segment header carries."""

    state: StreamState
    producers: dict[str, int]
    counts: Counts
    """Records and bytes of bodies per shard, since the stream was created."""


def new_state(name: str, created_us: int, options: StreamOptions, shard_count: int) -> StreamState:
    """The state of a stream that begins now: shards of equal hash ranges."""
    bounds = [index * HASH_RANGE_END // shard_count for index in range(shard_count + 1)]
    shards = tuple(
        Shard(number, created_us // 1000, (), bounds[number], bounds[number + 1], 1, None)
        for number in range(shard_count)
    )
    return StreamState(name, names.stream_label(created_us), created_us, options, shards, next_shard=shard_count)


def encode_changeable(options: StreamOptions) -> dict[str, Any]:
    """The options that can be changed later, as a snapshot and a configure record hold them; no hold: left out."""
    hold = {"hold": options.hold, "hold_bytes_max": options.hold_bytes_max} if options.hold else {}
    return {
        "retention_seconds": options.retention.total_seconds() if options.retention else None,
        "retention_bytes": options.retention_bytes,
        "sharding": options.sharding.as_fields() if options.sharding else None,
        **hold,
    }


def decode_changeable(fields: dict[str, Any]) -> dict[str, Any]:
    """The same as attributes of StreamOptions."""
    seconds, sharding = fields["retention_seconds"], fields["sharding"]
    return {
        "retention": None if seconds is None else timedelta(seconds=seconds),
        "retention_bytes": fields["retention_bytes"],
        "sharding": None if sharding is None else ShardingPolicy.of_fields(sharding),
        "hold": tuple(fields.get("hold", ())),
        "hold_bytes_max": fields.get("hold_bytes_max"),
    }


def positions_of(controls: Iterable[tuple[int, Control]]) -> dict[str, int]:
    """Producers' last positions in some control records."""
    return {record["producer"]: record["position"] for _, record in controls if record["kind"] == control.POSITION}


def encode_state(state: StreamState, producers: Iterable[tuple[str, int]] = (), counts: Counts | None = None) -> bytes:
    """A snapshot: the state, the producers' positions, and records and bytes per shard so far."""
    options = state.options
    table = {"table_arn": options.table_arn} if options.table_arn is not None else {}
    body: bytes = msgpack.packb(
        {
            "name": state.name,
            "label": state.label,
            "created_us": state.created_us,
            "version": state.version,
            "closed": state.closed,
            "next_shard": state.next_shard,
            "trim_horizon": state.trim_horizon,
            "gaps": state.gaps,
            "view_type": options.view_type,
            "key_names": options.key_names,
            "partition_key": options.partition_key,
            **encode_changeable(options),
            "durability": options.durability,
            "segment_bytes": options.segment_bytes,
            **table,
            "shards": [
                (
                    shard.number,
                    shard.created_ms,
                    shard.parent_ids,
                    shard.hash_first.to_bytes(HASH_BYTES, "big"),
                    (shard.hash_next - 1).to_bytes(HASH_BYTES, "big"),
                    shard.first_sequence,
                    shard.end_sequence,
                )
                for shard in state.shards
            ],
            "producers": list(producers),
            "counts": [(shard, *count) for shard, count in (counts or {}).items()],
        }
    )
    return body


def decode_state(content: bytes) -> Snapshot:
    """A snapshot of its bytes. Raises CorruptLog."""
    try:
        fields: dict[str, Any] = msgpack.unpackb(content, use_list=False)
        options = StreamOptions(
            view_type=fields["view_type"],
            key_names=fields["key_names"],
            partition_key=fields["partition_key"],
            durability=fields["durability"],
            segment_bytes=fields["segment_bytes"],
            table_arn=fields.get("table_arn"),
            **decode_changeable(fields),
        )
        shards = tuple(_decode_shard(row) for row in fields["shards"])
        state = StreamState(
            fields["name"],
            fields["label"],
            fields["created_us"],
            options,
            shards,
            fields["version"],
            fields["closed"],
            fields["next_shard"],
            fields["trim_horizon"],
            tuple(KnownGap(*gap) for gap in fields["gaps"]),
        )
        counts = {shard: (records, body_bytes) for shard, records, body_bytes in fields["counts"]}
        return Snapshot(state, dict(fields["producers"]), counts)
    except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
        raise CorruptLog(f"a state snapshot does not hold what it should: {error!r}") from error


def _decode_shard(row: tuple[Any, ...]) -> Shard:
    number, created_ms, parent_ids, hash_first, hash_last, first_sequence, end_sequence = row
    return Shard(
        number,
        created_ms,
        parent_ids,
        int.from_bytes(hash_first, "big"),
        int.from_bytes(hash_last, "big") + 1,
        first_sequence,
        end_sequence,
    )

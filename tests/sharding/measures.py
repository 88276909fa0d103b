"""Samples made by hand, and streams whose load is made by hand on a manual clock."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from shardlog import Change, ShardDescription, ShardingPolicy, Store, Stream
from shardlog.stream.sampling import hash_of
from shardlog.stream.sharding import Sample
from shardlog.stream.state import StreamState
from shardlog.testing.clock import ManualClock

SECOND_US = 1_000_000
BYTES_PER_RECORD = 100
START_US = 1_800_000_000 * SECOND_US
"""When the samples' time begins; streams are older."""


def seconds_of(seconds: float) -> int:
    """A time of samples, in microseconds."""
    return START_US + round(seconds * SECOND_US)


def samples_of(
    state: StreamState,
    at_seconds: Iterable[float],
    rates: Mapping[int, float] | Sequence[tuple[float, Mapping[int, float]]],
) -> list[Sample]:
    """Samples at some times of shards that take so many records/s: always, or from given times on."""
    phases = [(0.0, rates)] if isinstance(rates, Mapping) else list(rates)
    open_shards = frozenset(shard.number for shard in state.open_shards)
    samples = []
    for at in at_seconds:
        counts: dict[int, tuple[int, int]] = {}
        for number in open_shards:
            records = 1000.0  # from before
            for index, (since, rate) in enumerate(phases):
                until = min(at, phases[index + 1][0] if index + 1 < len(phases) else at)
                records += max(0.0, until - since) * rate.get(number, 0.0)
            counts[number] = round(records), round(records) * BYTES_PER_RECORD
        samples.append(Sample(seconds_of(at), counts, open_shards))
    return samples


class Load:
    """A stream on a manual clock, and what is appended to it."""

    def __init__(self, store: Store, clock: ManualClock, policy: ShardingPolicy | None, **options: object) -> None:
        self.clock = clock
        self.stream: Stream = store.create_stream(
            "load",
            key_names=["id"],
            partition_key="id",
            view_type="KEYS_ONLY",
            segment_bytes=256 << 10,
            durability="os",
            retention=None,
            sharding=policy,
            **options,  # type: ignore[arg-type]
        )

    def take(self, keys: Sequence[str], seconds: float) -> None:
        """Append records of these keys, and let so much time pass."""
        self.stream.append([Change.insert(keys={"id": key}) for key in keys])
        self.clock.advance(timedelta(seconds=seconds))

    def run(self, keys: Sequence[str], per_second: int, seconds: float, generator: random.Random) -> None:
        """So many records/s for so long, evenly, of keys drawn from these."""
        for _ in range(round(seconds * 2)):
            self.take(generator.choices(keys, k=per_second // 2), 0.5)

    @property
    def open(self) -> list[ShardDescription]:
        """The open shards by range."""
        shards = [shard for shard in self.stream.describe().shards if shard.end_sequence is None]
        return sorted(shards, key=lambda shard: shard.hash_range)


def share_below(bound: int, keys: Sequence[str]) -> float:
    """The share of records whose hash lies before a bound."""
    return sum(hash_of(key) < bound for key in keys) / len(keys)

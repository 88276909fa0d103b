"""Which keys a shard took lately: read back from the log, so that appending pays nothing for it.

Pure, but for `recent_keys`, which reads.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shardlog.errors import InvalidArgument
from shardlog.format.record import Record
from shardlog.stream.append import partition_bytes
from shardlog.stream.state import Shard

if TYPE_CHECKING:
    from shardlog.stream.open_stream import OpenStream

LOOK_BACK_BYTES: Final = 8 << 20
KEYS_MAX: Final = 8192
BUCKETS: Final = 64
HOT_KEY_SHARE: Final = 0.5
"""A key that takes more than this share of a shard cannot be helped by splitting."""


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key that dominates its shard: the value that routes, and its share of the records seen."""

    shard_id: str
    key: object
    share: float


def hash_of(key: object) -> int:
    """The hash of a partition key."""
    return int.from_bytes(hashlib.md5(partition_bytes(key), usedforsecurity=False).digest(), "big")


def recent_keys(stream: OpenStream, shard: Shard) -> list[object]:
    """Partition keys of the records that a shard took in the last MiBs of the log, evenly thinned to KEYS_MAX."""
    tail = stream.tail()
    start = max(stream.sequence_before_bytes(LOOK_BACK_BYTES), shard.first_sequence, tail.trim_horizon)
    records: list[Record] = []
    for batch in stream.reader(start, shard.number).batches(tail, None):
        if isinstance(batch, list):
            records += batch
    partition_key = stream.commits.options.partition_key
    step = max(1, len(records) // KEYS_MAX)
    return [record.keys if partition_key is None else record.keys[partition_key] for record in records[::step]]


def hot_key(shard_id: str, keys: Sequence[object]) -> HotKey | None:
    """The key that takes more than its share, if there is one among enough keys to tell."""
    if len(keys) < BUCKETS:
        return None
    encoded = Counter(map(partition_bytes, keys))
    most, count = encoded.most_common(1)[0]
    if count <= HOT_KEY_SHARE * len(keys):
        return None
    return HotKey(shard_id, next(key for key in keys if partition_bytes(key) == most), count / len(keys))


def weighted_median(shard: Shard, keys: Sequence[object]) -> int:
    """The hash that halves what a shard took: a bound between two of 64 buckets of its range, the middle without keys.

    Raises InvalidArgument where the range holds a single hash.
    """
    width = shard.hash_next - shard.hash_first
    if width < 2:
        raise InvalidArgument(f"shard {shard.shard_id}: its range holds a single hash, which cannot be split")
    counts = [0] * BUCKETS
    for key in keys:
        counts[(hash_of(key) - shard.hash_first) * BUCKETS // width] += 1
    bounds = range(1, BUCKETS)
    below = 0
    imbalance = {}
    for bound in bounds:
        below += counts[bound - 1]
        imbalance[bound] = abs(2 * below - len(keys))
    best = min(bounds, key=lambda bound: (imbalance[bound], abs(2 * bound - BUCKETS)))
    return min(max(shard.hash_first + -(-best * width // BUCKETS), shard.hash_first + 1), shard.hash_next - 1)

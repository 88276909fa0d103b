"""What shards took lately, and which keys: read back from the log, so that appending pays nothing for it.

Pure, but for `recent_keys` and `recent_throughput`, which read.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from shardlog.clock import MICROSECOND, datetime_of
from shardlog.errors import InvalidArgument
from shardlog.format.record import Record, StoredBatch
from shardlog.model import HotKey, ShardThroughput, Throughput
from shardlog.stream.append import partition_bytes
from shardlog.stream.state import Shard

if TYPE_CHECKING:
    from shardlog.stream.open_stream import OpenStream

LOOK_BACK_BYTES: Final = 8 << 20
KEYS_MAX: Final = 8192
BUCKETS: Final = 64
HOT_KEY_SHARE: Final = 0.5
"""A key that takes more than this share of a shard cannot be helped by splitting."""
MEASURED_MIN: Final = timedelta(milliseconds=10)


def hash_of(key: object) -> int:
    """The hash of a partition key."""
    return int.from_bytes(hashlib.md5(partition_bytes(key), usedforsecurity=False).digest(), "big")


def recent_keys(stream: OpenStream, shard: Shard, since_us: int = 0) -> list[object]:
    """Partition keys of the records that a shard took in the last MiBs of the log, evenly thinned to KEYS_MAX.

    Since a time, if there is any since then.
    """
    tail = stream.tail()
    start = max(stream.sequence_before_bytes(LOOK_BACK_BYTES), shard.first_sequence, tail.trim_horizon)
    records: list[Record] = []
    for batch in stream.reader(start, (shard.number,)).batches(tail, None):
        if isinstance(batch, StoredBatch):
            records += batch.records(start, tail.next_sequence)
    latest = [record for record in records if record.timestamp_us >= since_us]
    return _thinned_keys(latest or records, stream.commits.options.partition_key)


def recent_throughput(stream: OpenStream, over: timedelta) -> Throughput:
    """What the open shards took in the last time, or in the last MiBs of the log where those took less time."""
    return stream.asked_again(lambda: _throughput(stream, over))


def _throughput(stream: OpenStream, over: timedelta) -> Throughput:
    tail = stream.tail()
    now_us = stream.clock.wall_us()
    state = stream.state()
    start = max(stream.sequence_before_bytes(LOOK_BACK_BYTES), tail.trim_horizon)
    since_us = now_us - over // MICROSECOND
    seen_from_us = state.created_us if start == 1 else None
    taken: dict[str, list[Record]] = defaultdict(list)
    body_bytes: Counter[str] = Counter()
    for batch in stream.reader(start, None).batches(tail, None):
        if isinstance(batch, StoredBatch):
            context = batch.context
            if seen_from_us is None:
                seen_from_us = context.timestamp_us
            if context.timestamp_us >= since_us:
                taken[context.shard_id] += batch.records(start, tail.next_sequence)
                body_bytes[context.shard_id] += len(batch.body)
    since_us = max(since_us, seen_from_us or since_us)
    rates = {}
    hot_keys = []
    for shard in state.open_shards:
        measured = (now_us - max(since_us, shard.created_ms * 1000)) * MICROSECOND
        if measured >= MEASURED_MIN:
            records = taken[shard.shard_id]
            seconds = measured.total_seconds()
            rates[shard.shard_id] = ShardThroughput(len(records) / seconds, body_bytes[shard.shard_id] / seconds)
            hot = hot_key(shard.shard_id, _thinned_keys(records, state.options.partition_key))
            hot_keys += [hot] if hot else []
    return Throughput(datetime_of(since_us), rates, tuple(hot_keys))


def _thinned_keys(records: Sequence[Record], partition_key: str | None) -> list[object]:
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

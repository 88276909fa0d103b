"""What must hold of every lineage, and small streams to try it on."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from shardlog import ShardDescription, StreamDescription
from shardlog.model import HASH_RANGE_END
from shardlog.stream.state import Shard, StreamState


def check_ranges(ranges: Iterable[tuple[int, int]]) -> None:
    """Half-open ranges that partition [0, 2**128)."""
    bound = 0
    for first, end in sorted(ranges):
        assert first == bound, f"expected a range from {bound}, found one from {first}"
        assert end > first
        bound = end
    assert bound == HASH_RANGE_END


def check_state(state: StreamState) -> None:
    """Open shards partition the range, ids sort parents before children, children open where their parents ended."""
    numbers = [shard.number for shard in state.shards]
    assert len(set(numbers)) == len(numbers)
    assert all(number < state.next_shard for number in numbers)
    if not state.closed:
        check_ranges((shard.hash_first, shard.hash_next) for shard in state.open_shards)
    by_id = {shard.shard_id: shard for shard in state.shards}
    for shard in state.shards:
        known = [by_id[parent_id] for parent_id in shard.parent_ids if parent_id in by_id]
        for parent_id in shard.parent_ids:
            assert parent_id < shard.shard_id
        for parent in known:
            _check_child(parent, shard)
        if known and len(known) == len(shard.parent_ids):
            siblings = [child for child in state.shards if child.parent_ids == shard.parent_ids]
            assert _union(known) == _union(siblings)
        if shard.end_sequence is not None:
            assert shard.first_sequence <= shard.end_sequence


def _check_child(parent: Shard, child: Shard) -> None:
    assert parent.end_sequence is not None
    assert child.first_sequence == parent.end_sequence + 1
    assert child.hash_first < parent.hash_next
    assert parent.hash_first < child.hash_next


def _union(shards: Iterable[Shard]) -> tuple[int, int]:
    """The range of some neighbours."""
    ranges = sorted((shard.hash_first, shard.hash_next) for shard in shards)
    for (_, end), (first, _) in pairwise(ranges):
        assert end == first
    return ranges[0][0], ranges[-1][1]


def open_shards(description: StreamDescription) -> list[ShardDescription]:
    """A stream's open shards by hash range, which they partition."""
    found = sorted(
        (shard for shard in description.shards if shard.end_sequence is None), key=lambda shard: shard.hash_range
    )
    check_ranges(shard.hash_range for shard in found)
    return found

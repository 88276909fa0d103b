"""What must hold of every lineage, and small streams to try it on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

from shardlog import Record, ShardDescription, Stream, StreamDescription
from shardlog.model import HASH_RANGE_END
from shardlog.stream.state import Shard, StreamState

HashOfRecord = Callable[[Record], int]


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


def drain(stream: Stream, shard_id: str, limit: int = 1000) -> tuple[list[Record], tuple[str, ...]]:
    """All records of a closed shard, page by page, and the children that the last page names."""
    records: list[Record] = []
    iterator: str | None = stream.iterator(shard_id, "TRIM_HORIZON")
    while iterator is not None:
        page = stream.get_records(iterator, limit)
        assert all(record.shard_id == shard_id for record in page.records)
        assert page.next_iterator is None or page.child_shard_ids == ()
        records += page.records
        iterator = page.next_iterator
    return records, page.child_shard_ids


def read_parents_first(stream: Stream, limit: int = 1000) -> list[Record]:
    """A disabled stream's records as a consumer of its shards reads them: a child when all its parents are done."""
    shards = {shard.shard_id: shard for shard in stream.describe().shards}
    ready = [shard.shard_id for shard in shards.values() if not any(parent in shards for parent in shard.parent_ids)]
    done: set[str] = set()
    records: list[Record] = []
    while ready:
        shard_id = ready.pop(0)
        taken, children = drain(stream, shard_id, limit)
        records += taken
        done.add(shard_id)
        for child in children:
            assert shard_id in shards[child].parent_ids
            if all(parent in done or parent not in shards for parent in shards[child].parent_ids):
                ready.append(child)
    assert done == shards.keys(), "some shard is no child of any that was drained"
    return records


def check_routed(description: StreamDescription, records: Iterable[Record], hash_of_record: HashOfRecord) -> None:
    """Each record is in a shard that was open when it was appended, and whose range holds its hash."""
    shards = {shard.shard_id: shard for shard in description.shards}
    for record in records:
        shard = shards[record.shard_id]
        first, end = shard.hash_range
        assert first <= hash_of_record(record) < end
        assert shard.first_sequence <= record.sequence
        assert shard.end_sequence is None or record.sequence < shard.end_sequence

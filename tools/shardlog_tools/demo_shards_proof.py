"""What `shardlog demo --shards` proves after the load: nothing lost, and every item's changes in their order.

Two readings are held against what was acknowledged: one of the whole stream, and one that goes shard by shard, as
consumers do, finishing parents before their children.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import shardlog
from shardlog import Change
from shardlog.format.record import Record
from shardlog.model import ShardDescription
from shardlog.stream.sampling import hash_of
from shardlog_tools.json_values import to_json

Acknowledged = Sequence[tuple[int, Change]]


@dataclass
class Comparison:
    """Records found as they were acknowledged, and all that is not as it must be."""

    found: int = 0
    missing: int = 0
    wrong: int = 0
    out_of_order: int = 0
    misplaced: int = 0
    items: set[int] = field(default_factory=set)

    @property
    def is_right(self) -> bool:
        """Whether everything is there, and nothing else."""
        return not (self.missing or self.wrong or self.out_of_order or self.misplaced)


def records_of(stream: shardlog.Stream) -> Iterator[Record]:
    """All records, in their total order. Reading raises at damage, so there are no gaps among them."""
    return cast("Iterator[Record]", stream.read())


def records_shard_by_shard(stream: shardlog.Stream) -> Iterator[Record]:
    """All records, each shard's after all of its parents'."""
    shards = stream.describe().shards
    known = {shard.shard_id for shard in shards}
    drained: set[str] = set()
    waiting = list(shards)
    while waiting:
        shard = next(shard for shard in waiting if drained.issuperset(known.intersection(shard.parent_ids)))
        waiting.remove(shard)
        iterator: str | None = stream.iterator(shard.shard_id, "TRIM_HORIZON")
        while iterator is not None:
            page = stream.get_records(iterator)
            yield from page.records
            iterator = page.next_iterator
            if shard.end_sequence is None and not page.records and not page.behind:
                break
        drained.add(shard.shard_id)


def compare(
    records: Iterable[Record],
    acknowledged: Iterable[Acknowledged],
    shards: Iterable[ShardDescription],
    partition_key: str | None,
) -> Comparison:
    """Hold records against what each thread was acknowledged, in the order in which it appended.

    An item's changes all come from one thread, so they have to come in that order, whichever shards hold them; and each
    record has to be in the shard that owned the hash of its key at the time.
    """
    by_id = {shard.shard_id: shard for shard in shards}
    expected = {sequence: change for thread in acknowledged for sequence, change in thread}
    result = Comparison()
    last: dict[int, int] = {}
    for record in records:
        change = expected.pop(record.sequence, None)
        if change is None or not _is(record, change):
            result.wrong += 1
            continue
        result.found += 1
        item = hash_of(record.keys)
        result.out_of_order += record.sequence <= last.get(item, 0)
        last[item] = record.sequence
        value = item if partition_key is None else hash_of(record.keys[partition_key])
        result.misplaced += not _holds(by_id[record.shard_id], value, record.sequence)
    result.missing = len(expected)
    result.items = set(last)
    return result


def count_disordered(acknowledged: Iterable[Acknowledged]) -> int:
    """Appended changes whose sequence number is not above that of the item's change before."""
    last: dict[int, int] = {}
    disordered = 0
    for thread in acknowledged:
        for sequence, change in thread:
            item = hash_of(change.keys)
            disordered += sequence <= last.get(item, 0)
            last[item] = sequence
    return disordered


def _holds(shard: ShardDescription, value: int, sequence: int) -> bool:
    first, end = shard.hash_range
    is_in_time = shard.first_sequence <= sequence and (shard.end_sequence is None or sequence < shard.end_sequence)
    return is_in_time and first <= value < end


def _is(record: Record, change: Change) -> bool:
    found = (record.event, record.keys, record.new_image, record.old_image)
    wanted = (change.event, change.keys, change.new, change.old)
    return found == wanted or to_json(found) == to_json(wanted)  # NaN equals nothing, not even itself

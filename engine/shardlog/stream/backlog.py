"""What lies behind a position: how many records of each shard, and since when.

The index counts records per shard, and each segment's header knows the counts before it. So the backlog of a shard is a
subtraction, and only the headers of the segment that the position lies in are stepped, whatever lies behind it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping

from shardlog.clock import datetime_of
from shardlog.index.tail import Tail
from shardlog.index.transaction import SegmentName
from shardlog.model import Backlog
from shardlog.stream.open_stream import OpenStream
from shardlog.stream.reading import Cursor, SegmentDamage
from shardlog.stream.state import decode_state

_NOTHING = Backlog(0, None)


def backlog_of(stream: OpenStream, positions: Mapping[str, int]) -> dict[str, Backlog]:
    """What each shard holds from a sequence number on, by shard id; of shards that have expired: nothing."""
    return stream.asked_again(lambda: _backlog(stream, positions))


def _backlog(stream: OpenStream, positions: Mapping[str, int]) -> dict[str, Backlog]:
    with stream.index.read() as rows:
        tail, counts = rows.tail(), rows.counts()
    numbers = {shard.shard_id: shard.number for shard in stream.state().shards}
    segments = stream.live_segments()
    wanted: dict[SegmentName, dict[int, int]] = defaultdict(dict)
    for shard_id in positions.keys() & numbers.keys():
        position = min(max(positions[shard_id], tail.trim_horizon), tail.next_sequence)
        place = bisect_right(segments, position, key=lambda segment: segment.first_sequence) - 1
        wanted[segments[max(place, 0)]][numbers[shard_id]] = position
    totals = {number: records for number, (records, _) in counts.items()}
    found: dict[int, Backlog] = {}
    for segment, pending in wanted.items():
        found |= _behind(stream, tail, segment, pending, totals)
    return {shard_id: found.get(numbers.get(shard_id, -1), _NOTHING) for shard_id in positions}


def _behind(
    stream: OpenStream, tail: Tail, segment: SegmentName, pending: Mapping[int, int], totals: Mapping[int, int]
) -> dict[int, Backlog]:
    """The backlog of shards whose positions all lie in one segment."""
    before = decode_state(stream.segments.header(*segment).snapshot).counts
    left = {number: totals.get(number, 0) - before.get(number, (0, 0))[0] for number in pending}
    found: dict[int, Backlog] = {}
    for item in Cursor(stream.index, stream.segments, max(segment.first_sequence, tail.trim_horizon)).blocks(tail):
        left = {number: records for number, records in left.items() if records > 0}
        if not left:
            break
        if isinstance(item, SegmentDamage):
            continue
        for batch in item.batches():
            if batch.shard in left:
                passed = min(batch.records, pending[batch.shard] - batch.first_sequence)
                if passed < batch.records:
                    records = left.pop(batch.shard) - max(passed, 0)
                    found[batch.shard] = Backlog(records, datetime_of(item.header.timestamp_us))
                else:
                    left[batch.shard] -= passed
    return found

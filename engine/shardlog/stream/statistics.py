"""Figures of an open stream: what it and its shards hold, and what it takes on disk. Reads, changes nothing."""

from __future__ import annotations

from shardlog.clock import datetime_of
from shardlog.index.transaction import SegmentName
from shardlog.model import ShardStatistics, Statistics
from shardlog.stream.open_stream import OpenStream
from shardlog.stream.reading import Cursor, SegmentDamage
from shardlog.stream.state import decode_state


def statistics_of(stream: OpenStream) -> Statistics:
    """Figures of the whole stream."""
    return stream.asked_again(lambda: _statistics(stream))


def _statistics(stream: OpenStream) -> Statistics:
    tail = stream.tail()
    segments = stream.live_segments()
    space = sum(stream.segments.file(*segment).allocated_bytes() for segment in segments)
    first_us = next(
        (
            item.header.timestamp_us
            for item in Cursor(stream.index, stream.segments, tail.trim_horizon).blocks(tail)
            if not isinstance(item, SegmentDamage)
        ),
        None,
    )
    return Statistics(
        records=tail.records - _records_before(stream, segments[0].first_sequence, segments[0].segment_id),
        segments=len(segments),
        bytes=space,
        trim_horizon=tail.trim_horizon,
        next_sequence=tail.next_sequence,
        durable_sequence=tail.durable_sequence,
        first_time=None if first_us is None else datetime_of(first_us),
        last_time=None if first_us is None else datetime_of(tail.timestamp_us),
        shards=_shard_statistics(stream, segments[0]),
    )


def _shard_statistics(stream: OpenStream, oldest: SegmentName) -> tuple[ShardStatistics, ...]:
    state = stream.state()
    counts = stream.index.counts()
    before = decode_state(stream.segments.header(*oldest).snapshot).counts
    replaced_ms = {parent: child.created_ms for child in state.shards for parent in child.parent_ids}
    ended = max((shard.end_sequence or 0 for shard in state.shards), default=0)
    ended_us = _time_of(stream, ended) if state.closed else 0
    found = []
    for shard in sorted(state.shards, key=lambda shard: shard.shard_id):
        records, body_bytes = counts.get(shard.number, (0, 0))
        records_before, bytes_before = before.get(shard.number, (0, 0))
        closed_us = replaced_ms[shard.shard_id] * 1000 if shard.shard_id in replaced_ms else ended_us
        found.append(
            ShardStatistics(
                shard.shard_id,
                max(0, records - records_before),
                max(0, body_bytes - bytes_before),
                datetime_of(shard.created_ms * 1000),
                None if shard.end_sequence is None else datetime_of(closed_us),
            )
        )
    return tuple(found)


def _time_of(stream: OpenStream, sequence: int) -> int:
    """The time of the commit that holds a sequence number, or of the next one that can be read."""
    tail = stream.tail()
    for item in Cursor(stream.index, stream.segments, max(sequence, tail.trim_horizon)).blocks(tail):
        if not isinstance(item, SegmentDamage):
            return item.header.timestamp_us
    return tail.timestamp_us


def _records_before(stream: OpenStream, first_sequence: int, segment_id: int) -> int:
    return stream.segments.header(first_sequence, segment_id).records_before

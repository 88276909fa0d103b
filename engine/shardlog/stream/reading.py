"""Reading: from a sequence number to batches of records, over segments, under one tail.

Readers never lock. A position is a sequence number; the index and the footers say where to start stepping. No byte
beyond the tail that it was read under is kept, because a killed writer's bytes may be overwritten there. A `Cursor`
remembers where it stopped, so that following a stream does not search again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import msgspec

from shardlog.errors import CorruptLog, TrimmedData
from shardlog.format import names
from shardlog.format.commit import CONTROL_SHARD, Batch
from shardlog.format.record import BatchContext, StoredBatch
from shardlog.index.environment import Index
from shardlog.index.tail import Tail
from shardlog.index.transaction import SegmentName
from shardlog.log.segments import Segments
from shardlog.log.walk import Block, Damage, Span, walk


@dataclass(frozen=True, slots=True)
class SegmentDamage:
    """`Damage` and the segment that it is in."""

    segment: str
    damage: Damage

    def error(self) -> CorruptLog:
        """The error that a reader raises for it."""
        damage = self.damage
        return CorruptLog(
            f"{self.segment} at {damage.offset}: {damage.reason}; sequence numbers {damage.first} to {damage.next} "
            "(exclusive) cannot be read",
            segment=self.segment,
            offset=damage.offset,
            sequences=(damage.first, damage.next),
        )


class _Place(msgspec.Struct, frozen=True, gc=False):
    """Where to go on stepping: in which segment, at which offset, continuing which block."""

    segment: SegmentName
    offset: int
    previous_crc: int | None
    next_sequence: int


@dataclass(frozen=True, slots=True)
class _End:
    """Where a sealed segment ends. `last_crc` None: its successor does not tell."""

    offset: int
    next_sequence: int
    last_crc: int | None


class Cursor:
    """A reader's place in the log. `next_sequence` is the first number that it has not passed."""

    def __init__(self, index: Index, segments: Segments, sequence: int) -> None:
        self.next_sequence = sequence
        self.seen_us: int | None = None
        """Append time of the last block that it yielded."""
        self._index = index
        self._segments = segments
        self._place: _Place | None = None

    @property
    def segment_name(self) -> str:
        """The segment of the block that `blocks` yielded last."""
        assert self._place is not None
        return names.segment_name(*self._place.segment)

    def blocks(self, tail: Tail) -> Iterator[Block | SegmentDamage]:
        """The blocks up to the tail that hold numbers from `next_sequence` on, and what cannot be read."""
        if self._place is None:
            self._place = self._locate(tail)
            first = self._place.segment
            if first.first_sequence > self.next_sequence:
                damage = Damage(self.next_sequence, first.first_sequence, 0, 0, "what came before it is missing")
                yield self._unless_expired(SegmentDamage(names.segment_name(*first), damage))
        while True:
            place = self._place
            segment = place.segment
            if segment.segment_id == tail.segment_id:
                yield from self._step(place, tail.offset, tail.next_sequence)
                missing = self._missing(_End(tail.offset, tail.next_sequence, tail.last_crc), segment)
                self.next_sequence = max(self.next_sequence, tail.next_sequence)
                if missing:
                    yield missing
                return
            successor = self._index.segment_after(segment.first_sequence)
            if successor is None:
                return  # rolled away since the tail was read, and not there yet: the next tail will tell
            end = self._end_of(segment, successor)
            yield from self._step(place, end.offset, end.next_sequence)
            missing = self._missing(end, successor)
            self.next_sequence = max(self.next_sequence, successor.first_sequence)
            self._place = self._start_of(successor)
            if missing:
                yield self._unless_expired(missing)

    def skip_older(self, tail: Tail, wanted_us: int) -> None:
        """Pass the blocks of its segment that the index or the footer shows to be older than a time."""
        if self.next_sequence >= tail.segment_first:
            row = self._index.position_before_time(tail.segment_first, tail.next_sequence, wanted_us)
        else:
            found = self._index.segment_at(self.next_sequence)
            footer = self._segments.footer(*found) if found else None
            older = bisect_left(footer.positions, wanted_us, key=lambda row: row.timestamp_us) if footer else 0
            row = footer.positions[older - 1] if footer and older else None
        if row is not None:
            self.next_sequence = max(self.next_sequence, row.first_sequence)

    def _locate(self, tail: Tail) -> _Place:
        sequence = min(self.next_sequence, tail.next_sequence)
        if sequence >= tail.segment_first:
            segment = SegmentName(tail.segment_first, tail.segment_id)
            position = self._index.position_at(sequence)
            if position and tail.segment_first <= position.first_sequence < tail.next_sequence:
                return _Place(segment, position.offset, None, position.first_sequence)
            return self._start_of(segment)
        found = self._index.segment_at(sequence)
        if sequence < tail.trim_horizon:
            raise TrimmedData(f"sequence number {sequence} lies before the trim horizon {tail.trim_horizon}")
        if found is None:
            return self._start_of(self._index.segments()[0])
        footer = self._segments.footer(*found)
        if footer and footer.positions:
            row = bisect_right(footer.positions, sequence, key=lambda row: row.first_sequence) - 1
            if row >= 0:
                position = footer.positions[row]
                return _Place(found, position.offset, None, position.first_sequence)
        return self._start_of(found)

    def _start_of(self, segment: SegmentName) -> _Place:
        try:
            header = self._segments.header(*segment)
        except CorruptLog:
            return _Place(segment, 0, None, segment.first_sequence)  # its blocks are searched for
        return _Place(segment, header.header_bytes, header.crc, segment.first_sequence)

    def _end_of(self, segment: SegmentName, successor: SegmentName) -> _End:
        try:
            predecessor = self._segments.header(*successor).predecessor
            if predecessor.segment_id == segment.segment_id:
                return _End(predecessor.end, predecessor.next_sequence, predecessor.last_crc)
        except CorruptLog:
            pass
        offset = self._segments.footer_offset(*segment)
        if offset is None:
            offset = self._segments.file(*segment).data_end()
        return _End(offset, successor.first_sequence, None)

    def _missing(self, end: _End, successor: SegmentName) -> SegmentDamage | None:
        """What should have come before the successor, or before the tail of this segment, and did not."""
        assert self._place is not None
        if end.last_crc is not None:
            is_complete = self._place.previous_crc in (None, end.last_crc)
        else:
            is_complete = self.next_sequence >= successor.first_sequence
        if is_complete or self.next_sequence >= end.next_sequence:
            return None
        damage = Damage(self.next_sequence, end.next_sequence, 0, 0, "what should come before it is missing")
        return SegmentDamage(names.segment_name(*successor), damage)

    def _unless_expired(self, missing: SegmentDamage) -> SegmentDamage:
        """What is missing, unless it has expired since the tail was read: then it raises TrimmedData."""
        horizon = self._index.tail().trim_horizon
        if missing.damage.first < horizon:
            raise TrimmedData(f"sequence number {missing.damage.first} lies before the trim horizon {horizon}")
        return missing

    def _step(self, place: _Place, end: int, end_sequence: int) -> Iterator[Block | SegmentDamage]:
        if place.offset >= end:
            return  # who has read all of a segment does not mind that it has expired
        segment = place.segment
        name = names.segment_name(*segment)
        try:
            file = self._segments.file(*segment)
        except TrimmedData:
            missing = Damage(self.next_sequence, end_sequence, 0, 0, "the segment's file is missing")
            yield self._unless_expired(SegmentDamage(name, missing))
            return
        span = Span(
            place.offset, end, self._segments.seed_of(segment.segment_id), place.previous_crc, place.next_sequence,
            end_sequence,
        )  # fmt: skip
        for item in walk(file, span, bodies=True):
            if isinstance(item, Damage):
                self._place = _Place(segment, item.end, None, item.next)
                is_news = item.next > max(item.first, self.next_sequence)
                self.next_sequence = max(self.next_sequence, item.next)
                if is_news:
                    yield SegmentDamage(name, item)
                continue
            header = item.header
            self._place = _Place(segment, header.end, header.crc, header.next_sequence)
            if header.next_sequence > self.next_sequence:
                self.next_sequence = header.next_sequence
                self.seen_us = header.timestamp_us
                yield item


class BatchReader:
    """Turns blocks into records: of all shards in total order (`shards` None), or of some."""

    def __init__(
        self, cursor: Cursor, shard_id_of: Callable[[int], str], event_prefix: str, shards: Collection[int] | None
    ) -> None:
        self.cursor = cursor
        self.shards = shards
        self._shard_id_of = shard_id_of
        self._event_prefix = event_prefix

    def batches(
        self, tail: Tail, stop: int | None, look_bytes_max: int | None = None
    ) -> Iterator[StoredBatch | SegmentDamage]:
        """The batches with records from the cursor on, up to the tail and before `stop`, and what cannot be read.

        The first and the last may also hold records outside that range. Stops after looking through `look_bytes_max` of
        log; `cursor.next_sequence` tells how far it came.
        """
        looked = 0
        first_wanted = self.cursor.next_sequence
        end = tail.next_sequence if stop is None else min(stop, tail.next_sequence)
        if first_wanted >= end:
            return
        for item in self.cursor.blocks(tail):
            if isinstance(item, SegmentDamage):
                if item.damage.first >= end:
                    return
                yield item
                continue
            if item.header.first_sequence >= end:
                return
            looked += item.header.length
            for batch in item.batches(self.shards):
                if batch.shard == CONTROL_SHARD:
                    continue
                if batch.first_sequence + batch.records <= first_wanted or batch.first_sequence >= end:
                    continue
                yield self._stored(item, batch)
            if look_bytes_max is not None and looked >= look_bytes_max:
                return

    def _stored(self, block: Block, batch: Batch) -> StoredBatch | SegmentDamage:
        header = block.header
        try:
            context = BatchContext(self._shard_id_of(batch.shard), header.timestamp_us, self._event_prefix)
            return StoredBatch(block.body(batch), batch.records, batch.first_sequence, context)
        except (CorruptLog, KeyError) as error:
            return SegmentDamage(
                self.cursor.segment_name,
                Damage(
                    batch.first_sequence,
                    batch.first_sequence + batch.records,
                    header.offset + batch.body_offset,
                    header.offset + batch.body_offset + batch.body_bytes,
                    str(error),
                    batch.shard,
                ),
            )

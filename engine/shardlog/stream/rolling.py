"""The active segment of a stream: which file it is, when it rolls, and how.

Rolling, in this order: the index commits ROLLING with a new segment id, and from then on nobody appends to the old
segment; the successor is made under a temporary name, with its header, and synced; the old one gets its footer and is
synced, at every level; the successor gets its name, durably; the index commits the new tail; MARK is synced. Who finds
ROLLING left behind removes what there is of that segment and rolls with the next id, so an id is never used twice; the
lock ROLL, held over all this, tells a dead roller from one that is between two of its steps.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from shardlog.clock import MICROSECOND, Clock
from shardlog.errors import StorageFailed, StorageFull
from shardlog.files.gate import roll_held
from shardlog.files.protocol import Files, LockFile, Site
from shardlog.format.mark import Mark
from shardlog.format.segment import Footer, Predecessor, SegmentHeader
from shardlog.index.environment import Index
from shardlog.index.tail import CLOSED, MUST_ROLL, ROLLING, Tail
from shardlog.index.transaction import IndexWrite, SegmentName
from shardlog.log.mark_file import MarkFile
from shardlog.log.segments import Segments
from shardlog.log.writer import (
    ActiveSegment,
    NewSegment,
    footer_reserve,
    new_segment_bytes,
    remove_begun_segment,
)
from shardlog.options import StreamOptions
from shardlog.stream.state import decode_state, encode_state

UNSYNCED_NUMBERS_MAX: Final = 1 << 24
"""Level "os": numbers jump so far after a crash, and a segment syncs at the latest after so many."""

AHEAD_US_MAX: Final = timedelta(minutes=1) // MICROSECOND
"""A segment that was created further in the future than that was created by a clock that ran ahead."""


def is_of_age(tail: Tail, options: StreamOptions, now_us: int) -> bool:
    """Whether the active segment is so old that it should roll; also where, its clock set back, it would never be."""
    age_us = now_us - tail.segment_created_us
    return age_us >= options.segment_age_us or age_us < -AHEAD_US_MAX


def mark_of(tail: Tail) -> Mark:
    """The mark of a tail whose bytes are all synced."""
    return Mark(tail.commits, tail.segment_id, tail.offset, tail.next_sequence, tail.last_crc, tail.checkpoint_offset)


class Roller:
    """Keeps the active segment open to write, and replaces it."""

    def __init__(
        self,
        files: Files,
        log_path: str,
        lock: LockFile,
        index: Index,
        mark: MarkFile,
        segments: Segments,
        clock: Clock,
    ) -> None:
        self._files = files
        self._log_path = log_path
        self._lock = lock
        self._index = index
        self._mark = mark
        self._segments = segments
        self._clock = clock
        self._active: ActiveSegment | None = None

    def active(self, tail: Tail) -> ActiveSegment:
        """The active segment; under the lock between the writers."""
        if self._active is None or self._active.segment_id != tail.segment_id:
            self.close()
            path = self._segments.path_of(tail.segment_first, tail.segment_id)
            try:
                file = self._files.open(path)
            except FileNotFoundError:
                raise StorageFailed(f"{path}: the active segment is gone") from None
            self._active = ActiveSegment(file, tail.segment_id, self._segments.seed_of(tail.segment_id))
        return self._active

    def drop_files(self) -> None:
        """Drop the files that were opened to read: an open file keeps the space of a segment that has expired."""
        self._segments.close_files()

    def close(self) -> None:
        """Close the active segment."""
        if self._active is not None:
            self._active.close()
            self._active = None

    def must_roll(self, tail: Tail, options: StreamOptions, block_bytes: int, may_use_reserve: bool) -> bool:
        """Whether a block of so many bytes needs a new segment."""
        room = tail.limit + (footer_reserve(options.segment_bytes) // 2 if may_use_reserve else 0)
        if tail.flags & (ROLLING | MUST_ROLL) or tail.offset + block_bytes > room:
            return True
        if may_use_reserve:
            return False
        if tail.next_sequence == tail.segment_first:
            return False  # empty: there is nothing that could expire, and no number that it would be in the way of
        if (
            tail.next_sequence - tail.segment_first >= UNSYNCED_NUMBERS_MAX
            and tail.durable_sequence < tail.next_sequence
        ):
            return True
        return is_of_age(tail, options, self._clock.wall_us())

    def roll(self, is_due: Callable[[Tail, StreamOptions], bool], block_bytes: int) -> None:
        """Roll to a segment with room for a block, if it is (still) due.

        Raises StorageFull with the old segment still active, and StorageFailed.
        """
        with roll_held(self._lock):
            try:
                if self._begin(is_due):
                    with self._index.write() as transaction:
                        after = self._replace(transaction, transaction.tail(), block_bytes)
                    self._mark.write(mark_of(after))
                    self._mark.sync()
            except FileNotFoundError as error:
                raise StorageFailed(f"{self._log_path}: the log is gone: {error}") from error

    def _begin(self, is_due: Callable[[Tail, StreamOptions], bool]) -> bool:
        """Say in the index that a roll has begun, and to which segment; False where none is needed any more."""
        with self._index.write() as transaction:
            tail = transaction.tail()
            if not is_due(tail, decode_state(transaction.state()).state.options):
                return False
            if tail.flags & ROLLING:
                remove_begun_segment(self._files, self._log_path, tail.rolling_id)
            transaction.put_tail(tail._replace(flags=tail.flags | ROLLING, rolling_id=tail.rolling_id + 1))
            transaction.commit()
        return True

    def sync(self) -> None:
        """Level "os": make durable what was appended, and say so."""
        with self._index.write() as transaction:
            tail = transaction.tail()
            if tail.durable_sequence == tail.next_sequence:
                return
            active = self.active(tail)
            try:
                active.sync(Site.LOG_SYNC)
            except StorageFailed:
                transaction.put_tail(tail._replace(flags=tail.flags | MUST_ROLL))
                transaction.commit()
                raise
            after = tail._replace(durable_sequence=tail.next_sequence, commits=tail.commits + 1)
            transaction.put_tail(after)
            transaction.commit()
        self._mark.write(mark_of(after))
        self._mark.sync()
        self.clear_unsynced()

    def clear_unsynced(self) -> None:
        """Clear MARK's flag unless something unsynced was appended since; under the lock, so nobody sets it now."""
        with self._index.write() as transaction:
            tail = transaction.tail()
            if tail.durable_sequence == tail.next_sequence:
                self._mark.set_unsynced(False)

    def _replace(self, transaction: IndexWrite, tail: Tail, block_bytes: int) -> Tail:
        snapshot = decode_state(self._segments.header(tail.segment_first, tail.segment_id).snapshot)
        state = decode_state(transaction.state()).state
        counts = transaction.counts()
        # An empty segment gives up a number, so that no two segments start at the same one.
        first_sequence = max(tail.next_sequence, tail.segment_first + 1)
        header = SegmentHeader(
            segment_id=tail.rolling_id,
            first_sequence=first_sequence,
            created_us=self._clock.wall_us(),
            store_uuid=self._segments.header(tail.segment_first, tail.segment_id).store_uuid,
            stream_uuid=self._segments.stream_uuid,
            records_before=tail.records,
            timestamp_before_us=tail.timestamp_us,
            predecessor=Predecessor(tail.segment_id, tail.offset, tail.next_sequence, tail.last_crc),
            snapshot=encode_state(state, transaction.producers(), counts),
        )
        wanted = state.options.segment_bytes
        reserve = footer_reserve(wanted)
        try:
            size = new_segment_bytes(self._files, self._log_path, wanted, header.header_bytes + block_bytes + reserve)
            successor = NewSegment(self._files, self._log_path, header, size)
        except StorageFull:
            transaction.put_tail(tail._replace(flags=tail.flags & ~ROLLING))
            transaction.commit()
            raise
        try:
            self._seal(transaction, tail, snapshot.counts, counts)
            successor.name()
        except StorageFailed:
            # What was synced is unknown now; the next to roll writes it again.
            transaction.put_tail(tail._replace(flags=tail.flags | MUST_ROLL))
            transaction.commit()
            raise
        after = tail._replace(
            flags=tail.flags & CLOSED,
            segment_id=tail.rolling_id,
            offset=header.header_bytes,
            limit=size - reserve,
            next_sequence=first_sequence,
            durable_sequence=first_sequence,
            commits=tail.commits + 1,
            last_crc=successor.crc,
            segment_first=first_sequence,
            segment_created_us=header.created_us,
            checkpoint_offset=0,
            indexed_offset=0,
        )
        transaction.delete_positions()
        transaction.put_segments([SegmentName(first_sequence, tail.rolling_id)])
        transaction.put_tail(after)
        if state.options.durability == "os":
            self._mark.set_unsynced(False)
        transaction.commit()
        return after

    def _seal(
        self,
        transaction: IndexWrite,
        tail: Tail,
        counts_before: dict[int, tuple[int, int]],
        counts: dict[int, tuple[int, int]],
    ) -> None:
        active = self.active(tail)
        if tail.flags & MUST_ROLL and tail.durable_sequence < tail.next_sequence:
            mark, _ = self._mark.read()
            here = mark is not None and mark.segment_id == tail.segment_id
            start = mark.offset if mark and here else 0
            active.rewrite(min(start, tail.offset), tail.offset, Site.ADOPTED)
        positions = transaction.positions()
        active.seal(
            tail.offset,
            Footer(
                positions=positions,
                shard_records={
                    shard: records - counts_before.get(shard, (0, 0))[0]
                    for shard, (records, _) in counts.items()
                    if records > counts_before.get(shard, (0, 0))[0]
                },
                first_timestamp_us=positions[0].timestamp_us if positions else None,
                last_timestamp_us=tail.timestamp_us if positions else None,
            ),
            next_sequence=tail.next_sequence,
            durable_sequence=tail.durable_sequence,
            records=tail.records,
            timestamp_us=tail.timestamp_us,
            crc=tail.last_crc,
        )

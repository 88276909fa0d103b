"""Stepping through the blocks of a segment and verifying all of each, with a few calls in C per commit.

`BlockScan` judges as `log.walk` does (header checksum, chain, order, padding, every body) and adds what only a check
asks: whether counts and times continue those of the commits before. Its fast form takes sound commits in one pass over
a buffer; at whatever is not plainly sound it stops, and `log.walk`'s own steps, which are the definition, say what that
is. A test holds the two against each other.

What is kept in memory is one piece of a segment, or one commit where that is larger.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from shardlog.check.deep import DeepCheck
from shardlog.check.subject import Subject
from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.protocol import File
from shardlog.format.checksum import crc32c
from shardlog.format.commit import (
    ALIGNMENT,
    COMMIT,
    CONTROL_SHARD,
    ENTRY_BYTES,
    FOOTER,
    HEADER_BYTES,
    MAGIC,
    VERSION,
    Batch,
    CommitHeader,
    decode_header,
)
from shardlog.format.control import POSITION, Control, decode_controls
from shardlog.format.segment import SparsePosition
from shardlog.log.recovery import INDEX_STRIDE_BYTES, add_counts
from shardlog.log.walk import PIECE_BYTES as WALK_PIECE_BYTES
from shardlog.log.walk import Block, Span, Steps, find_block_behind, is_zero

PIECE_BYTES: Final = 1 << 20

# As `format.commit`, with type, flags and version as one field: in a plain commit it has one value.
_HEADER = struct.Struct("<IIIIIIQQQqII")
_PLAIN: Final = COMMIT | VERSION << 16
_ENTRY = struct.Struct("<IIII")
# After the head of the array: a map of three whose first field is the kind, and that is POSITION.
_POSITION_START: Final = b"\x83\xa4kind\xa8position"
_CRC_OFFSET: Final = HEADER_BYTES - 4
_ZEROS: Final = tuple(bytes(count) for count in range(ALIGNMENT))

PositionRow = tuple[int, int, int, int]
"""As `SparsePosition`: first sequence number, offset, time, records before."""

TakeControls = Callable[["BlockScan", CommitHeader, list[tuple[int, Control]]], None]


def row_of(position: SparsePosition) -> PositionRow:
    """A position row as a plain tuple."""
    return position.first_sequence, position.offset, position.timestamp_us, position.records_before


def _positions_of(shard: int, content: bytes, count: int) -> list[tuple[str, int]] | None:
    """The producers' positions that a batch holds; None where it is anything but positions."""
    if shard != CONTROL_SHARD or not content.startswith(_POSITION_START, 1):
        return None
    try:
        controls = decode_controls(content, count)
        if any(record["kind"] != POSITION for record in controls):
            return None
        return [(record["producer"], record["position"]) for record in controls]
    except (CorruptLog, KeyError):
        return None


class BlockScan:
    """Scans the blocks of a span of one segment, and keeps the sum of what it saw. Findings go to the subject.

    `open_shards` are the numbers that batches may have now. `take_controls` is handed the control records of each
    commit, before the commit is counted. `deep` is asked about every batch, if given.
    """

    def __init__(self, subject: Subject, file: File, path: str, segment_id: int, span: Span) -> None:
        self.path = path
        self.segment_id = segment_id
        self.offset = span.start
        self.next_sequence = span.next_sequence
        self.last_crc = span.previous_crc
        self.records: int | None = None
        self.timestamp_us = 0
        self.counts: dict[int, tuple[int, int]] = {}
        self.rows: list[PositionRow] = []
        """The position rows that its blocks should have."""
        self.open_shards: frozenset[int] | None = None
        self.take_controls: TakeControls | None = None
        self.producers: dict[str, int] = {}
        """Positions of producers; the most frequent control records are taken into it without further ado."""
        self.deep: DeepCheck | None = None
        self.zeros_from: int | None = None
        """Nobody tells where the segment ends: zeros from here to the end of the span are no damage."""
        self.is_damaged = False
        self.footer: Block | None = None
        """The footer that it came to."""
        self._subject = subject
        self._file = file
        self._span = span

    def run(self) -> None:
        """Step to the end of the span, or to a footer."""
        is_plain = False
        while self.offset < self._span.end and self.footer is None:
            end = self._span.end
            if is_plain and self.deep is None and self.open_shards is not None:
                buffer = self._file.pread(min(PIECE_BYTES, end - self.offset), self.offset)
                start = self.offset
                while self.open_shards is not None and self._take_plain(buffer, start, self.open_shards):
                    position = self.offset - start
                    header = decode_header(buffer, position, self.offset, self._span.seed)
                    assert header is not None
                    self._take(Block(header, buffer, position, self._file))
                if self.offset > start:
                    continue  # what is left of the piece may be the first half of a commit
            is_plain = self._take_by_definition()

    def _take_plain(self, buffer: bytes, start: int, shards: frozenset[int]) -> bool:
        """Take the plainly sound commits of a buffer that starts at offset `start`, from `offset` on.

        True: the commit at `offset` is whole and sound but for its batches, which need a closer look. Written out,
        because it runs once per commit: each name below is a local.
        """
        seed, size = self._span.seed, len(buffer)
        previous, sequence, records, timestamp = self.last_crc, self.next_sequence, self.records, self.timestamp_us
        counts, indexed = self.counts, self.rows[-1][1] if self.rows else -INDEX_STRIDE_BYTES
        position = self.offset - start
        needs_look = False
        while position + HEADER_BYTES <= size:
            magic, kind, length, batch_count, record_count, reserved, first, durable, before, time_us, chain, crc = (
                _HEADER.unpack_from(buffer, position)
            )
            directory_start = position + HEADER_BYTES
            body = directory_start + batch_count * ENTRY_BYTES
            content_end = directory_start + length
            end = -(-content_end // ALIGNMENT) * ALIGNMENT
            if magic != MAGIC or kind != _PLAIN or reserved or chain != previous or end > size or body > content_end:
                break
            if first < sequence or durable > first or before != records or time_us < timestamp:
                break
            directory = buffer[directory_start:body]
            if crc32c(directory, crc32c(buffer[position : position + _CRC_OFFSET], seed)) != crc:
                break
            if buffer[content_end:end] != _ZEROS[end - content_end]:
                break
            batches = list(_ENTRY.iter_unpack(directory))
            next_sequence = first
            positions = None
            for shard, batch_records, batch_bytes, batch_crc in batches:
                content = buffer[body : body + batch_bytes]
                if positions is not None or crc32c(content) != batch_crc:
                    needs_look = True
                    break
                if shard not in shards and (positions := _positions_of(shard, content, batch_records)) is None:
                    needs_look = True
                    break
                body += batch_bytes
                next_sequence += batch_records
            if needs_look or body != content_end or next_sequence != first + record_count:
                needs_look = True
                break
            if positions is not None:
                self.producers.update(positions)
                record_count -= batches.pop()[1]  # control records come last
            for shard, batch_records, batch_bytes, _ in batches:
                known = counts.get(shard)
                counts[shard] = (
                    (batch_records, batch_bytes)
                    if known is None
                    else (known[0] + batch_records, known[1] + batch_bytes)
                )
            if start + position - indexed >= INDEX_STRIDE_BYTES:
                indexed = start + position
                self.rows.append((first, indexed, time_us, before))
            previous, sequence, records, timestamp, position = crc, next_sequence, before + record_count, time_us, end
        self.last_crc, self.next_sequence, self.records, self.timestamp_us = previous, sequence, records, timestamp
        self.offset = start + position
        return needs_look

    def _take_by_definition(self) -> bool:
        """Take one block, or step over what does not check out; whether it was sound."""
        span = replace(self._span, start=self.offset, previous_crc=self.last_crc, next_sequence=self.next_sequence)
        try:
            block = next(iter(Steps(self._file, span, bodies=True)))
        except CorruptLog as error:
            self._skip(str(error))
            return False
        except UnsupportedVersion as error:
            self._subject.add("version-unsupported", self.path, str(error), offset=self.offset)
            self.is_damaged, self.offset = True, self._span.end
            return False
        if block.header.type == FOOTER:
            self.footer = block
            return False
        return self._take(block)

    def _skip(self, reason: str) -> None:
        """Go on at the next block that checks out, if there is one."""
        if self.zeros_from is not None and self.offset >= self.zeros_from and self._is_zero_from(self.offset):
            self._span = replace(self._span, end=self.offset)
            return
        found = find_block_behind(self._file, self.offset, self._span.end, self._span.seed, self.next_sequence)
        end = found.offset if found else self._span.end
        next_sequence = max(found.first_sequence if found else self._span.end_sequence, self.next_sequence)
        self._damaged("block-damaged", self.offset, end, (self.next_sequence, next_sequence), reason)
        self.offset, self.next_sequence, self.last_crc, self.records = end, next_sequence, None, None

    def _is_zero_from(self, offset: int) -> bool:
        end = self._span.end
        while offset < end and (piece := self._file.pread(min(WALK_PIECE_BYTES, end - offset), offset)):
            if not is_zero(piece):
                return False
            offset += len(piece)
        return True

    def _take(self, block: Block) -> bool:
        """Take a block whose header is sound; whether its batches are, too."""
        header = block.header
        place = (header.offset, header.end, (header.first_sequence, header.next_sequence))
        is_sound = self._continues(header)
        try:
            batches = block.batches()
        except CorruptLog as error:
            self._damaged("block-damaged", *place, str(error))
            batches, is_sound = [], False
        if self.deep is not None:
            self.deep.check_header(self.path, header, self._span.seed)
        for batch in batches:
            is_sound = self._take_batch(block, batch) and is_sound
        for batch in batches:
            if batch.shard != CONTROL_SHARD:
                self.counts[batch.shard] = add_counts(self.counts.get(batch.shard), batch.records, batch.body_bytes)
        if not self.rows or header.offset - self.rows[-1][1] >= INDEX_STRIDE_BYTES:
            self.rows.append((header.first_sequence, header.offset, header.timestamp_us, header.records_before))
        controls = sum(batch.records for batch in batches if batch.shard == CONTROL_SHARD)
        self.records = header.records_before + header.record_count - controls
        self.offset, self.next_sequence, self.last_crc = header.end, header.next_sequence, header.crc
        self.timestamp_us = header.timestamp_us
        return is_sound

    def _take_batch(self, block: Block, batch: Batch) -> bool:
        header = block.header
        start = header.offset + batch.body_offset
        place = (start, start + batch.body_bytes, (batch.first_sequence, batch.first_sequence + batch.records))
        try:
            body = block.body(batch)
        except CorruptLog as error:
            self._damaged("batch-damaged", *place, str(error))
            return False
        if batch.shard == CONTROL_SHARD:
            try:
                controls = decode_controls(body, batch.records)
            except CorruptLog as error:
                self._damaged("batch-undecodable", *place, str(error))
                return False
            if self.take_controls is not None:
                self.take_controls(self, header, list(enumerate(controls, batch.first_sequence)))
        elif self.open_shards is not None and batch.shard not in self.open_shards:
            self._damaged("shard-unknown", *place, f"expected the number of an open shard, found {batch.shard}")
            return False
        if self.deep is not None:
            problem = self.deep.problem_of(batch, body)
            if problem is not None:
                code, message = problem
                self._damaged(code, *place, message)
                return False
        return True

    def _continues(self, header: CommitHeader) -> bool:
        """Whether counts and times go on from the commit before."""
        problems = []
        if self.records is not None and header.records_before != self.records:
            problems.append(f"expected {self.records} records before, found {header.records_before}")
        if header.timestamp_us < self.timestamp_us:
            problems.append(f"expected a time from {self.timestamp_us}, found {header.timestamp_us}")
        if header.durable_sequence > header.first_sequence:
            problems.append(f"expected {header.first_sequence} durable at most, found {header.durable_sequence}")
        if problems:
            self._subject.add("block-inconsistent", self.path, "; ".join(problems), offset=header.offset)
        return not problems

    def _damaged(self, code: str, offset: int, end: int, sequences: tuple[int, int], reason: str) -> None:
        self.is_damaged = True
        self.open_shards = None  # what was lost may have changed them
        if self.deep is not None:
            self.deep.follow(None)
        self._subject.add(
            code, self.path, reason, offset=offset, end=end, sequences=sequences, segment_id=self.segment_id
        )

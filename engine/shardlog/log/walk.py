"""Stepping through the blocks of one segment, verifying each.

Owns the loop that every reader, the recovery and the tools share: read large pieces, verify header checksum, chain,
order and padding, and where a block does not check out find the next one that does. Batch bodies are verified when
they are asked for, because a reader of one shard has no business with the others'.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.protocol import File
from shardlog.format.commit import (
    ALIGNMENT,
    ENTRY_BYTES,
    HEADER_BYTES,
    LENGTH_MAX,
    MAGIC_BYTES,
    Batch,
    CommitHeader,
    body_of,
    decode_directory,
    decode_header,
)
from shardlog.format.segment import HEADER_STEP

PIECE_BYTES: Final = 256 << 10
_FIRST_PIECE_BYTES: Final = 64 << 10
"""Who looks for one record needs little more than what lies between two position rows; who reads on, ever more."""
_ZEROS: Final = bytes(PIECE_BYTES)
_LARGEST_HEADER: Final = HEADER_BYTES + LENGTH_MAX


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a segment to step through: `[start, end)`, in a segment of a given seed.

    `previous_crc` None: the chain is taken up at the first block. `next_sequence` is the lowest number that the first
    block may have; `end_sequence` is the number after the last record of the stretch.
    """

    start: int
    end: int
    seed: int
    previous_crc: int | None
    next_sequence: int
    end_sequence: int


class Block:
    """A block whose header, directory and place in the chain were verified."""

    __slots__ = ("_buffer", "_file", "_position", "header")

    def __init__(self, header: CommitHeader, buffer: bytes, position: int, file: File) -> None:
        self.header = header
        self._buffer = buffer
        self._position = position
        self._file = file

    def batches(self, shards: Collection[int] | None = None) -> list[Batch]:
        """Its directory: all of it, or the batches of some shards. Raises CorruptLog."""
        return decode_directory(self._buffer, self._position, self.header, shards)

    def body(self, batch: Batch) -> bytes:
        """The body of one of its batches, verified. Raises CorruptLog."""
        end = self._position + batch.body_offset + batch.body_bytes
        if end > len(self._buffer):
            self._buffer = self._file.pread(self.header.end - self.header.offset, self.header.offset)
            self._position = 0
        return body_of(self._buffer, self._position, batch)

    def content(self) -> bytes:
        """A footer's body, which has no directory."""
        if self._position + HEADER_BYTES + self.header.length > len(self._buffer):
            self._buffer = self._file.pread(self.header.end - self.header.offset, self.header.offset)
            self._position = 0
        start = self._position + HEADER_BYTES
        return self._buffer[start : start + self.header.length]


@dataclass(frozen=True, slots=True)
class Damage:
    """Sequence numbers `[first, next)` that cannot be read: bytes `[offset, end)` of a segment do not check out.

    `shard` is the number of the only shard concerned, None where it may be any.
    """

    first: int
    next: int
    offset: int
    end: int
    reason: str
    shard: int | None = None


def walk(file: File, span: Span, *, bodies: bool) -> Iterator[Block | Damage]:
    """The blocks of a span in order, and what lies between them where something does not check out.

    `bodies` says whether the caller will ask for bodies, so that they are read together with the headers.
    Raises UnsupportedVersion.
    """
    start, previous_crc, next_sequence = span.start, span.previous_crc, span.next_sequence
    while True:
        steps = Steps(
            file, replace(span, start=start, previous_crc=previous_crc, next_sequence=next_sequence), bodies=bodies
        )
        try:
            for block in steps:
                first = block.header.first_sequence
                if previous_crc is None and block.header.offset == start and first > next_sequence:
                    # Who starts without the block before this one knows its number: others were here.
                    reason = f"expected a block of number {next_sequence}, found {first}"
                    yield Damage(next_sequence, first, start, start, reason)
                yield block
            return
        except CorruptLog as error:
            offset, reason = steps.offset, str(error)
            next_sequence = steps.next_sequence
        found = find_block_behind(file, offset, span.end, span.seed, next_sequence)
        yield Damage(
            next_sequence,
            found.first_sequence if found else span.end_sequence,
            offset,
            found.offset if found else span.end,
            reason,
        )
        if found is None:
            return
        start, previous_crc, next_sequence = found.offset, None, found.first_sequence


class Steps:
    """Iterates over the blocks of a span up to the first that does not check out, and knows where that is.

    There it raises CorruptLog, or UnsupportedVersion.
    """

    def __init__(self, file: File, span: Span, *, bodies: bool) -> None:
        self.offset = span.start
        self.next_sequence = span.next_sequence
        self._file = file
        self._end = span.end
        self._seed = span.seed
        self._previous_crc = span.previous_crc
        self._bodies = bodies
        self._piece_bytes = min(_FIRST_PIECE_BYTES, PIECE_BYTES) if bodies else PIECE_BYTES

    def __iter__(self) -> Iterator[Block]:
        buffer = b""
        position = block_bytes = 0
        while self.offset < self._end:
            header = decode_header(buffer, position, self.offset, self._seed) if position < len(buffer) else None
            if header is None:
                buffer, position = self._read(self._next_piece_bytes(block_bytes)), 0
                header = decode_header(buffer, 0, self.offset, self._seed)
            if header and self._bodies and position + header.end - self.offset > len(buffer):
                block_bytes = header.end - self.offset
                buffer, position = self._read(max(self._next_piece_bytes(block_bytes), block_bytes)), 0
                header = decode_header(buffer, 0, self.offset, self._seed)
            if header is None:
                raise CorruptLog(f"expected a block, found the end at {self.offset + len(buffer)}")
            self._check(header, buffer, position)
            yield Block(header, buffer, position, self._file)
            block_bytes = header.end - self.offset
            position += block_bytes
            self.offset = header.end
            self.next_sequence = header.next_sequence
            self._previous_crc = header.crc

    def _next_piece_bytes(self, block_bytes: int) -> int:
        """How much to read; as many whole blocks as it holds, if all are like one: half a block would be read twice."""
        piece_bytes = self._piece_bytes
        self._piece_bytes = min(2 * piece_bytes, PIECE_BYTES)
        if self._bodies and 0 < block_bytes <= piece_bytes:
            return piece_bytes // block_bytes * block_bytes
        return piece_bytes

    def _read(self, length: int) -> bytes:
        room = self._end - self.offset
        buffer = self._file.pread(min(length, room), self.offset)
        if len(buffer) >= HEADER_BYTES:
            # A directory may be longer than a piece.
            batch_count = int.from_bytes(buffer[12:16], "little")
            needed = HEADER_BYTES + batch_count * ENTRY_BYTES
            if len(buffer) < needed <= min(room, _LARGEST_HEADER) and buffer.startswith(MAGIC_BYTES):
                buffer = self._file.pread(needed, self.offset)
        return buffer

    def _check(self, header: CommitHeader, buffer: bytes, position: int) -> None:
        if header.end > self._end:
            raise CorruptLog(f"expected a block that ends by {self._end}, found one that ends at {header.end}")
        if self._previous_crc is not None and header.previous_crc != self._previous_crc:
            raise CorruptLog(
                f"expected a block that continues {self._previous_crc:#010x}, found {header.previous_crc:#010x}"
            )
        if header.first_sequence < self.next_sequence:
            raise CorruptLog(f"expected a sequence number from {self.next_sequence}, found {header.first_sequence}")
        padding_start = position + HEADER_BYTES + header.length
        if any(buffer[padding_start : position + header.end - header.offset]):
            raise CorruptLog("expected zeros in the padding of a block")


def is_zero(piece: bytes) -> bool:
    """Whether a piece of at most PIECE_BYTES is all zeros."""
    return piece == (_ZEROS if len(piece) == PIECE_BYTES else bytes(len(piece)))


def find_block(file: File, start: int, end: int, seed: int, next_sequence: int) -> CommitHeader | None:
    """The first header at or after `start` that checks out by itself and does not go back in sequence numbers.

    None begins within the segment's own header: a copy that strayed there would hide those that are in their place.
    """
    offset = max(-(-start // ALIGNMENT) * ALIGNMENT, HEADER_STEP)
    while offset < end:
        piece = file.pread(min(PIECE_BYTES, end - offset), offset)
        if not piece:
            return None
        position = -1 if is_zero(piece) else piece.find(MAGIC_BYTES)
        while position >= 0:
            found = offset + position
            if found % ALIGNMENT == 0 and (header := _header_at(file, found, end, seed)):
                if header.first_sequence >= next_sequence and header.end <= end:
                    return header
            position = piece.find(MAGIC_BYTES, position + 1)
        # Aligned starts cannot straddle pieces: pieces are a multiple of the alignment.
        offset += PIECE_BYTES
    return None


def find_block_behind(file: File, offset: int, end: int, seed: int, next_sequence: int) -> CommitHeader | None:
    """Where to go on behind damage at `offset`: maybe right there, where only blocks before it are missing."""
    header = _header_at(file, offset, end, seed) if HEADER_STEP <= offset < end else None
    if header and header.first_sequence > next_sequence and header.end <= end:
        return header
    return find_block(file, offset + ALIGNMENT, end, seed, next_sequence)


def _header_at(file: File, offset: int, end: int, seed: int) -> CommitHeader | None:
    start = file.pread(HEADER_BYTES, offset)
    batch_count = int.from_bytes(start[12:16], "little")
    length = HEADER_BYTES + batch_count * ENTRY_BYTES
    if length > min(end - offset, _LARGEST_HEADER):
        return None
    try:
        return decode_header(file.pread(length, offset), 0, offset, seed)
    except (CorruptLog, UnsupportedVersion):
        return None

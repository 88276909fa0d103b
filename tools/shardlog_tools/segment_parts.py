"""A segment file taken apart, for looking at: header, commits, footer, damage, and space that nothing was written to.

Owns looking at one `.seg` file by itself, without the stream around it and without writing. Stepping from block to
block and finding the next sound one behind damage is the engine's own `log.walk`, so that this sees what a reader sees;
what is added here is the segment header that is itself damaged, the batches' bodies, and the end of the file. What
damage means for the stream (a torn tail, or lost records) takes the whole directory to decide, and is not decided here.

What is kept in memory is one block.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shardlog.errors import CorruptLog, ShardlogError
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import File
from shardlog.format import commit, names, segment
from shardlog.format.commit import Batch, CommitHeader
from shardlog.format.segment import Footer, SegmentHeader
from shardlog.log import walk as steps
from shardlog.log.segments import read_segment_header

_PIECE_BYTES: Final = 1 << 20
_UNKNOWN_END: Final = 2**63
# Where the ids stand in a segment header, whose checksum does not vouch for them when they are used.
_SEGMENT_ID: Final = slice(20, 24)
_STREAM_UUID: Final = slice(56, 72)


@dataclass(frozen=True)
class Header:
    """The segment's header."""

    content: SegmentHeader


@dataclass(frozen=True)
class Commit:
    """A commit whose header checks out, and its batches with their bodies, which are None where damaged."""

    header: CommitHeader
    batches: list[tuple[Batch, bytes | None]]


@dataclass(frozen=True)
class SealedFooter:
    """The footer block of a sealed segment."""

    header: CommitHeader
    content: Footer


@dataclass(frozen=True)
class Trailer:
    """The end of a sealed segment, which points at its footer."""

    offset: int
    footer_offset: int


@dataclass(frozen=True)
class Damage:
    """Bytes `[first, next)` that are not what was written, as far as this file tells."""

    first: int
    next: int
    reason: str


@dataclass(frozen=True)
class Unused:
    """Bytes `[first, next)` that are zero: preallocated, and not written yet."""

    first: int
    next: int


Part = Header | Commit | SealedFooter | Trailer | Damage | Unused


def segment_parts(path: str) -> Iterator[Part]:
    """Everything in a segment file, in its order. Raises UnsupportedVersion, and StorageFailed where reading does."""
    file = PosixFiles().open_to_read(path)
    try:
        size = file.size()
        try:
            header = read_segment_header(file)
        except CorruptLog as error:
            found = _first_block(path, file)
            first = found[0].offset if found else size
            yield Damage(0, first, f"segment header: {error}")
            if found:
                yield from _blocks(file, steps.Span(first, size, found[1], None, 0, _UNKNOWN_END), found[2])
            return
        yield Header(header)
        seed = commit.seed_of(header.stream_uuid, header.segment_id)
        span = steps.Span(header.header_bytes, size, seed, header.crc, header.first_sequence, _UNKNOWN_END)
        yield from _blocks(file, span, header.segment_id)
    finally:
        file.close()


def _blocks(file: File, span: steps.Span, segment_id: int) -> Iterator[Part]:
    for step in steps.walk(file, span, bodies=True):
        if isinstance(step, steps.Damage):
            yield from _damage(file, step, span.end, segment_id)
        elif step.header.type == commit.FOOTER:
            try:
                yield SealedFooter(step.header, segment.decode_footer(step.content()))
            except CorruptLog as error:
                yield Damage(step.header.offset, step.header.end, f"footer: {error}")
        else:
            yield from _commit(step)


def _commit(block: steps.Block) -> Iterator[Part]:
    try:
        directory = block.batches()
    except CorruptLog as error:
        yield Damage(block.header.offset, block.header.end, str(error))
        return
    batches: list[tuple[Batch, bytes | None]] = []
    damages: list[Damage] = []
    for batch in directory:
        try:
            batches.append((batch, block.body(batch)))
        except CorruptLog as error:
            batches.append((batch, None))
            first = block.header.offset + batch.body_offset
            damages.append(Damage(first, first + batch.body_bytes, str(error)))
    yield Commit(block.header, batches)
    yield from damages


def _damage(file: File, damage: steps.Damage, size: int, segment_id: int) -> Iterator[Part]:
    """What does not check out, with the end of a file told apart: the trailer, and zeros that were never written."""
    end = damage.end
    trailer = _trailer(file, size, segment_id) if end == size else None
    if trailer is not None:
        end = trailer.offset
    written = _end_of_written(file, damage.offset, end) if damage.end == size else end
    if damage.offset < written:
        yield Damage(damage.offset, written, damage.reason)
    if written < end:
        yield Unused(written, end)
    if trailer is not None:
        yield trailer


def _trailer(file: File, size: int, segment_id: int) -> Trailer | None:
    offset = max(0, size - segment.TRAILER_BYTES)
    try:
        return Trailer(offset, segment.decode_trailer(file.pread(segment.TRAILER_BYTES, offset), segment_id))
    except CorruptLog:
        return None


def _end_of_written(file: File, first: int, end: int) -> int:
    """The offset behind the last byte of `[first, end)` that is not zero."""
    while first < end:
        start = max(first, end - _PIECE_BYTES)
        written = len(file.pread(end - start, start).rstrip(b"\0"))
        if written:
            return start + written
        end = start
    return first


def _first_block(path: str, file: File) -> tuple[CommitHeader, int, int] | None:
    """For a damaged segment header: the first sound block, its seed, and the segment's id.

    The seed needs the ids of stream and segment: from what is left of the header, the file's name, and its neighbours.
    """
    start = file.pread(segment.FIXED_HEADER_BYTES, 0).ljust(segment.FIXED_HEADER_BYTES, b"\0")
    parsed = names.parse_segment_name(os.path.basename(path))
    ids = [parsed[1]] if parsed else []
    for segment_id in (*ids, int.from_bytes(start[_SEGMENT_ID], "little")):
        for stream_uuid in (start[_STREAM_UUID], *_neighbours_stream_uuid(path)):
            seed = commit.seed_of(stream_uuid, segment_id)
            found = steps.find_block(file, 0, file.size(), seed, 0)
            if found is not None:
                return found, seed, segment_id
    return None


def _neighbours_stream_uuid(path: str) -> Iterator[bytes]:
    directory = os.path.dirname(path) or "."
    files = PosixFiles()
    for name in sorted(files.names(directory)):
        if names.parse_segment_name(name) is None or name == os.path.basename(path):
            continue
        try:
            neighbour = files.open_to_read(os.path.join(directory, name))
            try:
                yield read_segment_header(neighbour).stream_uuid
            finally:
                neighbour.close()
        except ShardlogError:
            continue
        return  # all segments of a directory belong to one stream

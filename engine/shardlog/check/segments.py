"""Phase: one segment. Its header, every block from there to its end, its footer and trailer.

Where a segment ends is told by its successor's predecessor field, by the tail of a stream in use, or by recovery's
judgement of the last one; failing these, by its own trailer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from shardlog.check.blocks import BlockScan, PositionRow, row_of
from shardlog.check.lineage import Lineage
from shardlog.check.mending import mended_header
from shardlog.check.subject import Subject
from shardlog.errors import CorruptLog, ShardlogError, StorageFailed, UnsupportedVersion
from shardlog.files.protocol import File, Files
from shardlog.format import names
from shardlog.format.commit import FOOTER, HEADER_BYTES, decode_header, padded, seed_of
from shardlog.format.segment import TRAILER_BYTES, Footer, SegmentHeader, decode_footer, decode_trailer
from shardlog.log.segments import read_segment_header
from shardlog.log.walk import Block, Span, find_block

_MAGIC_AND_MORE: Final = 8


@dataclass(slots=True)
class Place:
    """A segment file: what its name says, and its header, or why there is none."""

    first_sequence: int
    segment_id: int
    path: str
    header: SegmentHeader | None = None
    problem: tuple[str, str] | None = None
    """Code and message."""
    true_name: str | None = None
    """The name that the header tells, where that is another one."""
    told_ids: tuple[int, ...] = ()
    """The ids that the header tells, whatever the file's name: its own, and its predecessor's."""

    @property
    def is_of_another(self) -> bool:
        """Whether the file is that of another segment, or of another stream's."""
        return self.problem is not None and self.problem[0] in ("segment-misnamed", "segment-foreign")


@dataclass(frozen=True, slots=True)
class End:
    """Where a segment's blocks end. `last_crc` None: nobody tells.

    `is_sealed`: a footer must follow. `is_unfinished`: nothing follows the segment, so if it has a footer, that may be
    half written. `zeros_from`: nobody tells the end either, zeros from there on are none of it.
    """

    offset: int
    next_sequence: int
    last_crc: int | None
    is_sealed: bool
    is_unfinished: bool = False
    zeros_from: int | None = None


@dataclass(frozen=True, slots=True)
class Passed:
    """A segment that was scanned: where it really ended. `records` and `last_crc` None: not known."""

    place: Place
    next_sequence: int
    last_crc: int | None
    records: int | None
    timestamp_us: int
    is_damaged: bool
    rows: list[PositionRow] = field(default_factory=list)


def read_header(files: Files, place: Place, stream_uuid: bytes | None) -> None:
    """Read a segment's header into its place, put right if one bit is wrong. Raises StorageFailed."""
    try:
        file = files.open_to_read(place.path)
    except FileNotFoundError:
        place.problem = ("segment-missing", "the file is gone")
        return
    try:
        header = read_segment_header(file)
    except CorruptLog as error:
        place.header = mended_header(file, place.first_sequence, place.segment_id)
        place.problem = ("header-damaged" if place.header is None else "header-flipped", str(error))
    except UnsupportedVersion as error:
        place.problem = ("version-unsupported", str(error))
    else:
        if stream_uuid is not None and header.stream_uuid != stream_uuid:
            place.problem = ("segment-foreign", f"it belongs to the stream of uuid {header.stream_uuid.hex()}")
        elif (header.first_sequence, header.segment_id) != (place.first_sequence, place.segment_id):
            place.true_name = names.segment_name(header.first_sequence, header.segment_id)
            place.problem = ("segment-misnamed", f"its header is that of {place.true_name}")
        else:
            place.header = header
        if stream_uuid == header.stream_uuid:
            place.told_ids = (header.segment_id, header.predecessor.segment_id)
    finally:
        file.close()


def end_of(files: Files, place: Place, successor: Place, stream_uuid: bytes) -> End:
    """Where a segment that has a successor ends."""
    if successor.header is not None and successor.header.predecessor.segment_id == place.segment_id:
        before = successor.header.predecessor
        return End(before.end, before.next_sequence, before.last_crc, True)
    return own_end(files, place, successor.first_sequence, stream_uuid)


def own_end(files: Files, place: Place, next_sequence: int | None, stream_uuid: bytes) -> End:
    """Where a segment ends by its own account: its footer, or else the end of what was written to it.

    `next_sequence` is that of its successor, None where there is none.
    """
    if_unknown = place.first_sequence if next_sequence is None else next_sequence
    try:
        file = files.open_to_read(place.path)
    except FileNotFoundError:
        return End(0, if_unknown, None, True)
    try:
        offset = decode_trailer(file.pread(TRAILER_BYTES, max(0, file.size() - TRAILER_BYTES)), place.segment_id)
        footer = decode_header(file.pread(HEADER_BYTES, offset), 0, offset, seed_of(stream_uuid, place.segment_id))
        if footer is None or footer.type != FOOTER:
            raise CorruptLog("the trailer does not point to a footer")
        return End(offset, footer.first_sequence, footer.previous_crc, True)
    except (CorruptLog, UnsupportedVersion):
        return End(file.data_end(), if_unknown, None, next_sequence is not None, zeros_from=0)
    finally:
        file.close()


def check_segment(subject: Subject, place: Place, end: End, lineage: Lineage, stream_uuid: bytes) -> Passed:
    """Check one segment, and say where it ended."""
    try:
        file = subject.files.open_to_read(place.path)
    except FileNotFoundError:
        _add_header_problem(subject, place, ("segment-missing", "the file is gone"), 0, end.next_sequence)
        lineage.lose()
        return Passed(place, end.next_sequence, None, None, 0, True)
    try:
        return _check_open_segment(subject, place, end, lineage, seed_of(stream_uuid, place.segment_id), file)
    except StorageFailed as error:
        subject.add("read-failed", place.path, str(error))
        lineage.lose()
        return Passed(place, end.next_sequence, None, None, 0, True)
    finally:
        subject.passed(file.size())
        file.close()


def _check_open_segment(subject: Subject, place: Place, end: End, lineage: Lineage, seed: int, file: File) -> Passed:
    header = place.header
    if header is not None:
        span = Span(header.header_bytes, end.offset, seed, header.crc, place.first_sequence, end.next_sequence)
        lineage.enter(place.path, header)
        if place.problem is not None:
            _add_header_problem(subject, place, place.problem, header.header_bytes, place.first_sequence)
    else:
        found = find_block(file, _MAGIC_AND_MORE, end.offset, seed, place.first_sequence)
        if found is not None and found.type == FOOTER:
            found = None
        start, first = (found.offset, found.first_sequence) if found else (end.offset, end.next_sequence)
        _add_header_problem(subject, place, place.problem or ("header-damaged", "it cannot be read"), start, first)
        span = Span(start, end.offset, seed, None, max(first, place.first_sequence), end.next_sequence)
        lineage.lose()
    scan = BlockScan(subject, file, place.path, place.segment_id, span)
    if header is not None:
        scan.records, scan.timestamp_us = header.records_before, header.timestamp_before_us
    scan.zeros_from = end.zeros_from
    lineage.follow(scan, file)
    scan.run()
    lineage.leave(scan)
    is_damaged = scan.is_damaged or header is None
    if (scan.footer is not None or end.is_sealed) and not place.is_of_another:
        blocks_end = scan.footer.header.offset if scan.footer is not None else end.offset
        problem = footer_problem(file, place.segment_id, seed, blocks_end, None if is_damaged else scan)
        if problem is not None:
            code, message = ("footer-unfinished", problem[1]) if end.is_unfinished else problem
            subject.add(code, place.path, message, offset=blocks_end, segment_id=place.segment_id)
    return Passed(place, scan.next_sequence, scan.last_crc, scan.records, scan.timestamp_us, is_damaged, scan.rows)


def _add_header_problem(subject: Subject, place: Place, problem: tuple[str, str], start: int, first: int) -> None:
    """A header that cannot be used: the first block found behind it starts at offset `start` with number `first`."""
    code, message = problem
    subject.add(
        code, place.path, message, offset=0, end=start, segment_id=place.segment_id,
        sequences=(place.first_sequence, max(first, place.first_sequence)),
    )  # fmt: skip


def footer_problem(
    file: File, segment_id: int, seed: int, offset: int, scan: BlockScan | None
) -> tuple[str, str] | None:
    """Code and message where the footer at `offset`, or what follows it, is wrong; compared with a scan's sums."""
    size = file.size()
    try:
        start = file.pread(HEADER_BYTES, offset)
        header = decode_header(start, 0, offset, seed)
        if header is None or header.type != FOOTER:
            return "footer-damaged", f"expected a footer, found {'a commit' if header else 'the end of the file'}"
        block = Block(header, start, 0, file)
        content = file.pread(padded(HEADER_BYTES + header.length) + TRAILER_BYTES, offset)
        if any(content[HEADER_BYTES + header.length : header.end - offset]):
            return "footer-damaged", "expected zeros in the padding of the footer"
        if decode_trailer(content[header.end - offset :], segment_id) != offset:
            return "footer-damaged", "the trailer points elsewhere"
        if header.end + TRAILER_BYTES != size:
            return "footer-damaged", f"expected the file to end at {header.end + TRAILER_BYTES}, found {size} bytes"
        footer = decode_footer(block.content())
    except ShardlogError as error:
        return "footer-damaged", str(error)
    if scan is None:
        return None
    differing = _differing(block, footer, scan)
    return ("footer-wrong", f"it differs from the blocks in {', '.join(differing)}") if differing else None


def _differing(block: Block, footer: Footer, scan: BlockScan) -> list[str]:
    """What a footer says otherwise than the blocks before it."""
    header, rows = block.header, scan.rows
    last_us = scan.timestamp_us if rows else None
    told = {
        "position rows": (list(map(row_of, footer.positions)), rows),
        "records per shard": (footer.shard_records, {shard: count[0] for shard, count in scan.counts.items()}),
        "first time": (footer.first_timestamp_us, rows[0][2] if rows else None),
        "last time": (footer.last_timestamp_us, last_us),
        "records before": (header.records_before, scan.records),
        "previous checksum": (header.previous_crc, scan.last_crc),
    }
    differing = [name for name, (found, expected) in told.items() if found != expected]
    if header.first_sequence < scan.next_sequence:
        differing.append("next sequence number")
    return differing

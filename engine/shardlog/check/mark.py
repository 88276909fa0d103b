"""Phase: MARK, and where the log ends.

MARK is held against the log: the place it names must be the end of a block. While nobody has the stream open, what
stops a scan of the last segment is judged by `log.recovery`, exactly as opening would: a torn tail or corruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shardlog.check.findings import Finding
from shardlog.check.segments import End, Passed, Place
from shardlog.check.subject import Subject
from shardlog.consumer import highest_checkpoint
from shardlog.errors import CorruptLog, ShardlogError, UnsupportedVersion
from shardlog.format import names
from shardlog.format.commit import seed_of
from shardlog.format.mark import (
    BLOCK_BYTES,
    FLAG_OFFSET,
    MARK_BYTES,
    Mark,
    decode_flag,
    decode_mark,
    encode_flag,
    encode_slot,
)
from shardlog.format.segment import SegmentHeader
from shardlog.log.recovery import LogEnd, find_log_end
from shardlog.log.walk import PIECE_BYTES, Span, Steps, is_zero
from shardlog.stream.lineage import fold
from shardlog.stream.state import StreamState, decode_state

_TRIES: Final = 5
"""A stream in use writes MARK at any time; a slot may be read half written."""


@dataclass(frozen=True, slots=True)
class LogEndFacts:
    """Where the log ends. `state` None: it cannot be told. `judged` None: the stream is in use."""

    end: End
    last_id: int
    state: StreamState | None
    judged: LogEnd | None


def read_mark(subject: Subject) -> tuple[Mark | None, bool]:
    """MARK's position and flag; findings where it is not what was written."""
    path = f"{subject.path}/{names.MARK}"
    content = _content(subject, path)
    tries = _TRIES if subject.live else 1
    while content is not None and mark_problems(content) and (tries := tries - 1):
        content = _content(subject, path)
    if content is None:
        return None, False
    for code, offset, message in mark_problems(content):
        subject.add(code, path, message, offset=offset)
    try:
        return decode_mark(content), decode_flag(content)
    except UnsupportedVersion as error:
        subject.add("version-unsupported", path, str(error))
        return None, False


def _content(subject: Subject, path: str) -> bytes | None:
    try:
        file = subject.files.open_to_read(path)
    except FileNotFoundError:
        subject.add("mark-missing", path, "expected the lower bound of the log's end, found nothing")
        return None
    except (IsADirectoryError, ShardlogError) as error:
        subject.add("read-failed", path, str(error))
        return None
    try:
        return file.pread(MARK_BYTES + 1, 0)
    except ShardlogError as error:
        subject.add("read-failed", path, str(error))
        return None
    finally:
        file.close()


def mark_problems(content: bytes) -> list[tuple[str, int, str]]:
    """Code, offset and message of what is wrong with MARK's bytes."""
    problems: list[tuple[str, int, str]] = []
    if len(content) != MARK_BYTES:
        problems.append(("mark-damaged", 0, f"expected {MARK_BYTES} bytes, found {len(content)}"))
    for start in (0, BLOCK_BYTES):
        slot = content[start : start + BLOCK_BYTES]
        try:
            mark = decode_mark(slot)
        except UnsupportedVersion:
            continue
        if mark is None and any(slot):
            problems.append(("mark-damaged", start, "expected a position that agrees with its checksum"))
        elif mark is not None and slot != encode_slot(mark).ljust(len(slot), b"\0"):
            problems.append(("mark-damaged", start, "expected zeros behind the position"))
    flag = content[FLAG_OFFSET:MARK_BYTES]
    if flag.ljust(BLOCK_BYTES, b"\0") not in [
        encode_flag(unsynced).ljust(BLOCK_BYTES, b"\0") for unsynced in (False, True)
    ]:
        problems.append(("mark-damaged", FLAG_OFFSET, "expected the flag of unsynced appends, and zeros behind it"))
    return problems


def find_end(subject: Subject, places: list[Place], mark: Mark | None) -> LogEndFacts | None:
    """Where the log ends: by the tail of a stream in use, else as opening would judge; None where nothing tells."""
    tail = subject.live.tail if subject.live else None
    if tail is not None and subject.live is not None and subject.live.copy is not None:
        try:
            state = decode_state(subject.live.copy.state()[0]).state
        except ShardlogError:
            state = None
        return LogEndFacts(End(tail.offset, tail.next_sequence, tail.last_crc, False), tail.segment_id, state, None)
    try:
        checkpointed = highest_checkpoint(subject.files, subject.path)
        judged = find_log_end(subject.files, subject.log_path, mark, checkpointed)
    except UnsupportedVersion as error:
        subject.add("version-unsupported", subject.log_path, str(error))
        return None
    except (ShardlogError, FileNotFoundError):
        return None  # what keeps it from being told is said about each segment
    try:
        state = fold(decode_state(judged.snapshot).state, judged.controls)
    except (ShardlogError, KeyError, TypeError, ValueError):
        state = None
    return LogEndFacts(
        End(judged.offset, judged.next_sequence, None, judged.sealed), places[-1].segment_id, state, judged
    )


def check_tail(subject: Subject, facts: LogEndFacts, place: Place, unsynced: bool) -> None:
    """What follows the end of the log, and corruption that opening sees and the scan did not say."""
    if facts.judged is None:
        return
    if unsynced:
        subject.add("unsynced", f"{subject.path}/{names.MARK}", "the flag of unsynced appends is set")
    start, torn_end = facts.judged.offset, facts.judged.torn_end
    if torn_end > start:
        message = f"{torn_end - start} bytes that were never acknowledged"
        subject.add("torn-tail", place.path, message, offset=start, end=torn_end)
    for damage in facts.judged.damage:
        if not any(_covers(finding, damage) for finding in subject.findings):
            subject.add(
                "block-damaged", place.path, str(damage), offset=damage.offset, sequences=damage.sequences,
                segment_id=place.segment_id,
            )  # fmt: skip


def _covers(finding: Finding, damage: CorruptLog) -> bool:
    """Whether a finding says what recovery's judgement says."""
    if finding.severity != "error" or finding.segment_id is None:
        return False
    if damage.sequences is None or finding.sequences is None:
        return True
    first, end = finding.sequences
    return (first < damage.sequences[1] and damage.sequences[0] < end) or damage.sequences[0] == damage.sequences[1]


def check_mark(subject: Subject, mark: Mark, header: SegmentHeader, passed: Passed) -> None:
    """Whether MARK names the end of a block of the segment that it names, which has this header."""
    place = passed.place
    if passed.is_damaged:
        return
    start, crc, first = header.header_bytes, header.crc, header.first_sequence
    for first_sequence, offset, _, _ in passed.rows:
        if offset < mark.offset:
            start, crc, first = offset, -1, first_sequence
    file = subject.files.open_to_read(place.path)
    try:
        span = Span(
            start, max(start, mark.offset), seed_of(header.stream_uuid, place.segment_id), None if crc < 0 else crc,
            first, mark.next_sequence,
        )  # fmt: skip
        try:
            for block in Steps(file, span, bodies=False):
                crc, first = block.header.crc, block.header.next_sequence
        except CorruptLog:
            crc = -1
    finally:
        file.close()
    if mark.offset < start or (crc >= 0 and crc != mark.last_crc) or crc < 0 or first > mark.next_sequence:
        subject.add(
            "mark-wrong", f"{subject.path}/{names.MARK}", f"no block of segment {mark.segment_id:08x} ends at "
            f"{mark.offset} before number {mark.next_sequence} with checksum {mark.last_crc:#010x}",
        )  # fmt: skip


def check_unpublished(subject: Subject, place: Place) -> None:
    """Bytes behind the published end of a stream in use: a commit under way, or one whose writer died."""
    tail = subject.live.tail_now() if subject.live else None
    if tail is None or tail.segment_id != place.segment_id:
        return
    file = subject.files.open_to_read(place.path)
    try:
        offset, size = tail.offset, file.data_end()
        while offset < size and (piece := file.pread(PIECE_BYTES, offset)):
            if not is_zero(piece):
                subject.add("unpublished", place.path, "bytes that nobody reads yet", offset=offset)
                return
            offset += len(piece)
    finally:
        file.close()

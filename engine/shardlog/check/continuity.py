"""Phase: whether the segments follow each other.

Each header names the end of the segment before it (offset, next number, checksum of the last block), and the first one
begins where the trim horizon is, or at the first number ever.
"""

from __future__ import annotations

from shardlog.check.segments import Passed, Place
from shardlog.check.subject import Subject


def check_first(subject: Subject, place: Place, horizon: int) -> None:
    """Whether anything is missing before the oldest segment that is there."""
    if place.first_sequence <= horizon:
        return
    before = place.header.predecessor.segment_id if place.header is not None else 0
    subject.add(
        "segment-missing", place.path, f"expected a segment that holds sequence number {horizon}, found none before "
        "this one", sequences=(horizon, place.first_sequence), segment_id=before,
    )  # fmt: skip


def check_join(subject: Subject, before: Passed, place: Place) -> bool:
    """Whether a segment continues the one before it."""
    if place.header is None:  # said already; what it continues, it cannot tell
        if place.segment_id > before.place.segment_id + 1 and place.first_sequence > before.next_sequence:
            subject.add(
                "segment-missing", place.path, f"its header cannot be read, and before it comes segment "
                f"{before.place.segment_id:08x}, which ends at {before.next_sequence}",
                sequences=(before.next_sequence, place.first_sequence), segment_id=place.segment_id - 1,
            )  # fmt: skip
        return False
    said, header = place.header.predecessor, place.header
    if said.segment_id != before.place.segment_id:
        subject.add(
            "segment-missing", place.path, f"it continues segment {said.segment_id:08x}, and before it comes "
            f"{before.place.segment_id:08x}",
            sequences=(before.next_sequence, max(before.next_sequence, said.next_sequence)),
            segment_id=said.segment_id,
        )  # fmt: skip
        return False
    problems = []
    if header.first_sequence < said.next_sequence or said.next_sequence < before.next_sequence:
        problems.append(
            f"expected it to start at {before.next_sequence} or later, found {header.first_sequence} after "
            f"{said.next_sequence}"
        )
    if not before.is_damaged:
        if before.last_crc != said.last_crc:
            problems.append("the last block before it has another checksum than its header says")
        if before.records is not None and before.records != header.records_before:
            problems.append(f"expected {before.records} records before it, found {header.records_before}")
        if before.timestamp_us != header.timestamp_before_us:
            problems.append(f"expected the time {before.timestamp_us} before it, found {header.timestamp_before_us}")
    if problems:
        subject.add(
            "join-broken", place.path, "; ".join(problems), offset=0,
            sequences=(before.next_sequence, max(before.next_sequence, said.next_sequence)),
            segment_id=said.segment_id,
        )  # fmt: skip
    return not problems


def check_end(subject: Subject, before: Passed, missing_id: int, next_sequence: int, witness: str) -> None:
    """A witness says that there was a later segment than the last one that is there."""
    subject.add(
        "segment-missing", subject.log_path, f"{witness} says that segment {missing_id:08x} was there",
        sequences=(before.next_sequence, max(before.next_sequence, next_sequence)), segment_id=missing_id,
    )  # fmt: skip

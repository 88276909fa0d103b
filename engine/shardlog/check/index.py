"""Phase: the LMDB index against the log.

A stream in use: the copy that was taken first must be sound and agree with the log in every row. Nobody has the stream
open: the index is discarded at the next opening, so whatever is wrong with it is a note.
"""

from __future__ import annotations

import os
import struct
from typing import Final

import lmdb
import lmdb.verify

from shardlog.check.blocks import row_of
from shardlog.check.lineage import Lineage, counts_of
from shardlog.check.segments import End, Passed, Place
from shardlog.check.subject import Subject
from shardlog.errors import ShardlogError
from shardlog.format import names
from shardlog.index.environment import Index
from shardlog.index.lmdb_files import DATA_FILE, LMDB_0_9
from shardlog.index.tail import decode_tail
from shardlog.index.transaction import SegmentName
from shardlog.log.segments import expired_segments
from shardlog.stream.state import decode_state

_TAIL_KEY: Final = b"T"


def check_live_index(subject: Subject, places: list[Place], passed: Passed, lineage: Lineage) -> None:
    """The index of a stream in use. `passed`: what the scan of the active segment found."""
    live = subject.live
    assert live is not None
    path = f"{subject.path}/{names.INDEX}"
    for problem in live.problems:
        subject.add("index-damaged", path, problem)
    if live.copy is None or live.tail is None:
        return
    now = live.tail_now() or live.tail
    try:
        differing = _differing(live.copy, places, passed, lineage, now.trim_horizon)
    except ShardlogError as error:
        subject.add("index-damaged", path, str(error))
        return
    if differing:
        subject.add("index-wrong", path, f"it differs from the log in {', '.join(differing)}")


def _differing(index: Index, places: list[Place], passed: Passed, lineage: Lineage, horizon: int) -> list[str]:
    tail = index.tail()
    segments = [SegmentName(place.first_sequence, place.segment_id) for place in places]
    told: dict[str, tuple[object, object]] = {
        "segments": (_later(index.segments(), horizon), _later(segments, horizon)),
    }
    if not passed.is_damaged:
        told |= {
            "the tail's checksum": (tail.last_crc, passed.last_crc),
            "the tail's record count": (tail.records, passed.records),
            "position rows": (list(map(row_of, index.positions())), passed.rows),
        }
        if tail.next_sequence < passed.next_sequence:
            told["the tail's next number"] = (tail.next_sequence, passed.next_sequence)
    if lineage.is_complete:
        state = decode_state(index.state()[0]).state
        told |= {"the state": (state, lineage.state), "counts": (counts_of(state, index.counts()), lineage.counts)}
        producers = {name: index.producer_position(name) for name in lineage.producers}
        told["producers"] = (producers, lineage.producers)
    return [name for name, (found, expected) in told.items() if found != expected]


def _later(segments: list[SegmentName], horizon: int) -> list[SegmentName]:
    """Those that have not expired meanwhile."""
    return segments[len(expired_segments(segments, horizon)) :]


def check_unused_index(subject: Subject, last: Place, end: End) -> None:
    """The index that the last user left."""
    path = f"{subject.path}/{names.INDEX}"
    if not os.path.exists(f"{path}/{DATA_FILE}"):
        return
    try:
        problems: list[str] = lmdb.verify.verify(f"{path}/{DATA_FILE}")  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError) as error:
        problems = [str(error)]
    if problems:
        subject.add("index-stale", path, f"it is not sound: {problems[0]}")
        return
    try:
        with (
            lmdb.open(path, readonly=True, lock=False, lib_version=LMDB_0_9) as environment,
            environment.begin() as transaction,
        ):
            row = transaction.get(_TAIL_KEY)
            tail = decode_tail(bytes(row)) if row is not None else None
    except (lmdb.Error, struct.error) as error:
        subject.add("index-stale", path, f"it cannot be read: {error}")
        return
    if tail is None or (tail.segment_id, tail.offset) != (last.segment_id, end.offset):
        subject.add("index-stale", path, "its tail is not the end of the log")

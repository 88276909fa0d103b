"""Phase: what is in a log directory. Names, ids, and files that were never finished."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Final

from shardlog.check.segments import Place, read_header
from shardlog.check.subject import Subject
from shardlog.errors import StorageFailed
from shardlog.format import names

MISPLACED: Final = ".misplaced"
"""Ends the name of a segment that a repair is about to give its right name."""

_KNOWN_NAMES: Final = frozenset({names.LOCK, names.LOG, names.INDEX, names.MARK, names.LOST_AND_FOUND, names.CONSUMERS})


def check_inventory(subject: Subject) -> list[Place]:
    """The segments of the stream, oldest first, as their names tell; findings about all other names."""
    _check_stream_names(subject)
    places: list[Place] = []
    try:
        found = sorted(subject.files.names(subject.log_path))
    except (FileNotFoundError, NotADirectoryError, StorageFailed) as error:
        subject.add("log-missing", subject.log_path, f"expected the directory of the segments: {error}")
        return []
    for name in found:
        path = f"{subject.log_path}/{name}"
        parsed = names.parse_segment_name(name)
        if parsed is not None:
            places.append(Place(*parsed, path))
        elif name.endswith(names.TEMPORARY):
            _add_temporary(subject, path, name)
        elif name.endswith(MISPLACED) and names.parse_segment_name(name.removesuffix(MISPLACED)):
            subject.add("segment-misplaced", path, f"it belongs to {name.removesuffix(MISPLACED)}")
        else:
            subject.add("unknown-name", path, "no file of the log has such a name")
    places = [place for place in places if not _is_later(subject, place)]
    if not places:
        subject.add("log-missing", subject.log_path, "expected at least one segment, found none")
    return places


def without_strangers(subject: Subject, places: list[Place], stream_uuid: bytes, last_id: int | None) -> list[Place]:
    """The places that belong to the log: all but files of other segments under names that nothing in the log tells.

    `last_id` is the segment that MARK or the index names. Headers are read, and dropped again.
    """
    for place in places:
        read_header(subject.files, place, stream_uuid)
        place.header = None
    told_ids = {last_id, *(segment_id for place in places for segment_id in place.told_ids)}
    proper = [place for place in places if not place.is_of_another]
    told_ids -= {place.segment_id for place in proper}
    proper_names = {os.path.basename(place.path) for place in proper}
    kept = []
    for place in places:
        if not place.is_of_another or place.segment_id in told_ids:
            kept.append(place)
            continue
        assert place.problem is not None
        code, message = place.problem
        if place.true_name in proper_names:
            code, message = "segment-foreign", f"a second copy of {place.true_name}"
        subject.add(code, place.path, message)
    return kept


def check_order(subject: Subject, places: list[Place]) -> None:
    """Ids and first sequence numbers grow."""
    for one, other in pairwise(places):
        if other.segment_id <= one.segment_id or other.first_sequence <= one.first_sequence:
            subject.add(
                "segment-disorder", other.path, f"expected an id above {one.segment_id:08x} and a number above "
                f"{one.first_sequence}",
            )  # fmt: skip


def _check_stream_names(subject: Subject) -> None:
    for name in sorted(subject.files.names(subject.path)):
        if name not in _KNOWN_NAMES:
            code = "temporary-left" if name.endswith(names.TEMPORARY) else "unknown-name"
            subject.add(code, f"{subject.path}/{name}", "no file of a stream has such a name")


def _add_temporary(subject: Subject, path: str, name: str) -> None:
    parsed = names.parse_segment_name(name.removesuffix(names.TEMPORARY))
    tail = subject.live.tail if subject.live else None
    if tail is not None and parsed is not None and parsed[1] > tail.segment_id:
        return  # somebody rolls right now
    subject.add("temporary-left", path, "it was never finished")


def _is_later(subject: Subject, place: Place) -> bool:
    """Whether a segment came after the tail under which a stream in use is examined."""
    tail = subject.live.tail if subject.live else None
    return tail is not None and place.first_sequence > tail.segment_first

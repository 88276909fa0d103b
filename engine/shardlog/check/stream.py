"""Checking one stream's directory: the phases in their order, segment by segment."""

from __future__ import annotations

import os
from dataclasses import replace

from shardlog.check.consumers import check_consumers
from shardlog.check.continuity import check_end, check_first, check_join
from shardlog.check.findings import StreamFacts
from shardlog.check.index import check_live_index, check_unused_index
from shardlog.check.inventory import check_inventory, check_order, without_strangers
from shardlog.check.lineage import Lineage
from shardlog.check.mark import LogEndFacts, check_mark, check_tail, check_unpublished, find_end, read_mark
from shardlog.check.segments import End, Passed, Place, check_segment, end_of, own_end, read_header
from shardlog.check.subject import Subject, examined
from shardlog.errors import CorruptLog, StorageFailed, StoreLocked
from shardlog.format.mark import Mark
from shardlog.log.segments import expired_segments
from shardlog.stream.state import StreamState, decode_state


def check_stream(subject: Subject, lock_timeout: float) -> StreamFacts:
    """Check a stream's directory; the findings are in the subject. Never raises on damage."""
    facts = StreamFacts(subject.path, None, False, False)
    try:
        with examined(subject, lock_timeout):
            facts = _check_held(subject)
    except StoreLocked as error:
        subject.add("locked", subject.path, str(error))
    except (StorageFailed, OSError) as error:
        subject.add("read-failed", subject.path, str(error))
    return facts


def _check_held(subject: Subject) -> StreamFacts:
    places = check_inventory(subject)
    mark, unsynced = read_mark(subject)
    check = StreamCheck(subject, places, mark)
    if places:
        check.run(unsynced)
    check_consumers(subject)
    judged = check.facts.judged if check.facts else None
    return StreamFacts(
        subject.path,
        check.store_uuid,
        subject.live is not None,
        check.facts is None or bool(judged and judged.damage),
        tuple((os.path.basename(place.path), place.true_name) for place in places if place.true_name is not None),
        tuple(os.path.basename(place.path) for place in places),
        mark,
        check.facts is None or check.facts.state is not None,
    )


class StreamCheck:
    """The check of one stream's segments, from the oldest to the newest; two headers are in memory at a time."""

    def __init__(self, subject: Subject, places: list[Place], mark: Mark | None) -> None:
        self.store_uuid: bytes | None = None
        self.facts: LogEndFacts | None = None
        self._subject = subject
        self._places = places
        self._mark = mark
        self._stream_uuid: bytes | None = None
        self._lineage = Lineage(subject)

    def run(self, unsynced: bool) -> None:
        """All phases from the segments on."""
        subject = self._subject
        self.facts = find_end(subject, self._places, self._mark)
        newest = self._find_uuids()
        state = self.facts.state if self.facts else newest
        if state is not None:
            subject.gaps = state.gaps
            _check_name(subject, state.name, state.label)
        if self._stream_uuid is None:
            subject.add(
                "headers-lost", subject.log_path, "expected one segment header that can be read, found none",
                sequences=(self._places[0].first_sequence, self._places[-1].first_sequence + 1),
            )  # fmt: skip
            for place in self._places:
                if place.problem is not None:
                    code, message = place.problem
                    subject.add(code, place.path, message, offset=0, segment_id=place.segment_id)
            return
        horizon = state.trim_horizon if state else self._places[0].first_sequence
        last_id = self._mark.segment_id if self._mark else None
        if subject.live is not None and self.facts is not None:
            last_id = self.facts.last_id
        self._places = without_strangers(subject, self._places, self._stream_uuid, last_id)
        check_order(subject, self._places)
        self._drop_expired(horizon)
        last = self._check_segments(horizon, self._stream_uuid)
        self._check_end(last, unsynced)
        if subject.live is not None:
            self._forget_expired()

    def _find_uuids(self) -> StreamState | None:
        """Take the uuids from the newest header that can be read (and has its right name), and return its state."""
        for place in reversed(self._places):
            read_header(self._subject.files, place, None)
            if place.header is not None:
                self._stream_uuid, self.store_uuid = place.header.stream_uuid, place.header.store_uuid
                try:
                    return decode_state(place.header.snapshot).state
                except CorruptLog:
                    return None
        return None

    def _drop_expired(self, horizon: int) -> None:
        """Segments behind the horizon are nobody's business any more."""
        while len(self._places) > 1 and self._places[1].first_sequence <= horizon:
            place = self._places.pop(0)
            self._subject.add("segment-expired", place.path, f"the trim horizon is at {horizon}")

    def _check_segments(self, horizon: int, stream_uuid: bytes) -> Passed:
        subject, places = self._subject, self._places
        read_header(subject.files, places[0], stream_uuid)
        check_first(subject, places[0], horizon)
        before: Passed | None = None
        for index, place in enumerate(places):
            successor = places[index + 1] if index + 1 < len(places) else None
            if successor is not None:
                read_header(subject.files, successor, stream_uuid)
                end = end_of(subject.files, place, successor, stream_uuid)
            else:
                end = self._end_of_last(place, stream_uuid)
            if before is not None and not check_join(subject, before, place):
                self._lineage.lose()
            before = check_segment(subject, place, end, self._lineage, stream_uuid)
            if self._mark is not None and self._mark.segment_id == place.segment_id and place.header is not None:
                check_mark(subject, self._mark, place.header, before)
            if successor is not None:
                place.header = None
        assert before is not None
        return before

    def _end_of_last(self, place: Place, stream_uuid: bytes) -> End:
        """The end of the newest segment. What MARK does not name has not begun: then this one may be half sealed."""
        mark = self._mark
        is_unfinished = mark is None or mark.segment_id <= place.segment_id
        if self.facts is not None and self.facts.last_id == place.segment_id:
            return replace(self.facts.end, is_unfinished=is_unfinished)
        end = own_end(self._subject.files, place, None, stream_uuid)
        if end.is_sealed or mark is None or mark.segment_id != place.segment_id:
            return replace(end, is_unfinished=is_unfinished)
        return End(
            max(end.offset, mark.offset), max(end.next_sequence, mark.next_sequence), end.last_crc, False,
            is_unfinished=True, zeros_from=mark.offset,
        )  # fmt: skip

    def _check_end(self, last: Passed, unsynced: bool) -> None:
        subject, facts, mark, live = self._subject, self.facts, self._mark, self._subject.live
        place = last.place
        if live is None:
            if mark is not None and mark.segment_id > place.segment_id:
                check_end(subject, last, mark.segment_id, mark.next_sequence, "MARK")
        elif facts is not None and facts.last_id > place.segment_id:
            check_end(subject, last, facts.last_id, facts.end.next_sequence, "the index")
        if facts is not None and facts.last_id == place.segment_id:
            check_tail(subject, facts, place, unsynced)
        if live is not None:
            check_unpublished(subject, place)
            check_live_index(subject, self._places, last, self._lineage)
        elif facts is not None:
            check_unused_index(subject, place, facts.end)
        self._lineage.finish()

    def _forget_expired(self) -> None:
        """What was found about segments that expired while they were checked is nobody's business any more."""
        assert self._subject.live is not None
        tail = self._subject.live.tail_now()
        if tail is None:
            return
        places = [(place.first_sequence, place.segment_id) for place in self._places]
        count = len(expired_segments(places, tail.trim_horizon))
        gone = {place.path for place in self._places[:count]}
        self._subject.findings[:] = [
            finding
            for finding in self._subject.findings
            if finding.path not in gone
            and not (finding.sequences is not None and finding.sequences[1] <= tail.trim_horizon)
        ]


def _check_name(subject: Subject, name: str, label: str) -> None:
    found = subject.path.rsplit("/", 2)[1:]
    if found != [name, label]:
        subject.add(
            "stream-renamed", subject.path, f"the log says that this is stream {name}, {label}; records keep that name"
        )

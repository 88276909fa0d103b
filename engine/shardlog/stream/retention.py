"""Expiry: which segments are old enough, and removing them.

A segment is as old as the newest record in it can be: the time of its last commit, or the lowest creation time of a
segment after it, whichever is earlier (so a clock that jumped forward and back does not pin it). Expiring is two steps:
a control record moves the trim horizon and is synced, which is the commit point; then the files are unlinked, oldest
first. What a crash leaves of them is removed when the stream is opened.

A wall clock that was set wrong could expire everything. So after it jumped against CLOCK_BOOTTIME nothing expires until
both have agreed for an hour, and a pass that would remove every one of several sealed segments has to be forced.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Final

from shardlog.clock import MICROSECOND, Clock
from shardlog.errors import StorageFull
from shardlog.files.protocol import Files
from shardlog.format import control
from shardlog.index.environment import Index
from shardlog.index.tail import Tail
from shardlog.index.transaction import SegmentName
from shardlog.log.segments import Segments
from shardlog.log.writer import remove_expired
from shardlog.options import StreamOptions
from shardlog.stream.commit import GroupCommit

CLOCK_JUMP: Final = timedelta(minutes=1)
CLOCK_AGREEMENT: Final = timedelta(hours=1)

_log = logging.getLogger("shardlog")


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a pass of expiry did. `held_back` says why nothing was removed although something is old enough."""

    horizon_before: int
    horizon_after: int
    segments: int
    bytes: int
    held_back: str | None = None


@dataclass(frozen=True, slots=True)
class SegmentAge:
    """What expiry asks of a sealed segment: when its last commit and its successor came, and the space it takes."""

    last_record_us: int
    successor_created_us: int
    bytes: int


def expired_count(
    ages: Sequence[SegmentAge], retention: timedelta | None, retention_bytes: int | None, bytes_in_all: int, now_us: int
) -> int:
    """How many of the sealed segments, oldest first, are to go."""
    by_age = by_bytes = 0
    if retention is not None:
        cutoff_us = now_us - retention // MICROSECOND
        newest_us = []
        lowest_created_us = None
        for age in reversed(ages):
            lowest_created_us = min(age.successor_created_us, lowest_created_us or age.successor_created_us)
            newest_us.append(min(age.last_record_us, lowest_created_us))
        for moment_us in reversed(newest_us):
            if moment_us > cutoff_us:
                break
            by_age += 1
    if retention_bytes is not None:
        for age in ages:
            if bytes_in_all <= retention_bytes:
                break
            bytes_in_all -= age.bytes
            by_bytes += 1
    return max(by_age, by_bytes)


class ClockWatch:
    """Notices when the wall clock jumps against the time since boot."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset_us = clock.wall_us() - clock.boot_us()
        self._agreed_since_us: int | None = None

    def is_suspicious(self) -> bool:
        """Whether it jumped, and the two have not agreed for an hour since."""
        boot_us = self._clock.boot_us()
        offset_us = self._clock.wall_us() - boot_us
        if abs(offset_us - self._offset_us) > CLOCK_JUMP // MICROSECOND:
            self._agreed_since_us = boot_us
        self._offset_us = offset_us
        return self._agreed_since_us is not None and boot_us - self._agreed_since_us < CLOCK_AGREEMENT // MICROSECOND


class Retention:
    """Expires the records of one open stream."""

    def __init__(self, files: Files, index: Index, segments: Segments, commits: GroupCommit, clock: Clock) -> None:
        self._files = files
        self._index = index
        self._segments = segments
        self._commits = commits
        self._clock = clock
        self._clock_watch = ClockWatch(clock)

    def expire(self, force: bool) -> Trimmed:
        """One pass. `force`: even if the clock jumped, and even if nothing sealed would be left."""
        before = self._index.tail()
        if self._clock_watch.is_suspicious() and not force:
            return _nothing(before, "the wall clock jumped; nothing expires until it has run true for an hour")
        options = self._commits.refreshed_options()
        with suppress(StorageFull):  # no room for a new segment: all the more reason to expire the old ones
            self._commits.roll(lambda tail: self._is_old(tail, options))
        names_of_segments = self._index.segments()
        ages = [self._age(segment, successor) for segment, successor in pairwise(names_of_segments)]
        bytes_in_all = sum(age.bytes for age in ages) + self._space(names_of_segments[-1])
        count = expired_count(ages, options.retention, options.retention_bytes, bytes_in_all, self._clock.wall_us())
        if count == 0:
            return _nothing(before, None)
        if count == len(ages) > 1 and not force:
            reason = (
                f"all {count} sealed segments are old enough: a wrong clock looks the same; force it if it is right"
            )
            _log.warning("%s", reason)
            return _nothing(before, reason)
        return self._trim(before, names_of_segments[:count], names_of_segments[count].first_sequence, ages[:count])

    def _is_old(self, tail: Tail, options: StreamOptions) -> bool:
        """Whether the active segment should be sealed, so that it can expire."""
        if tail.next_sequence == tail.segment_first or options.retention is None:
            return False
        now_us = self._clock.wall_us()
        return (
            now_us - tail.segment_created_us >= options.segment_age // MICROSECOND
            or now_us - tail.timestamp_us >= options.retention // MICROSECOND
        )

    def _age(self, segment: SegmentName, successor: SegmentName) -> SegmentAge:
        header = self._segments.header(*successor)
        return SegmentAge(header.timestamp_before_us, header.created_us, self._space(segment))

    def _space(self, segment: SegmentName) -> int:
        return self._segments.file(*segment).allocated_bytes()

    def _trim(self, before: Tail, expired: Sequence[SegmentName], horizon: int, ages: Sequence[SegmentAge]) -> Trimmed:
        self._commits.change(
            lambda state, _: [{"kind": control.TRIM, "horizon": horizon}] if state.trim_horizon < horizon else [],
            may_use_reserve=True,
        )
        self._commits.forget_segments_before(horizon)
        self._segments.close_files()
        for segment in expired:
            remove_expired(self._files, self._segments.path_of(*segment))
        return Trimmed(before.trim_horizon, horizon, len(expired), sum(age.bytes for age in ages))


def _nothing(tail: Tail, held_back: str | None) -> Trimmed:
    return Trimmed(tail.trim_horizon, tail.trim_horizon, 0, 0, held_back)

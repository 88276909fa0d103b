"""Expiry: which segments are old enough, and removing them.

A segment is as old as the newest record in it can be: the time of its last commit, or the lowest creation time of a
segment after it, whichever is earlier (so a clock that jumped forward and back does not pin it). Expiring is two steps:
a control record moves the trim horizon and is synced, which is the commit point; then the files are unlinked, oldest
first. What a crash leaves of them is removed when the stream is opened.

A wall clock that was set wrong could expire everything. So after it jumped against CLOCK_BOOTTIME nothing expires by
age until both have agreed for an hour, and a pass that would remove every one of several sealed segments by age has to
be forced. A cap by bytes asks no clock, and holds at once.

What some groups of consumers have not checkpointed can be held: it stays, whatever its age, until the log takes more
than a limit.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import Final

from shardlog.clock import MICROSECOND, Clock
from shardlog.errors import CorruptLog, StorageFull, TrimmedData
from shardlog.files.protocol import Files
from shardlog.format import control
from shardlog.index.environment import Index
from shardlog.index.tail import Tail
from shardlog.index.transaction import SegmentName
from shardlog.log.segments import Segments, expired_segments
from shardlog.log.writer import remove_expired
from shardlog.options import StreamOptions
from shardlog.stream.commit import GroupCommit
from shardlog.stream.rolling import is_of_age
from shardlog.stream.state import StreamState, decode_state

CLOCK_JUMP: Final = timedelta(minutes=1)
CLOCK_AGREEMENT: Final = timedelta(hours=1)

_log = logging.getLogger("shardlog")


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a pass of expiry did. `held_back` says why something was kept although it is old enough."""

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


def expired_by_age(ages: Sequence[SegmentAge], retention: timedelta | None, now_us: int) -> int:
    """How many of the sealed segments, oldest first, hold only what is older than the retention."""
    if retention is None:
        return 0
    cutoff_us = now_us - retention // MICROSECOND
    lowest_created_us = list(accumulate((age.successor_created_us for age in reversed(ages)), min))
    count = 0
    for age, created_us in zip(ages, reversed(lowest_created_us), strict=True):
        if min(age.last_record_us, created_us) > cutoff_us:
            break
        count += 1
    return count


def expired_by_bytes(ages: Sequence[SegmentAge], retention_bytes: int | None, bytes_in_all: int) -> int:
    """How many of the sealed segments, oldest first, are to go so that the log takes no more than the cap."""
    if retention_bytes is None:
        return 0
    count = 0
    for age in ages:
        if bytes_in_all <= retention_bytes:
            break
        bytes_in_all -= age.bytes
        count += 1
    return count


def released_by_groups(ends: Sequence[int], held_from: int) -> int:
    """How many of the sealed segments, oldest first, end before a sequence number."""
    return bisect_right(ends, held_from)


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

    def __init__(
        self,
        files: Files,
        index: Index,
        segments: Segments,
        commits: GroupCommit,
        clock: Clock,
        held_from: Callable[[Collection[str]], int] | None,
    ) -> None:
        self._files = files
        self._index = index
        self._segments = segments
        self._commits = commits
        self._clock = clock
        self._held_from = held_from
        self._clock_watch = ClockWatch(clock)

    def expire(self, force: bool) -> Trimmed:
        """One pass. `force`: even if the clock jumped, and even if nothing sealed would be left."""
        before = self._index.tail()
        try:
            return self._pass(before, force)
        except TrimmedData:
            if self._index.tail().trim_horizon == before.trim_horizon:
                raise
            return _nothing(self._index.tail(), None)  # another process expires, too, and was faster

    def _pass(self, before: Tail, force: bool) -> Trimmed:
        is_suspicious = self._clock_watch.is_suspicious() and not force
        state = decode_state(self._index.state()[0]).state
        options = state.options
        if not is_suspicious:
            with suppress(StorageFull):  # no room for a new segment: all the more reason to expire the old ones
                self._commits.roll(lambda tail: self._is_old(tail, state))
        segments = self._live_segments()
        ages = self._ages(segments)
        by_age = expired_by_age(ages, options.retention, self._clock.wall_us())
        held_back = None
        if by_age and is_suspicious:
            held_back = "the wall clock jumped; nothing expires by age until it has run true for an hour"
        elif by_age == len(ages) > 1 and not force:
            held_back = (
                f"all {by_age} sealed segments are old enough: a wrong clock looks the same; force it if it is right"
            )
        if held_back:
            _log.warning("%s", held_back)
            by_age = 0
        bytes_in_all = sum(age.bytes for age in ages) + self._space(segments[-1])
        count = max(by_age, expired_by_bytes(ages, options.retention_bytes, bytes_in_all))
        if options.hold and count:
            kept = self._released(segments, ages, count, bytes_in_all, options)
            if kept < count:
                groups = ", ".join(options.hold)
                held_back = f"{count - kept} segments hold records that {groups} did not checkpoint yet"
                count = kept
        if count == 0:
            return _nothing(before, held_back)
        horizon = self._trim(segments[:count], segments[count].first_sequence)
        return Trimmed(before.trim_horizon, horizon, count, sum(age.bytes for age in ages[:count]), held_back)

    def _released(
        self,
        segments: Sequence[SegmentName],
        ages: Sequence[SegmentAge],
        wanted: int,
        bytes_in_all: int,
        options: StreamOptions,
    ) -> int:
        """How many of the first `wanted` segments may go: nobody holds them, or the log would take too much."""
        assert self._held_from is not None
        ends = [segment.first_sequence for segment in segments[1:]]
        released = min(wanted, released_by_groups(ends, self._held_from(options.hold)))
        over = expired_by_bytes(ages, options.hold_bytes_max, bytes_in_all)
        return max(released, min(wanted, over))

    def _is_old(self, tail: Tail, state: StreamState) -> bool:
        """Whether the active segment should be sealed, so that it can expire."""
        options = state.options
        if options.retention is None or not self._can_expire(tail, state):
            return False
        now_us = self._clock.wall_us()
        return is_of_age(tail, options, now_us) or now_us - tail.timestamp_us >= options.retention // MICROSECOND

    def _can_expire(self, tail: Tail, state: StreamState) -> bool:
        """Whether the active segment holds records, or a closed shard is left.

        Else it tells of earlier expiry only: an idle stream comes to rest.
        """
        if tail.next_sequence == tail.segment_first:
            return False
        header = self._segments.header(tail.segment_first, tail.segment_id)
        return tail.records > header.records_before or len(state.shards) > len(state.open_shards)

    def _live_segments(self) -> list[SegmentName]:
        """All segments, oldest first; removes what a process left that was killed while it trimmed."""
        horizon = self._index.tail().trim_horizon
        leftovers = expired_segments(self._segments.on_disk(), horizon)
        if leftovers:
            self._remove(leftovers, horizon)
        return self._index.segments()

    def _ages(self, segments: Sequence[SegmentName]) -> list[SegmentAge]:
        """The ages of the sealed segments. Where a successor's header is damaged, the next good one speaks for it.

        That one is younger, so nothing goes too early; and nothing is kept for ever because a header is damaged.
        """
        ages: list[SegmentAge] = []
        header = self._segments.header(*segments[-1])
        for segment, successor in reversed(list(pairwise(segments))):
            with suppress(CorruptLog):
                header = self._segments.header(*successor)
            ages.append(SegmentAge(header.timestamp_before_us, header.created_us, self._space(segment)))
        return ages[::-1]

    def _space(self, segment: SegmentName) -> int:
        return self._segments.file(*segment).allocated_bytes()

    def _trim(self, expired: Sequence[SegmentName], horizon: int) -> int:
        """Move the horizon, then remove what is behind it; where it is now."""
        state = self._commits.change(
            lambda state, _: [{"kind": control.TRIM, "horizon": horizon}] if state.trim_horizon < horizon else [],
            may_use_reserve=True,
        )
        self._remove(expired, horizon)
        return state.trim_horizon

    def _remove(self, expired: Sequence[tuple[int, int]], horizon: int) -> None:
        self._commits.forget_segments_before(horizon)
        self._segments.close_files()
        for segment in expired:
            remove_expired(self._files, self._segments.path_of(*segment))


def _nothing(tail: Tail, held_back: str | None) -> Trimmed:
    return Trimmed(tail.trim_horizon, tail.trim_horizon, 0, 0, held_back)

"""Which segments are old enough, as a pure function, and when the wall clock is not to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shardlog.stream.retention import ClockWatch, SegmentAge, expired_by_age, expired_by_bytes
from shardlog.testing.clock import ManualClock

HOUR_US = 3_600_000_000
RETENTION = timedelta(hours=24)


def ages_of(created_hours: Sequence[float]) -> list[SegmentAge]:
    """Sealed segments by the wall clock's hour when each one's successor was created, and its last commit was made.

    Append time never goes back: commits keep the highest time that there was.
    """
    last = accumulate(created_hours, max)
    return [
        SegmentAge(round(before * HOUR_US), round(created * HOUR_US), 1)
        for created, before in zip(created_hours, last, strict=True)
    ]


def expired(created_hours: Sequence[float], now_hours: float, retention: timedelta | None = RETENTION) -> int:
    """How many of such segments expire by age."""
    return expired_by_age(ages_of(created_hours), retention, round(now_hours * HOUR_US))


def test_a_segment_expires_when_its_last_commit_has() -> None:
    """To the microsecond; and no retention keeps it for ever."""
    assert expired([10, 11, 12], 34 - 1e-9) == 0
    assert expired([10, 11, 12], 34) == 1
    assert expired([10, 11, 12], 35.5) == 2
    assert expired([10, 11, 12], 1e6) == 3
    assert expired([10, 11, 12], 1e6, None) == 0
    assert expired([], 1e6) == 0


def test_a_clock_that_jumped_forward_and_back_does_not_pin() -> None:
    """Segments from the jump on carry times of the future; those created after it tell when they really are."""
    jumped = [10, 11, 999, 1000, 12, 13]
    assert expired(jumped, 33.9) == 0
    assert expired(jumped, 35) == 2
    assert expired(jumped, 35.9) == 2
    assert expired(jumped, 36) == 5
    assert expired(jumped, 37) == 6


def test_a_clock_that_jumped_forward_and_back_does_not_evict() -> None:
    """What is young now is kept, although for some time the clock said that it is old."""
    jumped = [10, 999, 11]
    assert [expired(jumped, hours) for hours in (12, 33, 34, 34.9, 35)] == [0, 0, 1, 1, 3]


def test_an_active_segment_of_the_future_does_not_pin_for_ever() -> None:
    """The last sealed one is as old as its own commits, where these are of before the jump."""
    ages = [SegmentAge(10 * HOUR_US, 999 * HOUR_US, 1)]
    assert expired_by_age(ages, RETENTION, 34 * HOUR_US) == 1
    assert expired_by_age(ages, RETENTION, 33 * HOUR_US) == 0


@pytest.mark.parametrize(
    ("cap", "in_all", "wanted"),
    [(None, 99, 0), (10, 10, 0), (10, 11, 1), (9, 10, 1), (7, 10, 2), (4, 10, 3), (1, 10, 3), (100, 10, 0)],
)
def test_by_bytes_the_oldest_go_until_the_rest_fits(cap: int | None, in_all: int, wanted: int) -> None:
    """The active segment counts, and stays; whatever the age is."""
    ages = [SegmentAge(0, 0, size) for size in (1, 2, 3)]
    assert expired_by_bytes(ages, cap, in_all) == wanted


def plainly(ages: Sequence[SegmentAge], cutoff_us: int) -> int:
    """The rule as it is told: a segment is as old as the lowest creation time of those after it, or its last commit."""
    count = 0
    for index, age in enumerate(ages):
        lowest = min(later.successor_created_us for later in ages[index:])
        if min(age.last_record_us, lowest) > cutoff_us:
            break
        count += 1
    return count


TIMES = st.integers(-5, 50)


@given(st.lists(st.tuples(TIMES, TIMES), max_size=12), TIMES, st.integers(1, 20))
@example([(3, 5), (3, 0)], 2, 1)  # a clock that stood at the epoch
def test_the_count_follows_the_rule(times: list[tuple[int, int]], now_us: int, retention_us: int) -> None:
    """Whatever the clock did; and what has expired has expired with a shorter retention, or later, too."""
    ages = [SegmentAge(last, created, 1) for last, created in times]

    def count(now_us: int, retention_us: int) -> int:
        return expired_by_age(ages, timedelta(microseconds=retention_us), now_us)

    assert count(now_us, retention_us) == plainly(ages, now_us - retention_us)
    assert count(now_us + 1, retention_us) >= count(now_us, retention_us) >= count(now_us, retention_us + 1)


MINUTE = timedelta(minutes=1)


def jump(clock: ManualClock, by: timedelta) -> None:
    """Set the wall clock; no time passes."""
    clock.set_wall(datetime.fromtimestamp(clock.wall_us() / 1e6, UTC) + by)


@pytest.mark.parametrize("by", [timedelta(hours=2), -timedelta(hours=2), timedelta(days=3650), timedelta(seconds=61)])
def test_a_jump_is_suspicious_for_an_hour(by: timedelta) -> None:
    """Of time that really passed, however the wall clock stands."""
    clock = ManualClock()
    watch = ClockWatch(clock)
    clock.advance(timedelta(days=3))
    assert not watch.is_suspicious()
    jump(clock, by)
    assert watch.is_suspicious()
    clock.advance(timedelta(minutes=59))
    assert watch.is_suspicious()
    clock.advance(MINUTE)
    assert not watch.is_suspicious()


def test_a_jump_that_nobody_saw_is_suspicious_when_it_is_seen() -> None:
    """It may have been long ago: the hour begins when it is noticed."""
    clock = ManualClock()
    watch = ClockWatch(clock)
    jump(clock, timedelta(days=1))
    clock.advance(timedelta(days=1))
    assert watch.is_suspicious()
    clock.advance(timedelta(minutes=61))
    assert not watch.is_suspicious()


def test_a_second_jump_begins_the_hour_anew() -> None:
    """Also the jump back to the right time."""
    clock = ManualClock()
    watch = ClockWatch(clock)
    jump(clock, timedelta(hours=5))
    assert watch.is_suspicious()
    clock.advance(timedelta(minutes=50))
    jump(clock, -timedelta(hours=5))
    assert watch.is_suspicious()
    clock.advance(timedelta(minutes=50))
    assert watch.is_suspicious()
    clock.advance(timedelta(minutes=10))
    assert not watch.is_suspicious()


def test_small_corrections_are_not_suspicious() -> None:
    """A clock that is kept right by small steps, for days."""
    clock = ManualClock()
    watch = ClockWatch(clock)
    for step in range(200):
        clock.advance(timedelta(hours=1))
        jump(clock, timedelta(seconds=5 if step % 3 else -10))
        assert not watch.is_suspicious()

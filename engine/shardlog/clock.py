"""Time, injected.

Owns the protocol that the engine asks for the time of a record, an iterator or an expiry, and the system's
implementation. Tests use `shardlog.testing.ManualClock`. How long a wait takes is not asked here: that is real time.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """What the engine asks for time."""

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC; may jump."""
        ...

    def boot_us(self) -> int:
        """Microseconds since the machine started, sleep included; never jumps."""
        ...

    def awake_us(self) -> int:
        """Microseconds since some moment, sleep left out; never jumps. Nobody's lease expires while all sleep."""
        ...


class SystemClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return time.time_ns() // 1000

    def boot_us(self) -> int:
        """CLOCK_BOOTTIME in microseconds (clock_gettime(2))."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

    def awake_us(self) -> int:
        """CLOCK_MONOTONIC in microseconds (clock_gettime(2))."""
        return time.monotonic_ns() // 1000


def datetime_of(wall_us: int) -> datetime:
    """The aware UTC datetime of a time in microseconds since 1970."""
    return EPOCH + timedelta(microseconds=wall_us)


def wall_us_of(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - EPOCH) // MICROSECOND

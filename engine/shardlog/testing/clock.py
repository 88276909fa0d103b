"""A clock that stands still until it is told to move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shardlog.clock import MICROSECOND, wall_us_of

_START = datetime(2026, 1, 1, tzinfo=UTC)


class ManualClock:
    """A `shardlog.clock.Clock` set by hand."""

    def __init__(self, start: datetime = _START) -> None:
        self._wall_us = wall_us_of(start)
        self._boot_us = 0

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return self._wall_us

    def boot_us(self) -> int:
        """Microseconds since this clock was made."""
        return self._boot_us

    def awake_us(self) -> int:
        """The same: it never sleeps."""
        return self._boot_us

    def advance(self, duration: timedelta) -> None:
        """Let time pass."""
        self._wall_us += duration // MICROSECOND
        self._boot_us += duration // MICROSECOND

    def set_wall(self, moment: datetime) -> None:
        """Set the wall clock, as somebody sets a machine's: no time passes."""
        self._wall_us = wall_us_of(moment)

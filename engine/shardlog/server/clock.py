"""A clock that can be moved ahead: for tests of what only time brings (expiry, roll-over, time to live)."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Final

from shardlog.clock import Clock
from shardlog.errors import InvalidArgument

_MICROSECOND: Final = timedelta(microseconds=1)


class OffsetClock:
    """Another clock, and an offset. All its times move together, as if the time had passed."""

    def __init__(self, clock: Clock, offset: timedelta = timedelta(0)) -> None:
        self._clock = clock
        self._offset_us = offset // _MICROSECOND
        self._lock = threading.Lock()

    @property
    def offset(self) -> timedelta:
        """How far it is ahead."""
        return timedelta(microseconds=self._offset_us)

    def advance(self, duration: timedelta) -> None:
        """Let time pass. Raises InvalidArgument where it would go back."""
        if duration < timedelta(0):
            raise InvalidArgument(f"advance: expected a duration of at least 0, found {duration}")
        with self._lock:
            self._offset_us += duration // _MICROSECOND

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return self._clock.wall_us() + self._offset_us

    def boot_us(self) -> int:
        """Microseconds since the machine started, and the offset."""
        return self._clock.boot_us() + self._offset_us

    def awake_us(self) -> int:
        """Microseconds since some moment, and the offset."""
        return self._clock.awake_us() + self._offset_us

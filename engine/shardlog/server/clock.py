"""A clock that can be moved ahead: for tests of what only time brings (expiry, roll-over, time to live)."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

from shardlog.clock import Clock, wall_us_of
from shardlog.errors import InvalidArgument

LATEST: Final = datetime(2200, 1, 1, tzinfo=UTC)
"""No clock is moved further: what is written there has times that every reader can show, and some way to go."""

_MICROSECOND: Final = timedelta(microseconds=1)


class OffsetClock:
    """Another clock, and an offset. All its times move together, as if the time had passed.

    Raises InvalidArgument for an offset that `advance` would not take.
    """

    def __init__(self, clock: Clock, offset: timedelta = timedelta(0)) -> None:
        self._clock = clock
        self._offset_us = 0
        self._lock = threading.Lock()
        self.advance(offset)

    @property
    def offset(self) -> timedelta:
        """How far it is ahead."""
        return timedelta(microseconds=self._offset_us)

    def advance(self, duration: timedelta) -> None:
        """Let time pass. Raises InvalidArgument where it would go back, or beyond `LATEST`: then it stays as it is."""
        if duration < timedelta(0):
            raise InvalidArgument(f"advance: expected a duration of at least 0, found {duration}")
        added_us = duration // _MICROSECOND
        with self._lock:
            if added_us and self.wall_us() + added_us > wall_us_of(LATEST):
                raise InvalidArgument(f"advance: expected a time before {LATEST:%Y-%m-%d}, found {duration} from now")
            self._offset_us += added_us

    def wall_us(self) -> int:
        """Microseconds since 1970-01-01 UTC."""
        return self._clock.wall_us() + self._offset_us

    def boot_us(self) -> int:
        """Microseconds since the machine started, and the offset."""
        return self._clock.boot_us() + self._offset_us

    def awake_us(self) -> int:
        """Microseconds since some moment, and the offset."""
        return self._clock.awake_us() + self._offset_us

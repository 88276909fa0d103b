"""Streams that age: on a manual clock, with segments that one append fills."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.history import SEGMENT_BYTES, change, new_stream

from shardlog import Store, Stream
from shardlog.testing.clock import ManualClock

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TEXT = "x" * (SEGMENT_BYTES * 3 // 8)
"""Two records with it do not fit into one segment."""


class Aging:
    """A stream, its clock, and which items are in which segment."""

    def __init__(self, store: Store, clock: ManualClock, name: str = "s", **options: Any) -> None:
        self.clock = clock
        self.stream: Stream = new_stream(store, name, **options)
        self.log = next(Path(store.path).glob(f"streams/{name}/*/log"))
        self._items = 0

    def fill(self, segments: int = 1, pause: timedelta = timedelta(0)) -> list[int]:
        """One record for each of so many segments, and a pause after each; their sequence numbers."""
        sequences = []
        for _ in range(segments):
            sequences += self.stream.append([change(self._items, TEXT)]).sequences
            self._items += 1
            self.clock.advance(pause)
        return sequences

    @property
    def segments(self) -> list[str]:
        """Names of the segment files, oldest first."""
        return sorted(path.name for path in self.log.glob("*.seg"))

    @property
    def firsts(self) -> list[int]:
        """Their first sequence numbers."""
        return [int(name[:20]) for name in self.segments]

    def space(self, name: str) -> int:
        """What a segment takes on disk."""
        return (self.log / name).stat().st_blocks * 512

    def jump(self, by: timedelta) -> None:
        """Set the wall clock; no time passes."""
        self.clock.set_wall(datetime.fromtimestamp(self.clock.wall_us() / 1e6, UTC) + by)

"""Opening a stream whose writer was killed by SIGKILL: `open` and `stream` together.

Every opening finds a fresh copy of what the killed writer left, written back to the device, because opening settles
what it finds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable

from bench.children import build_and_kill, opening_ms, time_opening
from bench.settings import Settings
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Goal, Row, Table, at_most
from shardlog_tools.measuring.rounds import take_turns

_MANY_SEGMENT_BYTES = 16 << 10
_SEGMENT_BYTES = 64 << 20
_RECORDS_PER_SMALL_SEGMENT = 50  # one commit fills it
_GOAL = at_most(50)


class Opening:
    """Opens a copy in each turn. The figure: milliseconds."""

    def __init__(self, name: str, killed: str, opened: str, open_ms: Callable[[str], float]) -> None:
        self.name = name
        self._killed = killed
        self._opened = opened
        self._open_ms = open_ms

    def turn(self, seconds: float) -> float:  # noqa: ARG002 - it takes as long as it takes
        shutil.rmtree(self._opened, ignore_errors=True)
        subprocess.run(["cp", "-a", "--sparse=auto", self._killed, self._opened], check=True)
        os.sync()
        return self._open_ms(self._opened)


def open_many_segments(settings: Settings) -> Table:
    """A log of many small segments."""
    return _opening(
        settings,
        "open-segments",
        f"opening after SIGKILL with {settings.segments:,} segments",
        _GOAL,
        records_per_commit=_RECORDS_PER_SMALL_SEGMENT,
        log_bytes=0,
        segments=settings.segments,
        segment_bytes=_MANY_SEGMENT_BYTES,
    )


def open_full_segment(settings: Settings, records_per_commit: int) -> Table:
    """A log of one segment that is nearly full."""
    return _opening(
        settings,
        f"open-full-{records_per_commit}",
        f"opening after SIGKILL, {settings.fill_bytes >> 20} MiB in the last segment, commits of {records_per_commit}",
        _GOAL,
        records_per_commit=records_per_commit,
        log_bytes=settings.fill_bytes,
        segments=0,
        segment_bytes=_SEGMENT_BYTES,
    )


def _opening(settings: Settings, name: str, title: str, goal: Goal | None, **log: int) -> Table:
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory:
        killed = os.path.join(directory, "killed")
        opened = os.path.join(directory, "opened")
        build_and_kill(killed, **log)
        contestants = [
            Opening("in a fresh process", killed, opened, opening_ms),
            Opening("in this process", killed, opened, time_opening),
        ]
        sync = sync_times(settings.directory)
        series = take_turns(contestants, settings)
    return Table(name, title, "ms", tuple(Row(figures, goal=goal) for figures in series), sync)

"""Memory of a process that reads a large log from end to end."""

from __future__ import annotations

import os
import tempfile

from bench.children import build_and_kill, peak_memory_mb
from bench.settings import Settings
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Row, Series, Table, at_most

_RECORDS_PER_COMMIT = 1_000
_SEGMENT_BYTES = 64 << 20


def read_memory(settings: Settings) -> Table:
    """Greatest resident memory of a fresh process that reads everything."""
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory:
        store = os.path.join(directory, "store")
        build_and_kill(
            store,
            records_per_commit=_RECORDS_PER_COMMIT,
            log_bytes=settings.log_bytes,
            segments=0,
            segment_bytes=_SEGMENT_BYTES,
        )
        records, peak = peak_memory_mb(store)
    rows = (Row(Series("VmHWM", (peak,)), goal=at_most(100)),)
    title = f"reading {settings.log_bytes / 1e9:.2f} GB, {records:,} records, in a process of its own"
    return Table("memory", title, "MB", rows, sync_times(settings.directory))

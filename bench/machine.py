"""What the figures were measured on: processors, versions, file system, and the time of a sync."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from pathlib import Path
from typing import Final

import lmdb

from bench.results import Series
from shardlog.files.mounts import filesystem_kind
from shardlog.format.checksum import IMPLEMENTATION

_SYNCS: Final = 200
_BLOCK_BYTES: Final = 4096


def describe(directory: str) -> list[str]:
    """The machine and the directory, in a few lines."""
    cores = len(os.sched_getaffinity(0))
    return [
        f"{cores} cores ({_processor()}), {platform.system()} {platform.release()}",
        f"Python {platform.python_version()}, CRC-32C by {IMPLEMENTATION}, SQLite {sqlite3.sqlite_version}, "
        f"LMDB {'.'.join(map(str, lmdb.version(lib_version=0)))}",
        f"in {directory} on {filesystem_kind(directory) or 'an unknown file system'}",
    ]


def sync_times(directory: str) -> Series:
    """Microseconds of a pwrite of 4 KiB and its fdatasync, block after block of a preallocated file."""
    path = os.path.join(directory, "sync-times")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    content = os.urandom(_BLOCK_BYTES)
    times = []
    try:
        os.posix_fallocate(descriptor, 0, _SYNCS * _BLOCK_BYTES)
        os.fsync(descriptor)
        for block in range(_SYNCS):
            start = time.perf_counter()
            os.pwrite(descriptor, content, block * _BLOCK_BYTES)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - start) * 1e6)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return Series("fdatasync", tuple(times))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())

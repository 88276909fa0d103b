"""What the figures were measured on: processors, versions, file system, and the time of a sync."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from shardlog.files.mounts import filesystem_kind
from shardlog.format.checksum import IMPLEMENTATION
from shardlog_tools.measuring.results import Series

_SYNCS: Final = 200
_BLOCK_BYTES: Final = 4096
_PACKAGES: Final = ("shardlog", "lmdb", "ormsgpack", "msgspec", "google-crc32c")


def describe(directory: str) -> dict[str, str]:
    """The machine, the software and the directory, by what each is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "directory": f"{directory} on {filesystem_kind(directory) or 'an unknown file system'}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "checksum": f"CRC-32C by {IMPLEMENTATION}",
    }


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

"""The two locks of a stream's LOCK file, and the store's one.

GATE is held alone while opening, recovering, creating or deleting. LIVE is shared, held as long as a stream is open:
under GATE, "does anybody hold LIVE?" tells whether the index can be trusted. Locks belong to the open file, so a
process that dies gives them up, and two opens in one process do not share them. Waiting is measured in real time: it is
other processes that are waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shardlog.errors import StoreLocked
from shardlog.files.protocol import LockFile

GATE: Final = 0
LIVE: Final = 1

_PAUSE_FIRST_SECONDS: Final = 0.001
_PAUSE_MAX_SECONDS: Final = 0.05


@contextmanager
def gate_held(lock: LockFile, path: str, timeout_seconds: float) -> Iterator[None]:
    """Hold GATE. Raises StoreLocked where somebody else holds it for longer than the timeout."""
    deadline = time.monotonic() + timeout_seconds
    pause = _PAUSE_FIRST_SECONDS
    while not lock.try_exclusive(GATE):
        if time.monotonic() >= deadline:
            raise StoreLocked(
                f"{path}: another process is opening, recovering or repairing; waited {timeout_seconds:g} s for it"
            )
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE_MAX_SECONDS)
    try:
        yield
    finally:
        lock.unlock(GATE)

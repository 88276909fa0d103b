"""The locks in a stream's LOCK file, and the one in the store's.

GATE is held alone while opening, recovering, creating or deleting. LIVE is shared, held as long as a stream is open:
under GATE, "does anybody hold LIVE?" tells whether the index can be trusted. ROLL is held alone while a segment rolls:
who holds it and finds a roll begun knows that whoever began it is dead. Locks belong to the open file, so a
process that dies gives them up, and two opens in one process do not share them. Waiting is measured in real time: it is
other processes that are waited for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

from shardlog.errors import StoreLocked
from shardlog.files.protocol import LockFile

GATE: Final = 0
LIVE: Final = 1
ROLL: Final = 2

_PAUSE_FIRST_SECONDS: Final = 0.001
_PAUSE_MAX_SECONDS: Final = 0.05


@contextmanager
def gate_held(lock: LockFile, path: str, timeout_seconds: float) -> Iterator[None]:
    """Hold GATE. Raises StoreLocked where somebody else holds it for longer than the timeout."""
    if not _wait_for(lock, GATE, timeout_seconds):
        raise StoreLocked(
            f"{path}: another process is opening, recovering or repairing; waited {timeout_seconds:g} s for it"
        )
    try:
        yield
    finally:
        lock.unlock(GATE)


@contextmanager
def roll_held(lock: LockFile) -> Iterator[None]:
    """Hold ROLL, waiting for whoever rolls now."""
    _wait_for(lock, ROLL, inf)
    try:
        yield
    finally:
        lock.unlock(ROLL)


def _wait_for(lock: LockFile, byte: int, timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    pause = _PAUSE_FIRST_SECONDS
    while not lock.try_exclusive(byte):
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _PAUSE_MAX_SECONDS)
    return True

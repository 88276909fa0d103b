"""persist-queue's SQLite queue: one item per commit, the list of its changes; one transaction, WAL, synchronous=FULL.

It commits each `put` by itself, so an item per change would be a sync per change: whoever needs several changes to be
durable together puts them as one item.
"""

from __future__ import annotations

import os

import persistqueue

from shardlog import Change
from shardlog.format.values import encode


class PersistQueue:
    """One queue, for one thread."""

    name = "persist-queue"
    setting = "SQLiteQueue, WAL, synchronous=FULL, an item per commit"
    untimed_seconds = 0.0

    def __init__(self, directory: str) -> None:
        self._queue = persistqueue.SQLiteQueue(os.path.join(directory, "persist-queue"), auto_commit=True)

    def commit(self, changes: list[Change]) -> None:
        self._queue.put(encode([change.row for change in changes]))

    def close(self) -> None:
        self._queue.close()

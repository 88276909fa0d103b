"""SQLite with the promise that shardlog makes: WAL, synchronous=FULL. One table, one row per change.

Everything else is as SQLite comes.
"""

from __future__ import annotations

import os
import sqlite3
from typing import Final

from shardlog import Change
from shardlog.format.values import encode

_BUSY_SECONDS: Final = 60.0


class Sqlite:
    """One connection; several, each used by one thread, may share a directory."""

    name = "SQLite"
    untimed_seconds = 0.0

    def __init__(self, directory: str) -> None:
        self._connection = sqlite3.connect(
            os.path.join(directory, "sqlite.db"), timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        execute = self._connection.execute
        (mode,) = execute("PRAGMA journal_mode=WAL").fetchone()
        if mode != "wal":
            raise OSError(f"{directory}: SQLite cannot keep a WAL here, it chose {mode}")
        execute("PRAGMA synchronous=FULL")
        execute("CREATE TABLE IF NOT EXISTS changes (sequence INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def commit(self, changes: list[Change]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO changes (body) VALUES (?)", [(encode(change.row),) for change in changes])
        connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

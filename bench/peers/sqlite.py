"""SQLite with the promise that shardlog makes: WAL, synchronous=FULL, so one fsync of the WAL per commit.

One table, one row per change, one prepared `executemany` per commit. Everything else is as SQLite comes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bench.peers.decoding import decode
from shardlog import Change
from shardlog.format.values import encode

_BUSY_SECONDS: Final = 60.0


class Sqlite:
    """One connection; several, each used by one thread, may share a directory."""

    name = "SQLite"
    setting = "WAL, synchronous=FULL"
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

    def count_raw(self) -> int:
        count = 0
        for _sequence, _body in self._connection.execute("SELECT sequence, body FROM changes ORDER BY sequence"):
            count += 1
        return count

    def count_decoded(self) -> int:
        count = 0
        for _sequence, body in self._connection.execute("SELECT sequence, body FROM changes ORDER BY sequence"):
            decode(body)
            count += 1
        return count

    def find(self, sequence: int) -> object:
        query = "SELECT body FROM changes WHERE sequence >= ? ORDER BY sequence LIMIT 1"
        ((body,),) = self._connection.execute(query, (sequence,))
        return decode(body)

    def delete_before(self, sequence: int) -> int:
        """Delete what is older, in one transaction; how many rows."""
        return self._connection.execute("DELETE FROM changes WHERE sequence < ?", (sequence,)).rowcount

    def close(self) -> None:
        self._connection.close()


class SqliteTasks(Sqlite):
    """The same for asyncio: one connection in one thread, to which the tasks hand their transactions, as aiosqlite."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._thread = ThreadPoolExecutor(1)

    def commit_async(self, changes: list[Change]) -> Awaitable[object]:
        """See `AsyncPeer`."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self.commit, changes)

    def close(self) -> None:
        self._thread.shutdown()
        super().close()

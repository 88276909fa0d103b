"""shardlog itself, as one of the contestants."""

from __future__ import annotations

import os

import shardlog
from shardlog import Change
from shardlog.format.commit import ENTRY_BYTES, HEADER_BYTES, padded
from shardlog.format.values import encode

STREAM = "bench"


class Shardlog:
    """One stream at the default level: durable when `append` returns."""

    name = "shardlog"
    untimed_seconds = 0.0

    def __init__(self, directory: str, shards: int = 1) -> None:
        self._store = shardlog.open(os.path.join(directory, "shardlog"))
        self.stream = self._store.create_stream(STREAM, shards=shards, retention=None)

    def commit(self, changes: list[Change]) -> None:
        self.stream.append(changes)

    def close(self) -> None:
        self._store.close()


def block_bytes(changes: list[Change]) -> int:
    """How many bytes a commit of the changes takes in the log."""
    return padded(HEADER_BYTES + ENTRY_BYTES + len(encode([change.row for change in changes])))

"""LMDB by itself, synced: one key and value per change, appended in order."""

from __future__ import annotations

import os
import struct
from typing import Final

import lmdb

from shardlog import Change
from shardlog.format.values import encode

_MAP_BYTES: Final = 64 << 30
_KEY: Final = struct.Struct(">Q")


class PlainLmdb:
    """One environment, one transaction per commit."""

    name = "LMDB"
    untimed_seconds = 0.0

    def __init__(self, directory: str) -> None:
        self._environment = lmdb.open(os.path.join(directory, "lmdb"), map_size=_MAP_BYTES, lib_version=0)
        self._next = 1

    def commit(self, changes: list[Change]) -> None:
        first = self._next
        rows = [(_KEY.pack(sequence), encode(change.row)) for sequence, change in enumerate(changes, first)]
        with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(rows, append=True)
        self._next = first + len(rows)

    def close(self) -> None:
        self._environment.close()

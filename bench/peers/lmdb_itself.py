"""LMDB by itself, synced: one transaction per commit, one key and value per change, appended in order.

Its commit writes the changed pages, fdatasyncs, and writes the meta page through a descriptor that is O_DSYNC.
"""

from __future__ import annotations

import os
import struct
from typing import Final

import lmdb

from bench.peers.decoding import decode
from shardlog import Change
from shardlog.format.values import encode

_MAP_BYTES: Final = 64 << 30
_KEY: Final = struct.Struct(">Q")


class Lmdb:
    """One environment. Values are read as buffers where they are only counted."""

    name = "LMDB"
    setting = "synced transactions, as it comes"
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

    def count_raw(self) -> int:
        count = 0
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            for _key, _body in cursor:
                count += 1
        return count

    def count_decoded(self) -> int:
        count = 0
        with self._environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            for body in cursor.iternext(keys=False, values=True):
                decode(body)
                count += 1
        return count

    def find(self, sequence: int) -> object:
        with self._environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(_KEY.pack(sequence)):
                raise LookupError(sequence)
            return decode(cursor.value())

    def close(self) -> None:
        self._environment.close()

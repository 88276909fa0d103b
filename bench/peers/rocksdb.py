"""RocksDB through rocksdict: one WriteBatch per commit, with `sync`, so one fdatasync of its log per commit.

Raw mode (bytes in, bytes out); everything else is as rocksdict comes.
"""

from __future__ import annotations

import os
import struct
from typing import Final

from rocksdict import Options, Rdict, WriteBatch, WriteOptions

from bench.peers.decoding import decode
from shardlog import Change
from shardlog.format.values import encode

_KEY: Final = struct.Struct(">Q")


class RocksDb:
    """One database, keys in order."""

    name = "RocksDB"
    setting = "WriteBatch, sync=True"
    untimed_seconds = 0.0

    def __init__(self, directory: str) -> None:
        self._database = Rdict(os.path.join(directory, "rocksdb"), Options(raw_mode=True))
        self._synced = WriteOptions()
        self._synced.sync = True
        self._next = 1

    def commit(self, changes: list[Change]) -> None:
        batch = WriteBatch(raw_mode=True)
        put, pack = batch.put, _KEY.pack
        for sequence, change in enumerate(changes, self._next):
            put(pack(sequence), encode(change.row))
        self._database.write(batch, self._synced)
        self._next += len(changes)

    def count_raw(self) -> int:
        count = 0
        for _key, _body in self._database.items():
            count += 1
        return count

    def count_decoded(self) -> int:
        count = 0
        for body in self._database.values():
            decode(body)
            count += 1
        return count

    def find(self, sequence: int) -> object:
        return decode(next(iter(self._database.values(from_key=_KEY.pack(sequence)))))

    def close(self) -> None:
        self._database.close()

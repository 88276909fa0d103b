"""The limit: what cannot be left out of a durable commit, and nothing else.

Encode, checksum, pwrite into a preallocated file, fdatasync. The file that comes next when one is full is made outside
the clock.
"""

from __future__ import annotations

import os
import time
from typing import Final

import google_crc32c

from shardlog import Change
from shardlog.format.values import encode

FILE_BYTES: Final = 64 << 20


class _Preallocated:
    """Files of 64 MiB, one after the other, written from start to end."""

    def __init__(self, directory: str) -> None:
        self.untimed_seconds = 0.0
        self._path = os.path.join(directory, "limit")
        self._descriptor = -1
        self._offset = FILE_BYTES
        self._renew()

    def write(self, content: bytes) -> None:
        if self._offset + len(content) > FILE_BYTES:
            self._renew()
        os.pwrite(self._descriptor, content, self._offset)
        os.fdatasync(self._descriptor)
        self._offset += len(content)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            os.unlink(self._path)
            self._descriptor = -1

    def _renew(self) -> None:
        start = time.perf_counter()
        self.close()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.posix_fallocate(self._descriptor, 0, FILE_BYTES)
        os.fsync(self._descriptor)
        self._offset = 0
        self.untimed_seconds += time.perf_counter() - start


class Limit:
    """The bare loop over lists of changes."""

    name = "limit"

    def __init__(self, directory: str) -> None:
        self._file = _Preallocated(directory)
        self.checksum = 0

    @property
    def untimed_seconds(self) -> float:
        return self._file.untimed_seconds

    def commit(self, changes: list[Change]) -> None:
        body = encode([change.row for change in changes])
        self.checksum = google_crc32c.value(body)
        self._file.write(body)

    def close(self) -> None:
        self._file.close()


class WriteAndSync:
    """pwrite and fdatasync of some bytes that are there already."""

    name = "pwrite+fdatasync"

    def __init__(self, directory: str, content: bytes) -> None:
        self._file = _Preallocated(directory)
        self._content = content

    @property
    def untimed_seconds(self) -> float:
        return self._file.untimed_seconds

    def commit(self, changes: list[Change]) -> None:  # noqa: ARG002 - it writes the same bytes always
        self._file.write(self._content)

    def close(self) -> None:
        self._file.close()

"""Who commits: the protocol of a store that commits changes, shardlog itself, and the limit.

Each commits a list of changes durably, and knows nothing of the clock. A peer keeps a change as the row that shardlog
keeps (event, keys, new image, old image), encoded by the same encoder, and does no more with it than it must.

The limit is what cannot be left out of a durable commit, and nothing else: encode, checksum, pwrite into a preallocated
file, fdatasync. The file that comes next when one is full is made outside the clock.
"""

from __future__ import annotations

import os
import time
from typing import Final, Protocol

import google_crc32c

import shardlog
from shardlog import Change
from shardlog.format.commit import ENTRY_BYTES, HEADER_BYTES, padded
from shardlog.format.values import encode

STREAM: Final = "bench"
FILE_BYTES: Final = 64 << 20


class Peer(Protocol):
    """A store that commits changes. `setting` says what it does to make them durable."""

    name: str
    setting: str

    @property
    def untimed_seconds(self) -> float:
        """What it spent so far on what is not to be counted."""
        ...

    def commit(self, changes: list[Change]) -> None:
        """Make the changes durable, all or none."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class Shardlog:
    """One stream at the default level: durable when `append` returns."""

    name = "shardlog"
    setting = 'durability="fsync": one fdatasync per commit'
    untimed_seconds = 0.0

    def __init__(self, directory: str, shards: int = 1) -> None:
        self._store = shardlog.open(os.path.join(directory, "shardlog"))
        names = [found.name for found in self._store.streams()]
        if STREAM in names:
            self.stream = self._store.stream(STREAM)
        else:
            self.stream = self._store.create_stream(STREAM, shards=shards, retention=None)

    def commit(self, changes: list[Change]) -> None:
        """See `Peer`."""
        self.stream.append(changes)

    def close(self) -> None:
        """See `Peer`."""
        self._store.close()


def block_bytes(changes: list[Change]) -> int:
    """How many bytes a commit of the changes takes in the log."""
    return padded(HEADER_BYTES + ENTRY_BYTES + len(encode([change.row for change in changes])))


class Preallocated:
    """Files of 64 MiB, one after the other, written from start to end."""

    def __init__(self, directory: str, name: str = "limit") -> None:
        self.untimed_seconds = 0.0
        self._path = os.path.join(directory, name)
        self._descriptor = -1
        self._offset = FILE_BYTES
        self._renew()

    def write(self, content: bytes) -> None:
        """Write at the end, and sync."""
        if self._offset + len(content) > FILE_BYTES:
            self._renew()
        os.pwrite(self._descriptor, content, self._offset)
        os.fdatasync(self._descriptor)
        self._offset += len(content)

    def close(self) -> None:
        """Remove the file."""
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
    setting = "one pwrite and one fdatasync per commit"

    def __init__(self, directory: str) -> None:
        self._file = Preallocated(directory)
        self.checksum = 0

    @property
    def untimed_seconds(self) -> float:
        """See `Peer`."""
        return self._file.untimed_seconds

    def commit(self, changes: list[Change]) -> None:
        """See `Peer`."""
        body = encode([change.row for change in changes])
        self.checksum = google_crc32c.value(body)
        self._file.write(body)

    def close(self) -> None:
        """See `Peer`."""
        self._file.close()


class WriteAndSync:
    """pwrite and fdatasync of some bytes that are there already: what the device alone takes."""

    name = "pwrite+fdatasync"
    setting = "one pwrite and one fdatasync per commit"

    def __init__(self, directory: str, content: bytes) -> None:
        self._file = Preallocated(directory, "written")
        self._content = content

    @property
    def untimed_seconds(self) -> float:
        """See `Peer`."""
        return self._file.untimed_seconds

    def commit(self, changes: list[Change]) -> None:  # noqa: ARG002 - it writes the same bytes always
        """See `Peer`."""
        self._file.write(self._content)

    def close(self) -> None:
        """See `Peer`."""
        self._file.close()

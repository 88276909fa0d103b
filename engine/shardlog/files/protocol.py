"""What the engine asks of a file system.

Owns the small protocol that `files.posix` implements, that `shardlog.testing` records and fails, and that one contract
suite tests over all of them. Each sync names its *site*, the reason why it is there, so that a test can leave one out
and show what is lost.

Errors: FileNotFoundError, FileExistsError and IsADirectoryError as they are; no room is `StorageFull`; all else is
`StorageFailed`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Site(StrEnum):
    """Every place that syncs, named by what would be lost without it."""

    STORE_IDENTITY = "store identity"
    STORE_ENTRY = "store entries"
    STREAM_MARK = "new stream: MARK"
    STREAM_ENTRIES = "new stream: its entries"
    STREAM_ENTRY = "new stream: its own entry"
    STREAM_REMOVED = "deleted stream: its entry"
    SEGMENT_HEADER = "new segment: its header"
    SEGMENT_ENTRY = "new segment: its entry"
    SEGMENT_REMOVED = "abandoned segment: its entry"
    SEGMENT_SEALED = "sealed segment"
    COMMIT = "commit"
    COMMIT_CANCELLED = "failed commit: its header zeroed"
    LOG_SYNC = "level os: what was appended"
    MARK_POSITION = "MARK: position"
    MARK_UNSYNCED = "MARK: unsynced flag"
    FOUND_ENTRIES = "recovery: entries found"
    ADOPTED = "recovery: adopted bytes"
    LOST_AND_FOUND = "recovery: bytes set aside"
    LOST_AND_FOUND_ENTRY = "recovery: entry of bytes set aside"


class File(Protocol):
    """An open file."""

    def pread(self, length: int, offset: int) -> bytes:
        """Bytes from `offset`, fewer than `length` only at the end of the file."""
        ...

    def pwrite(self, content: bytes, offset: int) -> None:
        """Write all of `content`."""
        ...

    def sync(self, site: Site) -> None:
        """Make content and size durable."""
        ...

    def allocate(self, length: int) -> None:
        """Reserve space for the first `length` bytes, which read as zeros where nothing was written."""
        ...

    def truncate(self, length: int) -> None:
        """Cut the file to `length` bytes."""
        ...

    def size(self) -> int:
        """Length in bytes."""
        ...

    def data_end(self) -> int:
        """End of the last bytes that were ever written, or any greater offset: all behind it reads as zeros."""
        ...

    def allocated_bytes(self) -> int:
        """Space that it takes on disk."""
        ...

    def close(self) -> None:
        """Close it; twice is harmless."""
        ...


class LockFile(Protocol):
    """Single bytes of a file under advisory locks that belong to this object, not to the process."""

    def try_exclusive(self, byte: int) -> bool:
        """Lock a byte for this holder alone, if nobody holds it."""
        ...

    def try_shared(self, byte: int) -> bool:
        """Lock a byte together with other sharers, if nobody holds it alone."""
        ...

    def unlock(self, byte: int) -> None:
        """Give a byte up."""
        ...

    def is_held_elsewhere(self, byte: int) -> bool:
        """Whether another holder has the byte, shared or alone."""
        ...

    def close(self) -> None:
        """Give everything up; twice is harmless."""
        ...


class Files(Protocol):
    """A file system. Paths are absolute strings."""

    def open(self, path: str) -> File:
        """Open an existing file to read and write."""
        ...

    def open_to_read(self, path: str) -> File:
        """Open an existing file to read."""
        ...

    def create(self, path: str) -> File:
        """Create a file that must not exist, and open it to read and write."""
        ...

    def open_lock(self, path: str) -> LockFile:
        """Open (creating it if need be) a file whose bytes serve as locks."""
        ...

    def open_lock_to_read(self, path: str) -> LockFile:
        """Open an existing lock file where only shared locks will be taken."""
        ...

    def exists(self, path: str) -> bool:
        """Whether something of that name exists."""
        ...

    def names(self, path: str) -> list[str]:
        """The names in a directory, in no order."""
        ...

    def make_directory(self, path: str) -> None:
        """Create a directory that must not exist."""
        ...

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename, replacing a file of the target's name."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file."""
        ...

    def sync_directory(self, path: str, site: Site) -> None:
        """Make the entries of a directory durable."""
        ...

    def free_bytes(self, path: str) -> int:
        """Space left on the file system of a path."""
        ...

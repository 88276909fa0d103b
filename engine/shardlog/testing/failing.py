"""Files that fail on demand: the disk full, a sync that fails, a program killed or interrupted at a given operation.

A `Fault` says at which operation, counted among those that it is about, and what is raised there: before the operation
is made, after it was made all the same, or after a part of a write. After `Killed` everything else raises it too, but
for closing, as nothing that a dead process holds does anything any more; `revive` is the next process.

Under `RecordingFiles` these files make syncs fail; over it, everything else: what was made is recorded, what was not
is not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from shardlog.files.protocol import File, Files, LockFile, Site

Result = TypeVar("Result")


class Kind(StrEnum):
    """Kinds of operations."""

    OPEN = "open"
    READ = "read"
    CREATE = "create"
    WRITE = "write"
    SYNC = "sync"
    ALLOCATE = "allocate"
    TRUNCATE = "truncate"
    MAKE_DIRECTORY = "make directory"
    REMOVE_DIRECTORY = "remove directory"
    RENAME = "rename"
    UNLINK = "unlink"
    SYNC_DIRECTORY = "sync directory"


CHANGING = frozenset(Kind) - {Kind.OPEN, Kind.READ}
"""Kinds that a crash may fall between."""


class Killed(BaseException):
    """The process was killed here. Not an Exception: a dead process cleans nothing up."""


@dataclass(slots=True)
class Fault:
    """Raise `error` at the `nth` operation (from 1) of some kinds, of one site and of paths that end so.

    `after` makes the operation first; `written` makes only so many bytes of a write.
    """

    error: Callable[[], BaseException]
    nth: int = 1
    kinds: frozenset[Kind] = CHANGING
    site: Site | None = None
    path_end: str = ""
    after: bool = False
    written: int | None = None
    seen: int = 0

    def is_due(self, kind: Kind, path: str, site: Site | None) -> bool:
        """Count an operation; whether it is the one."""
        if kind not in self.kinds or (self.site is not None and site != self.site) or not path.endswith(self.path_end):
            return False
        self.seen += 1
        return self.seen == self.nth


class FailingFiles:
    """`Files` with faults. `changes` counts the operations of the kinds in CHANGING."""

    def __init__(self, inner: Files, *faults: Fault) -> None:
        self.inner = inner
        self.changes = 0
        self.is_dead = False
        self._faults = list(faults)
        self._lock = threading.RLock()

    def add(self, fault: Fault) -> None:
        """One more fault; it counts from now."""
        self._faults.append(fault)

    def revive(self) -> None:
        """Another process goes on with the same files, and with the faults that are still to come."""
        self.is_dead = False

    def die(self) -> None:
        """Be killed now, between two operations."""
        self.is_dead = True

    def open(self, path: str) -> File:
        """See `Files`."""
        return self.perform(Kind.OPEN, path, lambda: _FailingFile(self.inner.open(path), path, self))

    def open_to_read(self, path: str) -> File:
        """See `Files`."""
        return self.perform(Kind.OPEN, path, lambda: _FailingFile(self.inner.open_to_read(path), path, self))

    def create(self, path: str) -> File:
        """See `Files`."""
        return self.perform(Kind.CREATE, path, lambda: _FailingFile(self.inner.create(path), path, self))

    def open_lock(self, path: str) -> LockFile:
        """See `Files`."""
        return self.perform(Kind.OPEN, path, lambda: self.inner.open_lock(path))

    def open_lock_to_read(self, path: str) -> LockFile:
        """See `Files`."""
        return self.perform(Kind.OPEN, path, lambda: self.inner.open_lock_to_read(path))

    def exists(self, path: str) -> bool:
        """See `Files`."""
        return self.inner.exists(path)

    def names(self, path: str) -> list[str]:
        """See `Files`."""
        return self.inner.names(path)

    def make_directory(self, path: str) -> None:
        """See `Files`."""
        self.perform(Kind.MAKE_DIRECTORY, path, lambda: self.inner.make_directory(path))

    def remove_directory(self, path: str) -> None:
        """See `Files`."""
        self.perform(Kind.REMOVE_DIRECTORY, path, lambda: self.inner.remove_directory(path))

    def rename(self, source: str, target: str) -> None:
        """See `Files`."""
        self.perform(Kind.RENAME, target, lambda: self.inner.rename(source, target))

    def unlink(self, path: str) -> None:
        """See `Files`."""
        self.perform(Kind.UNLINK, path, lambda: self.inner.unlink(path))

    def sync_directory(self, path: str, site: Site) -> None:
        """See `Files`."""
        self.perform(Kind.SYNC_DIRECTORY, path, lambda: self.inner.sync_directory(path, site), site=site)

    def free_bytes(self, path: str) -> int:
        """See `Files`."""
        return self.inner.free_bytes(path)

    def perform(
        self,
        kind: Kind,
        path: str,
        operation: Callable[[], Result],
        *,
        site: Site | None = None,
        part: Callable[[int], None] | None = None,
    ) -> Result:
        """Make an operation, unless a fault says otherwise; `part` makes a part of it."""
        with self._lock:
            if self.is_dead:
                raise Killed
            if kind in CHANGING:
                self.changes += 1
            due = [fault for fault in self._faults if fault.is_due(kind, path, site)]
            if not due:
                return operation()
            fault = due[0]
            if fault.after:
                operation()
            elif fault.written is not None and part is not None:
                part(fault.written)
            error = fault.error()
            self.is_dead = isinstance(error, Killed)
            raise error


class _FailingFile:
    """An open file."""

    def __init__(self, inner: File, path: str, files: FailingFiles) -> None:
        self._inner = inner
        self._path = path
        self._files = files

    def pread(self, length: int, offset: int) -> bytes:
        return self._files.perform(Kind.READ, self._path, lambda: self._inner.pread(length, offset))

    def pwrite(self, content: bytes, offset: int) -> None:
        self._files.perform(
            Kind.WRITE,
            self._path,
            lambda: self._inner.pwrite(content, offset),
            part=lambda length: self._inner.pwrite(content[:length], offset),
        )

    def sync(self, site: Site) -> None:
        self._files.perform(Kind.SYNC, self._path, lambda: self._inner.sync(site), site=site)

    def allocate(self, length: int) -> None:
        self._files.perform(Kind.ALLOCATE, self._path, lambda: self._inner.allocate(length))

    def truncate(self, length: int) -> None:
        self._files.perform(Kind.TRUNCATE, self._path, lambda: self._inner.truncate(length))

    def size(self) -> int:
        return self._inner.size()

    def data_end(self) -> int:
        return self._inner.data_end()

    def allocated_bytes(self) -> int:
        return self._inner.allocated_bytes()

    def close(self) -> None:
        self._inner.close()

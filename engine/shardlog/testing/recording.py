"""Files that remember what was done to them.

`RecordingFiles` passes every operation below one directory on to other files and notes it, in the one order in which
the operations happened: an operation and its note are made together. A recording is what `crash_states` needs to tell
what a power cut could leave behind. Paths elsewhere (temporary indexes, devices) are passed on and not noted.

A sync whose site is in `skipped` is noted but not made, to show what is lost without it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from itertools import count

from shardlog.errors import StorageFailed
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import File, Files, LockFile, Site
from shardlog.testing.operations import (
    Allocated,
    Created,
    DirectoryMade,
    DirectoryRemoved,
    DirectorySynced,
    Image,
    Marked,
    Opened,
    Operation,
    Outcome,
    Recording,
    Renamed,
    Synced,
    Truncated,
    Unlinked,
    Written,
)


class RecordingFiles:
    """`Files` that record what happens below `root`, a directory whose content, `base`, is durable already."""

    def __init__(
        self, root: str, *, base: Image | None = None, inner: Files | None = None, skipped: Collection[Site] = ()
    ) -> None:
        self.root = os.path.realpath(root)
        self.inner = inner or PosixFiles()
        self._base = base or {}
        self._skipped = frozenset(skipped)
        self._operations: list[Operation] = []
        self._handles = count(1)
        self._lock = threading.RLock()

    def recording(self) -> Recording:
        """What has happened so far."""
        with self._lock:
            return Recording(self._base, tuple(self._operations))

    def mark(self, mark: object) -> None:
        """Put a mark between the operations."""
        with self._lock:
            self._operations.append(Marked(mark))

    def open(self, path: str) -> File:
        """See `Files`."""
        with self._lock:
            return self._recorded(self.inner.open(path), Opened, path)

    def open_to_read(self, path: str) -> File:
        """See `Files`."""
        return self.inner.open_to_read(path)

    def create(self, path: str) -> File:
        """See `Files`."""
        with self._lock:
            return self._recorded(self.inner.create(path), Created, path)

    def open_lock(self, path: str) -> LockFile:
        """See `Files`."""
        with self._lock:
            existed = self.inner.exists(path)
            lock = self.inner.open_lock(path)
            if not existed:
                self.note(path, lambda name: Created(next(self._handles), name))
            return lock

    def open_lock_to_read(self, path: str) -> LockFile:
        """See `Files`."""
        return self.inner.open_lock_to_read(path)

    def exists(self, path: str) -> bool:
        """See `Files`."""
        return self.inner.exists(path)

    def names(self, path: str) -> list[str]:
        """See `Files`."""
        return self.inner.names(path)

    def make_directory(self, path: str) -> None:
        """See `Files`."""
        with self._lock:
            self.inner.make_directory(path)
            self.note(path, DirectoryMade)

    def remove_directory(self, path: str) -> None:
        """See `Files`."""
        with self._lock:
            self.inner.remove_directory(path)
            self.note(path, DirectoryRemoved)

    def rename(self, source: str, target: str) -> None:
        """See `Files`."""
        with self._lock:
            self.inner.rename(source, target)
            self.note(source, lambda name: Renamed(name, _relative(self.root, target) or ""))

    def unlink(self, path: str) -> None:
        """See `Files`."""
        with self._lock:
            self.inner.unlink(path)
            self.note(path, Unlinked)

    def sync_directory(self, path: str, site: Site) -> None:
        """See `Files`."""
        with self._lock:
            self.note_sync(
                site,
                lambda: self.inner.sync_directory(path, site),
                lambda outcome: self.note(path, lambda name: DirectorySynced(name, site, outcome)),
            )

    def free_bytes(self, path: str) -> int:
        """See `Files`."""
        return self.inner.free_bytes(path)

    def note(self, path: str, operation: Callable[[str], Operation]) -> None:
        """Note an operation on a path that lies below the root."""
        name = _relative(self.root, path)
        if name is not None:
            self._operations.append(operation(name))

    def note_sync(self, site: Site, sync: Callable[[], None], note: Callable[[Outcome], None]) -> None:
        """Make a sync unless its site is to be skipped, and note what became of it."""
        if site in self._skipped:
            note(Outcome.SKIPPED)
            return
        try:
            sync()
        except StorageFailed:
            note(Outcome.FAILED)
            raise
        note(Outcome.DONE)

    def _recorded(self, file: File, kind: type[Opened | Created], path: str) -> File:
        name = _relative(self.root, path)
        if name is None:
            return file
        handle = next(self._handles)
        self._operations.append(kind(handle, name))
        return _RecordedFile(file, handle, self, self._operations, self._lock)


class _RecordedFile:
    """An open file below the root."""

    def __init__(
        self, inner: File, handle: int, files: RecordingFiles, operations: list[Operation], lock: threading.RLock
    ) -> None:
        self._inner = inner
        self._handle = handle
        self._files = files
        self._operations = operations
        self._lock = lock

    def pread(self, length: int, offset: int) -> bytes:
        return self._inner.pread(length, offset)

    def pwrite(self, content: bytes, offset: int) -> None:
        with self._lock:
            self._inner.pwrite(content, offset)
            self._operations.append(Written(self._handle, offset, bytes(content)))

    def sync(self, site: Site) -> None:
        with self._lock:
            self._files.note_sync(
                site,
                lambda: self._inner.sync(site),
                lambda outcome: self._operations.append(Synced(self._handle, site, outcome)),
            )

    def allocate(self, length: int) -> None:
        with self._lock:
            self._inner.allocate(length)
            self._operations.append(Allocated(self._handle, length))

    def truncate(self, length: int) -> None:
        with self._lock:
            self._inner.truncate(length)
            self._operations.append(Truncated(self._handle, length))

    def size(self) -> int:
        return self._inner.size()

    def data_end(self) -> int:
        return self._inner.data_end()

    def allocated_bytes(self) -> int:
        return self._inner.allocated_bytes()

    def close(self) -> None:
        self._inner.close()


def _relative(root: str, path: str) -> str | None:
    """A path below the root as operations name it; None where it lies elsewhere."""
    if path == root:
        return ""
    return path[len(root) + 1 :] if path.startswith(root + "/") else None

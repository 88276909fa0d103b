"""What every LMDB environment here needs: the file format, room for the lock file, LMDB's errors as ours.

Owns nothing that is open. The index's environment and the consumers' each bring their own rules of use.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from types import TracebackType
from typing import Final

import lmdb

from shardlog.errors import ShardlogError, StorageFailed, StorageFull
from shardlog.files.posix import NO_ROOM, translated

LMDB_0_9: Final = 0  # LMDB 1.0, which the binding also brings, has another file format
READERS_MAX: Final = 1024
DATA_FILE: Final = "data.mdb"

_LOCK_FILE: Final = "lock.mdb"
_LOCK_FILE_BYTES: Final = READERS_MAX * 64 + 4096  # a cache line for each reader, and some for the mutexes
_FREE_BYTES_SCARCE: Final = 1 << 20


class Translated:
    """Turns LMDB's errors into ours at the end of a with statement. Has no state, so one serves for everything."""

    __slots__ = ("_translate",)

    def __init__(self, translate: Callable[[lmdb.Error], ShardlogError]) -> None:
        self._translate = translate

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, lmdb.Error):
            raise self._translate(error) from error


def storage_error(what: str, path: str, map_bytes: int, error: lmdb.Error) -> ShardlogError:
    """StorageFull or StorageFailed for an error of the environment in the directory `path`."""
    if isinstance(error, lmdb.MapFullError):
        return StorageFull(f"{what} {path}: its {map_bytes >> 20} MiB are full")
    kind = StorageFull if error.code in NO_ROOM or _is_room_scarce(path) else StorageFailed
    return kind(f"{what} {path}: {error}")


def allocate_lock_file(path: str) -> None:
    """Give LMDB's lock file its space before LMDB maps it: a mapped hole on a full disk kills whoever touches it.

    That is SIGBUS, whereas no room is an error here. LMDB takes the file as it finds it. To be called before this
    process opens the environment: closing the file would drop the process's locks on it.
    """
    lock_path = os.path.join(path, _LOCK_FILE)
    with translated(f"allocate {_LOCK_FILE_BYTES} bytes for", lock_path):
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
        finally:
            os.close(descriptor)


def _is_room_scarce(path: str) -> bool:
    """LMDB reports a short write as EIO, also on a full disk: ask how much room there is before believing it."""
    try:
        status = os.statvfs(path)
        size = os.path.getsize(os.path.join(path, DATA_FILE))
    except OSError:
        return False
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = status.f_bavail * status.f_frsize
    return min(room, room if limit == resource.RLIM_INFINITY else limit - size) < _FREE_BYTES_SCARCE

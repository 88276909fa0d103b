"""The seam on Linux: one system call or two per method, errors translated here and nowhere else."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from shardlog.errors import ShardlogError, StorageFailed, StorageFull
from shardlog.files.protocol import File, LockFile, Site

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# struct flock of 64-bit Linux: type, whence, start, length, pid (fcntl(2)).
_FLOCK = struct.Struct("hhqqi4x")
_FILE_MODE = 0o666
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own (inode(7))


@contextmanager
def translated(what: str, path: str) -> Iterator[None]:
    """Turn an OSError into StorageFull or StorageFailed that says what was done to which path."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, IsADirectoryError):
        raise
    except OSError as error:
        raise storage_error(error, what, path) from error


def storage_error(error: OSError, what: str, path: str) -> ShardlogError:
    """StorageFull or StorageFailed for an OSError."""
    kind = StorageFull if error.errno in NO_ROOM else StorageFailed
    return kind(f"{what} {path}: {error.strerror}")


class PosixFile:
    """A file descriptor."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    def pread(self, length: int, offset: int) -> bytes:
        """See `File`."""
        try:
            content = os.pread(self._descriptor, length, offset)
            while len(content) < length and (
                more := os.pread(self._descriptor, length - len(content), offset + len(content))
            ):
                content += more
        except OSError as error:
            raise storage_error(error, f"read {length} bytes at {offset} of", self._path) from error
        return content

    def pwrite(self, content: bytes, offset: int) -> None:
        """See `File`."""
        try:
            written = os.pwrite(self._descriptor, content, offset)
            while written < len(content):
                written += os.pwrite(self._descriptor, content[written:], offset + written)
        except OSError as error:
            raise storage_error(error, f"write {len(content)} bytes at {offset} of", self._path) from error

    def sync(self, site: Site) -> None:
        """See `File`. fdatasync: it covers the size, and times are nobody's concern."""
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise StorageFailed(f"sync {self._path} ({site}): {error.strerror}") from error

    def allocate(self, length: int) -> None:
        """See `File`."""
        with translated(f"allocate {length} bytes for", self._path):
            os.posix_fallocate(self._descriptor, 0, length)

    def truncate(self, length: int) -> None:
        """See `File`."""
        with translated(f"cut to {length} bytes", self._path):
            os.ftruncate(self._descriptor, length)

    def size(self) -> int:
        """See `File`."""
        with translated("stat", self._path):
            return os.fstat(self._descriptor).st_size

    def data_end(self) -> int:
        """See `File`. Preallocated space that was never written is a hole to SEEK_DATA (lseek(2))."""
        end = 0
        with translated("look for holes in", self._path):
            while True:
                try:
                    end = os.lseek(self._descriptor, os.lseek(self._descriptor, end, os.SEEK_DATA), os.SEEK_HOLE)
                except OSError as error:
                    if error.errno == errno.ENXIO:
                        return end
                    raise

    def allocated_bytes(self) -> int:
        """See `File`."""
        with translated("stat", self._path):
            return os.fstat(self._descriptor).st_blocks * _BLOCK_BYTES

    def close(self) -> None:
        """See `File`."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __del__(self) -> None:
        # Readers share a file and drop it when the last one is done.
        self.close()


class PosixLockFile:
    """Open-file-description locks (fcntl(2)): they belong to the descriptor and die with it, whoever closes what."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self._path = path

    def try_exclusive(self, byte: int) -> bool:
        """See `LockFile`."""
        return self._try(fcntl.F_WRLCK, byte)

    def try_shared(self, byte: int) -> bool:
        """See `LockFile`."""
        return self._try(fcntl.F_RDLCK, byte)

    def unlock(self, byte: int) -> None:
        """See `LockFile`."""
        self._try(fcntl.F_UNLCK, byte)

    def is_held_elsewhere(self, byte: int) -> bool:
        """See `LockFile`."""
        with translated("ask for the locks of", self._path):
            answer = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, byte, 1, 0))
        return int(_FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK

    def close(self) -> None:
        """See `LockFile`."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def _try(self, kind: int, byte: int) -> bool:
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, byte, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise storage_error(error, "lock", self._path) from error
        return True


class PosixFiles:
    """The machine's file systems."""

    def open(self, path: str) -> File:
        """See `Files`."""
        with translated("open", path):
            return PosixFile(os.open(path, os.O_RDWR | os.O_CLOEXEC), path)

    def open_to_read(self, path: str) -> File:
        """See `Files`."""
        with translated("open", path):
            # Not blocking: to open a pipe would wait for whoever writes to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            file = PosixFile(descriptor, path)
            is_file = path == os.devnull or stat.S_ISREG(os.fstat(descriptor).st_mode)
        if not is_file:
            file.close()
            raise StorageFailed(f"open {path}: expected a regular file, found something else")
        return file

    def create(self, path: str) -> File:
        """See `Files`."""
        with translated("create", path):
            return PosixFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE), path)

    def open_lock(self, path: str) -> LockFile:
        """See `Files`."""
        with translated("open", path):
            return PosixLockFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE), path)

    def open_lock_to_read(self, path: str) -> LockFile:
        """See `Files`."""
        with translated("open", path):
            return PosixLockFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)

    def exists(self, path: str) -> bool:
        """See `Files`."""
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            # Taken for absence, it would have a store made anew over the one that is there.
            raise storage_error(error, "look for", path) from error
        return True

    def names(self, path: str) -> list[str]:
        """See `Files`."""
        with translated("list", path):
            return os.listdir(path)

    def make_directory(self, path: str) -> None:
        """See `Files`."""
        with translated("make the directory", path):
            os.mkdir(path)

    def remove_directory(self, path: str) -> None:
        """See `Files`."""
        with translated("remove the directory", path):
            os.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        """See `Files`."""
        with translated("rename", source):
            os.rename(source, target)

    def unlink(self, path: str) -> None:
        """See `Files`."""
        with translated("unlink", path):
            os.unlink(path)

    def sync_directory(self, path: str, site: Site) -> None:
        """See `Files`."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageFailed(f"sync the directory {path} ({site}): {error.strerror}") from error

    def free_bytes(self, path: str) -> int:
        """See `Files`."""
        with translated("ask for the free space of", path):
            status = os.statvfs(path)
            return status.f_bavail * status.f_frsize

"""File systems in files, mounted for a test: one whose power can be cut, and small ones that can be filled."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

# linux/fs/ext4/ext4.h: EXT4_IOC_SHUTDOWN = _IOR('X', 125, __u32). Without a flush of the journal, nothing that is not
# on the disk yet will be: what a power cut does to the page cache.
_SHUTDOWN: Final = 0x8004587D
_WITHOUT_FLUSH: Final = 2

_TRIES: Final = 50
_PAUSE_SECONDS: Final = 0.02


class Disk:
    """A file system, made by `make` and mounted. A context manager: at its end nothing of it is left."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "mounted"
        self.path.mkdir()
        self._is_mounted = False

    def mount(self) -> None:
        """Mount it."""
        raise NotImplementedError

    def unmount(self) -> None:
        """Unmount it; nobody may use it. Waits a moment for who was just killed."""
        for last in [False] * _TRIES + [True]:
            found = subprocess.run(["umount", str(self.path)], capture_output=True, text=True)
            if found.returncode == 0:
                self._is_mounted = False
                return
            if last:
                raise RuntimeError(found.stderr.strip())
            time.sleep(_PAUSE_SECONDS)

    def __enter__(self) -> Self:
        self.mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_mounted:
            try:
                self.unmount()
            except RuntimeError:
                _run("umount", "--lazy", str(self.path))
                raise


class LoopDisk(Disk):
    """An ext4 file system in a file. The loop device goes away when it is unmounted."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        super().__init__(directory)
        self._image = directory / "image"
        with self._image.open("wb") as file:
            file.truncate(size_bytes)
        # No blocks for root alone, so that free space is free space; no idle work in the background.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(self._image))

    def mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.path))
        self._is_mounted = True

    def sync(self) -> None:
        """Make all that is on it durable."""
        _run("sync", "--file-system", str(self.path))

    def restart(self) -> None:
        """What a machine does after a power cut; all processes that used it are dead."""
        self.unmount()
        self.mount()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._image.unlink()


class MemoryDisk(Disk):
    """A tmpfs."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        super().__init__(directory)
        self._size_bytes = size_bytes

    def mount(self) -> None:
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size_bytes}", "tmpfs", str(self.path))
        self._is_mounted = True


def cut_power(path: str) -> None:
    """Cut the power of the disk mounted at a path: it fails from now on, and forgets what it had not written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSH))
    finally:
        os.close(descriptor)


def fill(path: Path, leave_bytes: int = 0) -> None:
    """Write a file until no more than `leave_bytes` are left on its disk."""
    with path.open("wb", buffering=0) as file:
        for piece in (1 << 20, 1 << 16, 1 << 12, 512):
            with contextlib.suppress(OSError):
                while free_bytes(path) >= piece + leave_bytes or not leave_bytes:
                    if file.write(bytes(piece)) < piece:
                        break
        os.fsync(file.fileno())


def free_bytes(path: Path) -> int:
    """What is free on the disk of a path."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


@cache
def why_no_mounts() -> str | None:
    """Why this machine cannot mount a file; None if it can."""
    if os.geteuid() != 0:
        return "only root may mount"
    for tool in ("mkfs.ext4", "mount", "umount"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    with tempfile.TemporaryDirectory() as directory:
        try:
            with LoopDisk(Path(directory), 4 << 20):
                pass
        except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
            return f"a file cannot be mounted: {getattr(error, 'stderr', None) or error}".strip()
    return None


@cache
def why_no_power_cuts() -> str | None:
    """Why this machine cannot cut the power of a mounted file; None if it can."""
    if reason := why_no_mounts():
        return reason
    with tempfile.TemporaryDirectory() as directory, LoopDisk(Path(directory), 4 << 20) as disk:
        try:
            cut_power(str(disk.path))
        except OSError as error:
            return f"the file system cannot be shut down: {error}"
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)

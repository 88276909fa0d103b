"""What the operating system does wrong, and what becomes of it: short counts go on, errors are ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from shardlog.errors import ShardlogError, StorageFailed, StorageFull
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import File, Site

FILES = PosixFiles()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file's path."""
    return str(tmp_path / "file")


@pytest.fixture
def file(path: str) -> File:
    """A new file."""
    return FILES.create(path)


def _failing(number: int) -> Callable[..., NoReturn]:
    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_short_reads_and_writes_go_on(file: File, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A system call may do less than it was asked for; a write is whole, a read is short at the end only."""
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda number, length, offset: pread(number, min(length, step), offset))
    monkeypatch.setattr(os, "pwrite", lambda number, content, offset: pwrite(number, content[:step], offset))
    content = bytes(range(256)) * 20
    file.pwrite(content, 3)
    assert file.pread(10_000, 3) == content
    assert file.pread(100, 103) == content[100:200]
    assert file.pread(100, len(content)) == content[-3:]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EFBIG, StorageFull),
        (errno.EIO, StorageFailed), (errno.EROFS, StorageFailed), (errno.EMFILE, StorageFailed),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("call", "attempt"),
    [
        ("pwrite", lambda file, path: file.pwrite(b"x", 0)),
        ("pread", lambda file, path: file.pread(1, 0)),
        ("posix_fallocate", lambda file, path: file.allocate(1)),
        ("ftruncate", lambda file, path: file.truncate(1)),
        ("lseek", lambda file, path: file.data_end()),
        ("fstat", lambda file, path: file.size()),
        ("open", lambda file, path: FILES.create(path + "-new")),
        ("open", lambda file, path: FILES.open(path)),
        ("open", lambda file, path: FILES.open_lock(path)),
        ("open", lambda file, path: FILES.open_to_read(path)),
        ("fstat", lambda file, path: FILES.open_to_read(path)),
        ("mkdir", lambda file, path: FILES.make_directory(path + "-new")),
        ("rename", lambda file, path: FILES.rename(path, path + "-new")),
        ("unlink", lambda file, path: FILES.unlink(path)),
        ("listdir", lambda file, path: FILES.names(path)),
        ("statvfs", lambda file, path: FILES.free_bytes(path)),
    ],
)
def test_no_room_is_told_from_failure(
    file: File,
    path: str,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    attempt: Callable[[File, str], Any],
    number: int,
    expected: type[ShardlogError],
) -> None:
    """StorageFull where the disk, a quota or a limit has no room, StorageFailed for all else; both say which path."""
    monkeypatch.setattr(os, call, _failing(number))
    with pytest.raises(ShardlogError, match=os.strerror(number)) as failure:
        attempt(file, path)
    monkeypatch.undo()
    assert type(failure.value) is expected
    assert path in str(failure.value)
    assert isinstance(failure.value.__cause__, OSError)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_sync_that_fails_has_failed(file: File, path: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whatever its errno: after a failed sync nobody knows what is on disk, so it is never "no room, try again"."""
    monkeypatch.setattr(os, "fdatasync", _failing(number))
    monkeypatch.setattr(os, "fsync", _failing(number))
    with pytest.raises(StorageFailed, match="commit") as failure:
        file.sync(Site.COMMIT)
    assert path in str(failure.value)
    with pytest.raises(StorageFailed, match="new segment: its entry"):
        FILES.sync_directory(os.path.dirname(path), Site.SEGMENT_ENTRY)


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    """To open one to write is IsADirectoryError as it is."""
    with pytest.raises(IsADirectoryError):
        FILES.open(str(tmp_path))


def test_files_do_not_leak_into_children(file: File, path: str) -> None:
    """Every descriptor is closed by exec: a lock or a segment does not live on in a program that was started."""
    lock = FILES.open_lock(path)
    reader = FILES.open_to_read(path)
    ours = [
        int(name)
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}") and Path(f"/proc/self/fd/{name}").samefile(path)
    ]
    assert len(ours) == 3
    assert not any(os.get_inheritable(descriptor) for descriptor in ours)
    lock.close()
    reader.close()


def test_a_file_that_turns_out_unreadable_is_closed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk fails between opening it and looking at it, no descriptor is left."""
    FILES.create(path).close()
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "fstat", _failing(errno.EIO))
    with pytest.raises(StorageFailed) as failure:
        FILES.open_to_read(path)
    monkeypatch.undo()
    del failure
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_dropped_is_closed(path: str) -> None:
    """Readers share an open segment; it closes when the last one lets go of it."""
    before = len(os.listdir("/proc/self/fd"))
    file = FILES.create(path)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del file
    assert len(os.listdir("/proc/self/fd")) == before

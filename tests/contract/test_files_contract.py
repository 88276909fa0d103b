"""What every implementation of the I/O seam does: one suite, run over all of them.

An implementation is added in one line of IMPLEMENTATIONS.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.faults import FaultyFiles

from shardlog.errors import StorageFailed
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import File, Files, LockFile, Site
from shardlog.testing.recording import RecordingFiles

IMPLEMENTATIONS: dict[str, Callable[[str], Files]] = {
    "posix": lambda root: PosixFiles(),
    "recording": RecordingFiles,
    "faulty, without a fault": lambda root: FaultyFiles(),
}


@pytest.fixture(params=IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """A file system."""
    made: Files = request.param(str(tmp_path))
    return made


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a file may be made."""
    return str(tmp_path / "file")


@pytest.fixture
def file(files: Files, path: str) -> File:
    """A new, empty file."""
    return files.create(path)


def test_a_new_file_is_empty(files: Files, path: str) -> None:
    """It has its name at once, and can be written and read."""
    assert not files.exists(path)
    file = files.create(path)
    assert files.exists(path)
    assert (file.size(), file.data_end(), file.pread(10, 0)) == (0, 0, b"")
    file.pwrite(b"content", 0)
    assert file.pread(10, 0) == b"content"


def test_what_exists_is_not_made_again(files: Files, file: File, path: str) -> None:
    """Creating over a file raises FileExistsError, and leaves the file as it was."""
    file.pwrite(b"content", 0)
    with pytest.raises(FileExistsError):
        files.create(path)
    assert files.open_to_read(path).pread(7, 0) == b"content"


def test_what_is_missing_is_not_found(files: Files, path: str) -> None:
    """FileNotFoundError as it is: callers tell a missing file from a broken one."""
    for attempt in (files.open, files.open_to_read, files.open_lock_to_read, files.unlink, files.names):
        with pytest.raises(FileNotFoundError):
            attempt(path)
    for attempt in (files.remove_directory, files.free_bytes):
        with pytest.raises(FileNotFoundError):
            attempt(path)
    with pytest.raises(FileNotFoundError):
        files.rename(path, path + "-other")
    with pytest.raises(FileNotFoundError):
        files.create(path + "/below")


@given(
    writes=st.lists(
        st.tuples(st.integers(min_value=0, max_value=5000), st.binary(min_size=1, max_size=300)), max_size=8
    ),
    offset=st.integers(min_value=0, max_value=6000),
    length=st.integers(min_value=1, max_value=6000),
)
@settings(
    max_examples=30, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # the file is cut to nothing below
def test_a_file_is_an_array_of_bytes(file: File, writes: list[tuple[int, bytes]], offset: int, length: int) -> None:
    """Writes go where they say, holes read as zeros, and a read is short at the end of the file only."""
    file.truncate(0)
    expected = bytearray()
    for start, content in writes:
        file.pwrite(content, start)
        expected.extend(bytes(max(0, start + len(content) - len(expected))))
        expected[start : start + len(content)] = content
    assert file.size() == len(expected)
    assert file.pread(len(expected) + 1, 0) == bytes(expected)
    assert file.pread(length, offset) == bytes(expected[offset : offset + length])
    assert not any(file.pread(len(expected) + 1, file.data_end()))


def test_two_opens_see_one_file(files: Files, file: File, path: str) -> None:
    """What one writes the other reads, before any sync."""
    reader, writer = files.open_to_read(path), files.open(path)
    writer.pwrite(b"written", 0)
    assert reader.pread(7, 0) == file.pread(7, 0) == b"written"


def test_a_file_opened_to_read_is_not_written(files: Files, file: File, path: str) -> None:
    """StorageFailed, and nothing changed."""
    reader = files.open_to_read(path)
    with pytest.raises(StorageFailed, match="write 1 bytes at 0"):
        reader.pwrite(b"x", 0)
    assert file.size() == 0


def test_reserved_space_reads_as_zeros(file: File) -> None:
    """It takes space on the disk, keeps what was written, and never cuts the file."""
    file.pwrite(b"content", 0)
    file.allocate(1 << 20)
    assert file.size() == 1 << 20
    assert file.allocated_bytes() >= 1 << 20
    assert file.pread(20, 0) == b"content" + bytes(13)
    assert file.pread(10, (1 << 20) - 5) == bytes(5)
    file.allocate(1 << 10)
    assert file.size() == 1 << 20


def test_the_end_of_the_data_is_found(file: File) -> None:
    """At or beyond the last byte written, zeros behind it; reserved space does not count as data for ever."""
    file.allocate(1 << 20)
    assert file.data_end() == 0
    file.pwrite(b"x", 300_000)
    assert 300_001 <= file.data_end() <= 1 << 20
    file.pwrite(b"y", 10)
    assert 300_001 <= file.data_end() <= 1 << 20


def test_a_file_is_cut(file: File) -> None:
    """What is behind the cut is gone, also when the file grows again."""
    file.pwrite(b"content", 0)
    file.truncate(3)
    assert (file.size(), file.pread(10, 0)) == (3, b"con")
    file.truncate(7)
    assert file.pread(10, 0) == b"con" + bytes(4)
    assert file.data_end() <= 4096


@pytest.mark.parametrize("site", Site)
def test_syncs_name_their_site(files: Files, file: File, path: str, site: Site) -> None:
    """Each site syncs a file and a directory alike."""
    file.pwrite(b"content", 0)
    file.sync(site)
    files.sync_directory(os.path.dirname(path), site)


def test_a_directory_that_is_missing_cannot_be_synced(files: Files, path: str) -> None:
    """The error names the site: what would be lost."""
    with pytest.raises(StorageFailed, match="new segment: its entry"):
        files.sync_directory(path, Site.SEGMENT_ENTRY)


def test_a_closed_file_is_closed(file: File) -> None:
    """Twice is harmless; what is asked of it then raises, and is never another file's business."""
    file.close()
    file.close()
    for attempt in (
        lambda: file.pread(1, 0),
        lambda: file.pwrite(b"x", 0),
        lambda: file.sync(Site.COMMIT),
        lambda: file.allocate(1),
        lambda: file.truncate(1),
        file.size,
        file.data_end,
        file.allocated_bytes,
    ):
        with pytest.raises((StorageFailed, ValueError)):
            attempt()


def test_directories(files: Files, path: str) -> None:
    """Made, listed and removed; only where they are not there, and only empty."""
    files.make_directory(path)
    with pytest.raises(FileExistsError):
        files.make_directory(path)
    assert files.names(path) == []
    files.create(f"{path}/b").close()
    files.create(f"{path}/a").close()
    assert sorted(files.names(path)) == ["a", "b"]
    with pytest.raises(StorageFailed, match="not empty"):
        files.remove_directory(path)
    with pytest.raises(IsADirectoryError):
        files.unlink(path)
    files.unlink(f"{path}/a")
    files.unlink(f"{path}/b")
    files.remove_directory(path)
    assert not files.exists(path)


def test_a_rename_replaces(files: Files, file: File, path: str) -> None:
    """The name goes to the new file; who has the old one open keeps it."""
    file.pwrite(b"old", 0)
    other = files.create(path + "-new")
    other.pwrite(b"new", 0)
    files.rename(path + "-new", path)
    assert not files.exists(path + "-new")
    assert files.open_to_read(path).pread(3, 0) == b"new"
    assert file.pread(3, 0) == b"old"


def test_a_removed_file_stays_open(files: Files, file: File, path: str) -> None:
    """A reader of a segment that expires goes on."""
    file.pwrite(b"content", 0)
    reader = files.open_to_read(path)
    files.unlink(path)
    assert not files.exists(path)
    assert reader.pread(7, 0) == b"content"


def test_a_dangling_link_exists(files: Files, path: str) -> None:
    """A name is taken although nothing is behind it: nothing may be made there."""
    Path(path).symlink_to(path + "-nothing")
    assert files.exists(path)


def test_free_space_is_told(files: Files, tmp_path: Path) -> None:
    """In bytes."""
    assert files.free_bytes(str(tmp_path)) > 0


def _locks(files: Files, path: str, count: int) -> list[LockFile]:
    return [files.open_lock(path) for _ in range(count)]


def test_a_lock_file_is_made_when_it_is_first_opened(files: Files, path: str) -> None:
    """Opened to read it is not."""
    with pytest.raises(FileNotFoundError):
        files.open_lock_to_read(path)
    files.open_lock(path).close()
    files.open_lock_to_read(path).close()


def test_alone(files: Files, path: str) -> None:
    """A byte that one holder has alone is nobody else's, though they share a process."""
    one, other = _locks(files, path, 2)
    assert one.try_exclusive(0)
    assert not other.try_exclusive(0)
    assert not other.try_shared(0)
    assert other.is_held_elsewhere(0)
    assert not one.is_held_elsewhere(0)
    one.unlock(0)
    assert not other.is_held_elsewhere(0)
    assert other.try_exclusive(0)


def test_shared(files: Files, path: str) -> None:
    """Any number of sharers; alone only when the others are gone."""
    one, other, third = _locks(files, path, 3)
    assert one.try_shared(1)
    assert other.try_shared(1)
    assert third.is_held_elsewhere(1)
    assert one.is_held_elsewhere(1)
    assert not third.try_exclusive(1)
    assert not one.try_exclusive(1)
    one.unlock(1)
    other.unlock(1)
    assert third.try_exclusive(1)


def test_asking_locks_nothing(files: Files, path: str) -> None:
    """Whoever asks whether a byte is held leaves no trace, and what it holds itself does not count."""
    one, other = _locks(files, path, 2)
    assert one.try_shared(1)
    assert not one.is_held_elsewhere(1)
    assert other.is_held_elsewhere(1)
    assert other.try_shared(1)
    other.unlock(1)
    assert one.try_exclusive(1)


def test_bytes_are_independent(files: Files, path: str) -> None:
    """Each byte is a lock of its own."""
    one, other = _locks(files, path, 2)
    assert one.try_exclusive(0)
    assert other.try_exclusive(1)
    assert not other.is_held_elsewhere(2)


def test_a_lock_can_be_taken_again_and_changed(files: Files, path: str) -> None:
    """The same holder may ask twice, and go from shared to alone and back; to give up what it has not is harmless."""
    one, other = _locks(files, path, 2)
    assert one.try_exclusive(0)
    assert one.try_exclusive(0)
    assert one.try_shared(0)
    assert other.try_shared(0)
    other.unlock(0)
    other.unlock(0)
    assert one.try_exclusive(0)


def test_closing_gives_everything_up(files: Files, path: str) -> None:
    """Its own locks, and nobody else's: closing another open of the same file drops nothing."""
    one, other, third = _locks(files, path, 3)
    assert one.try_exclusive(0)
    assert one.try_shared(1)
    other.close()
    other.close()
    assert third.is_held_elsewhere(0)
    one.close()
    assert not third.is_held_elsewhere(0)
    assert third.try_exclusive(0)
    assert third.try_exclusive(1)


def test_a_lock_that_is_read_only_can_be_shared(files: Files, path: str) -> None:
    """On a medium that cannot be written, sharing and asking still work."""
    writer = files.open_lock(path)
    reader = files.open_lock_to_read(path)
    assert reader.try_shared(1)
    assert writer.is_held_elsewhere(1)
    assert writer.try_exclusive(0)
    assert reader.is_held_elsewhere(0)
    assert not reader.try_shared(0)
    with pytest.raises(StorageFailed):
        reader.try_exclusive(2)


def test_a_closed_lock_is_closed(files: Files, path: str) -> None:
    """What is asked of it then raises."""
    lock = files.open_lock(path)
    lock.close()
    for attempt in (lock.try_exclusive, lock.try_shared, lock.is_held_elsewhere):
        with pytest.raises((StorageFailed, ValueError)):
            attempt(0)

"""Files that fail: when, and what is done all the same."""

from __future__ import annotations

import pytest

from shardlog.errors import StorageFailed, StorageFull
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Site
from shardlog.testing.failing import FailingFiles, Fault, Killed, Kind
from shardlog.testing.images import scratch_directory
from shardlog.testing.operations import Created, Outcome, Synced, Written
from shardlog.testing.recording import RecordingFiles


def full() -> StorageFull:
    """What a full disk raises."""
    return StorageFull("full")


def test_the_nth_operation_of_a_kind_fails_and_no_other() -> None:
    """Counted among those that the fault is about."""
    with scratch_directory() as root:
        files = FailingFiles(PosixFiles(), Fault(full, nth=2, kinds=frozenset({Kind.WRITE}), path_end="b"))
        one, other = files.create(f"{root}/a"), files.create(f"{root}/b")
        for file in (one, one, other):
            file.pwrite(b"x", 0)
        with pytest.raises(StorageFull):
            other.pwrite(b"y", 0)
        other.pwrite(b"z", 0)
        assert other.pread(1, 0) == b"z"


@pytest.mark.parametrize(("after", "written", "found"), [(False, None, b""), (True, None, b"abc"), (False, 2, b"ab")])
def test_before_after_or_in_the_middle(after: bool, written: int | None, found: bytes) -> None:
    """What was written of a write that failed."""
    with scratch_directory() as root:
        kinds = frozenset({Kind.WRITE})
        files = FailingFiles(PosixFiles(), Fault(full, kinds=kinds, after=after, written=written))
        file = files.create(f"{root}/a")
        with pytest.raises(StorageFull):
            file.pwrite(b"abc", 0)
        assert file.pread(3, 0) == found


def test_a_killed_process_does_nothing_any_more() -> None:
    """Until another one begins."""
    with scratch_directory() as root:
        files = FailingFiles(PosixFiles(), Fault(Killed, nth=2))
        file = files.create(f"{root}/a")
        with pytest.raises(Killed):
            file.pwrite(b"x", 0)
        with pytest.raises(Killed):
            files.open_to_read(f"{root}/a")
        file.close()
        files.revive()
        assert files.open_to_read(f"{root}/a").pread(1, 0) == b""


def test_what_was_made_is_recorded_and_nothing_else() -> None:
    """Over a recording, a fault hides what it forestalled; under it, a failed sync is noted as failed."""
    with scratch_directory() as root:
        inner = FailingFiles(PosixFiles(), Fault(lambda: StorageFailed("failed"), site=Site.COMMIT))
        recorder = RecordingFiles(root, inner=inner)
        files = FailingFiles(recorder, Fault(full, nth=2, written=1))
        file = files.create(f"{root}/a")
        with pytest.raises(StorageFull):
            file.pwrite(b"xy", 0)
        with pytest.raises(StorageFailed):
            file.sync(Site.COMMIT)
        file.sync(Site.COMMIT)
        assert recorder.recording().operations == (
            Created(1, "a"),
            Written(1, 0, b"x"),
            Synced(1, Site.COMMIT, Outcome.FAILED),
            Synced(1, Site.COMMIT, Outcome.DONE),
        )

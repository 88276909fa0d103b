"""Level "os": numbers that jumped at a recovery do not come back, whatever happens before the next append."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.history import new_stream

import shardlog
from shardlog.files.posix import PosixFiles
from shardlog.log.mark_file import MarkFile


def set_flag(store: Path, unsynced: bool) -> None:
    """Set the flag of unsynced appends, or clear it, as a writer does that is killed right afterwards."""
    (path,) = store.glob("streams/*/*/MARK")
    mark = MarkFile(PosixFiles().open(str(path)))
    mark.set_unsynced(unsynced)
    mark.close()


def test_a_close_killed_after_it_cleared_the_flag(tmp_path: Path) -> None:
    """The position is told by MARK before the flag goes: a number that was told is not given again."""
    path, left = tmp_path / "store", tmp_path / "left"
    with shardlog.open(path) as store:
        new_stream(store, durability="os")
    set_flag(path, True)
    with shardlog.open(path) as store:
        told = store.stream("s").next_sequence
        shutil.copytree(path, left)  # as a kill leaves it
    assert told > 1 << 24
    set_flag(left, False)
    with shardlog.open(left) as store:
        assert store.stream("s").next_sequence >= told

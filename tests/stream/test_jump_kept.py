"""Level "os": numbers that jumped at a recovery do not come back, whatever happens before the next append."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.support.history import new_stream

import shardlog
from shardlog.files.posix import PosixFiles
from shardlog.format.mark import BLOCK_BYTES
from shardlog.log.mark_file import MarkFile
from shardlog.options import Durability


def mark_path(store: Path) -> Path:
    """MARK of the only stream."""
    (path,) = store.glob("streams/*/*")
    return path / "MARK"


def set_flag(store: Path, unsynced: bool) -> None:
    """Set the flag of unsynced appends, or clear it, as a writer does that is killed right afterwards."""
    mark = MarkFile(PosixFiles().open(str(mark_path(store))))
    mark.set_unsynced(unsynced)
    mark.close()


def numbers_after(store: Path) -> int:
    """Where numbers go on."""
    with shardlog.open(store) as opened:
        return opened.stream("s").next_sequence


def jump(path: Path, durability: Durability = "os") -> int:
    """Make a store whose numbers have jumped, with nothing appended since; where they go on."""
    with shardlog.open(path) as store:
        new_stream(store, durability=durability)
    set_flag(path, True)
    told = numbers_after(path)
    assert told > 1 << 24
    return told


@pytest.fixture
def jumped(tmp_path: Path) -> tuple[Path, int]:
    """A store whose numbers have jumped, and where they go on."""
    return tmp_path / "store", jump(tmp_path / "store")


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


@pytest.mark.parametrize("slot", [0, 1])
def test_damage_to_a_slot_of_mark(jumped: tuple[Path, int], slot: int) -> None:
    """Both positions tell of the jump: with one of them spoilt the number is not given again."""
    store, told = jumped
    with mark_path(store).open("r+b") as file:
        file.seek(slot * BLOCK_BYTES)
        file.write(b"\xff" * 20)
    assert numbers_after(store) >= told


def test_a_lost_mark(jumped: tuple[Path, int]) -> None:
    """Without MARK nothing tells of the jump, so numbers jump again."""
    store, told = jumped
    mark_path(store).unlink()
    assert numbers_after(store) >= told


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_repaired_mark(tmp_path: Path, durability: Durability) -> None:
    """Written anew by a repair, MARK tells that it does not know the numbers."""
    path = tmp_path / "store"
    told = jump(path, durability)
    mark_path(path).unlink()
    report = shardlog.fsck(path)
    assert [finding.code for finding in report.findings] == ["mark-missing"]
    shardlog.plan_repair(report).apply()
    assert numbers_after(path) >= told
    assert shardlog.fsck(path).clean

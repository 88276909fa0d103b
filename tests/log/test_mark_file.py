"""MARK on disk: positions written in turn, and a flag."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.faults import FaultyFiles

from shardlog.errors import UnsupportedVersion
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Site
from shardlog.format.checksum import crc32c
from shardlog.format.mark import FLAG_OFFSET, MARK_BYTES, Mark
from shardlog.log.mark_file import MarkFile, create_mark

FILES = PosixFiles()
MARKS = [Mark(commits, 1, 4096 + 100 * commits, commits, 7) for commits in range(1, 5)]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where MARK is."""
    path = str(tmp_path / "MARK")
    create_mark(FILES, path, Site.STREAM_MARK)
    return path


@pytest.fixture
def mark(path: str) -> MarkFile:
    """MARK, open."""
    return MarkFile(FILES.open(path))


def test_a_new_mark_knows_nothing(path: str, mark: MarkFile) -> None:
    """No position, nothing unsynced; its full size at once, synced, so that later writes never grow it."""
    assert mark.read() == (None, False)
    assert Path(path).stat().st_size == MARK_BYTES
    files = FaultyFiles()
    create_mark(files, path + "-2", Site.STREAM_MARK)
    assert [(step.operation, step.site) for step in files.steps] == [
        ("create", None),
        ("pwrite", None),
        ("sync", Site.STREAM_MARK),
    ]
    with pytest.raises(FileExistsError):
        create_mark(files, path, Site.STREAM_MARK)


def test_the_newest_position_is_read(mark: MarkFile) -> None:
    """Whoever wrote it, and also where an older one is written late by a process that was overtaken."""
    for position in MARKS:
        mark.write(position)
        assert mark.read()[0] == position
    mark.write(MARKS[0])
    assert mark.read()[0] == MARKS[3]


def test_an_overtaken_writer_costs_one_position(mark: MarkFile) -> None:
    """A late write may cover a newer one of the same slot; the other slot still holds a lower bound."""
    for position in (*MARKS, MARKS[1]):
        mark.write(position)
    assert mark.read()[0] == MARKS[2]


@pytest.mark.parametrize("unsynced", [True, False])
def test_the_flag(mark: MarkFile, unsynced: bool) -> None:
    """Independent of the positions, and in a block of its own."""
    mark.write(MARKS[0])
    mark.set_unsynced(unsynced)
    mark.write(MARKS[1])
    mark.ring()
    assert mark.read() == (MARKS[1], unsynced)


def test_a_torn_position_leaves_the_other(path: str, mark: MarkFile) -> None:
    """Half of a slot, or garbage in its sector: the older position holds, the flag stays as it was."""
    mark.write(MARKS[2])
    mark.write(MARKS[3])
    mark.set_unsynced(False)
    with Path(path).open("r+b") as file:
        file.write(b"\xff" * 20)
    assert mark.read() == (MARKS[2], False)


@pytest.mark.parametrize("length", [0, 1, 4096, FLAG_OFFSET, FLAG_OFFSET + 11])
def test_a_short_mark_counts_as_unsynced(path: str, mark: MarkFile, length: int) -> None:
    """Made, but not synced before the crash: what it does not tell is taken for the worse."""
    with Path(path).open("r+b") as file:
        file.truncate(length)
    assert mark.read() == (None, True)


def test_what_is_synced_and_what_is_not(path: str) -> None:
    """Positions cost no sync, the flag does, and ringing changes nothing that is read."""
    files = FaultyFiles()
    mark = MarkFile(files.open(path))
    mark.write(MARKS[0])
    mark.ring()
    assert [step.operation for step in files.steps] == ["pwrite", "pwrite"]
    files.steps.clear()
    mark.set_unsynced(True)
    mark.sync()
    assert [step.site for step in files.steps] == [None, Site.MARK_UNSYNCED, Site.MARK_POSITION]
    assert Path(path).stat().st_size == MARK_BYTES


def test_a_mark_of_a_later_version_is_unsupported(path: str, mark: MarkFile) -> None:
    """It is not read past, and so never written over."""
    mark.write(MARKS[0])
    with Path(path).open("r+b") as file:
        file.seek(4096)
        slot = bytearray(file.read(100))
        slot[4] = 2
        body_bytes = len(bytes(slot).rstrip(b"\0")) - 4
        slot[body_bytes : body_bytes + 4] = crc32c(bytes(slot[:body_bytes])).to_bytes(4, "little")
        file.seek(4096)
        file.write(slot)
    with pytest.raises(UnsupportedVersion):
        mark.read()

"""What a salvage makes of streams that are beyond repair: all that is good, and the range of what is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.check.damage import Original
from tests.check.forged import log_paths, overwrite, stream_path

from shardlog.check.salvage import Lost, Salvage, SalvagedCommit
from shardlog.files.posix import PosixFiles
from shardlog.testing.images import read_image

Damage = Callable[[Path], object]


def empty_first(path: Path) -> None:
    """A segment of which only the name is left."""
    os.truncate(log_paths(path)[0], 0)


def empty_last(path: Path) -> None:
    """The one that MARK names."""
    os.truncate(log_paths(path)[-1], 0)


def remove_first(path: Path) -> None:
    """What the next header continues."""
    log_paths(path)[0].unlink()


def remove_middle(path: Path) -> None:
    """One that others follow."""
    log_paths(path)[1].unlink()


def remove_last(path: Path) -> None:
    """Only MARK knows of it."""
    log_paths(path)[-1].unlink()


def garbage_in_first(path: Path) -> None:
    """Not one block is left in it."""
    content = log_paths(path)[0].stat().st_size
    log_paths(path)[0].write_bytes(b"\xaa" * content)


def pipe_for_middle(path: Path) -> None:
    """Something that nobody should wait for."""
    segment = log_paths(path)[1]
    segment.unlink()
    os.mkfifo(segment)


def damage_batches(path: Path) -> None:
    """A bit here and there."""
    for segment in log_paths(path)[:2]:
        content = segment.read_bytes()
        place = content.index(b"text")
        overwrite(segment, place, b"TEXT")


def remove_all_but_one(path: Path) -> None:
    """MARK, index, LOCK, STORE and all headers but one, too."""
    remove_middle(path)
    overwrite(log_paths(path)[0], 0, bytes(4096))
    (stream_path(path) / "MARK").unlink()
    (stream_path(path) / "LOCK").unlink()
    shutil.rmtree(stream_path(path) / "index", ignore_errors=True)
    (path / "STORE").unlink()


@pytest.mark.parametrize(
    "damage",
    [
        empty_first,
        empty_last,
        remove_first,
        remove_middle,
        remove_last,
        garbage_in_first,
        pipe_for_middle,
        damage_batches,
        remove_all_but_one,
    ],
)
def test_what_is_not_copied_is_told(path: Path, small: Original, damage: Damage) -> None:
    """Every record is copied as it was or lies in a range that is told as lost, and ranges hold no copied record."""
    damage(path)
    before = None if damage is pipe_for_middle else read_image(str(path))
    items = list(Salvage(PosixFiles(), str(stream_path(path))).read())
    lost = [(item.first, item.next) for item in items if isinstance(item, Lost)]
    copied = [
        (change.keys, change.new) for item in items if isinstance(item, SalvagedCommit) for change in item.changes
    ]
    assert lost
    assert 0 < len(copied) < len(small.rows)
    missing = 0
    for sequence, keys, new in small.rows:
        is_told = any(first <= sequence < end for first, end in lost)
        assert ((keys, new) in copied) != is_told, sequence
        missing += is_told
    assert missing + len(copied) == len(small.rows)
    assert before is None or read_image(str(path)) == before


def test_nothing_is_lost_of_a_sound_stream(path: Path, small: Original) -> None:
    """All records, in order, and no range."""
    items = list(Salvage(PosixFiles(), str(stream_path(path))).read())
    assert not [item for item in items if isinstance(item, Lost)]
    copied = [
        (change.keys, change.new) for item in items if isinstance(item, SalvagedCommit) for change in item.changes
    ]
    assert copied == [(keys, new) for _, keys, new in small.rows]


@pytest.mark.parametrize("what", ["gone", "empty", "a file"])
def test_a_stream_without_a_log_has_a_problem(path: Path, what: str) -> None:
    """There is nothing to read, and it says why."""
    log = stream_path(path) / "log"
    shutil.rmtree(log)
    if what == "empty":
        log.mkdir()
    elif what == "a file":
        log.touch()
    (stream_path(path) / "MARK").unlink()
    salvage = Salvage(PosixFiles(), str(stream_path(path)))
    assert list(salvage.read()) == []
    assert str(log) in str(salvage.problem)

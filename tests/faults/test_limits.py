from __future__ import annotations

import resource
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.faults.history import History
from tests.faults.puppet import Failure, Puppet, examine_store
from tests.faults.writer import Plan
from tests.support.children import Children

SEGMENT_BYTES = 64 << 10
LEVELS = ["fsync", "os"]
FILE_SIZES = [0, 4096, 12_287, 40_000, 69_632, 1 << 20]
MORE_FILE_SIZES = [1, 4095, 8192, 16_384, 65_535, 65_536, 100_000]
FILES = range(0, 16, 3)
MORE_FILES = sorted(set(range(16)) - set(FILES))


def short_and_long(few: Iterable[int], more: Iterable[int]) -> list[Any]:
    """Parameters: a few for every run, more for the long one."""
    return [*few, *(pytest.param(value, marks=pytest.mark.torture) for value in more)]


def assert_kept(history: History, children: Children, store: Path, level: str) -> None:
    """The store holds all that was promised, and takes more."""
    history.judge(examine_store(children, store, Plan("examiner", level, appends=2)))
    assert history.violations == []


def assert_kind(failures: list[Failure], kind: str, path: Path) -> None:
    """All errors are of a kind, and say where."""
    for what, found, message in failures:
        assert found == kind, (what, found, message)
        assert str(path) in message


@pytest.mark.parametrize("size", short_and_long(FILE_SIZES, MORE_FILE_SIZES))
@pytest.mark.parametrize("level", LEVELS)
def test_a_limit_on_the_size_of_files_is_like_a_full_disk(
    store_path: Path, children: Children, level: str, size: int
) -> None:
    """RLIMIT_FSIZE: StorageFull that names the path, reads go on, and appends as soon as the limit is lifted."""
    history = History(level)
    with Puppet(children, store_path, Plan("writer", level, segment_bytes=SEGMENT_BYTES), history) as writer:
        assert writer.do("open") == []
        assert writer.do("append", 5) == []
        writer.do("limit", resource.RLIMIT_FSIZE, size)
        assert_kind(writer.do("append", 100), "StorageFull", store_path)
        assert writer.do("look") == []
        writer.do("lift", resource.RLIMIT_FSIZE)
        acknowledged = len(history.acknowledged)
        assert writer.do("append", 10) == []
        assert len(history.acknowledged) == acknowledged + 10
    assert_kept(history, children, store_path, level)


@pytest.mark.parametrize("size", short_and_long(FILE_SIZES, MORE_FILE_SIZES))
@pytest.mark.parametrize("is_new", [True, False])
def test_a_stream_is_opened_under_a_limit_on_the_size_of_files(
    store_path: Path, children: Children, is_new: bool, size: int
) -> None:
    """Opening and creating, too, raise StorageFull or succeed; with the limit lifted they succeed."""
    history = History()
    if not is_new:
        with Puppet(children, store_path, Plan("first", segment_bytes=SEGMENT_BYTES), history) as first:
            assert first.do("open") == []
            assert first.do("append", 60) == []
            first.kill()
    with Puppet(children, store_path, Plan("writer", segment_bytes=SEGMENT_BYTES), history) as writer:
        writer.do("limit", resource.RLIMIT_FSIZE, size)
        assert_kind(writer.do("open"), "StorageFull", store_path)
        assert_kind(writer.do("append", 3), "StorageFull", store_path)
        writer.do("lift", resource.RLIMIT_FSIZE)
        acknowledged = len(history.acknowledged)
        assert writer.do("append", 10) == []
        assert len(history.acknowledged) == acknowledged + 10
    assert_kept(history, children, store_path, "fsync")


@pytest.mark.parametrize("more", short_and_long(FILES, MORE_FILES))
@pytest.mark.parametrize("is_open", [True, False])
def test_a_limit_on_open_files_costs_nothing_but_errors(
    store_path: Path, children: Children, is_open: bool, more: int
) -> None:
    """RLIMIT_NOFILE: whatever cannot be opened raises StorageFailed; with the limit lifted everything works again."""
    history = History()
    with Puppet(children, store_path, Plan("writer", segment_bytes=16 << 10), history) as writer:
        if is_open:
            assert writer.do("open") == []
            assert writer.do("append", 3) == []
        writer.do("limit files", more)
        for action in (["open"] if not is_open else []) + ["append", "look", "follow"]:
            for what, kind, message in writer.do(action, *([15] if action == "append" else [])):
                assert kind == "StorageFailed", (what, kind, message)
        writer.do("lift", resource.RLIMIT_NOFILE)
        writer.do("open")
        acknowledged = len(history.acknowledged)
        assert writer.do("append", 20) == []
        assert len(history.acknowledged) == acknowledged + 20
        assert writer.do("follow") == []
    assert_kept(history, children, store_path, "fsync")

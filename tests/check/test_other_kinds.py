"""Things in a store that are no files, and LMDB files full of garbage: nobody waits, and no process dies of them."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from tests.check.damage import NAME, Original, append_some, rows_of
from tests.check.forged import stream_path
from tests.support.children import Channel, Children

import shardlog
from shardlog import ShardlogError
from shardlog.check import fsck, plan_repair
from shardlog.check.salvage import Salvage
from shardlog.check.scrub import Pace, scrub_pass
from shardlog.files.posix import PosixFiles
from shardlog.testing.images import materialise

KINDS: dict[str, Callable[[Path], object]] = {
    "directory": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "loop": lambda path: path.symlink_to(path.name),
    "dangling": lambda path: path.symlink_to("nowhere"),
    "other file": lambda path: path.write_bytes(b"abc"),
}
TOLD = {"directory", "pipe", "loop", "other file"}


def use_everything(path: Path) -> list[str]:
    """Check, repair, check again, scrub, salvage, read, append; the codes of the first check."""
    files = PosixFiles()
    report = fsck(path)
    plan_repair(report).apply(failed=lambda *_: None)
    fsck(path, deep=True)
    for _ in scrub_pass(files, str(path), Pace(None)):
        pass
    for stream in (path / "streams").glob("*/*"):
        list(Salvage(files, str(stream)).read())
    with suppress(FileNotFoundError, IsADirectoryError):  # as the system says it, of names that it cannot open
        rows_of(path)
    with suppress(ShardlogError, OSError), shardlog.open(path, create=False) as store:
        append_some(store.stream(NAME), 2)
    return [finding.code for finding in report.findings]


def use_each(channel: Channel, original: Original, path: str) -> None:
    """Runs in a child: each file and directory replaced by each kind of thing."""
    for name, content in sorted(original.image.items()):
        for kind, make in KINDS.items():
            if not name or (kind == "directory" and content is None):
                continue
            materialise(original.image, path)
            target = Path(path, name)
            shutil.rmtree(target) if target.is_dir() else target.unlink()
            make(target)
            channel.send((name, kind, use_everything(Path(path))))


def test_what_is_no_file_is_told(scratch: Path, small: Original, children: Children) -> None:
    """Directories, pipes, devices and links in the place of files, and files in that of directories: no hang."""
    child = children.start(use_each, small, str(scratch / "kinds"))
    outcomes = child.rest()
    assert child.wait() == 0
    assert len(outcomes) > 50
    for name, kind, codes in outcomes:
        if kind in TOLD and not name.endswith(("LOCK", "index")):  # opening makes these anew, or says what is wrong
            assert codes, (name, kind)


def use_spoilt_index(channel: Channel, path: str, original: str, seed: int, count: int) -> None:
    """Runs in a child: garbage in LMDB's two files, everything used, again and again."""
    rng = random.Random(seed)
    for _ in range(count):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original, path)
        for name in ("data.mdb", "lock.mdb"):
            file = stream_path(Path(path)) / "index" / name
            content = bytearray(file.read_bytes())
            for _ in range(rng.choice((0, 1, 8, 100))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(content if rng.random() < 0.7 else content[: rng.randrange(len(content))])
        channel.send(use_everything(Path(path)))


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.torture)])
def test_garbage_in_the_index_ends_no_process(
    scratch: Path, small: Original, children: Children, seed: int, count: int
) -> None:
    """LMDB maps its files, and garbage in them could end the process: nobody ever maps what a past user left."""
    original, path = scratch / "with-index", scratch / "spoilt-index"
    shutil.rmtree(original, ignore_errors=True)
    materialise(small.image, str(original))
    with shardlog.open(original) as store:
        store.stream(NAME)
    child = children.start(use_spoilt_index, str(path), str(original), seed, count)
    outcomes = child.rest()
    assert child.wait() == 0, f"the process died in case {len(outcomes)}"
    assert len(outcomes) == count
    assert all(set(codes) <= {"index-stale"} for codes in outcomes)

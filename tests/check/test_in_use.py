"""Checks of streams that others use: other processes append, roll, expire and die meanwhile."""

from __future__ import annotations

import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from tests.check.busy import append_for_ever
from tests.check.damage import NAME, SEGMENT_BYTES, Original, append_some, flips, rows_of, settled_findings
from tests.check.forged import log_paths, overwrite, stream_path
from tests.support.background import Background, wait_until
from tests.support.children import Children

import shardlog
from shardlog.check import fsck, plan_repair
from shardlog.files.gate import GATE, LIVE
from shardlog.files.posix import PosixFiles
from shardlog.testing.images import materialise, read_image


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_streams_that_others_append_to_are_clean(scratch: Path, children: Children, durability: str) -> None:
    """Whatever the writers are at, and after they were killed; only notes may be made of what they left."""
    path = scratch / "busy"
    shutil.rmtree(path, ignore_errors=True)
    with shardlog.open(path) as store:
        store.create_stream(
            NAME, segment_bytes=SEGMENT_BYTES, shards=2, retention=timedelta(seconds=1), durability=durability
        )
    writers = [children.start(append_for_ever, str(path), who, durability) for who in range(2)]
    for writer in writers:
        assert writer.receive() == "began"
    for turn in range(6):
        report = fsck(path, deep=turn % 2 == 1)
        assert settled_findings(report) == []
        assert report.streams[0].in_use
    for writer in writers:
        writer.kill()
    report = fsck(path, deep=True)
    assert report.clean, list(map(str, report.findings))
    assert not report.streams[0].in_use
    with shardlog.open(path) as store:
        append_some(store.stream(NAME), 1)  # numbers jump, and the flag of level "os" goes
    assert fsck(path, deep=True).findings == ()


def test_damage_is_found_while_others_append(path: Path, children: Children) -> None:
    """In sealed segments and in the active one; a repair is refused until they are gone."""
    writer = children.start(append_for_ever, str(path), 1, "fsync")
    assert writer.receive() == "began"
    overwrite(log_paths(path)[0], 6000, b"\xff" * 20)
    report = fsck(path)
    assert [finding.code for finding in report.findings] == ["block-damaged"]
    with pytest.raises(shardlog.StoreLocked):
        plan_repair(report).apply()
    writer.kill()
    plan_repair(fsck(path)).apply()
    assert fsck(path).clean


def test_a_missing_active_segment_is_told(path: Path) -> None:
    """Somebody removed it under the writers' hands."""
    with shardlog.open(path) as store:
        store.stream(NAME)
        log_paths(path)[-1].unlink()
        report = fsck(path)
    (finding,) = (finding for finding in report.findings if finding.code == "segment-missing")
    assert finding.sequences is not None
    assert report.lost


def test_two_checks_at_once(path: Path) -> None:
    """One waits for the other; with the stream in use, nobody waits."""
    for checks in [Background(fsck, path) for _ in range(4)]:
        assert checks.result().findings == ()
    with shardlog.open(path) as store:
        store.stream(NAME)
        for checks in [Background(fsck, path) for _ in range(4)]:
            assert checks.result().findings == ()


def test_a_check_lets_others_open_what_is_in_use(path: Path) -> None:
    """While a stream in use is checked, it can be opened, closed, and opened again."""
    with shardlog.open(path) as store:
        store.stream(NAME)
        check = Background(fsck, path)
        with shardlog.open(path) as other:
            append_some(other.stream(NAME), 3)
        assert check.result().clean


def test_locks_are_given_back(path: Path) -> None:
    """After a check nobody holds GATE or LIVE, whether the stream was in use or not."""
    for in_use in (False, True):
        if in_use:
            with shardlog.open(path) as store:
                store.stream(NAME)
                fsck(path)
        else:
            fsck(path)
        lock = PosixFiles().open_lock(str(stream_path(path) / "LOCK"))
        assert not lock.is_held_elsewhere(GATE)
        wait_until(lambda lock=lock: not lock.is_held_elsewhere(LIVE))
        lock.close()


def test_a_damaged_index_never_ends_the_process(path: Path, seed: int) -> None:
    """Nobody has the stream open: an index full of flipped bits is stale at worst, for checks and for opening."""
    shardlog.open(path).stream(NAME).close()
    index = stream_path(path) / "index" / "data.mdb"
    content = index.read_bytes()
    rng = random.Random(seed)
    for _ in range(150):
        spoilt = bytearray(content)
        for _ in range(rng.choice((1, 1, 8))):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        index.write_bytes(spoilt if rng.random() < 0.9 else spoilt[: rng.randrange(len(spoilt))])
        report = fsck(path)
        assert report.clean
        assert {finding.code for finding in report.findings} <= {"index-stale"}
    rows, error = rows_of(path)
    assert error is None
    assert rows


@pytest.mark.parametrize("offset", [0, 200, 4500, 6000])
def test_damage_under_a_read_only_user(small: Original, place: Path, offset: int) -> None:
    """A store that is open to read only has no writers, and is checked as if nobody had it open."""
    (case,) = flips(small, small.segments[0], range(offset, offset + 1))
    materialise(case.image, str(place))
    before = read_image(str(place))
    with shardlog.open(place, read_only=True) as store:
        store.stream(NAME)
        report = fsck(place)
    assert not report.clean
    assert not report.streams[0].in_use
    assert read_image(str(place)) == before

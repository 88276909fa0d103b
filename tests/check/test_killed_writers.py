"""What writers leave that are killed in the middle is no error, whatever they were at."""

from __future__ import annotations

import os
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import pytest
from tests.check.damage import NAME, SEGMENT_BYTES, append_some
from tests.support.children import Channel, Children

import shardlog
from shardlog import Change
from shardlog.api import open_store
from shardlog.check import fsck
from shardlog.files.posix import PosixFiles
from shardlog.stream.open_stream import Surroundings
from shardlog.testing.clock import ManualClock
from shardlog.testing.failing import FailingFiles, Fault

NOTES = {
    "stream-unfinished",
    "lock-missing",
    "temporary-left",
    "segment-expired",
    "torn-tail",
    "footer-unfinished",
    "unsynced",
    "index-stale",
}
"""What may be found after a kill."""


def die() -> BaseException:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def live_and_die(channel: Channel, path: str, durability: str, step: int | None) -> None:
    """Runs in a child: a stream's whole life, killed before its `step`th change to the disk."""
    files = FailingFiles(PosixFiles(), Fault(die, nth=step)) if step else FailingFiles(PosixFiles())
    clock = ManualClock()
    with open_store(path, True, False, Surroundings(files, clock, 10.0)) as store:
        stream = store.create_stream(
            NAME, segment_bytes=SEGMENT_BYTES, shards=2, retention=timedelta(hours=1), durability=durability
        )
        append_some(stream, 50, 90)
        stream.split_shard(stream.describe().shards[0].shard_id)
        clock.advance(timedelta(hours=2))
        append_some(stream, 5)
        stream.expire(force=True)
        stream.sync()
        store.disable_stream(NAME)
    channel.send(files.changes)


def check_kills(path: Path, children: Children, durability: str, steps: range) -> None:
    """Kill at each of some steps, as far as there are so many; check, go on, and check again."""
    shutil.rmtree(path, ignore_errors=True)
    last = children.start(live_and_die, str(path), durability, None).receive()
    assert last > 100
    for step in steps:
        if step > last:
            return
        shutil.rmtree(path, ignore_errors=True)
        assert children.start(live_and_die, str(path), durability, step).wait() == -9
        if not (path / "STORE").exists():
            continue  # there is no store yet
        report = fsck(path, deep=True)
        assert report.clean, (step, list(map(str, report.findings)))
        assert {finding.code for finding in report.findings} <= NOTES, (step, list(map(str, report.findings)))
        settled = {"stream-unfinished", "index-stale"}
        with shardlog.open(path) as store:
            for each in store.streams():
                stream = store.stream(NAME)
                if each.status != "DISABLED":
                    stream.append([Change.insert(keys={"id": 1}, new={"id": 1})])
                else:
                    settled |= {"unsynced"}  # numbers jump when something is appended, and nothing ever will be
        left = {finding.code for finding in fsck(path, deep=True).findings}
        assert left <= settled, (step, left)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_store_is_clean_after_a_kill(scratch: Path, children: Children, durability: str, seed: int) -> None:
    """Creating, appending, rolling, splitting, expiring, disabling: notes at most, and none when it went on."""
    check_kills(scratch / "killed", children, durability, range(1 + seed % 5, 1000, 5))


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_store_is_clean_after_a_kill_at_any_step(scratch: Path, children: Children, durability: str) -> None:
    """The same, at every step."""
    check_kills(scratch / "killed", children, durability, range(1, 1000))

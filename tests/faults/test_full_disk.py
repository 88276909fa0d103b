from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.devices import Disk, LoopDisk, MemoryDisk, fill, free_bytes, why_no_mounts
from tests.faults.history import History
from tests.faults.puppet import Failure, Puppet, examine_store
from tests.faults.sweep import tear_tail
from tests.faults.writer import Plan
from tests.support.children import Children

DISK_BYTES = 8 << 20
SEGMENT_BYTES = 64 << 10
RETENTION = timedelta(seconds=1)
LEVELS = ["fsync", "os"]
BEFORE = 40
AFTER = 20


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    if reason := why_no_mounts():
        pytest.skip(reason)
    small: Disk = LoopDisk(tmp_path, DISK_BYTES) if request.param == "ext4" else MemoryDisk(tmp_path, DISK_BYTES)
    with small:
        yield small.path


@pytest.fixture
def processes(disk: Path, child_server: Children) -> Iterator[Children]:
    """Children that are gone before the disk is."""
    yield child_server
    child_server.end_all()


def plan(level: str, who: str = "writer", **more: Any) -> Plan:
    """Appends of 12 KB: a disk is soon full."""
    return Plan(who, level, segment_bytes=SEGMENT_BYTES, text_bytes=4000, **more)


def assert_full(failures: list[Failure], disk: Path) -> None:
    """It was told that there is no room, and where."""
    assert failures
    for what, kind, message in failures:
        assert kind == "StorageFull", (what, kind, message)
        assert str(disk) in message


def assert_kept(history: History, processes: Children, store: Path, level: str) -> None:
    """The store holds all that was promised, and takes more."""
    history.judge(examine_store(processes, store, plan(level, "examiner", appends=2)))
    assert history.violations == []


@pytest.mark.parametrize("level", LEVELS)
def test_a_disk_filled_to_the_brim_takes_appends_again_when_there_is_room(
    disk: Path, processes: Children, level: str
) -> None:
    """Appends raise StorageFull that names the path, again and again; reads go on; with room, so do appends."""
    store, filler, history = disk / "store", disk / "filler", History(level)
    with Puppet(processes, store, plan(level), history) as writer:
        assert writer.do("open") == []
        assert writer.do("append", BEFORE) == []
        fill(filler)
        assert_full(writer.do("append until full"), disk)
        for _ in range(3):
            assert_full(writer.do("append"), disk)
        assert writer.do("look") == []
        filler.unlink()
        assert writer.do("append", AFTER) == []
        assert writer.do("look") == []
        assert writer.do("close") == []
    assert_kept(history, processes, store, level)


@pytest.mark.parametrize("level", LEVELS)
def test_a_disk_that_the_stream_filled_itself_is_freed_by_expiry(disk: Path, processes: Children, level: str) -> None:
    """The log itself takes the last block; then old records expire, and appends go on."""
    store, history = disk / "store", History(level)
    with Puppet(processes, store, plan(level, retention=RETENTION), history) as writer:
        assert writer.do("open") == []
        assert_full(writer.do("append until full"), disk)
        fill(disk / "filler")
        assert_full(writer.do("append until full"), disk)
        assert writer.do("look") == []
        time.sleep(1.2 * RETENTION.total_seconds())
        assert writer.do("expire") == []
        assert free_bytes(disk) > DISK_BYTES // 4
        before = len(history.acknowledged)
        assert writer.do("append", AFTER) == []
        assert len(history.acknowledged) == before + AFTER
        assert writer.do("close") == []
    assert history.violations == []


@pytest.mark.parametrize("ending", ["closed", "killed"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_full_disk_can_be_opened(disk: Path, processes: Children, level: str, ending: str) -> None:
    """Opening needs no more room than closing gave back; nothing is lost, and with room appends go on."""
    store, filler, history = disk / "store", disk / "filler", History(level)
    with Puppet(processes, store, plan(level), history) as writer:
        assert writer.do("open") == []
        assert writer.do("append", BEFORE) == []
        fill(filler)
        assert_full(writer.do("append until full"), disk)
        if ending == "closed":
            assert writer.do("close") == []
        else:
            writer.kill()
    fill(disk / "more")
    with Puppet(processes, store, plan(level, first=10_000), history) as writer:
        assert writer.do("open") == []
        assert writer.do("look") == []
        assert_full(writer.do("append until full"), disk)
        filler.unlink()
        assert writer.do("append", AFTER) == []
    assert_kept(history, processes, store, level)


@pytest.mark.parametrize("level", LEVELS)
def test_a_torn_tail_on_a_full_disk_waits_for_room(disk: Path, processes: Children, level: str) -> None:
    """Setting a torn tail aside takes room: without any, opening raises StorageFull, and changes nothing."""
    store, filler, history = disk / "store", disk / "filler", History(level)
    with Puppet(processes, store, plan(level), history) as writer:
        assert writer.do("open") == []
        assert writer.do("append", BEFORE) == []
        writer.kill()
    tear_tail(store)
    fill(filler)
    with Puppet(processes, store, plan(level, first=10_000), history) as writer:
        assert_full(writer.do("open"), disk)
        filler.unlink()
        assert writer.do("open") == []
        assert writer.do("append", AFTER) == []
    assert_kept(history, processes, store, level)


@pytest.mark.parametrize("level", LEVELS)
def test_processes_that_fill_a_disk_together(disk: Path, processes: Children, level: str) -> None:
    """Whoever comes to the end gets StorageFull; the stream is whole for everybody, and goes on when there is room."""
    store, filler, history = disk / "store", disk / "filler", History(level)
    with filler.open("wb") as file:
        file.write(bytes(DISK_BYTES // 2))
    with (
        Puppet(processes, store, plan(level, "one"), history) as one,
        Puppet(processes, store, plan(level, "two"), history) as two,
        Puppet(processes, store, plan(level, "three"), history) as three,
    ):
        puppets = (one, two, three)
        for puppet in puppets:
            assert puppet.do("open") == []
        for puppet in puppets:
            puppet.tell("append until full")
        for puppet in puppets:
            assert_full(puppet.hear("append until full"), disk)
        filler.unlink()
        for puppet in puppets:
            puppet.tell("append", AFTER)
        for puppet in puppets:
            assert puppet.hear("append") == []
            assert puppet.do("look") == []
    assert_kept(history, processes, store, level)


def test_no_room_for_an_index_is_an_error(disk: Path, processes: Children) -> None:
    """A stream that was copied without its index, on a full disk.

    LMDB maps its lock file; touching a hole of a mapped file for which there is no room is SIGBUS, and the end of the
    process. So that file gets its space before.
    """
    store, filler, history = disk / "store", disk / "filler", History()
    with Puppet(processes, store, plan("fsync"), history) as writer:
        assert writer.do("open") == []
        assert writer.do("append", BEFORE) == []
    fill(filler)
    for file in store.glob("streams/*/*/index/*"):
        file.unlink()
    for number in range(3):  # what was freed may take a while to be free
        fill(disk / f"more-{number}")
    with Puppet(processes, store, plan("fsync", first=10_000), history) as writer:
        assert_full(writer.do("open"), disk)
        filler.unlink()
        assert writer.do("append", AFTER) == []
    assert_kept(history, processes, store, "fsync")

"""Snapshots: a prefix of the acknowledged records in a store of its own, taken while others append."""

from __future__ import annotations

import os
import shutil
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.check.busy import append_for_ever
from tests.check.damage import NAME, SEGMENT_BYTES, append_some, new_stream, rows_of, settled_findings
from tests.check.forged import log_paths, overwrite, stream_path
from tests.support.children import Children

import shardlog
from shardlog import Change, CorruptLog, InvalidArgument, StorageFull, Stream
from shardlog.check import fsck, plan_repair
from shardlog.files.posix import PosixFile
from shardlog.testing.images import materialise, read_image


@pytest.fixture
def source(path: Path) -> Path:
    """A store of three segments."""
    return path


@pytest.fixture
def dest(scratch: Path) -> Path:
    """Where a snapshot goes, on the same file system."""
    dest = scratch / "snapshot"
    shutil.rmtree(dest, ignore_errors=True)
    return dest


def take(source: Path, dest: Path, **options: Any) -> None:
    with shardlog.open(source) as store:
        store.stream(NAME).snapshot(dest, **options)


def test_it_is_a_store_of_its_own(source: Path, dest: Path) -> None:
    """It opens, holds the same records under the same names and numbers, and goes on by itself."""
    take(source, dest)
    assert fsck(dest, deep=True).findings == ()
    assert rows_of(dest) == rows_of(source)
    with shardlog.open(source) as store, shardlog.open(dest) as copy:
        ours, theirs = store.stream(NAME), copy.stream(NAME)
        assert theirs.describe() == ours.describe()
        assert theirs.position("p") == ours.position("p")
        append_some(theirs, 60, 90)
        assert len(list(theirs.read())) > len(list(ours.read()))
    assert fsck(source, deep=True).findings == ()
    assert fsck(dest, deep=True).findings == ()


def is_shared(source: Path, dest: Path) -> list[bool]:
    """Which segments are the same file under two names."""
    return [ours.samefile(theirs) for ours, theirs in zip(log_paths(source), log_paths(dest), strict=True)]


def test_sealed_segments_are_linked_on_request(source: Path, dest: Path) -> None:
    """They take no space then; what is written to later is copied. Otherwise nothing is shared, and no link is left."""
    take(source, dest, links=True)
    assert is_shared(source, dest) == [True, True, False]
    take(source, dest.parent / "other")
    assert is_shared(source, dest.parent / "other") == [False, False, False]
    assert [path.stat().st_nlink for path in log_paths(source)] == [2, 2, 1]
    shutil.rmtree(dest.parent / "other")


def test_where_links_fail_segments_are_copied(source: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file system, or a system that forbids links."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    take(source, dest, links=True)
    assert fsck(dest, deep=True).findings == ()
    assert rows_of(dest) == rows_of(source)
    assert is_shared(source, dest) == [False, False, False]


@pytest.mark.parametrize("links", [False, True])
def test_each_goes_on_without_the_other(source: Path, dest: Path, links: bool) -> None:
    """Appends, expiry, repair and deletion on one side do not touch the other."""
    take(source, dest, links=links)
    rows = rows_of(dest)
    with shardlog.open(source) as store:
        stream = store.stream(NAME)
        append_some(stream, 80, 90)
        stream.set_retention(timedelta(seconds=1))
    overwrite(stream_path(source) / "MARK", 0, b"\xff" * 100)
    overwrite(log_paths(source)[-1], 4100, b"\xff" * 100)
    plan_repair(fsck(source)).apply()
    assert rows_of(dest) == rows
    assert fsck(dest, deep=True).findings == ()
    with shardlog.open(source) as store:
        store.delete_stream(NAME)
    assert rows_of(dest) == rows
    assert fsck(dest, deep=True).findings == ()


def test_a_repair_of_one_does_not_touch_a_linked_segment_of_the_other(source: Path, dest: Path) -> None:
    """A sealed segment's footer is put right in a new file: the other name keeps the old bytes."""
    take(source, dest, links=True)
    shared = log_paths(source)[0]
    overwrite(shared, shared.stat().st_size - 40, b"\xff" * 40)
    before = log_paths(dest)[0].read_bytes()
    plan_repair(fsck(source)).apply()
    assert fsck(source, deep=True).clean
    assert log_paths(dest)[0].read_bytes() == before
    plan_repair(fsck(dest)).apply()
    assert fsck(dest, deep=True).clean


@pytest.mark.parametrize("kind", ["flipped", "cut", "gone", "replaced"])
@pytest.mark.parametrize("links", [False, True])
def test_damage_of_either_leaves_the_other_good(source: Path, dest: Path, links: bool, kind: str) -> None:
    """Whatever happens to any file of one. Bytes that are shared on request are damaged, and told, in both."""
    take(source, dest, links=links)
    images = {each: dict(read_image(str(each), without="index")) for each in (source, dest)}
    rows = rows_of(source)
    for damaged, other in ((source, dest), (dest, source)):
        for name in (name for name in images[damaged] if name.endswith((".seg", "MARK", "STORE"))):
            file, twin = damaged / name, other / name
            shared = twin.exists() and file.samefile(twin)
            do_damage(file, kind)
            assert not fsck(damaged).clean, name
            if shared and kind in ("flipped", "cut"):
                assert not fsck(other).clean, name
            else:
                assert fsck(other, deep=True).findings == (), name
                assert rows_of(other) == rows
            for each in (damaged, other):
                materialise(images[each], str(each))
            if links:
                shutil.rmtree(dest)
                take(source, dest, links=True)
                images[dest] = dict(read_image(str(dest), without="index"))


def do_damage(file: Path, kind: str) -> None:
    """In place, or to the name alone."""
    content = file.read_bytes()
    where = min(4200, len(content) - 3)
    spoilt = content[:where] + bytes([content[where] ^ 0x10]) + content[where + 1 :]
    if kind == "flipped":
        overwrite(file, 0, spoilt)
    elif kind == "cut":
        os.truncate(file, where)
    else:
        file.unlink()
        if kind == "replaced":
            file.write_bytes(spoilt)


def test_taken_under_load_it_holds_a_prefix(scratch: Path, dest: Path) -> None:
    """Everything acknowledged before it began, nothing in part, in order; while segments roll and expire."""
    path = scratch / "load"
    shutil.rmtree(path, ignore_errors=True)
    acknowledged: list[int] = []
    ended = threading.Event()

    def append(stream: Stream, who: int) -> None:
        number = 0
        while not ended.is_set():
            items = [{"id": f"{who}-{number}-{index}", "of": 5} for index in range(5)]
            changes = [Change.insert(keys={"id": item["id"]}, new=item) for item in items]
            acknowledged.append(stream.append(changes).sequences[-1])
            number += 1

    def expire(stream: Stream) -> None:
        while not ended.wait(0.02):
            stream.expire(force=True)

    with shardlog.open(path) as store:
        stream = store.create_stream(NAME, segment_bytes=SEGMENT_BYTES, shards=3, retention=timedelta(seconds=1))
        threads = [threading.Thread(target=append, args=(stream, who)) for who in range(3)]
        threads.append(threading.Thread(target=expire, args=(stream,)))
        for thread in threads:
            thread.start()
        try:
            for _ in range(5):
                before = max(acknowledged, default=0)
                stream.snapshot(dest)
                assert fsck(dest, deep=True).findings == ()
                assert settled_findings(fsck(path)) == []
                with shardlog.open(dest, read_only=True) as copy:
                    records = list(copy.stream(NAME).read())
                sequences = [record.sequence for record in records]
                assert sequences == sorted(set(sequences))
                assert before <= max(sequences, default=0)
                shutil.rmtree(dest)
        finally:
            ended.set()
            for thread in threads:
                thread.join()


@pytest.mark.parametrize("links", [False, True])
def test_what_several_processes_append_is_there_up_to_a_point(
    scratch: Path, dest: Path, children: Children, links: bool
) -> None:
    """A snapshot is a prefix of what the stream holds in the end, and has all that was acknowledged before it."""
    path = scratch / "load"
    shutil.rmtree(path, ignore_errors=True)
    with shardlog.open(path) as store:
        stream = new_stream(store, shards=2)
        writers = [children.start(append_for_ever, str(path), who, "fsync") for who in range(2)]
        for writer in writers:
            assert writer.receive() == "began"
        prefixes = []
        for _ in range(4):
            acknowledged = stream.append([Change.insert(keys={"id": 0}, new={"id": 0})]).sequences[0]
            stream.snapshot(dest, links=links)
            assert fsck(dest, deep=True).findings == ()
            rows, error = rows_of(dest)
            assert error is None
            assert any(isinstance(row, tuple) and row[0] == acknowledged for row in rows)
            prefixes.append(rows)
            shutil.rmtree(dest)
        for writer in writers:
            writer.kill()
    rows, error = rows_of(path)
    assert error is None
    for prefix in prefixes:
        assert prefix == rows[: len(prefix)]


def test_a_read_only_source_will_do(source: Path, dest: Path) -> None:
    """Nobody has it open, and it stays as it was."""
    before = read_image(str(source))
    with shardlog.open(source, read_only=True) as store:
        store.stream(NAME).snapshot(dest)
    assert read_image(str(source)) == before
    assert rows_of(dest) == rows_of(source)
    assert fsck(dest, deep=True).findings == ()


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_it_holds_what_is_not_synced_yet(scratch: Path, dest: Path, durability: str) -> None:
    """Level "os": what was acknowledged is in it, and there it is synced; also of a disabled stream."""
    path = scratch / "levels"
    shutil.rmtree(path, ignore_errors=True)
    with shardlog.open(path) as store:
        stream = new_stream(store, durability=durability)
        append_some(stream, 5)
        stream.snapshot(dest)
        expected = list(stream.read())
        store.disable_stream(NAME)
    with shardlog.open(dest) as copy:
        assert list(copy.stream(NAME).read()) == expected
        assert copy.stream(NAME).append([Change.insert(keys={"id": 1}, new={"id": 1})]).sequences
    assert fsck(dest, deep=True).findings == ()
    shutil.rmtree(dest)
    take(path, dest)
    with shardlog.open(dest) as copy:
        assert copy.stream(NAME).describe().status == "DISABLED"


def test_what_is_there_already_is_not_touched(source: Path, dest: Path) -> None:
    """InvalidArgument for anything but an empty directory, which is taken."""
    dest.mkdir()
    (dest / "mine").write_text("text")
    with pytest.raises(InvalidArgument, match="snapshot"):
        take(source, dest)
    assert [file.name for file in dest.iterdir()] == ["mine"]
    (dest / "mine").unlink()
    take(source, dest)
    assert rows_of(dest) == rows_of(source)


def test_a_damaged_end_is_refused(source: Path, dest: Path) -> None:
    """CorruptLog, and nothing is left behind; damage in the middle comes along, and is told there, too."""
    content = log_paths(source)[-1].read_bytes()
    last = content.rindex(b"SLOG")
    overwrite(log_paths(source)[-1], last, b"\xff" * 30)
    with shardlog.open(source, read_only=True) as store, pytest.raises(CorruptLog):
        store.stream(NAME).snapshot(dest)
    assert not list(dest.parent.glob("snapshot*"))
    overwrite(log_paths(source)[-1], last, content[last : last + 30])
    overwrite(log_paths(source)[0], 6000, b"\xff" * 10)
    take(source, dest)
    assert [finding.code for finding in fsck(dest).findings] == [finding.code for finding in fsck(source).findings]


def test_a_full_disk_leaves_nothing_behind(source: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """StorageFull, and there is no half of a store."""
    pwrite = PosixFile.pwrite

    def full(file: PosixFile, content: bytes, offset: int) -> None:
        if str(dest) in file._path and file._path.endswith("MARK"):
            raise StorageFull("no space left on device (made up)")
        pwrite(file, content, offset)

    with shardlog.open(source) as store:
        stream = store.stream(NAME)
        monkeypatch.setattr(PosixFile, "pwrite", full)
        with pytest.raises(StorageFull):
            stream.snapshot(dest)
    assert not list(dest.parent.glob("snapshot*"))

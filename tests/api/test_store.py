from __future__ import annotations

import json
import os
import re
import struct
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.history import changes, new_stream, numbers

import shardlog
from shardlog import (
    Change,
    CorruptLog,
    InvalidArgument,
    StorageFailed,
    Store,
    StoreLocked,
    StreamDisabled,
    StreamExists,
    StreamNotFound,
    UnsupportedVersion,
)
from shardlog.api import open_store
from shardlog.clock import SystemClock
from shardlog.files.gate import GATE
from shardlog.files.posix import PosixFiles
from shardlog.format.checksum import crc32c
from shardlog.stream.open_stream import Surroundings
from shardlog.testing.clock import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def segment_paths(store_path: Path) -> list[Path]:
    """All segments of a store."""
    return sorted(store_path.glob("streams/*/*/log/*.seg"))


# Opening


def test_a_store_is_made_where_there_is_none(tmp_path: Path) -> None:
    """`open` makes the store and the directories above it; opening it again finds what was put in."""
    path = tmp_path / "a" / "b" / "store"
    with shardlog.open(path) as store:
        new_stream(store).append(changes(0, 3))
    with shardlog.open(str(path)) as store:
        assert numbers(store.stream("s").read()) == [0, 1, 2]


@pytest.mark.parametrize("how", [{"create": False}, {"read_only": True}])
def test_a_store_that_is_not_there_is_refused(store_path: Path, how: dict[str, Any]) -> None:
    """`create=False`, and a store opened to read, make nothing."""
    with pytest.raises(InvalidArgument, match=re.escape(str(store_path))):
        shardlog.open(store_path, **how)
    assert not store_path.exists()


def test_create_false_opens_what_is_there(store: Store, store_path: Path) -> None:
    """`create=False` opens an existing store as usual."""
    with shardlog.open(store_path, create=False) as again:
        assert again.streams() == store.streams() == []


def test_streams_without_their_identity_are_not_taken_over(store: Store, store_path: Path) -> None:
    """A store that lost its STORE file is damaged, not new: it must not get another identity."""
    new_stream(store).append(changes(0, 1))
    store.close()
    (store_path / "STORE").unlink()
    with pytest.raises(CorruptLog, match="STORE"):
        shardlog.open(store_path)
    assert not (store_path / "STORE").exists()


class SlowToAsk(PosixFiles):
    """Somebody else makes the store, and a stream in it, while its caller ponders that there is none."""

    is_made = False

    def exists(self, path: str) -> bool:
        found = super().exists(path)
        if path.endswith("/STORE") and not self.is_made:
            self.is_made = True
            with shardlog.open(os.path.dirname(path)) as store:
                new_stream(store)
        return found


def test_two_may_make_a_store_at_once(store_path: Path) -> None:
    """Who comes second opens what the first has made; it does not take the new streams for ones that lost theirs."""
    with open_store(str(store_path), True, False, Surroundings(SlowToAsk(), SystemClock(), 10.0)) as store:
        assert store.stream("s").append(changes(0, 1)).sequences == [1]


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 100, b'{"format": 1, "uuid": "xyz"}'])
def test_an_identity_that_cannot_be_read_is_corrupt(store: Store, store_path: Path, content: bytes) -> None:
    """A STORE file that is not one is CorruptLog that names it."""
    store.close()
    (store_path / "STORE").write_bytes(content)
    with pytest.raises(CorruptLog, match="STORE"):
        shardlog.open(store_path)


def test_a_store_of_a_future_format_is_refused(store: Store, store_path: Path) -> None:
    """Unsupported is not corrupt: the error says which version it is."""
    store.close()
    identity = json.loads((store_path / "STORE").read_bytes())
    (store_path / "STORE").write_text(json.dumps(identity | {"format": 2}))
    for read_only in (False, True):
        with pytest.raises(UnsupportedVersion, match="format 2"):
            shardlog.open(store_path, read_only=read_only)


def test_a_segment_of_a_future_format_is_refused(store: Store, store_path: Path) -> None:
    """A sound segment header of another version is UnsupportedVersion, to write and to read, and stays as it is."""
    new_stream(store).append(changes(0, 3))
    store.close()
    (path,) = segment_paths(store_path)
    content = bytearray(path.read_bytes())
    struct.pack_into("<H", content, 8, 2)
    end = 112 + struct.unpack_from("<I", content, 16)[0]
    struct.pack_into("<I", content, end, crc32c(bytes(content[:end])))
    path.write_bytes(content)
    for read_only in (False, True):
        with shardlog.open(store_path, read_only=read_only) as again, pytest.raises(UnsupportedVersion, match="2"):
            again.stream("s")
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["nfs4", "9p", "fuse.sshfs", "cifs"])
def test_other_file_systems_are_refused(store_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A file system that does not keep the promises is refused with its name, unless the user insists."""
    monkeypatch.setattr("shardlog.files.mounts.filesystem_kind", lambda path: kind)
    with pytest.raises(StorageFailed, match=re.escape(kind)):
        shardlog.open(store_path)
    monkeypatch.setenv("SHARDLOG_ALLOW_ANY_FILESYSTEM", "1")
    shardlog.open(store_path).close()


def test_other_systems_are_refused(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux, `open` refuses with the reason."""
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(StorageFailed, match="Linux"):
        shardlog.open(store_path)
    assert not store_path.exists()


def test_a_stream_that_is_being_opened_elsewhere_is_locked(store: Store, store_path: Path) -> None:
    """Who cannot have the GATE within `lock_timeout` gets StoreLocked, and can try again."""
    label = new_stream(store).label
    store.close()
    lock = PosixFiles().open_lock(f"{store_path}/streams/s/{label}/LOCK")
    assert lock.try_exclusive(GATE)
    for read_only in (False, True):
        with shardlog.open(store_path, lock_timeout=0.05, read_only=read_only) as waiting:
            with pytest.raises(StoreLocked, match=r"0\.05 s"):
                waiting.stream("s")
    lock.close()
    with shardlog.open(store_path, lock_timeout=0.05) as again:
        assert numbers(again.stream("s").read()) == []


def test_creating_and_deleting_wait_for_each_other(store: Store, store_path: Path) -> None:
    """While somebody creates or deletes a stream, others wait for at most `lock_timeout`."""
    lock = PosixFiles().open_lock(f"{store_path}/LOCK")
    assert lock.try_exclusive(GATE)
    with shardlog.open(store_path, lock_timeout=0.05) as waiting:
        with pytest.raises(StoreLocked):
            new_stream(waiting)
        lock.close()
        new_stream(waiting)
        lock = PosixFiles().open_lock(f"{store_path}/LOCK")
        assert lock.try_exclusive(GATE)
        with pytest.raises(StoreLocked):
            waiting.delete_stream("s")
        lock.close()
        waiting.delete_stream("s")
    assert store.streams() == []


def test_a_store_has_many_paths(store: Store, store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, through a link, with a slash: one store, and one open stream of this process."""
    stream = new_stream(store)
    link = store_path.with_name("link")
    link.symlink_to(store_path)
    monkeypatch.chdir(store_path.parent)
    opened = [shardlog.open(path) for path in ("store", "./store/", link, f"{store_path}/../store")]
    monkeypatch.chdir("/")
    for number, other in enumerate(opened):
        other.stream("s").append(changes(number, 1))
    assert numbers(stream.read()) == [0, 1, 2, 3]
    for other in opened:
        other.close()
    assert stream.append(changes(4, 1)).sequences == [5]


# Creating


def test_a_new_stream_is_what_was_asked_for(store_path: Path) -> None:
    """`describe` tells every option, the label, and shards whose ranges partition [0, 2**128)."""
    with shardlog.open(store_path, clock=ManualClock(NOON)) as store:
        stream = store.create_stream(
            "orders",
            view_type="NEW_IMAGE",
            key_names=["region", "id"],
            partition_key="region",
            shards=3,
            retention=timedelta(days=7),
            durability="os",
            segment_bytes=16384,
        )
        found = stream.describe()
        assert [found] == store.streams()
    assert (found.name, found.label) == ("orders", "2026-03-01T12:00:00.000")
    assert found.arn.endswith("table/orders/stream/2026-03-01T12:00:00.000")
    assert found.arn.startswith("arn:aws:dynamodb:")
    assert (found.status, found.view_type, found.durability) == ("ENABLED", "NEW_IMAGE", "os")
    assert (found.key_names, found.partition_key) == (("region", "id"), "region")
    assert (found.retention, found.created_at) == (timedelta(days=7), NOON)
    shards = sorted(found.shards, key=lambda shard: shard.hash_range)
    assert [shard.hash_range[0] for shard in shards] == [0, *(shard.hash_range[1] for shard in shards[:-1])]
    assert shards[-1].hash_range[1] == 2**128
    created_ms = int(NOON.timestamp() * 1000)
    assert [shard.shard_id for shard in found.shards] == [f"shardId-{created_ms:020d}-{n:08x}" for n in range(3)]
    assert {(shard.parent_ids, shard.first_sequence, shard.end_sequence) for shard in shards} == {((), 1, None)}


def test_what_was_not_asked_for_has_its_default(store: Store) -> None:
    """New and old images, any keys, the whole of them routing, one shard, a day, durable when append returns."""
    found = store.create_stream("s").describe()
    assert (found.view_type, found.durability) == ("NEW_AND_OLD_IMAGES", "fsync")
    assert (found.key_names, found.partition_key) == (None, None)
    assert (found.retention, len(found.shards)) == (timedelta(hours=24), 1)


def test_the_description_survives_a_restart(store: Store, store_path: Path) -> None:
    """Opened again, a stream is the same stream; `retention` None is for ever."""
    stream = new_stream(store, key_names=["id"], partition_key="id", shards=5, retention=None, view_type="KEYS_ONLY")
    before = stream.describe()
    assert before.retention is None
    store.close()
    with shardlog.open(store_path) as again:
        assert again.stream("s").describe() == before
        assert again.streams() == [before]


@pytest.mark.parametrize("name", ["a", "ab", "abc", "A.b_c-9", "...", "-", "x" * 255])
def test_names_that_are_allowed(store: Store, name: str) -> None:
    """Letters, digits, `_`, `.` and `-`, from one to 255 of them."""
    store.create_stream(name, segment_bytes=16384).append(changes(0, 1))
    assert [found.name for found in store.streams()] == [name]
    assert numbers(store.stream(name).read()) == [0]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "a\n", "ä", "x" * 256, "a\0", None, 7, b"abc"])
def test_names_that_are_refused(store: Store, store_path: Path, name: Any) -> None:
    """Everything else is InvalidArgument wherever a name is taken, and touches nothing."""
    calls: list[Callable[[Any], object]] = [
        store.create_stream,
        store.stream,
        store.disable_stream,
        store.delete_stream,
    ]
    for call in calls:
        with pytest.raises(InvalidArgument):
            call(name)
    assert store.streams() == []
    assert not list(store_path.glob("streams/*"))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("view_type", "ALL"),
        ("view_type", None),
        ("durability", "none"),
        ("durability", None),
        ("shards", 0),
        ("shards", -1),
        ("shards", 1.0),
        ("shards", True),
        ("shards", 1 << 20),
        ("retention", timedelta(0)),
        ("retention", timedelta(seconds=-1)),
        ("retention", 3600),
        ("key_names", []),
        ("key_names", "id"),
        ("key_names", ["id", "id"]),
        ("key_names", [""]),
        ("key_names", [7]),
        ("partition_key", 7),
        ("partition_key", ["id"]),
    ],
)
def test_options_that_are_refused(store: Store, store_path: Path, option: str, value: Any) -> None:
    """An option that cannot be is InvalidArgument that names it; no stream is made."""
    with pytest.raises(InvalidArgument, match=option):
        store.create_stream("s", **{option: value})
    assert store.streams() == []
    assert not list(store_path.glob("streams/*"))


def test_a_partition_key_must_be_a_key(store: Store) -> None:
    """With a key schema, the partition key is one of its names."""
    with pytest.raises(InvalidArgument, match="partition_key"):
        store.create_stream("s", key_names=["id"], partition_key="region")


def test_a_name_is_taken_while_its_stream_is_enabled(store: Store, store_path: Path) -> None:
    """StreamExists, also for a second opener; the stream that is there stays as it is."""
    new_stream(store).append(changes(0, 2))
    with shardlog.open(store_path) as other:
        for opener in (store, other):
            with pytest.raises(StreamExists, match="s"):
                new_stream(opener)
    assert numbers(store.stream("s").read()) == [0, 1]


# Finding


def test_a_stream_that_is_not_there_is_not_found(store: Store) -> None:
    """StreamNotFound by name and by label, which is also a LookupError."""
    label = new_stream(store).label
    for name in ("t", "S", "s."):
        with pytest.raises(StreamNotFound, match=name):
            store.stream(name)
        with pytest.raises(StreamNotFound):
            store.disable_stream(name)
        with pytest.raises(LookupError):
            store.delete_stream(name)
    with pytest.raises(StreamNotFound, match="2020"):
        store.stream("s", "2020-01-01T00:00:00.000")
    for bad in ("", "..", "../" + label, label + "/"):
        with pytest.raises(StreamNotFound):
            store.stream("s", bad)
    assert store.stream("s", label).label == label


def test_streams_are_listed_by_name_and_label(store: Store) -> None:
    """All incarnations of all streams, in order, whether they are open or not."""
    for name in ("b", "a", "c"):
        new_stream(store, name)
    store.disable_stream("b")
    new_stream(store, "b")
    found = store.streams()
    assert [description.name for description in found] == ["a", "b", "b", "c"]
    assert found[1].label < found[2].label
    assert [description.status for description in found] == ["ENABLED", "DISABLED", "ENABLED", "ENABLED"]


# Disabling


def test_a_disabled_stream_takes_no_records_and_stays_readable(store: Store, store_path: Path) -> None:
    """Nothing is appended any more, by anybody; reading goes on, also after a restart."""
    stream = new_stream(store, shards=2)
    with shardlog.open(store_path) as other:
        theirs = other.stream("s")
        stream.append(changes(0, 3))
        other.disable_stream("s")
        for appending in (stream, theirs):
            with pytest.raises(StreamDisabled, match="s"):
                appending.append(changes(3, 1))
            assert appending.describe().status == "DISABLED"
            assert sorted(numbers(appending.read())) == [0, 1, 2]
        with pytest.raises(StreamDisabled):
            store.disable_stream("s")
        ends = {shard.end_sequence for shard in stream.describe().shards}
        assert len(ends) == 1
        assert None not in ends
    store.close()
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        assert stream.describe().status == "DISABLED"
        assert sorted(numbers(stream.read())) == [0, 1, 2]
        with pytest.raises(StreamDisabled):
            stream.append(changes(3, 1))
        with pytest.raises(StreamDisabled):
            stream.append([])


def test_a_disabled_stream_can_be_created_anew(store: Store, store_path: Path) -> None:
    """The new incarnation has a later label and none of the old records; the old one is found by its label."""
    old = new_stream(store)
    old.append(changes(0, 2))
    store.disable_stream("s")
    new = new_stream(store, view_type="KEYS_ONLY")
    new.append(changes(10, 1))
    assert new.label > old.label
    assert numbers(old.read()) == [0, 1]
    store.close()
    with shardlog.open(store_path) as again:
        assert again.stream("s").label == new.label
        assert numbers(again.stream("s").read()) == [10]
        assert numbers(again.stream("s", old.label).read()) == [0, 1]
        assert again.stream("s", old.label).describe().status == "DISABLED"
        assert [description.view_type for description in again.streams()] == ["NEW_AND_OLD_IMAGES", "KEYS_ONLY"]


@pytest.mark.parametrize("step", [timedelta(0), timedelta(hours=-1)])
def test_labels_grow_whatever_the_clock_does(store_path: Path, step: timedelta) -> None:
    """Incarnations made in one millisecond, or after the clock was set back, still sort by creation."""
    clock = ManualClock(NOON)
    with shardlog.open(store_path, clock=clock) as store:
        labels = []
        for _ in range(3):
            labels.append(new_stream(store).label)
            store.disable_stream("s")
            clock.advance(step)
        assert labels == sorted(set(labels))
        assert store.stream("s").label == labels[-1]


# Deleting


def test_deleting_removes_all_incarnations(store: Store, store_path: Path) -> None:
    """The stream and its disabled predecessors are gone from the disk; other streams are not touched."""
    new_stream(store, "other").append(changes(0, 2))
    for _ in range(2):
        new_stream(store).append(changes(0, 2))
        store.disable_stream("s")
    new_stream(store)
    store.delete_stream("s")
    assert [description.name for description in store.streams()] == ["other"]
    assert [path.name for path in (store_path / "streams").iterdir()] == ["other"]
    with pytest.raises(StreamNotFound):
        store.stream("s")
    with pytest.raises(StreamNotFound):
        store.delete_stream("s")
    assert numbers(store.stream("other").read()) == [0, 1]


def test_a_deleted_stream_can_be_created_anew(store: Store, store_path: Path) -> None:
    """It begins empty, at sequence number 1, and an iterator of the old one is not one of the new one."""
    old = new_stream(store)
    old.append(changes(0, 50))
    iterator = old.iterator(old.describe().shards[0].shard_id, "TRIM_HORIZON")
    store.delete_stream("s")
    new = new_stream(store)
    assert list(new.read()) == []
    with pytest.raises(InvalidArgument):
        new.get_records(iterator)
    assert new.append(changes(7, 1)).sequences == [1]
    store.close()
    with shardlog.open(store_path) as again:
        assert numbers(again.stream("s").read()) == [7]


def test_a_damaged_stream_can_be_deleted(store: Store, store_path: Path) -> None:
    """What cannot be opened any more can still be removed."""
    new_stream(store).append(changes(0, 2))
    store.close()
    for path in segment_paths(store_path):
        path.write_bytes(b"x" * 100)
    with shardlog.open(store_path) as again:
        with pytest.raises(CorruptLog):
            again.stream("s")
        again.delete_stream("s")
        assert again.streams() == []
        new_stream(again).append([Change.insert(keys={"id": 1}, new={"id": 1})])

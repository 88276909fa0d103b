from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.background import Background
from tests.support.children import Channel, Children
from tests.support.history import changes, new_stream, numbers

import shardlog
from shardlog import InvalidArgument, ReadOnly, Record, Store, Stream


def everything(path: Path) -> dict[str, tuple[bytes | None, int, int]]:
    """All names below a directory with content, size, and time of the last change of the file's bytes."""
    found: dict[str, tuple[bytes | None, int, int]] = {}
    for place in sorted(path.rglob("*")):
        status = place.lstat()
        content = place.read_bytes() if place.is_file() else None
        found[str(place.relative_to(path))] = content, status.st_size, status.st_mtime_ns
    return found


def use(stream: Stream) -> None:
    """Ask a stream everything that reads."""
    list(stream.read())
    stream.describe()
    stream.statistics()
    stream.position("p")
    assert stream.next_sequence >= stream.trim_horizon
    stream.get_records(stream.iterator(stream.describe().shards[0].shard_id, "TRIM_HORIZON"))


WRITES: list[Callable[[Store], object]] = [
    lambda store: store.create_stream("t"),
    lambda store: store.disable_stream("s"),
    lambda store: store.delete_stream("s"),
    lambda store: store.stream("s").append(changes(0, 1)),
    lambda store: store.stream("s").append([]),
    lambda store: asyncio.run(store.stream("s").append_async(changes(0, 1))),
    lambda store: store.stream("s").sync(),
]


@pytest.mark.parametrize("write", WRITES)
def test_what_writes_is_refused(store: Store, store_path: Path, write: Callable[[Store], object]) -> None:
    """A store opened to read raises ReadOnly for everything that would change it, before anything happens."""
    new_stream(store).append(changes(0, 2))
    store.close()
    before = everything(store_path)
    with shardlog.open(store_path, read_only=True) as reading:
        with pytest.raises(ReadOnly):
            write(reading)
        assert numbers(reading.stream("s").read()) == [0, 1]
    assert everything(store_path) == before


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_reading_changes_nothing_on_disk(store: Store, store_path: Path, durability: str) -> None:
    """Not a byte, not a name, not a time of a file: opened to read, used, closed."""
    stream = new_stream(store, durability=durability, shards=2)
    for first in range(0, 300, 30):
        stream.append(changes(first, 30), producer="p", position=first)
    new_stream(store, "other")
    store.disable_stream("other")
    store.close()
    before = everything(store_path)
    with shardlog.open(store_path, read_only=True) as reading:
        assert [description.name for description in reading.streams()] == ["other", "s"]
        assert sorted(numbers(reading.stream("s").read())) == list(range(300))
        use(reading.stream("s"))
        assert everything(store_path) == before
    assert everything(store_path) == before


def _dies_while_appending(channel: Channel, path: Path) -> None:
    stream = shardlog.open(path).stream("s")
    number = 0
    while True:
        channel.send(stream.append(changes(number, 7)).sequences)
        number += 7


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_reading_after_a_kill_changes_nothing_on_disk(
    store: Store, store_path: Path, children: Children, durability: str
) -> None:
    """What a killed writer left is served as recovery would, and left as it is for whoever opens to write."""
    new_stream(store, durability=durability)
    store.close()
    child = children.start(_dies_while_appending, store_path)
    messages = [child.receive() for _ in range(60)]
    child.kill()
    messages += child.rest()
    before = everything(store_path)
    with shardlog.open(store_path, read_only=True) as reading:
        found = numbers(reading.stream("s").read())
        assert found == list(range(len(found)))
        assert len(messages) * 7 <= len(found) <= len(messages) * 7 + 7
        use(reading.stream("s"))
    assert everything(store_path) == before
    with shardlog.open(store_path) as again:
        assert numbers(again.stream("s").read()) == found


def test_a_store_without_its_index_and_mark_is_readable(store: Store, store_path: Path) -> None:
    """The log is the truth: without index, MARK and LOCK everything is served, and none of them is made."""
    stream = new_stream(store, shards=2)
    for first in range(0, 200, 20):
        stream.append(changes(first, 20))
    store.close()
    directory = store_path / "streams" / "s" / stream.label
    for path in (directory / "index").iterdir():
        path.unlink()
    for name in ("MARK", "LOCK"):
        (directory / name).unlink()
    before = everything(store_path)
    with shardlog.open(store_path, read_only=True) as reading:
        assert sorted(numbers(reading.stream("s").read())) == list(range(200))
        use(reading.stream("s"))
    assert everything(store_path) == before
    with shardlog.open(store_path) as again:
        assert sorted(numbers(again.stream("s").read())) == list(range(200))
        again.stream("s").append(changes(200, 1))
        assert sorted(numbers(again.stream("s").read())) == list(range(201))


def test_nothing_is_left_behind_in_the_temporary_directory(
    store: Store, store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index that a reader makes for itself is gone with it."""
    new_stream(store).append(changes(0, 2))
    store.close()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with shardlog.open(store_path, read_only=True) as reading:
        assert numbers(reading.stream("s").read()) == [0, 1]
    assert list(scratch.iterdir()) == []


def test_a_read_only_store_does_not_stand_in_the_way(store: Store, store_path: Path) -> None:
    """While one reads, another opens to write, appends, disables and deletes."""
    new_stream(store).append(changes(0, 2))
    store.close()
    with shardlog.open(store_path, read_only=True) as reading:
        stream = reading.stream("s")
        with shardlog.open(store_path) as writing:
            writing.stream("s").append(changes(2, 1))
            assert numbers(writing.stream("s").read()) == [0, 1, 2]
        assert numbers(stream.read())[:2] == [0, 1]


def _appends_on_demand(channel: Channel, path: Path) -> None:
    with shardlog.open(path) as store:
        stream = store.stream("s")
        channel.send("open")
        while (number := channel.receive()) is not None:
            channel.send(stream.append(changes(number, 1)).sequences)


def test_it_shares_the_index_of_a_live_writer(store: Store, store_path: Path, children: Children) -> None:
    """With a writer in another process, a reader sees each append at once, and follows."""
    new_stream(store)
    store.close()
    writer = children.start(_appends_on_demand, store_path)
    assert writer.receive() == "open"
    with shardlog.open(store_path, read_only=True) as reading:
        stream = reading.stream("s")
        followed: list[int] = []

        def follow() -> None:
            for record in stream.read(follow=True):
                assert isinstance(record, Record)
                followed.append(record.keys["id"])
                if len(followed) == 200:
                    return

        follower = Background(follow)
        for number in range(200):
            writer.send(number)
            assert writer.receive() == [stream.next_sequence - 1]
            assert stream.get_records(
                stream.iterator(stream.describe().shards[0].shard_id, "AT_SEQUENCE_NUMBER", sequence=number + 1)
            ).records[0].keys == {"id": number}
        follower.result()
        assert followed == list(range(200))
        with pytest.raises(ReadOnly):
            stream.append(changes(0, 1))
        writer.send(None)
        assert writer.wait() == 0
        assert numbers(stream.read()) == list(range(200))


def test_nobody_follows_what_nobody_writes(store: Store, store_path: Path) -> None:
    """Opened to read while nobody had it open, a stream never shows more: following it is refused with the reason."""
    new_stream(store).append(changes(0, 1))
    store.close()
    with shardlog.open(store_path, read_only=True) as reading, pytest.raises(InvalidArgument, match="follow"):
        reading.stream("s").read(follow=True)


def test_reading_one_store_twice_in_a_process(store: Store, store_path: Path) -> None:
    """To read and to write at once, in one process: each does what it was opened for."""
    stream = new_stream(store)
    stream.append(changes(0, 1))
    with shardlog.open(store_path, read_only=True) as reading, shardlog.open(store_path, read_only=True) as also:
        for opened in (reading, also):
            with pytest.raises(ReadOnly):
                opened.stream("s").append(changes(1, 1))
        stream.append(changes(1, 1))
        assert numbers(reading.stream("s").read()) == numbers(also.stream("s").read()) == [0, 1]
        store.close()
        assert numbers(reading.stream("s").read()) == [0, 1]


def test_a_store_is_not_made_to_be_read(tmp_path: Path) -> None:
    """Also with `create=True`, reading makes nothing."""
    with pytest.raises(InvalidArgument):
        shardlog.open(tmp_path / "x", create=True, read_only=True)
    assert os.listdir(tmp_path) == []

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.processes.victims import append_until_killed
from tests.support.background import Background, wait_until
from tests.support.children import Channel, Children
from tests.support.history import change, changes, new_stream, numbers, records_only

import shardlog
from shardlog import Record, Store, Stream, StreamDisabled
from shardlog.files import watch as watch_module


class Follower:
    """A reader that follows in a thread; `seen` grows."""

    def __init__(self, stream: Stream, *arguments: Any, **options: Any) -> None:
        self.seen: list[int] = []
        reader = stream.read(*arguments, follow=True, **options)
        self.background = Background(self._run, reader)

    def _run(self, reader: Any) -> None:
        for record in reader:
            assert isinstance(record, Record)
            self.seen.append(record.keys["id"])

    def result(self) -> list[int]:
        self.background.result()
        return self.seen


def test_a_follower_gets_what_comes(stream: Stream) -> None:
    """What is there, then every append, in order, over many rolls."""
    stream.append(changes(0, 3))
    follower = Follower(stream)
    wait_until(lambda: len(follower.seen) == 3)
    for first in range(3, 603, 3):
        stream.append(changes(first, 3))
    wait_until(lambda: len(follower.seen) == 603)
    assert follower.seen == list(range(603))
    assert follower.background.is_running


def test_from_latest_only_what_comes(stream: Stream) -> None:
    """LATEST skips what was there when `read` was called."""
    stream.append(changes(0, 3))
    follower = Follower(stream, "LATEST")
    stream.append(changes(3, 2))
    wait_until(lambda: follower.seen == [3, 4])


@pytest.mark.parametrize("start", ["TRIM_HORIZON", "LATEST"])
def test_a_follower_gives_up_after_its_timeout(stream: Stream, start: str) -> None:
    """`timeout` seconds without a record end it, without an error; it waited so long."""
    stream.append(changes(0, 2))
    began = time.monotonic()
    assert len(list(stream.read(start, follow=True, timeout=0.2))) in (0, 2)  # type: ignore[arg-type]
    assert 0.2 <= time.monotonic() - began < 5

    async def run() -> None:
        found = [record async for record in stream.read_async(start, follow=True, timeout=0.2)]  # type: ignore[arg-type]
        assert len(found) in (0, 2)

    began = time.monotonic()
    asyncio.run(run())
    assert 0.2 <= time.monotonic() - began < 5


def test_each_record_begins_the_timeout_anew(stream: Stream) -> None:
    """The time runs from the last record on: a stream that is never quiet for so long is followed."""
    follower = Follower(stream, timeout=1)
    began = time.monotonic()
    number = 0
    while time.monotonic() - began < 1.4:
        stream.append([change(number)])
        number += 1
        wait_until(lambda expected=number: len(follower.seen) == expected)
    assert follower.result() == list(range(number))


def test_a_timeout_of_zero_reads_all_there_is(stream: Stream) -> None:
    """Without waiting: everything that is published when the reader comes to its end."""
    stream.append(changes(0, 3))
    reader = stream.read(follow=True, timeout=0)
    found = [next(reader)]
    stream.append(changes(3, 400))
    assert numbers([*found, *reader]) == list(range(403))


@pytest.mark.parametrize("is_async", [False, True])
def test_what_goes_to_other_shards_does_not_put_off_the_timeout(store: Store, is_async: bool) -> None:
    """Who follows one shard waits for a record of that shard, however busy the others are."""
    stream = new_stream(store, shards=2, partition_key="id")
    stream.append(changes(0, 20))
    quiet, busy = (shard.shard_id for shard in stream.describe().shards)
    items = [record.keys["id"] for record in stream.read(shard_id=busy) if isinstance(record, Record)]
    ended = threading.Event()

    def keep_busy() -> int:
        rounds = 0
        while not ended.is_set():
            stream.append([change(items[0])])
            rounds += 1
        return rounds

    async def follow() -> list[Any]:
        return [record async for record in stream.read_async(shard_id=quiet, follow=True, timeout=0.3)]

    appending = Background(keep_busy)
    reading: Background[list[Any]] = Background(
        lambda: asyncio.run(follow()) if is_async else list(stream.read(shard_id=quiet, follow=True, timeout=0.3))
    )
    try:
        assert len(reading.result(8)) == 20 - len(items)
    finally:
        ended.set()
    assert appending.result() > 1


def test_a_stop_ends_following(stream: Stream) -> None:
    """Following ends at `stop`, however long that takes, and never yields beyond it."""
    follower = Follower(stream, stop=5)
    stream.append(changes(0, 3))
    wait_until(lambda: len(follower.seen) == 3)
    assert follower.background.is_running
    stream.append(changes(3, 100))
    assert follower.result() == [0, 1, 2, 3]


def test_following_one_shard(store: Store) -> None:
    """Only its records, in order, as they come."""
    stream = new_stream(store, shards=3)
    followers = [Follower(stream, shard_id=shard.shard_id) for shard in stream.describe().shards]
    for first in range(0, 300, 10):
        stream.append(changes(first, 10))
    wait_until(lambda: sum(len(follower.seen) for follower in followers) == 300)
    for follower, shard in zip(followers, stream.describe().shards, strict=True):
        assert follower.seen == numbers(stream.read(shard_id=shard.shard_id))


def test_the_end_of_a_stream_ends_its_followers(store: Store) -> None:
    """Disabled: what is there is delivered, then following ends by itself, for the stream and for each shard."""
    stream = new_stream(store, shards=2)
    stream.append(changes(0, 10))
    shard_id = stream.describe().shards[0].shard_id
    followers = [Follower(stream), Follower(stream, shard_id=shard_id), Follower(stream, "LATEST")]
    store.disable_stream("s")
    assert sorted(followers[0].result()) == list(range(10))
    assert followers[1].result() == numbers(stream.read(shard_id=shard_id))
    assert followers[2].result() == []
    assert len(Follower(stream).result()) == 10


def test_deleting_a_stream_ends_its_followers(stream: Stream, store: Store) -> None:
    """Nobody waits for ever on a stream that is gone."""
    stream.append(changes(0, 2))
    follower = Follower(stream)
    wait_until(lambda: len(follower.seen) == 2)
    store.delete_stream("s")
    with contextlib.suppress(shardlog.Closed):
        follower.result()
    assert follower.seen == [0, 1]


def test_many_tasks_follow(stream: Stream) -> None:
    """Tasks of one loop follow while others append: each gets everything, and the loop is free meanwhile."""

    async def follow() -> list[int]:
        seen: list[int] = []
        async for record in stream.read_async(follow=True):
            assert isinstance(record, Record)
            seen.append(record.keys["id"])
            if len(seen) == 200:
                break
        return seen

    async def run() -> list[list[int]]:
        tasks = [asyncio.create_task(follow()) for _ in range(8)]
        for first in range(0, 200, 4):
            await stream.append_async(changes(first, 4))
        return await asyncio.wait_for(asyncio.gather(*tasks), 30)

    assert asyncio.run(run()) == [list(range(200))] * 8


def test_a_loop_that_was_closed_under_its_follower_does_not_disturb_others(stream: Stream) -> None:
    """A task that was dropped while it waited leaves nothing behind that fails."""
    loop = asyncio.new_event_loop()
    reader = stream.read_async(follow=True)
    waiting = loop.create_task(anext(reader))  # type: ignore[arg-type]
    stream.append(changes(0, 1))
    assert loop.run_until_complete(waiting).sequence == 1
    loop.close()
    follower = Follower(stream)
    for number in range(1, 20):
        stream.append([change(number)])
    wait_until(lambda: follower.seen == list(range(20)))


def test_without_inotify_following_still_works(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the system has no watch left to give, followers look by themselves; a warning says so."""
    monkeypatch.setattr(watch_module, "_inotify", lambda path: -1)
    follower = Follower(stream)
    for first in range(0, 40, 10):
        stream.append(changes(first, 10))
        wait_until(lambda first=first: len(follower.seen) == first + 10)  # type: ignore[misc]
    assert follower.seen == list(range(40))
    assert "inotify" in caplog.text


def test_waiting_costs_no_cpu(stream: Stream) -> None:
    """Twenty followers that wait for a second use no measurable time of the processor."""
    followers = [Follower(stream) for _ in range(20)]
    stream.append(changes(0, 1))
    wait_until(lambda: all(follower.seen == [0] for follower in followers))
    before = time.process_time()
    assert list(stream.read("LATEST", follow=True, timeout=1)) == []
    assert time.process_time() - before < 0.1


def _appends(channel: Channel, path: Path, first: int, count: int) -> None:
    with shardlog.open(path) as store:
        stream = store.stream("s")
        channel.send("open")
        channel.receive()
        for number in range(first, first + count):
            stream.append([change(number)])
        channel.send("done")


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_following_another_process(store: Store, store_path: Path, children: Children, durability: str) -> None:
    """Appends of other processes are followed as one's own: every record, once, each process's in its order."""
    stream = new_stream(store, durability=durability)
    followers = [Follower(stream), Follower(stream)]
    writers = [children.start(_appends, store_path, 1000 * which, 150) for which in range(2)]
    for writer in writers:
        assert writer.receive() == "open"
    for writer in writers:
        writer.send("go")
    for number in range(2000, 2050):
        stream.append([change(number)])
    wait_until(lambda: all(len(follower.seen) == 350 for follower in followers))
    assert followers[0].seen == followers[1].seen == numbers(stream.read())
    for first, count in ((0, 150), (1000, 150), (2000, 50)):
        mine = [number for number in followers[0].seen if first <= number < first + 1000]
        assert mine == list(range(first, first + count))
    for writer in writers:
        assert writer.wait() == 0


def _disables(channel: Channel, path: Path) -> None:
    with shardlog.open(path) as store:
        channel.receive()
        store.stream("s").append(changes(7, 1))
        store.disable_stream("s")


def test_another_process_ends_the_stream(store: Store, store_path: Path, children: Children) -> None:
    """Disabled elsewhere: followers here end, and appends here are refused."""
    stream = new_stream(store)
    follower = Follower(stream)
    child = children.start(_disables, store_path)
    child.send("go")
    assert follower.result() == [7]
    assert child.wait() == 0
    with pytest.raises(StreamDisabled):
        stream.append(changes(8, 1))


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_what_a_writer_published_before_it_died_is_followed(
    store: Store, store_path: Path, children: Children, durability: str
) -> None:
    """A writer is killed between publishing and waking the followers: they get the record all the same."""
    stream = new_stream(store, durability=durability)
    followers = [Follower(stream), Follower(stream, "LATEST")]
    victim = children.start(append_until_killed, store_path, "victim", "before MARK")
    victim.rest()
    assert victim.wait() == -9
    published = [record.keys["id"] for record in records_only(stream.read())]
    wait_until(lambda: all(follower.seen == published for follower in followers), 10)

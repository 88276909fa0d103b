from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.background import Background, wait_until
from tests.support.children import Channel, Children
from tests.support.faults import FaultyFiles, failing, open_with
from tests.support.history import changes, new_stream, numbers

import shardlog
from shardlog import Closed, Record, StorageFailed, Store, Stream
from shardlog.files.gate import LIVE
from shardlog.files.posix import PosixFiles


def is_live(store_path: Path, stream: Stream) -> bool:
    """Whether anybody holds LIVE of a stream."""
    lock = PosixFiles().open_lock(f"{store_path}/streams/{stream.name}/{stream.label}/LOCK")
    try:
        return lock.is_held_elsewhere(LIVE)
    finally:
        lock.close()


STORE_CALLS: list[Callable[[Store], object]] = [
    lambda store: store.create_stream("t"),
    lambda store: store.stream("s"),
    lambda store: store.streams(),
    lambda store: store.disable_stream("s"),
    lambda store: store.delete_stream("s"),
]
STREAM_CALLS: list[Callable[[Stream], object]] = [
    lambda stream: stream.append(changes(0, 1)),
    lambda stream: stream.append([]),
    lambda stream: asyncio.run(stream.append_async(changes(0, 1))),
    lambda stream: stream.position("p"),
    lambda stream: stream.sync(),
    lambda stream: list(stream.read()),
    lambda stream: asyncio.run(anext(stream.read_async())),  # type: ignore[arg-type]
    lambda stream: stream.describe(),
    lambda stream: stream.statistics(),
    lambda stream: stream.trim_horizon,
    lambda stream: stream.next_sequence,
    lambda stream: stream.iterator("shardId-00000000000000000000-00000000", "LATEST"),
    lambda stream: stream.get_records("x"),
]


def test_everything_raises_closed_after_close(store: Store) -> None:
    """Whatever is asked of a closed store, or of its streams, is answered with Closed."""
    stream = new_stream(store)
    stream.append(changes(0, 1))
    store.close()
    for call in STORE_CALLS:
        with pytest.raises(Closed):
            call(store)
    for ask in STREAM_CALLS:
        with pytest.raises(Closed):
            ask(stream)


def test_a_stream_can_be_closed_by_itself(store: Store, store_path: Path) -> None:
    """Its methods raise Closed and its locks are given up; the store goes on, and opens it again."""
    stream, other = new_stream(store), new_stream(store, "other")
    stream.append(changes(0, 2))
    with stream:
        pass
    for ask in STREAM_CALLS:
        with pytest.raises(Closed):
            ask(stream)
    assert not is_live(store_path, stream)
    other.append(changes(0, 1))
    again = store.stream("s")
    assert again is not stream
    again.append(changes(2, 1))
    assert numbers(again.read()) == [0, 1, 2]


def test_closing_twice_is_harmless(store: Store) -> None:
    """Of a store and of a stream; a second close does not take the stream from others who use it."""
    stream = new_stream(store)
    stream.close()
    again = store.stream("s")
    stream.close()
    again.append(changes(0, 1))
    store.close()
    store.close()
    again.close()


def test_two_opens_in_one_process_share_a_stream(store: Store, store_path: Path) -> None:
    """Each sees what the other appends at once; closing one leaves the other usable; LIVE goes with the last."""
    first = new_stream(store)
    second_store = shardlog.open(store_path)
    second = second_store.stream("s")
    first.append(changes(0, 2))
    second.append(changes(2, 2))
    assert numbers(first.read()) == numbers(second.read()) == [0, 1, 2, 3]
    store.close()
    with pytest.raises(Closed):
        first.append(changes(4, 1))
    assert is_live(store_path, first)
    second.append(changes(4, 100))
    assert numbers(second.read()) == list(range(104))
    second_store.close()
    assert not is_live(store_path, first)


def test_a_second_open_of_one_store_gives_the_same_stream(store: Store) -> None:
    """Within one store, a stream is opened once."""
    stream = new_stream(store)
    assert store.stream("s") is stream
    assert store.stream("s", stream.label) is stream


def test_an_iterating_reader_ends_with_closed(stream: Stream, store: Store) -> None:
    """A reader in the middle of a stream gets Closed, not an early end that looks like the end of the stream."""
    for first in range(0, 300, 10):
        stream.append(changes(first, 10))
    reader = stream.read()
    assert next(reader)
    store.close()
    with pytest.raises(Closed):
        list(reader)
    with pytest.raises((Closed, StopIteration)):
        next(reader)


def waiting_reader(stream: Stream, **options: Any) -> tuple[Background[None], list[int]]:
    """A follower in a thread that has read what there is, and what it has seen."""
    seen: list[int] = []

    def follow() -> None:
        for record in stream.read(follow=True, **options):
            assert isinstance(record, Record)
            seen.append(record.keys["id"])

    there = len(list(stream.read()))
    background = Background(follow)
    wait_until(lambda: len(seen) == there)
    return background, seen


@pytest.mark.parametrize("timeout", [None, 60])
def test_closing_the_store_ends_waiting_followers(stream: Stream, store: Store, timeout: float | None) -> None:
    """Every follower that waits is woken and gets Closed."""
    stream.append(changes(0, 2))
    followers = [waiting_reader(stream, timeout=timeout) for _ in range(3)]
    store.close()
    for follower, seen in followers:
        with pytest.raises(Closed):
            follower.result()
        assert seen == [0, 1]


def test_closing_the_store_ends_waiting_tasks(stream: Stream, store: Store) -> None:
    """Likewise for asyncio."""
    seen: list[int] = []

    async def follow() -> None:
        async for record in stream.read_async(follow=True):
            assert isinstance(record, Record)
            seen.append(record.keys["id"])

    async def run() -> None:
        tasks = [asyncio.create_task(follow()) for _ in range(3)]
        while len(seen) < 6:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(store.close)
        for task in tasks:
            with pytest.raises(Closed):
                await asyncio.wait_for(task, 30)

    stream.append(changes(0, 2))
    asyncio.run(run())


def test_closing_one_opener_ends_its_followers_only(stream: Stream, store: Store, store_path: Path) -> None:
    """Followers of another store of the same process go on waiting, and get what comes."""
    with shardlog.open(store_path) as other:
        mine, _ = waiting_reader(stream)
        theirs, seen = waiting_reader(other.stream("s"))
        store.close()
        with pytest.raises(Closed):
            mine.result()
        other.stream("s").append(changes(7, 1))
        wait_until(lambda: seen == [7])
        assert theirs.is_running
    with pytest.raises(Closed):
        theirs.result()


@pytest.mark.parametrize("is_async", [False, True])
def test_a_follower_closed_just_before_it_waits(
    stream: Stream, store: Store, store_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """The close that comes when a follower is about to wait is not missed, though another store has the stream open."""
    with shardlog.open(store_path) as other:
        kept = other.stream("s")
        watch = stream._stream.watch
        real_turn = watch.turn

        def close_first() -> int:
            stream.close()
            return real_turn()

        monkeypatch.setattr(watch, "turn", close_first)

        async def follow() -> list[Any]:
            return [record async for record in stream.read_async(follow=True)]

        run: Callable[[], object] = (
            (lambda: asyncio.run(asyncio.wait_for(follow(), 20)))
            if is_async
            else lambda: list(stream.read(follow=True))
        )
        with pytest.raises(Closed):
            Background(run).result(10)
        kept.append(changes(0, 1))


def test_one_stream_that_fails_to_close_does_not_keep_the_others(store_path: Path) -> None:
    """Closing a store closes all its streams, and reports what went wrong with one."""
    files = FaultyFiles()
    store = open_with(store_path, files)
    streams = [new_stream(store, name, durability="os") for name in ("a", "b", "c")]
    for stream in streams:
        stream.append(changes(0, 1))
    files.arm(lambda step: step.operation == "sync" and step.is_segment and "/a/" in step.path, failing)
    with pytest.raises(StorageFailed):
        store.close()
    assert [is_live(store_path, stream) for stream in streams] == [False] * 3
    for stream in streams:
        with pytest.raises(Closed):
            stream.append(changes(1, 1))


def test_readers_and_writers_meet_a_close(store_path: Path) -> None:
    """Threads in the middle of reading, appending and asking when the store closes get Closed, and nothing else."""
    # A few segments, not more: each read of one lets all the other threads run first.
    calls: list[Callable[[Stream], object]] = [
        lambda stream: list(stream.read()),
        lambda stream: stream.append(changes(0, 2) if stream.next_sequence < 400 else []),
        lambda stream: stream.next_sequence,
        lambda stream: stream.describe(),
        lambda stream: stream.statistics(),
    ]
    for _ in range(10):
        store = shardlog.open(store_path)
        stream = store.stream("s") if store.streams() else new_stream(store)
        rounds = [0] * len(calls)

        def ask(which: int, stream: Stream, rounds: list[int]) -> None:
            while True:
                calls[which](stream)
                rounds[which] += 1

        threads = [Background(ask, which, stream, rounds) for which in range(len(calls))]
        wait_until(lambda rounds=rounds, threads=threads: min(rounds) > 2 or not all(t.is_running for t in threads))  # type: ignore[misc]
        store.close()
        for thread in threads:
            with pytest.raises(Closed):
                thread.result()


def _holds_the_stream(channel: Channel, path: Path) -> None:
    with shardlog.open(path) as store:
        store.stream("s").append(changes(10, 1))
        channel.send("open")
        channel.receive()


def test_another_process_goes_on_when_this_one_closes(
    stream: Stream, store: Store, store_path: Path, children: Children
) -> None:
    """Closing here neither releases nor disturbs what another process has open; opening again joins it."""
    stream.append(changes(0, 1))
    child = children.start(_holds_the_stream, store_path)
    assert child.receive() == "open"
    store.close()
    assert is_live(store_path, stream)
    with shardlog.open(store_path) as again:
        assert numbers(again.stream("s").read()) == [0, 10]
    child.send("end")
    assert child.wait() == 0
    assert not is_live(store_path, stream)

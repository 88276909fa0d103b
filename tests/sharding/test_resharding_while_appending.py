"""Shards change while threads and processes append: nothing fails, is lost, goes astray or changes its order."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import pytest
from tests.sharding.lineages import check_routed, open_shards
from tests.sharding.writers import (
    Acknowledged,
    Writer,
    check_nothing_lost,
    patiently,
    reshard,
    resharding_process,
    stopped,
    writing_process,
)
from tests.support.background import Background
from tests.support.children import Channel, Children
from tests.support.history import changes, new_stream, numbers, records_only
from tests.support.tally import Figure, Tally

import shardlog
from shardlog import ShardClosed, Store, Stream
from shardlog.model import HASH_RANGE_END
from shardlog.stream.sampling import hash_of


def run_all(
    store: Store,
    stream: Stream,
    children: Children,
    seed: int,
    tally: Tally,
    *,
    threads: int,
    processes: int,
    reshards: int,
    reshards_elsewhere: int = 0,
) -> None:
    """Threads and processes append while this one and maybe another process change the shards; then check it all."""
    started = [children.start(writing_process, store.path, f"process-{n}", seed) for n in range(processes)]
    if reshards_elsewhere:
        started.append(children.start(resharding_process, store.path, reshards_elsewhere, seed + 1))
    for child in started:
        assert child.receive() == "open"
    reshard(stream, 5, random.Random(seed))  # all the others have an old picture now
    for child in started:
        child.send("go")
    stop = threading.Event()
    writers = [Background(Writer(stream, f"thread-{n}", seed).run, stop) for n in range(threads)]
    try:
        reshard(stream, reshards, random.Random(seed))
        if reshards_elsewhere:
            other = started.pop()
            assert patiently(other) == "done"
            assert other.wait() == 0
    finally:
        stop.set()
    acknowledged: Acknowledged = {}
    for writer in writers:
        acknowledged |= writer.result()
    for child in started:
        acknowledged |= stopped(child)
    check_nothing_lost(store, stream, acknowledged)
    lineage = stream.describe().shards
    assert sum(len(shard.parent_ids) > 0 for shard in lineage) >= reshards + reshards_elsewhere
    tally.add(Figure.RESHARDS, number=reshards + reshards_elsewhere)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_threads_append_while_shards_change(
    store: Store, children: Children, seed: int, tally: Tally, durability: str
) -> None:
    """Over many segments, at either level."""
    stream = new_stream(store, shards=2, durability=durability)
    run_all(store, stream, children, seed, tally, threads=3, processes=0, reshards=50)


def test_processes_append_while_shards_change(store: Store, children: Children, seed: int, tally: Tally) -> None:
    """Their picture of the shards is old all the time."""
    stream = new_stream(store, shards=2)
    run_all(store, stream, children, seed, tally, threads=1, processes=2, reshards=50)


def test_two_processes_change_shards_while_others_append(
    store: Store, children: Children, seed: int, tally: Tally
) -> None:
    """Who comes second gets ShardClosed, and the lineage is one."""
    stream = new_stream(store, shards=4)
    run_all(store, stream, children, seed, tally, threads=1, processes=1, reshards=30, reshards_elsewhere=30)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_thousand_reshards_while_appending(
    store: Store, children: Children, seed: int, tally: Tally, durability: str
) -> None:
    """The long form of all of these."""
    stream = store.create_stream("s", shards=4, segment_bytes=1 << 20, durability=durability)
    run_all(store, stream, children, seed, tally, threads=3, processes=2, reshards=700, reshards_elsewhere=300)


def stale_writer(channel: Channel, path: str) -> None:
    """Append what is asked for, after others changed the shards."""
    with shardlog.open(path) as store:
        stream = store.stream("s")
        stream.append(changes(0, 30))
        channel.send("appended")
        while (first := channel.receive()) is not None:
            shard_id = channel.receive()
            with pytest.raises(ShardClosed):
                stream.roll_shard(shard_id)
            channel.send(stream.append(changes(first, 30)).sequences)


def test_a_process_whose_picture_is_old_appends_to_open_shards(store: Store, children: Children) -> None:
    """It routes anew under the lock, and what it wants of a closed shard is refused."""
    stream = new_stream(store, shards=1)
    child = children.start(stale_writer, store.path)
    assert child.receive() == "appended"
    for turn, count in enumerate((2, 3, 1, 4), 1):
        shards = open_shards(stream.describe())
        old = shards[0].shard_id
        while len(shards) > 1:
            stream.merge_shards(shards[0].shard_id, shards[1].shard_id)
            shards = open_shards(stream.describe())
        for part in range(1, count):
            stream.split_shard(open_shards(stream.describe())[-1].shard_id, part * HASH_RANGE_END // count)
        if count == 1:
            stream.roll_shard(open_shards(stream.describe())[0].shard_id)
        child.send(30 * turn)
        child.send(old)
        sequences = child.receive()
        fresh = {shard.shard_id for shard in open_shards(stream.describe())}
        appended = [record for record in records_only(stream.read()) if record.sequence in sequences]
        assert numbers(sorted(appended, key=lambda record: sequences.index(record.sequence))) == list(
            range(30 * turn, 30 * turn + 30)
        )
        assert {record.shard_id for record in appended} == fresh
    child.send(None)
    assert child.wait() == 0
    check_routed(stream.describe(), records_only(stream.read()), lambda record: hash_of(record.keys))


def test_tasks_append_while_shards_change(store: Store) -> None:
    """Requests that were encoded for one state are committed in another."""
    stream = new_stream(store, shards=2)

    async def append_all() -> list[int]:
        async def append(first: int) -> int:
            result = await stream.append_async(changes(first, 5))
            if first % 50 == 0:
                await asyncio.to_thread(reshard, stream, 1, random.Random(first))
            return result.sequences[0]

        return await asyncio.gather(*(append(5 * number) for number in range(100)))

    firsts = asyncio.run(append_all())
    records = records_only(stream.read())
    by_sequence = {record.sequence: record for record in records}
    assert [by_sequence[first].keys["id"] for first in firsts] == [5 * number for number in range(100)]
    assert sorted(numbers(records)) == list(range(500))
    check_routed(stream.describe(), records, lambda record: hash_of(record.keys))


def following(stream: Stream, wanted: int) -> list[int]:
    """Items of a follower, in its order, until there are so many."""
    found = []
    for record in stream.read(follow=True, timeout=20):
        found += numbers([record])
        if len(found) == wanted:
            break
    return found


def test_followers_do_not_notice_that_shards_change(store_path: Path) -> None:
    """One that follows the whole stream sees each record once, in order, while it is split, merged and rolled over."""
    with shardlog.open(store_path) as store:
        stream = new_stream(store)
        follower = Background(following, stream, 400)
        generator = random.Random(1)
        for number in range(400):
            stream.append(changes(number, 1))
            if number % 9 == 0:
                reshard(stream, 1, generator)
        assert follower.result() == list(range(400))

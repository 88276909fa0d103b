"""Who appends while shards change: each to items of its own, and what must be found of it afterwards.

An append holds the next version of some items of its writer, so order per item can be told, and each record tells its
append and its place in it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from typing import Any

from tests.sharding.lineages import check_routed, open_shards, read_parents_first
from tests.support.background import Background
from tests.support.children import Channel, Child
from tests.support.history import records_only

import shardlog
from shardlog import Change, Record, Store, Stream
from shardlog.stream import commit
from shardlog.stream.append import Request, Router
from shardlog.stream.sampling import hash_of

Acknowledged = dict[tuple[str, int], list[int]]
"""Sequence numbers by writer and number of the append."""

ITEMS_PER_WRITER = 40
APPENDS_PER_MESSAGE = 100


class Writer:
    """Appends versions of its own items."""

    def __init__(self, stream: Stream, who: str, seed: int) -> None:
        self.acknowledged: Acknowledged = {}
        self._stream = stream
        self._who = who
        self._generator = random.Random(f"{seed} {who}")
        self._versions = [0] * ITEMS_PER_WRITER
        self._appends = 0

    def append(self) -> None:
        """One append, of one record to many."""
        number = self._appends
        self._appends += 1
        items = self._generator.choices(range(ITEMS_PER_WRITER), k=self._generator.choice((1, 3, 30)))
        changes = []
        for index, item in enumerate(items):
            self._versions[item] += 1
            image = {
                "id": f"{self._who}-{item}",
                "version": self._versions[item],
                "who": self._who,
                "append": number,
                "index": index,
            }
            changes.append(Change.insert(keys={"id": image["id"]}, new=image))
        result = self._stream.append(changes)
        assert not result.duplicate
        self.acknowledged[self._who, number] = result.sequences

    def run(self, stop: threading.Event) -> Acknowledged:
        """Append until told to stop."""
        while not stop.is_set():
            self.append()
        return self.acknowledged


def writing_process(channel: Channel, path: str, who: str, seed: int) -> None:
    """The same in a process of its own: from "go" until the next message; answers what was acknowledged."""
    with shardlog.open(path) as store:
        stream = store.stream("s")
        stream.describe()
        channel.send("open")
        assert channel.receive() == "go"
        stop = threading.Event()
        writer = Writer(stream, who, seed)
        thread = threading.Thread(target=lambda: patiently(channel) and stop.set(), daemon=True)
        thread.start()
        rows = list(writer.run(stop).items())
        thread.join()
        for start in range(0, len(rows), APPENDS_PER_MESSAGE):
            channel.send(rows[start : start + APPENDS_PER_MESSAGE])


def resharding_process(channel: Channel, path: str, count: int, seed: int) -> None:
    """Split, merge and roll over in a process of its own."""
    with shardlog.open(path) as store:
        stream = store.stream("s")
        channel.send("open")
        assert channel.receive() == "go"
        reshard(stream, count, random.Random(seed))
        channel.send("done")


def resharding_for_ever(channel: Channel, path: str, seed: int) -> None:
    """Split, merge and roll over, and tell of each, until somebody kills it."""
    with shardlog.open(path) as store:
        stream = store.stream("s")
        generator = random.Random(seed)
        channel.send("open")
        while True:
            reshard(stream, 1, generator)
            channel.send("done")


def writing_and_resharding_process(channel: Channel, path: str, who: str, seed: int) -> None:
    """Append in one thread and change the shards in another, both until the next message; answers as a writer does."""
    with shardlog.open(path) as store:
        stream = store.stream("s")
        channel.send("open")
        assert channel.receive() == "go"
        stop = threading.Event()
        resharding = Background(_reshard_until, stream, stop, random.Random(f"{seed} {who} shards"))
        waiting = Background(lambda: patiently(channel) and stop.set())
        rows = list(Writer(stream, who, seed).run(stop).items())
        resharding.result()
        waiting.result()
        for start in range(0, len(rows), APPENDS_PER_MESSAGE):
            channel.send(rows[start : start + APPENDS_PER_MESSAGE])


def _reshard_until(stream: Stream, stop: threading.Event, generator: random.Random) -> None:
    while not stop.is_set():
        reshard(stream, 1, generator)


def process_that_routes_once(channel: Channel, path: str, who: str, seed: int) -> None:
    """A writer with a broken engine: an append goes where an older state sent it."""
    encode_request = commit.encode_request

    def encode_once(request: Request, router: Router) -> None:
        if request.state_version == -1:
            encode_request(request, router)

    commit.encode_request = encode_once  # type: ignore[attr-defined]
    writing_process(channel, path, who, seed)


def patiently(channel: Channel, limit_seconds: float = 900.0) -> Any:
    """The next message, which may take longer than others."""
    deadline = time.monotonic() + limit_seconds
    while True:
        try:
            return channel.receive()
        except TimeoutError:
            if time.monotonic() > deadline:
                raise


def stopped(child: Child) -> Acknowledged:
    """Stop a writing process; what was acknowledged to it."""
    child.send("stop")
    rows = [row for message in child.rest() for row in message]
    assert child.wait() == 0
    assert rows, "it never came to append"
    return dict(rows)


def reshard(stream: Stream, count: int, generator: random.Random, *, shards_max: int = 24) -> None:
    """Split, merge or roll over so many times; another may do so at the same time."""
    done = 0
    while done < count:
        shards = open_shards(stream.describe())
        index = generator.randrange(len(shards))
        wanted = generator.choice(("split", "split", "merge", "roll"))
        try:
            if wanted == "merge" or len(shards) >= shards_max:
                if len(shards) == 1:
                    continue
                index = max(index, 1)
                stream.merge_shards(shards[index - 1].shard_id, shards[index].shard_id)
            elif wanted == "split":
                stream.split_shard(shards[index].shard_id, sum(shards[index].hash_range) // 2)
            else:
                stream.roll_shard(shards[index].shard_id)
        except shardlog.ShardClosed:
            continue  # the other was faster
        done += 1


def check_nothing_lost(store: Store, stream: Stream, acknowledged: Mapping[tuple[str, int], list[int]]) -> None:
    """Every append is there once and at its numbers, in the right shards, in order; disables the stream."""
    store.disable_stream("s")
    total = records_only(stream.read())
    sequences = [record.sequence for record in total]
    assert sequences == sorted(set(sequences))
    found: Acknowledged = {}
    for record in total:
        image = record.new_image
        assert image is not None
        row = found.setdefault((image["who"], image["append"]), [])
        row += [-1] * (image["index"] + 1 - len(row))
        assert row[image["index"]] == -1, "there twice"
        row[image["index"]] = record.sequence
    assert found == acknowledged
    check_routed(stream.describe(), total, lambda record: hash_of(record.keys))
    check_order(total)
    consumed = read_parents_first(stream)
    check_order(consumed)
    assert sorted(consumed, key=lambda record: record.sequence) == total


def check_order(records: list[Record]) -> None:
    """Each item's versions come one after the other."""
    versions: dict[str, int] = {}
    for record in records:
        image = record.new_image
        assert image is not None
        assert image["version"] == versions.get(image["id"], 0) + 1, f"{image} after {versions.get(image['id'])}"
        versions[image["id"]] = image["version"]

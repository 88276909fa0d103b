"""Processes split, merge, roll over and append to one stream at once, and some are killed at it."""

from __future__ import annotations

import random
import time

import pytest
from tests.sharding.writers import (
    Acknowledged,
    check_nothing_lost,
    process_that_routes_once,
    reshard,
    resharding_for_ever,
    stopped,
    writing_and_resharding_process,
    writing_process,
)
from tests.support.background import wait_until
from tests.support.children import Child, Children
from tests.support.history import new_stream
from tests.support.tally import Figure, Tally

from shardlog import Store, Stream

DELAY_MAX_SECONDS = 0.002
RESHARDS_BEFORE_DEATH_MAX = 4


def started(processes: list[Child]) -> None:
    """All have opened the stream, and begin."""
    for process in processes:
        assert process.receive() == "open"
    for process in processes:
        process.send("go")


def all_stopped(processes: list[Child]) -> Acknowledged:
    """Stop them; none of their appends failed, and this is what was acknowledged."""
    acknowledged: Acknowledged = {}
    for process in processes:
        acknowledged |= stopped(process)
    return acknowledged


def run_together(
    store: Store, stream: Stream, children: Children, seed: int, tally: Tally, processes: int, reshards: int
) -> None:
    """Several processes append and change the shards, until so many shards have come; then check it all."""
    doing = [children.start(writing_and_resharding_process, store.path, f"process-{n}", seed) for n in range(processes)]
    started(doing)
    wait_until(lambda: len(stream.describe().shards) > reshards, limit_seconds=600)
    acknowledged = all_stopped(doing)
    tally.add(Figure.RESHARDS, number=sum(len(shard.parent_ids) > 0 for shard in stream.describe().shards))
    check_nothing_lost(store, stream, acknowledged)


def kill_again_and_again(store: Store, stream: Stream, children: Children, seed: int, tally: Tally, kills: int) -> None:
    """Two processes append; a third changes the shards, is killed at some moment and replaced; then check all."""
    generator = random.Random(seed)
    writers = [children.start(writing_process, store.path, f"process-{n}", seed) for n in range(2)]
    started(writers)
    for turn in range(kills):
        victim = children.start(resharding_for_ever, store.path, seed + turn)
        assert victim.receive() == "open"
        for _ in range(generator.randrange(1, RESHARDS_BEFORE_DEATH_MAX + 1)):
            assert victim.receive() == "done"
            tally.add(Figure.RESHARDS)
        time.sleep(generator.random() * DELAY_MAX_SECONDS)  # any moment of the next one will do
        victim.kill()
    reshard(stream, 3, generator)
    acknowledged = all_stopped(writers)
    check_nothing_lost(store, stream, acknowledged)


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_append_and_change_shards_at_once(
    store: Store, children: Children, seed: int, tally: Tally, processes: int, durability: str
) -> None:
    """No append fails or is lost, none goes to a closed shard, each item's records stay in order; one lineage."""
    stream = new_stream(store, shards=2, durability=durability)
    run_together(store, stream, children, seed, tally, processes, reshards=60)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_who_changes_shards_is_killed(
    store: Store, children: Children, seed: int, tally: Tally, durability: str
) -> None:
    """At moments that nobody chose: the writers go on as if nothing were, and so does the next to change shards."""
    kill_again_and_again(store, new_stream(store, shards=2, durability=durability), children, seed, tally, kills=12)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_many_reshards_and_kills(store: Store, children: Children, seed: int, tally: Tally, durability: str) -> None:
    """The long form of both, on one stream."""
    stream = store.create_stream("s", shards=4, segment_bytes=1 << 20, durability=durability)
    kill_again_and_again(store, stream, children, seed, tally, kills=100)


@pytest.mark.torture
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_many_reshards_of_three_processes(
    store: Store, children: Children, seed: int, tally: Tally, durability: str
) -> None:
    """The long form of the other."""
    stream = store.create_stream("s", shards=4, segment_bytes=1 << 20, durability=durability)
    run_together(store, stream, children, seed, tally, 3, reshards=600)


@pytest.mark.control("shards")
def test_an_append_that_goes_astray_is_noticed(store: Store, children: Children, seed: int, tally: Tally) -> None:
    """An engine that does not route again what an older state has routed is found out."""
    stream = new_stream(store, shards=2)
    writer = children.start(process_that_routes_once, store.path, "astray", seed)
    started([writer])
    reshard(stream, 60, random.Random(seed))
    acknowledged = stopped(writer)
    with pytest.raises(AssertionError):
        check_nothing_lost(store, stream, acknowledged)
    tally.add(Figure.LOSSES_OF_CONTROLS, "shards")

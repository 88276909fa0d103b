"""Several processes append to one stream, open it, and are killed, at moments that nobody chose."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.processes.victims import append_for_ever, append_some
from tests.support.background import Background
from tests.support.children import Children
from tests.support.history import Append, batch, check_holds, new_stream, records_only, seen_in

import shardlog
from shardlog import Store


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("processes", [2, 4])
def test_processes_append_at_once(
    store: Store, store_path: Path, children: Children, processes: int, durability: str
) -> None:
    """Nobody's appends are lost, mixed up or there twice; each process's are in its order."""
    new_stream(store, durability=durability, shards=3)
    store.close()
    started = [children.start(append_some, store_path, f"p{which}", 60) for which in range(processes)]
    for child in started:
        child.send("go")
    acknowledged: dict[Append, list[int]] = {}
    for child in started:
        acknowledged |= child.receive()
        assert child.wait() == 0
    assert len(acknowledged) == 60 * processes
    with shardlog.open(store_path) as again:
        found = check_holds(again.stream("s"), acknowledged)
        assert found == acknowledged
        if durability == "fsync":
            assert again.stream("s").next_sequence - 1 - sum(map(len, found.values())) < 30  # few numbers are skipped
    for which in range(processes):
        order = [max(acknowledged[f"p{which}", number]) for number in range(60)]
        assert order == sorted(order)


def test_processes_open_and_close_at_once(store: Store, store_path: Path, children: Children) -> None:
    """Who opens while the last one closes, or while another recovers, joins or recovers, and loses nothing."""
    new_stream(store, shards=2)
    store.close()
    acknowledged: dict[Append, list[int]] = {}
    for turn in range(8):
        started = [children.start(append_some, store_path, f"p{turn}-{which}", 1 + which) for which in range(4)]
        for child in started:
            child.send("go")
        for child in started:
            acknowledged |= child.receive()
            assert child.wait() == 0
    with shardlog.open(store_path) as again:
        assert check_holds(again.stream("s"), acknowledged) == acknowledged


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_processes_that_are_killed_at_any_moment(
    store: Store, store_path: Path, children: Children, durability: str, seed: int
) -> None:
    """Three writers, one of them killed and replaced again and again, sometimes all; with a reader that follows."""
    choices = random.Random(seed)
    stream = new_stream(store, durability=durability, shards=3)
    acknowledged: dict[Append, list[int]] = {}
    seen: dict[int, str] = {}

    def follow() -> None:
        for record in stream.read(follow=True):
            assert isinstance(record, shardlog.Record)
            seen[record.sequence] = record.keys["id"]

    follower = Background(follow)
    writers = {}

    def start(who: str) -> None:
        writers[who] = children.start(append_for_ever, store_path, who)
        assert writers[who].receive() == "open"

    for which in range(3):
        start(f"w{which}")
    for turn in range(12):
        who, victim = choices.choice(list(writers.items()))
        for _ in range(choices.randrange(1, 25)):
            append, sequences = victim.receive()
            acknowledged[append] = sequences
        victim.kill()
        del writers[who]
        acknowledged |= dict(victim.rest())
        acknowledged["here", turn] = stream.append(batch("here", turn, 3)).sequences
        start(f"w{turn + 3}")
    for writer in writers.values():
        writer.kill()
        acknowledged |= dict(writer.rest())
    found = check_holds(stream, acknowledged)
    assert len(found) - len(acknowledged) <= 15
    final = seen_in(records_only(stream.read()))
    store.close()
    with pytest.raises(shardlog.Closed):
        follower.result()
    assert seen.items() <= final.items()
    assert list(seen) == list(final)[: len(seen)]
    with shardlog.open(store_path) as again:
        later = seen_in(records_only(again.stream("s").read()))
        # The last to be killed may have written a whole block that it could not publish: recovery takes it over.
        assert list(later.items())[: len(final)] == list(final.items())
        assert len(check_holds(again.stream("s"), acknowledged)) - len(found) <= 1


def test_all_are_killed_again_and_again(store: Store, store_path: Path, children: Children, seed: int) -> None:
    """Three writers die at once, nobody is left, and three others go on, several times."""
    choices = random.Random(seed)
    new_stream(store, shards=2)
    store.close()
    acknowledged: dict[Append, list[int]] = {}
    for turn in range(5):
        writers = [children.start(append_for_ever, store_path, f"t{turn}w{which}") for which in range(3)]
        for writer in writers:
            assert writer.receive() == "open"
            acknowledged |= dict(writer.receive() for _ in range(choices.randrange(1, 20)))
        for writer in choices.sample(writers, 3):
            writer.kill()
        for writer in writers:
            acknowledged |= dict(writer.rest())
    with shardlog.open(store_path) as again:
        found = check_holds(again.stream("s"), acknowledged)
        assert len(found) - len(acknowledged) <= 15

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.background import Background
from tests.support.children import Channel, Children
from tests.support.history import batch, change, changes, check_holds, new_stream, numbers

import shardlog
from shardlog import Change, InvalidArgument, Store, Stream


def test_at_or_below_the_last_position_nothing_is_appended(stream: Stream) -> None:
    """A repeated append is a duplicate without sequences, and uses no number; a later position is appended."""
    first = stream.append(changes(0, 2), producer="p", position=5)
    assert (len(first.sequences), first.duplicate) == (2, False)
    after = stream.next_sequence
    for position in (5, 4, 0):
        again = stream.append(changes(7, 2), producer="p", position=position)
        assert (again.sequences, again.duplicate) == ([], True)
    assert stream.next_sequence == after
    assert not stream.append(changes(2, 1), producer="p", position=6).duplicate
    assert numbers(stream.read()) == [0, 1, 2]
    assert stream.position("p") == 6


def test_positions_only_grow_and_may_leave_gaps(stream: Stream) -> None:
    """Any greater position is taken, from 0 to 2^63-1."""
    assert stream.position("p") is None
    for position in (0, 1, 1000, 2**63 - 1):
        assert not stream.append([change(position)], producer="p", position=position).duplicate
        assert stream.position("p") == position
    assert numbers(stream.read()) == [0, 1, 1000, 2**63 - 1]


def test_producers_have_positions_of_their_own(stream: Stream) -> None:
    """One producer's position says nothing of another's; appends without one are always taken."""
    for number, producer in enumerate(["a", "b", "ä" * 128, "A"]):
        assert not stream.append([change(number)], producer=producer, position=3).duplicate
    assert [stream.position(producer) for producer in ("a", "b", "ä" * 128, "A", "c")] == [3, 3, 3, 3, None]
    stream.append([change(9)])
    assert numbers(stream.read()) == [0, 1, 2, 3, 9]


def test_an_empty_append_commits_its_position(store: Store, store_path: Path) -> None:
    """A producer that has nothing to say at a position can still say that it got there."""
    stream = new_stream(store)
    assert not stream.append([], producer="p", position=4).duplicate
    assert stream.append(changes(0, 1), producer="p", position=4).duplicate
    store.close()
    with shardlog.open(store_path) as again:
        assert again.stream("s").position("p") == 4
        assert list(again.stream("s").read()) == []


def test_a_refused_append_commits_no_position(stream: Stream) -> None:
    """InvalidArgument appended nothing: the position is free."""
    with pytest.raises(InvalidArgument):
        stream.append([Change.insert(keys={"id": 1}, new={"id": (1,)})], producer="p", position=1)
    assert stream.position("p") is None
    assert not stream.append(changes(0, 1), producer="p", position=1).duplicate


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_positions_survive_rolls_and_reopening(store: Store, store_path: Path, durability: str) -> None:
    """The position is committed with the records, in the log: after a roll and a restart it is where it was."""
    stream = new_stream(store, durability=durability, shards=2)
    stream.append(changes(0, 1), producer="early", position=77)
    for position in range(100):
        stream.append(changes(10 + position, 3), producer="p", position=position)
    assert stream.statistics().segments > 3
    found = numbers(stream.read())
    store.close()
    for _ in range(2):
        with shardlog.open(store_path) as again:
            stream = again.stream("s")
            assert (stream.position("p"), stream.position("early")) == (99, 77)
            assert stream.append(changes(0, 1), producer="p", position=99).duplicate
            assert numbers(stream.read()) == found


def test_a_stream_has_a_limited_number_of_producers(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than that is refused, and appends nothing; those that are known go on."""
    monkeypatch.setattr("shardlog.stream.plan.PRODUCERS_MAX", 3)
    for number in range(3):
        stream.append([change(number)], producer=f"p{number}", position=1)
    with pytest.raises(InvalidArgument, match="p3"):
        stream.append([change(3)], producer="p3", position=1)
    stream.append([change(4)], producer="p0", position=2)
    assert numbers(stream.read()) == [0, 1, 2, 4]


def test_two_openers_share_positions(store: Store, store_path: Path) -> None:
    """Whoever appends, the last committed position decides."""
    new_stream(store)
    with shardlog.open(store_path) as other:
        store.stream("s").append(changes(0, 1), producer="p", position=1)
        assert other.stream("s").append(changes(0, 1), producer="p", position=1).duplicate
        assert other.stream("s").position("p") == 1


def test_threads_that_race_with_one_position(store: Store) -> None:
    """Many threads try the same positions: each position's records are there once, and one thread was told so."""
    stream = new_stream(store, shards=2)

    def produce(who: int) -> dict[int, list[int]]:
        taken = {}
        for position in range(40):
            result = stream.append(batch("p", position, 3), producer="p", position=position)
            if not result.duplicate:
                taken[position] = result.sequences
        return taken

    threads = [Background(produce, who) for who in range(6)]
    acknowledged: dict[tuple[str, int], list[int]] = {}
    for thread in threads:
        for position, sequences in thread.result().items():
            assert ("p", position) not in acknowledged
            acknowledged["p", position] = sequences
    assert check_holds(stream, acknowledged) == acknowledged


def _produces(channel: Channel, path: Path, durability: str) -> None:
    store = shardlog.open(path)
    stream = store.stream("s")
    position = stream.position("p")
    while True:
        position = 0 if position is None else position + 1
        sequences = stream.append(batch("p", position, 3), producer="p", position=position).sequences
        channel.send((position, sequences))


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_producer_that_is_killed_again_and_again(
    store: Store, store_path: Path, children: Children, durability: str
) -> None:
    """Going on behind `position()` after each SIGKILL, every position is there exactly once, in order, no holes."""
    new_stream(store, durability=durability, shards=2)
    store.close()
    acknowledged: dict[tuple[str, int], list[int]] = {}
    for turn in range(5):
        child = children.start(_produces, store_path, durability)
        messages = [child.receive() for _ in range(10 + 13 * turn)]
        child.kill()
        messages += child.rest()
        acknowledged |= {("p", position): sequences for position, sequences in messages}
    with shardlog.open(store_path) as again:
        found = check_holds(again.stream("s"), acknowledged)
        assert sorted(found) == [("p", position) for position in range(len(found))]
        assert again.stream("s").position("p") == len(found) - 1
        assert len(found) - len(acknowledged) <= 5

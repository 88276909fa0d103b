"""The oracle sees what it is there to see: each promise, broken by hand in what was observed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from shardlog.model import HASH_RANGE_END, ShardDescription
from shardlog.options import Durability
from shardlog.testing.journal import Sight, changes_of
from shardlog.testing.operations import Image, Marked
from shardlog.testing.oracle import Observation, StreamObservation, violations
from shardlog.testing.promises import (
    Acknowledged,
    Appending,
    Changing,
    Checkpointed,
    Created,
    Creating,
    Deleted,
    Deleting,
    Look,
    MadeDurable,
    Number,
    Promises,
    Refused,
    Seen,
    SetAside,
    StreamKey,
    promises_at,
)

KEY = StreamKey("stream", "2026-01-01T00:00:00.000")
SHARD = ShardDescription("one", (), (0, HASH_RANGE_END), 1, None)
LOOK = Look("ENABLED", 1, (SHARD,))
IMAGE: Image = {}


def promised(*marks: object, level: Durability = "fsync") -> Promises:
    """Two appends of two records, the second by a producer; then what the marks say."""
    start = (
        Created(KEY, level, LOOK),
        Appending(KEY, 0, changes_of(0, 2, 10)),
        Acknowledged(0, (1, 2)),
        Appending(KEY, 1, changes_of(1, 2, 10), "producer", 7),
        Acknowledged(1, (3, 4)),
    )
    return promises_at(map(Marked, (*start, *marks)))


NUMBERS = (Number(1, 0, 0), Number(2, 0, 1), Number(3, 1, 0), Number(4, 1, 1))
SIGHT = Sight(NUMBERS, (), ("one",) * 4, (0, 1, 2, 3), (("producer", 7),), LOOK, 6)


def seen(sight: Sight = SIGHT) -> Observation:
    """A store whose only stream shows `sight`, takes records 6 and 7, and keeps all that."""
    added = (Number(6, 99, 0), Number(7, 99, 1))
    last = replace(sight, numbers=sight.numbers + added, next_sequence=8)
    stream = StreamObservation(None, (sight, sight), (("log",), ("log",)), (6, 7), 8, last)
    return Observation(None, {KEY: stream})


def cut(count: int, positions: tuple[tuple[str, int | None], ...] = (("producer", 7),)) -> Sight:
    """The sight with the first so many records only."""
    return replace(SIGHT, numbers=NUMBERS[:count], shards=("one",) * count, hashes=(0,) * count, positions=positions)


def with_stream(change: Callable[[StreamObservation], StreamObservation]) -> Observation:
    """What is seen, with something changed."""
    return Observation(None, {KEY: change(seen().streams[KEY])})


def test_nothing_is_wrong_where_all_is_well() -> None:
    """Everything acknowledged is there, and so it may be where it need not."""
    assert violations(promised(), seen(), IMAGE) == []
    assert violations(promised(level="os"), seen(), IMAGE) == []


def test_level_os_may_lose_the_end_and_nothing_before_it() -> None:
    """A prefix of what was appended, until it is synced."""
    short = cut(2, (("producer", None),))
    assert violations(promised(level="os"), seen(short), IMAGE) == []
    assert any("is gone" in what for what in violations(promised(level="fsync"), seen(short), IMAGE))
    assert any("is gone" in what for what in violations(promised(MadeDurable(KEY), level="os"), seen(short), IMAGE))
    gap = replace(SIGHT, numbers=NUMBERS[2:], shards=("one",) * 2, hashes=(0,) * 2)
    assert any("later ones" in what for what in violations(promised(level="os"), seen(gap), IMAGE))


def test_an_append_in_flight_may_be_there_wholly_or_not_at_all() -> None:
    """Never in part."""
    promises = promised(Appending(KEY, 2, changes_of(2, 2, 10)))
    assert violations(promises, seen(), IMAGE) == []
    half = replace(SIGHT, numbers=(*NUMBERS, Number(5, 2, 0)), shards=("one",) * 5, hashes=(0,) * 5)
    assert any("in part" in what for what in violations(promises, seen(half), IMAGE))


def of_shard(**changes: Any) -> Sight:
    """The sight with something changed about the only shard."""
    return replace(SIGHT, look=LOOK._replace(shards=(replace(SHARD, **changes),)))


BROKEN = {
    "do not partition": seen(of_shard(hash_range=(1, HASH_RANGE_END))),
    "went astray": seen(of_shard(hash_range=(2, HASH_RANGE_END))),
    "not open then": seen(of_shard(end_sequence=4)),
    "does not open": with_stream(lambda stream: replace(stream, error="CorruptLog")),
    "nobody appended": seen(replace(SIGHT, strange=("Record(9)",))),
    "was never appended": seen(
        replace(SIGHT, numbers=(*NUMBERS, Number(5, 77, 0)), shards=("one",) * 5, hashes=(0,) * 5)
    ),
    "was told to somebody": seen(replace(SIGHT, numbers=(Number(1, 1, 0), *NUMBERS[1:]))),
    "was acknowledged, now": seen(replace(SIGHT, numbers=(*NUMBERS[:3], Number(5, 1, 1)))),
    "sequence number 3 after 3": seen(replace(SIGHT, numbers=(*NUMBERS[:3], Number(3, 1, 1)))),
    "in part": seen(cut(3)),
    "out of order": seen(replace(SIGHT, numbers=(*NUMBERS[:2], NUMBERS[3], NUMBERS[2]))),
    "position of producer": seen(replace(SIGHT, positions=(("producer", 8),))),
    "opened again it differs": with_stream(lambda stream: replace(stream, sights=(SIGHT, cut(2)))),
    "its files differ": with_stream(lambda stream: replace(stream, leftovers=(("log",), ("log", "more")))),
    "had been used already": with_stream(lambda stream: replace(stream, appended=(4, 5))),
    "append and a reopening": with_stream(lambda stream: replace(stream, last=SIGHT)),
    "leads from number": with_stream(lambda stream: replace(stream, next_sequence=7)),
    "is gone": Observation(None, {}),
    "nobody created": Observation(None, {KEY: seen().streams[KEY], StreamKey("x", "y"): seen().streams[KEY]}),
    "the store": Observation("OSError", {}),
}


@pytest.mark.parametrize("word", BROKEN)
def test_each_broken_promise_is_told(word: str) -> None:
    """In words that say which."""
    assert any(word in what for what in violations(promised(), BROKEN[word], IMAGE))


def test_a_stream_is_what_it_was_changed_to() -> None:
    """Its shards, its trim horizon, and whether it takes records."""
    sight = replace(SIGHT, look=LOOK._replace(status="DISABLED"))
    assert any("now it is Look" in what for what in violations(promised(), seen(sight), IMAGE))


def test_a_change_that_is_not_through_has_happened_or_has_not() -> None:
    """Nothing in between. Where the program died within, nobody knows what it would have become."""
    new, neither = (replace(SIGHT, look=LOOK._replace(retention=timedelta(hours=hours))) for hours in (1, 2))
    changing = promised(Changing(KEY, [new.look]))
    assert violations(changing, seen(), IMAGE) == []
    assert violations(changing, seen(new), IMAGE) == []
    assert any("now it is Look" in what for what in violations(changing, seen(neither), IMAGE))
    assert violations(promised(Changing(KEY)), seen(neither), IMAGE) == []


def test_a_stream_whose_creator_was_interrupted_may_be_appended_to() -> None:
    """Nobody was told that it was created; it is there, and so may be what was begun since, and nothing else."""
    begun = (Creating(KEY.name, "fsync"), Appending(KEY, 0, changes_of(0, 2, 10)))
    sight = replace(cut(2), positions=())
    assert violations(promises_at(map(Marked, begun)), seen(sight), IMAGE) == []
    assert any("never appended" in what for what in violations(promises_at(map(Marked, begun[:1])), seen(sight), IMAGE))


def test_what_a_consumer_has_handled_is_durable_at_every_level() -> None:
    """And so is how far it was."""
    promises = promised(Checkpointed(KEY, 4), level="os")
    handled = replace(SIGHT, checkpoint=4)
    assert violations(promises, seen(handled), IMAGE) == []
    assert any("a consumer had come to 4" in what for what in violations(promises, seen(), IMAGE))
    lost = replace(cut(2, (("producer", None),)), checkpoint=4)
    assert any("is gone" in what for what in violations(promises, seen(lost), IMAGE))
    beyond = replace(SIGHT, checkpoint=6)
    assert any("the next record gets 6" in what for what in violations(promises, seen(beyond), IMAGE))


def test_what_nobody_was_told_of_may_have_been_made_and_have_expired() -> None:
    """A producer's append that was interrupted leaves its position; only where something has expired since."""
    promises = promised(Appending(KEY, 2, changes_of(2, 1, 10), "producer", 8), Changing(KEY))
    expired = Sight((), (), (), (), (("producer", 8),), LOOK._replace(trim_horizon=6), 6)
    assert not any("position of" in what for what in violations(promises, seen(expired), IMAGE))
    kept = replace(SIGHT, positions=(("producer", 8),))
    assert any("position of" in what for what in violations(promises, seen(kept), IMAGE))
    assert any("position of" in what for what in violations(promised(Changing(KEY)), seen(expired), IMAGE))


def test_a_number_once_told_is_never_given_again() -> None:
    """Even if its record may be lost."""
    promises = promised(Seen(KEY, (*NUMBERS, Number(6, 5, 0)), False), level="os")
    assert any("had been used already" in what for what in violations(promises, seen(), IMAGE))


def test_what_was_refused_or_deleted_does_not_come_back() -> None:
    """Nor does what was lost, before something that was appended since."""
    promises = promised(Appending(KEY, 2, changes_of(2, 1, 10)), Refused(2))
    more = replace(SIGHT, numbers=(*NUMBERS, Number(5, 2, 0)), shards=("one",) * 5, hashes=(0,) * 5)
    assert any("was refused" in what for what in violations(promises, seen(more), IMAGE))
    assert any("is back" in what for what in violations(promised(Deleting(KEY), Deleted(KEY)), seen(), IMAGE))
    lost = promised(
        Appending(KEY, 2, changes_of(2, 1, 10)),
        Seen(KEY, NUMBERS, True),
        Appending(KEY, 3, changes_of(3, 1, 10)),
        Acknowledged(3, (6,)),
    )
    numbers = (*NUMBERS, Number(5, 2, 0), Number(6, 3, 0))
    both = replace(SIGHT, numbers=numbers, shards=("one",) * 6, hashes=(0,) * 6)
    assert any("was lost" in what for what in violations(lost, seen(both), IMAGE))


def test_bytes_set_aside_are_somewhere() -> None:
    """In lost+found, or still in their place."""
    path = f"store/streams/{KEY.name}/{KEY.label}"
    promises = promised(SetAside(f"{path}/lost+found/x.torn", b"torn", f"{path}/log/1.seg", 4))
    assert violations(promises, seen(), {f"{path}/lost+found/x.torn": b"torn"}) == []
    assert violations(promises, seen(), {f"{path}/log/1.seg": b"....torn"}) == []
    assert any("set aside" in what for what in violations(promises, seen(), {f"{path}/log/1.seg": b"........"}))

"""Stores whose streams change: shards that split, merge and roll over, settings, records that expire."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta

from tests.crash.rig import LARGE, Rig, new_stream
from tests.sharding.lineages import open_shards

from shardlog.api import Stream
from shardlog.errors import StreamDisabled
from shardlog.options import Durability, ShardingPolicy
from shardlog.testing.journal import Journal
from shardlog.testing.promises import StreamKey

RETENTION = timedelta(hours=24)
APPENDS_BESIDE = 8


def split(stream: Stream, which: int) -> None:
    """Split one of the open shards in the middle; a negative number counts from the last."""
    shard = open_shards(stream.describe())[which]
    stream.split_shard(shard.shard_id, sum(shard.hash_range) // 2)


def merge(stream: Stream, which: int) -> None:
    """Merge an open shard with the next."""
    shards = open_shards(stream.describe())
    stream.merge_shards(shards[which].shard_id, shards[which + 1].shard_id)


def roll(stream: Stream, which: int) -> None:
    """Roll one of the open shards over."""
    stream.roll_shard(open_shards(stream.describe())[which].shard_id)


def resharding(rig: Rig, durability: Durability) -> None:
    """Several shards split, merge and roll over, some of them children; settings change; over some segments."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    journal.append(key, 3)
    for change, which in ((split, 0), (split, -1), (merge, 1), (roll, 0), (split, 1), (merge, -2)):
        journal.change(key, lambda stream: change(stream, which))  # noqa: B023 - called at once
        journal.append(key, 4, payload=LARGE if which > 0 else 60)
    journal.change(key, lambda stream: stream.set_retention(timedelta(hours=2)))
    journal.change(key, lambda stream: stream.set_sharding(ShardingPolicy(records_per_second=1e6)))
    journal.append(key, 4)
    journal.close()
    journal.open()
    journal.change(key, lambda stream: stream.split_shard(open_shards(stream.describe())[0].shard_id))
    journal.append(key, 2)


def appending_while_resharding(rig: Rig, durability: Durability) -> None:
    """A thread appends meanwhile: what it routes may be routed anew."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)

    def run() -> None:
        for turn in range(APPENDS_BESIDE):
            journal.append(key, 3, payload=300 * (turn % 3))

    thread = threading.Thread(target=run)
    thread.start()
    for change in (split, roll, merge, split):
        journal.change(key, lambda stream: change(stream, 0))  # noqa: B023 - called at once
    thread.join()
    journal.look(key)
    journal.close()


def disabled_after_a_split(rig: Rig, durability: Durability) -> None:
    """Disabling closes the children; what they hold stays readable, also when it is opened again."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    journal.append(key, 4)
    journal.change(key, lambda stream: split(stream, 0))
    journal.append(key, 4)
    journal.disable(key)
    with suppress(StreamDisabled):
        journal.append(key)
    journal.close()
    journal.open()
    journal.look(key)
    journal.delete(key)


def _grow_old(rig: Rig, key: StreamKey, segments: int) -> None:
    """Fill some segments, with a split and a merge among them, and let them grow older than the retention."""
    journal = rig.journal
    for turn in range(segments):
        journal.append(key, 3, payload=LARGE, producer="old", position=turn)
        journal.change(key, lambda stream: (split, merge)[turn % 2](stream, 0))  # noqa: B023 - called at once
        journal.append(key, 3, payload=LARGE)
        rig.clock.advance(timedelta(minutes=1))
    rig.clock.advance(RETENTION)


def _expire(journal: Journal, key: StreamKey) -> None:
    journal.change(key, lambda stream: stream.expire(force=True))


def expiring(rig: Rig, durability: Durability) -> None:
    """Several segments expire at once, with shards and a producer; then the next ones."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    _grow_old(rig, key, 4)
    journal.append(key, 2, payload=LARGE)
    _expire(journal, key)
    journal.append(key, 2)
    _grow_old(rig, key, 1)
    _expire(journal, key)
    journal.append(key, 1, producer="old", position=9)
    journal.close()
    journal.open()
    journal.append(key, 1)


def expiring_beside_others(rig: Rig, durability: Durability) -> None:
    """A thread appends, and rolls segments, while others expire."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    _grow_old(rig, key, 3)

    def run() -> None:
        for _ in range(APPENDS_BESIDE):
            journal.append(key, 2, payload=LARGE)

    thread = threading.Thread(target=run)
    thread.start()
    _expire(journal, key)
    _expire(journal, key)
    thread.join()
    journal.close()


def resharding_life(rig: Rig, durability: Durability) -> None:
    """A short life in which shards change, to be disturbed at every step."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    journal.append(key, 3)
    journal.change(key, lambda stream: split(stream, 0))
    journal.append(key, 5, payload=LARGE)
    journal.change(key, lambda stream: merge(stream, 1))
    journal.append(key, 3, payload=LARGE)
    journal.change(key, lambda stream: stream.set_retention(timedelta(hours=2)))
    journal.close()
    journal.open()
    journal.change(key, lambda stream: roll(stream, 0))
    journal.append(key)
    journal.disable(key)
    journal.close()


def expiring_life(rig: Rig, durability: Durability) -> None:
    """A short life in which segments expire, to be disturbed at every step."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    _grow_old(rig, key, 2)
    journal.append(key)
    _expire(journal, key)
    journal.append(key)
    journal.close()


def afterlife(rig: Rig) -> None:
    """What a program does after the one before it was disturbed: append, split, expire, append."""
    journal = rig.journal
    for key in journal.streams():
        with suppress(StreamDisabled):
            journal.append(key, 3)
            journal.change(key, lambda stream: split(stream, -1))
            journal.append(key, 2, payload=LARGE)
            rig.clock.advance(RETENTION + timedelta(hours=1))
            _expire(journal, key)
            journal.append(key, 2)
    if not journal.streams():
        journal.append(new_stream(rig))
    journal.close()

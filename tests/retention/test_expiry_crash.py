"""A process is killed at every step of an expiry: before the horizon's record nothing happened, after it all did.

The index's steps included, which the crash states of `tests/crash` do not have; those add the power cuts.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.retention.aging import HOUR, Aging
from tests.sharding.killing import act_until_killed, clock_after, kill_at_every_step
from tests.sharding.lineages import open_shards
from tests.support.children import Children
from tests.support.faults import When
from tests.support.history import numbers, records_only

import shardlog
from shardlog import Record, StreamDescription

DAYS = 1.5
SEGMENTS = 3

Found = tuple[StreamDescription, list[Record], int]


@pytest.fixture(params=["fsync", "os"])
def template(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store with a stream of old segments that split, merged and rolled over, and of young ones."""
    path = tmp_path / "template"
    clock = clock_after(0)
    with shardlog.open(path, clock=clock) as store:
        aging = Aging(store, clock, shards=2, durability=request.param)
        for turn in range(SEGMENTS):
            aging.fill(1)
            shards = open_shards(aging.stream.describe())
            if turn % 2:
                aging.stream.merge_shards(shards[0].shard_id, shards[1].shard_id)
            else:
                aging.stream.split_shard(shards[0].shard_id)
        clock.advance(24 * HOUR)
        aging.fill(3)
    return path


def segments_of(path: Path) -> list[str]:
    """Names in the log's directory."""
    return sorted(entry.name for entry in next(path.glob("streams/s/*/log")).iterdir())


def look(path: Path, *, read_only: bool) -> Found:
    """What a stream is and holds."""
    with shardlog.open(path, read_only=read_only, clock=clock_after(DAYS)) as store:
        stream = store.stream("s")
        return stream.describe(), records_only(stream.read()), stream.trim_horizon


def is_expired(name: str, names: list[str], horizon: int) -> bool:
    """Whether all of a segment lies behind the horizon."""
    later = [int(other[:20]) for other in names if other > name]
    return bool(later) and later[0] <= horizon


@pytest.mark.parametrize("when", ["half", "after"])
def test_killed_at_every_step_of_an_expiry(template: Path, tmp_path: Path, children: Children, when: When) -> None:
    """The horizon moved with all that is behind it, or not at all; opening removes what is left, and nothing else."""
    path = tmp_path / "store"
    before, records, _ = look(template, read_only=True)
    segments = segments_of(template)
    seen = {True: 0, False: 0}

    def check(is_done: bool) -> None:
        left = [name for name in segments_of(path) if name.endswith(".seg")]
        alone = look(path, read_only=True)
        described, found, horizon = alone
        happened = horizon > 1
        seen[happened] += 1
        assert happened or not is_done
        assert found == [record for record in records if record.sequence >= horizon]
        if happened:
            assert numbers(found) == list(range(SEGMENTS, SEGMENTS + 3))
            assert [shard for shard in before.shards if shard.end_sequence is None] == list(described.shards)
        else:
            assert described == before
            assert set(segments) <= set(left)
        assert look(path, read_only=False) == alone
        after = segments_of(path)
        wanted = [name for name in left if not is_expired(name, left, horizon)]
        assert [name for name in after if name in left] == wanted
        with shardlog.open(path, clock=clock_after(DAYS)) as store:
            store.stream("s").expire(force=True)
        assert look(path, read_only=False)[1] == [record for record in records if record.keys["id"] >= SEGMENTS]

    assert kill_at_every_step(children, template, path, "expire", when, check, DAYS) > 0
    assert seen[True] > 0
    assert seen[False] > 0


@pytest.mark.parametrize("template", ["fsync"], indirect=True)
def test_who_survives_clears_up(template: Path, tmp_path: Path, children: Children) -> None:
    """A process that has the stream open all the time: it reads and appends on, and its next pass removes the rest.

    Also where that pass itself finds nothing that is old enough.
    """
    path = tmp_path / "store"
    number = 0
    leftovers_seen = 0
    while True:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        with shardlog.open(path, clock=clock_after(DAYS)) as store:
            stream = store.stream("s")
            assert len(records_only(stream.read())) == SEGMENTS + 3
            child = children.start(act_until_killed, str(path), "expire", "after", number, DAYS)
            is_done = child.rest() == ["done"]
            assert child.wait() == (0 if is_done else -9)
            horizon = stream.trim_horizon
            found = numbers(stream.read())
            assert found == list(range(SEGMENTS if horizon > 1 else 0, SEGMENTS + 3))
            names = [name for name in segments_of(path) if name.endswith(".seg")]
            leftovers = [name for name in names if is_expired(name, names, horizon)]
            leftovers_seen += len(leftovers)
            stream.set_retention(None)
            assert stream.expire().segments == 0
            assert not set(leftovers) & set(segments_of(path))
            assert stream.statistics().records == len(found)
            assert numbers(stream.read()) == found
        if is_done:
            break
        number += 1
    assert number > 5
    assert leftovers_seen > 0

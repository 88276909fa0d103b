"""One process is killed at each step of an append and of a roll, alone and beside others that go on.

Afterwards: every acknowledged record is there once, at its number; an append that was not acknowledged is there whole
or not at all; nothing that a reader saw has changed; the others went on, and a later reopening agrees.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.processes.victims import COMMIT_STEPS, FLAG_STEPS, ROLL_STEPS, SYNC_STEPS, append_until_killed
from tests.support.background import Background
from tests.support.children import Child, Children
from tests.support.history import Append, batch, check_holds, new_stream, records_only, seen_in

import shardlog
from shardlog import Record, Store, Stream

ALL = [
    *(("fsync", step) for step in [*COMMIT_STEPS, *SYNC_STEPS, *ROLL_STEPS]),
    *(("os", step) for step in [*COMMIT_STEPS, *FLAG_STEPS, *ROLL_STEPS]),
]
BEHIND = 8  # appends after the death, so that a half-done roll is met


def acknowledged_by(victim: Child) -> dict[Append, list[int]]:
    """What the victim was told; it must have been killed by itself."""
    acknowledged = dict(victim.rest())
    assert victim.wait() == -9, "the step never came"
    return acknowledged


def check_directory(store_path: Path) -> None:
    """No segment id is there twice, and no name is left that was never finished."""
    names = sorted(path.name for path in store_path.glob("streams/s/*/log/*"))
    assert [name for name in names if not name.endswith(".seg")] == []
    ids = [name.split("-")[1] for name in names]
    assert ids == sorted(set(ids))


def roll(stream: Stream, who: str) -> dict[Append, list[int]]:
    """Append until a segment was filled and replaced."""
    segments = stream.statistics().segments
    acknowledged: dict[Append, list[int]] = {}
    while stream.statistics().segments == segments:
        number = len(acknowledged)
        acknowledged[who, number] = stream.append(batch(who, number, 3)).sequences
    return acknowledged


@pytest.mark.parametrize(("durability", "step"), ALL)
def test_killed_alone(store: Store, store_path: Path, children: Children, durability: str, step: str) -> None:
    """Nobody is left: who opens next finds everything acknowledged, goes on, and so does who opens then."""
    new_stream(store, durability=durability, shards=3)
    store.close()
    acknowledged = acknowledged_by(children.start(append_until_killed, store_path, "victim", step))
    with shardlog.open(store_path, read_only=True) as reading:
        seen = seen_in(records_only(reading.stream("s").read()))
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        found = check_holds(stream, acknowledged)
        assert len(found) - len(acknowledged) in (0, 1)
        assert seen_in(records_only(stream.read())) == seen
        acknowledged = found | roll(stream, "next")
        check_holds(stream, acknowledged)
        check_directory(store_path)
    with shardlog.open(store_path) as again:
        assert check_holds(again.stream("s"), acknowledged) == acknowledged


class Survivor:
    """Appends and follows, in this process, while a victim lives, and goes on when it is dead."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.acknowledged: dict[Append, list[int]] = {}
        self.seen: dict[int, str] = {}
        self._victim_is_dead = False
        reader = stream.read(follow=True)
        self._follower = Background(self._follow, reader)
        self._appender = Background(self._append)

    def _append(self) -> None:
        left = BEHIND
        while left:
            left -= self._victim_is_dead
            number = len(self.acknowledged)
            self.acknowledged["survivor", number] = self.stream.append(batch("survivor", number, 2)).sequences

    def _follow(self, reader: object) -> None:
        for record in reader:  # type: ignore[attr-defined]
            assert isinstance(record, Record)
            assert record.sequence > max(self.seen, default=0)
            self.seen[record.sequence] = record.keys["id"]

    def go_on_after(self, victim: Child) -> dict[Append, list[int]]:
        """Wait for the victim's death and some appends more; what both were told."""
        acknowledged = acknowledged_by(victim)
        self._victim_is_dead = True
        self._appender.result()
        return self.acknowledged | acknowledged

    def end(self, close: Callable[[], object]) -> dict[int, str]:
        """Close, which ends the follower; what it saw."""
        close()
        with pytest.raises(shardlog.Closed):
            self._follower.result()
        return self.seen


@pytest.mark.parametrize(("durability", "step"), ALL)
def test_killed_beside_others(store: Store, store_path: Path, children: Children, durability: str, step: str) -> None:
    """Others append and follow meanwhile: they go on, and what they saw stays."""
    stream = new_stream(store, durability=durability, shards=3)
    if step in FLAG_STEPS:
        victim = children.start(append_until_killed, store_path, "victim", step)
        acknowledged = acknowledged_by(victim)
        survivor = Survivor(stream)
        survivor._victim_is_dead = True
        survivor._appender.result()
        acknowledged |= survivor.acknowledged
    else:
        survivor = Survivor(stream)
        acknowledged = survivor.go_on_after(children.start(append_until_killed, store_path, "victim", step))
    acknowledged |= roll(stream, "later")
    found = check_holds(stream, acknowledged)
    assert len(found) - len(acknowledged) in (0, 1)
    check_directory(store_path)
    final = seen_in(records_only(stream.read()))
    seen = survivor.end(store.close)
    assert seen.items() <= final.items()
    assert list(seen) == list(final)[: len(seen)]
    with shardlog.open(store_path) as again:
        assert seen_in(records_only(again.stream("s").read())) == final
        assert min(again.stream("s").append(batch("last", 0, 3)).sequences) > max(final)

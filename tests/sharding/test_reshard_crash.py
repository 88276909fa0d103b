"""A process is killed at every step of a split, a merge or a roll-over: it happened, or it did not.

The index's steps included, which the crash states of `tests/crash` do not have; those add the power cuts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sharding.killing import ACTIONS, clock_after, kill_at_every_step
from tests.sharding.lineages import check_routed, open_shards
from tests.support.children import Children
from tests.support.faults import When
from tests.support.history import change, changes, new_stream, records_only

import shardlog
from shardlog import Record, StreamDescription
from shardlog.stream.sampling import hash_of

Found = tuple[StreamDescription, list[Record]]


def look(path: Path, *, read_only: bool) -> Found:
    """What a stream is and holds, after all processes are gone."""
    with shardlog.open(path, read_only=read_only, clock=clock_after(1)) as store:
        stream = store.stream("s")
        return stream.describe(), records_only(stream.read())


@pytest.fixture
def template(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A store with a stream of three shards and some segments, with room for a commit in the last one or without."""
    has_room, durability = request.param
    path = tmp_path / "template"
    with shardlog.open(path, clock=clock_after(0)) as store:
        stream = new_stream(store, shards=3, durability=durability)
        for turn in range(5):
            stream.append(changes(40 * turn, 40))
        tail = stream._stream.tail()
        if not has_room:
            stream.append([change(999, "x" * (tail.limit - tail.offset - 170))])
            tail = stream._stream.tail()
            assert 0 <= tail.limit - tail.offset < 150
    return path


# With room in the last segment, or none: then it rolls first. Before a step is after the one before it.
CASES = [
    *((action, "after", (True, "fsync")) for action in ("split", "merge", "roll")),
    *(("split", when, (True, "fsync")) for when in ("before", "half")),
    ("split", "after", (True, "os")),
    *(("split", when, (False, "fsync")) for when in ("half", "after")),
    ("split", "after", (False, "os")),
]


@pytest.mark.parametrize(("action", "when", "template"), CASES, indirect=["template"], ids=str)
def test_killed_at_every_step_of_a_reshard(
    template: Path, tmp_path: Path, children: Children, action: str, when: When
) -> None:
    """Before it or after it, the same for every reader and at every later opening; what was done is not undone."""
    path = tmp_path / "store"
    before = look(template, read_only=True)
    seen = {True: 0, False: 0}

    def check(is_done: bool) -> None:
        alone = look(path, read_only=True)
        assert alone[1] == before[1]
        happened = alone[0].shards != before[0].shards
        seen[happened] += 1
        assert happened or not is_done
        open_shards(alone[0])
        assert look(path, read_only=False) == alone
        with shardlog.open(path, clock=clock_after(1)) as store:
            stream = store.stream("s")
            stream.append(changes(1000, 30))
            ACTIONS[action](stream)
            stream.append(changes(1030, 30))
            check_routed(stream.describe(), records_only(stream.read()), lambda record: hash_of(record.keys))

    assert kill_at_every_step(children, template, path, action, when, check) > 0
    assert seen[True] > 0
    assert seen[False] > 0

"""`shardlog shards`: the lineage as a value, as a tree and as JSON."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.tools.commands import Outcome
from tests.tools.lineages import NAME, SECOND, changes, stream_with_history

import shardlog
from shardlog.testing.clock import ManualClock
from shardlog_tools.lineage import Lineage, drawing_order, read_lineage
from shardlog_tools.lineage_tree import tree_lines

Command = Callable[..., Outcome]


def shapes(lineage: Lineage) -> list[str]:
    """The tree's lines without the figures."""
    _, *lines, _ = tree_lines(lineage)
    width = max(line.index("█") if "█" in line else 0 for line in lines)
    starts = [min(line.index(sign) for sign in "█·" if sign in line) for line in lines]
    assert min(starts) <= width
    return [line[:start].rstrip() for line, start in zip(lines, starts, strict=True)]


def test_the_tree_forks_at_splits_and_names_both_parents_of_a_merge(store: Path) -> None:
    """Each shard is one line, below all of its parents, an only child right below its parent."""
    with stream_with_history(store) as (stream, _):
        lineage = read_lineage(stream)
    assert shapes(lineage) == ["○ 0", "├─○ 1", "│ ○ 3", "└─○ 2", "  ● 4"]
    heading, zero, one, three, two, four, legend = tree_lines(lineage)
    assert heading.split() == [
        *("SHARD", "HASHES", "FROM", "TO", "RECORDS", "BYTES", "RECORDS/S", "BYTES/S", "FIRST", "END"),
    ]
    assert "0000  10000" in zero
    assert "8000  10000" in two
    assert three.endswith("rolled over from 1; merged with 2 into 4")
    assert two.endswith("merged with 3 into 4")
    assert four.endswith("open  merges 3 and 2")
    assert "merge" not in one
    assert "expired" not in legend


def test_figures_of_shards_are_those_of_their_records(store: Path) -> None:
    """Records per shard are what reading the shard gives; times are those of the commits that opened and closed it."""
    with stream_with_history(store) as (stream, _):
        lineage = read_lineage(stream)
        for node in lineage.nodes:
            assert node.statistics.records == len(list(stream.read(shard_id=node.shard.shard_id)))
        created_at = stream.describe().created_at
    zero, one, two, three, four = lineage.nodes
    assert sum(node.statistics.records for node in lineage.nodes) == lineage.records == 125
    assert [(node.origin, node.is_open) for node in lineage.nodes] == [
        ("start", False),
        ("split", False),
        ("split", False),
        ("roll-over", False),
        ("merge", True),
    ]
    assert zero.statistics.opened_at == created_at
    assert zero.statistics.closed_at == one.statistics.opened_at == two.statistics.opened_at == created_at + 2 * SECOND
    assert one.statistics.closed_at == three.statistics.opened_at == created_at + 4 * SECOND
    assert two.statistics.closed_at == three.statistics.closed_at == created_at + 6 * SECOND
    assert four.statistics.closed_at is None
    assert zero.average is not None
    assert zero.average.records_per_second == 20
    assert four.recent is not None
    assert four.recent.records_per_second == 2.5
    assert zero.recent is None
    assert lineage.ends_at == created_at + 7 * SECOND


def test_shards_of_a_disabled_stream_closed_when_it_was_disabled(store: Path) -> None:
    """A shard without children tells when it closed, too."""
    with stream_with_history(store) as (stream, clock):
        clock.advance(5 * SECOND)
        with shardlog.open(store, clock=clock) as again:
            again.disable_stream(NAME)
        clock.advance(5 * SECOND)
        lineage = read_lineage(stream)
        assert lineage.nodes[-1].statistics.closed_at == stream.describe().created_at + 13 * SECOND
    assert lineage.open_count == 0
    assert all(node.recent is None for node in lineage.nodes)


def test_expired_parents_are_named_as_such(store: Path) -> None:
    """A shard whose parents have expired is a beginning, and a merge with one of them left hangs on that one."""
    with stream_with_history(store, retention=timedelta(hours=1)) as (stream, clock):
        roll_every = timedelta(minutes=10)
        while len(stream.describe().shards) > 1:
            clock.advance(roll_every)
            stream.append(changes(1))
            stream.expire(force=True)
        lineage = read_lineage(stream)
        assert lineage.records == stream.statistics().records == len(list(stream.read()))
    assert shapes(lineage) == ["● 4"]
    assert tree_lines(lineage)[1].endswith("merges 3 (expired) and 2 (expired)")
    assert tree_lines(lineage)[-1].endswith(f"records before {lineage.trim_horizon:,} have expired")
    assert lineage.is_trimmed


def test_records_of_a_shard_count_from_the_trim_horizon(store: Path) -> None:
    """What has expired of an open shard is no longer counted, and no longer in its average."""
    clock = ManualClock()
    with shardlog.open(store, clock=clock) as opened:
        stream = opened.create_stream("s", shards=3, retention=timedelta(hours=1))
        for hour in range(4):
            stream.append(changes(100, hour * 100))
            clock.advance(timedelta(minutes=45))
        stream.append(changes(10))
        trimmed = stream.expire(force=True)
        assert trimmed.segments
        lineage = read_lineage(stream)
        by_shard = [len(list(stream.read(shard_id=node.shard.shard_id))) for node in lineage.nodes]
    assert [node.statistics.records for node in lineage.nodes] == by_shard
    assert sum(by_shard) == lineage.records < 410
    assert lineage.horizon_time is not None
    for node in lineage.nodes:
        assert node.average is not None
        seconds = (lineage.ends_at - lineage.horizon_time).total_seconds()
        assert node.average.records_per_second == pytest.approx(node.statistics.records / seconds)


@pytest.mark.parametrize("seed", range(5))
def test_every_shard_is_drawn_once_below_its_parents(store: Path, seed: int) -> None:
    """Whatever splits, merges and roll-overs there were."""
    choices = random.Random(seed)
    with shardlog.open(store, clock=ManualClock()) as opened:
        stream = opened.create_stream("s", shards=choices.randint(1, 4))
        for _ in range(60):
            shards = [shard for shard in stream.describe().shards if shard.end_sequence is None]
            shards.sort(key=lambda shard: shard.hash_range)
            index = choices.randrange(len(shards))
            if choices.random() < 0.4:
                stream.split_shard(shards[index].shard_id)
            elif choices.random() < 0.3:
                stream.roll_shard(shards[index].shard_id)
            elif index:
                stream.merge_shards(shards[index - 1].shard_id, shards[index].shard_id)
        lineage = read_lineage(stream)
    drawn = [place.node.shard for place in drawing_order(lineage)]
    assert sorted(shard.shard_id for shard in drawn) == [node.shard.shard_id for node in lineage.nodes]
    above: set[str] = set()
    for shard in drawn:
        assert above.issuperset(shard.parent_ids)
        above.add(shard.shard_id)
    for line, below in pairwise(shapes(lineage)):
        assert len(below) - len(line) <= 2 + len(below.split()[-1])  # at most one fork deeper


def test_the_command_draws_and_tells_in_json(command: Command, store: Path) -> None:
    """The tree is the data; with --json the shards are, with parents, children, ranges and figures."""
    with stream_with_history(store):
        pass
    outcome = command("shards", store, NAME)
    assert (outcome.status, outcome.talk) == (0, "")
    summary, blank, *tree = outcome.data.splitlines()
    assert summary == "orders: 1 open and 4 closed shards, 125 records"
    assert blank == ""
    assert len(tree) == 7
    found = command("shards", store, NAME, "--json").json()
    assert (found["name"], found["records"], found["trim_horizon"]) == (NAME, 125, 1)
    zero, one, two, three, four = found["shards"]
    assert zero["children"] == [one["shard"], two["shard"]]
    assert four["parents"] == [three["shard"], two["shard"]]
    assert zero["hash_range"] == ["0", str(2**128)]
    assert (zero["first_sequence"], zero["end_sequence"], four["end_sequence"]) == (1, 41, None)
    assert sum(shard["records"] for shard in found["shards"]) == 125
    assert zero["average"]["records_per_second"] == 20
    assert zero["closed_at"] == one["opened_at"]
    assert four["closed_at"] is None


def test_a_stream_without_records_has_a_lineage(command: Command, store: Path) -> None:
    """Nothing divides by the records that are not there."""
    command("create", store, "s", "--shards", 2)
    outcome = command("shards", store, "s")
    assert outcome.status == 0
    assert outcome.data.startswith("s: 2 open and 0 closed shards, 0 records\n")

"""`shardlog demo --shards`, and what it proves."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
from tests.tools.changes import as_bytes, made_up_lines
from tests.tools.commands import Outcome
from tests.tools.lineages import stream_with_history

from shardlog import Change
from shardlog.format.record import Record
from shardlog.model import ShardDescription
from shardlog.stream.sampling import hash_of
from shardlog_tools import demo_shards
from shardlog_tools.demo_load import FileLoad, HotSpots
from shardlog_tools.demo_shards_proof import compare, count_disordered, records_of, records_shard_by_shard

Command = Callable[..., Outcome]
Thread = list[tuple[int, Change]]


@dataclass
class Line:
    """What the proof looks at of an insertion."""

    sequence: int
    shard_id: str
    keys: dict[str, Any]
    event: str = "INSERT"
    old_image: None = None

    @property
    def new_image(self) -> dict[str, Any]:
        return self.keys


class History:
    """A stream with splits and merges, read in both ways, and what was acknowledged."""

    def __init__(self, store: Path) -> None:
        with stream_with_history(store) as (stream, _):
            self.readings = [list(records_of(stream)), list(records_shard_by_shard(stream))]
            self.shards: tuple[ShardDescription, ...] = stream.describe().shards
        self.acknowledged: Thread = [
            (record.sequence, Change.insert(keys=record.keys, new=record.new_image)) for record in self.readings[0]
        ]

    def compared(self, records: list[Record], acknowledged: Thread | None = None) -> tuple[int, ...]:
        """Missing, wrong, out of order, in a wrong shard."""
        threads = [self.acknowledged if acknowledged is None else acknowledged]
        found = compare(records, threads, self.shards, "id")
        assert found.is_right is not any((found.missing, found.wrong, found.out_of_order, found.misplaced))
        return found.missing, found.wrong, found.out_of_order, found.misplaced


@pytest.fixture
def history(store: Path) -> History:
    """One such stream."""
    return History(store)


def test_the_proof_accepts_both_readings(history: History) -> None:
    """Shard by shard gives the same records as the whole, in another order."""
    whole, by_shard = history.readings
    assert sorted(record.sequence for record in by_shard) == [record.sequence for record in whole]
    assert by_shard != whole
    assert [history.compared(reading) for reading in history.readings] == [(0, 0, 0, 0)] * 2


def test_the_proof_sees_what_is_missing_or_too_much(history: History) -> None:
    """One record less, one twice, one that nobody appended, one with another content."""
    whole = history.readings[0]
    assert history.compared(whole[:-1]) == (1, 0, 0, 0)
    assert history.compared([*whole, whole[3]]) == (0, 1, 0, 0)
    assert history.compared(whole, history.acknowledged[1:]) == (0, 1, 0, 0)
    other = [(sequence, Change.remove(keys=change.keys)) for sequence, change in history.acknowledged[:1]]
    assert history.compared(whole, other + history.acknowledged[1:]) == (0, 1, 0, 0)


def test_the_proof_sees_what_is_out_of_order(history: History) -> None:
    """Two changes of one item that come the other way round, when read or when acknowledged."""
    last = history.readings[0][-5:]
    keys = last[0].keys
    records = [cast("Record", Line(record.sequence, record.shard_id, keys)) for record in last]
    acknowledged = [(record.sequence, Change.insert(keys=keys, new=keys)) for record in last]
    assert history.compared(records, acknowledged) == (0, 0, 0, 0)
    assert history.compared([*records[1:], records[0]], acknowledged) == (0, 0, 1, 0)
    assert count_disordered([acknowledged]) == 0
    assert count_disordered([[*acknowledged[1:], acknowledged[0]]]) == 1


def test_the_proof_sees_a_record_in_a_wrong_shard(history: History) -> None:
    """A record belongs to the shard that owned its key's hash at its sequence number."""
    narrow = [replace(shard, hash_range=(0, 1)) if not shard.parent_ids else shard for shard in history.shards]
    assert compare(history.readings[0], [history.acknowledged], narrow, "id").misplaced == 40
    early = [replace(shard, end_sequence=11) if not shard.parent_ids else shard for shard in history.shards]
    assert compare(history.readings[0], [history.acknowledged], early, "id").misplaced == 30


def test_hot_spots_take_most_of_the_changes() -> None:
    """In each phase most changes are within its range or of its key; threads share no item."""
    load = HotSpots(seed=3, threads=2)
    threads = [load.changes(0), load.changes(1)]
    for phase in load.phases:
        load.phase = phase
        drawn = [list(islice(changes, 500)) for changes in threads]
        hot = [
            change
            for change in drawn[0] + drawn[1]
            if phase.key in (None, change.keys["item"])
            and phase.hash_range[0] <= hash_of(change.keys["item"]) < phase.hash_range[1]
        ]
        assert len(hot) > (600 if phase.key is None else 300)
        assert not {change.keys["item"] for change in drawn[0]} & {change.keys["item"] for change in drawn[1]}
    assert load.phases[-1].key is not None


def test_a_file_gives_each_item_to_one_thread_in_its_order(tmp_path: Path) -> None:
    """All of the file's changes are there, and each item's are in the order of the file."""
    lines = made_up_lines(1500, seed=4)
    path = tmp_path / "changes.jsonl"
    path.write_bytes(as_bytes(lines))
    load = FileLoad(str(path), threads=3)
    by_item: dict[str, list[Any]] = {}
    for thread in range(3):
        mine: dict[str, list[Any]] = {}
        for change in load.changes(thread):
            mine.setdefault(json.dumps(change.keys), []).append((change.event, change.new))
        assert not mine.keys() & by_item.keys()
        by_item |= mine
    expected: dict[str, list[Any]] = {}
    for line in lines:
        expected.setdefault(json.dumps(line["keys"]), []).append((line["event"], line["new"]))
    assert by_item == expected
    assert sum(load.rates(2.0)) == pytest.approx(1500 * 0.96 / 2)


def test_shards_follow_the_load_and_come_back(command: Command, tmp_path: Path) -> None:
    """One shard becomes several and one again; nothing is lost or reordered; the tree and the picture show it."""
    outcome = command(
        *("demo", "--shards", "--seconds", "1.6", "--seed", 7, "--svg", tmp_path / "s.svg", "--dir", tmp_path / "d")
    )
    assert outcome.status == 0, outcome.data + outcome.talk
    assert outcome.talk == ""
    for words in ("split  0 -> 1, 2 at", "merge  ", "the load ends", "1 open shard", "0 missing, 0 wrong"):
        assert words in outcome.data
    assert "Nothing is lost, every item is in order." in outcome.data
    lineage = command("shards", tmp_path / "d" / "store", "load", "--json").json()
    assert sum(shard["end_sequence"] is None for shard in lineage["shards"]) == 1
    tree = [line for line in outcome.data.splitlines() if "●" in line.split("█")[0] or "○" in line.split("█")[0]]
    assert len(tree) == len(lineage["shards"]) + 1  # and the legend
    picture = ET.parse(tmp_path / "s.svg").getroot()
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}g"))) == len(lineage["shards"])


def test_a_file_as_the_load(command: Command, tmp_path: Path) -> None:
    """Its changes are proven the same way; the figures are the data with --json."""
    path = tmp_path / "changes.jsonl"
    path.write_bytes(as_bytes(made_up_lines(3000, seed=2)))
    outcome = command("demo", "--shards", "--seconds", "0.8", "--input", path, "--json")
    assert outcome.status == 0, outcome.talk
    figures = outcome.json()
    assert figures["passed"]
    assert 2000 < figures["records"] == figures["found"] <= 3000
    assert (figures["missing"], figures["wrong"], figures["out_of_order"], figures["misplaced"]) == (0, 0, 0, 0)
    assert figures["items"] == 50
    assert figures["seed"] is None


def test_the_demo_fails_where_something_is_lost(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof is not for show."""
    original = demo_shards.records_shard_by_shard
    monkeypatch.setattr(demo_shards, "records_shard_by_shard", lambda stream: islice(original(stream), 1, None))
    path = tmp_path / "changes.jsonl"
    path.write_bytes(as_bytes(made_up_lines(1000, seed=2)))
    outcome = command("demo", "--shards", "--seconds", "0.3", "--input", path)
    assert outcome.status == 1
    assert "FAILED" in outcome.data


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"{}\n", ":1: event: expected"), (as_bytes(made_up_lines(10, seed=1)), "expected at least 1,000 changes")],
)
def test_a_file_that_is_no_load(command: Command, tmp_path: Path, content: bytes, text: str) -> None:
    """A failure that names the file, and the line."""
    path = tmp_path / "changes.jsonl"
    path.write_bytes(content)
    outcome = command("demo", "--shards", "--input", path)
    assert outcome.status == 1
    assert str(path) in outcome.talk
    assert text in outcome.talk


def test_options_of_the_other_demo(command: Command) -> None:
    """--input and --svg mean nothing without --shards."""
    outcome = command("demo", "--svg", "x.svg")
    assert outcome.status == 2
    assert "expected with --shards" in outcome.talk

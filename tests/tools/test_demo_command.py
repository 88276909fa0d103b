from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
from tests.tools.commands import Outcome, run_process
from tests.tools.consumed import append

import shardlog
from shardlog.format.record import Record
from shardlog_tools import demo
from shardlog_tools.demo_changes import appends
from shardlog_tools.demo_consumers import share_and_take_over
from shardlog_tools.demo_proof import compare, items_after, replay
from shardlog_tools.demo_worker import RECORDS_MAX

Command = Callable[..., Outcome]
SEED = 5


@dataclass
class Line:
    """What the proof looks at of a record."""

    sequence: int
    event: str
    keys: dict[str, Any]
    new_image: dict[str, Any] | None
    old_image: dict[str, Any] | None


def made_up_log() -> tuple[list[Line], dict[int, list[list[int]]]]:
    """Ten appends of each of two threads in turn, and what was acknowledged."""
    records: list[Line] = []
    acknowledged: dict[int, list[list[int]]] = {0: [], 1: []}
    streams = [appends(SEED, 0), appends(SEED, 1)]
    for turn in range(20):
        changes = next(streams[turn % 2])
        first = len(records) + 1
        acknowledged[turn % 2].append(list(range(first, first + len(changes))))
        records += [
            Line(first + index, change.event, change.keys, change.new, change.old)
            for index, change in enumerate(changes)
        ]
    return records, acknowledged


def compared(records: list[Line], acknowledged: dict[int, list[list[int]]]) -> tuple[int, int, int, int]:
    """Found, missing, wrong, and whole though not acknowledged."""
    comparison = compare(cast("list[Record]", records), acknowledged, SEED)
    assert comparison.records == len(records)
    return comparison.found, comparison.missing, comparison.wrong, comparison.in_flight_whole


def test_the_proof_accepts_what_is_right() -> None:
    """Everything acknowledged is found, and replaying it gives the items that the changes lead to."""
    records, acknowledged = made_up_log()
    assert compared(records, acknowledged) == (len(records), 0, 0, 0)
    items, mismatches = replay(cast("list[Record]", records))
    assert (items, mismatches) == (items_after({0: 10, 1: 10}, SEED), 0)


def test_the_proof_accepts_an_append_under_way_only_whole() -> None:
    """An append nobody acknowledged may be there, all of it."""
    records, acknowledged = made_up_log()
    last = acknowledged[1].pop()
    assert compared(records, acknowledged) == (len(records) - len(last), 0, 0, 1)
    assert compared(records[: -len(last)], acknowledged) == (len(records) - len(last), 0, 0, 0)
    assert len(last) > 1
    assert compared(records[:-1], acknowledged)[2] == len(last) - 1


def test_the_proof_sees_what_is_missing() -> None:
    """One record of one append is enough."""
    records, acknowledged = made_up_log()
    for index in (0, 17, len(records) - 1):
        found, missing, wrong, _ = compared(records[:index] + records[index + 1 :], acknowledged)
        assert (found, missing, wrong) == (len(records) - 1, 1, 0)
    empty = compared([], acknowledged)
    assert empty == (0, len(records), 0, 0)


@pytest.mark.parametrize("name", ["event", "keys", "new_image", "old_image"])
def test_the_proof_sees_what_is_wrong(name: str) -> None:
    """A record under its number with another content is not found."""
    records, acknowledged = made_up_log()
    setattr(records[10], name, {"sku": "0-x"})
    assert compared(records, acknowledged)[:3] == (len(records) - 1, 0, 1)


def test_the_proof_sees_records_twice_or_from_nowhere() -> None:
    """A record more than was appended is wrong."""
    records, acknowledged = made_up_log()
    again = Line(10**6, *(getattr(records[3], name) for name in ("event", "keys", "new_image", "old_image")))
    assert compared([*records, again], acknowledged)[2] == 1


def test_changes_are_the_same_for_a_seed_and_agree_with_each_other() -> None:
    """What is made again is what was made; threads do not share items."""
    first = [change for changes in islice(appends(1, 0), 50) for change in changes]
    assert first == [change for changes in islice(appends(1, 0), 50) for change in changes]
    assert first != [change for changes in islice(appends(2, 0), 50) for change in changes]
    other = [change for changes in islice(appends(1, 1), 50) for change in changes]
    assert not {change.keys["sku"] for change in first} & {change.keys["sku"] for change in other}


def test_the_demo_passes(command: Command) -> None:
    """It kills a process that captures changes, and finds every acknowledged record again."""
    outcome = command("demo", "--seconds", "0.3", "--threads", 3, "--seed", 7, "--json")
    assert outcome.status == 0, outcome.talk
    figures = outcome.json()
    assert figures["passed"]
    assert figures["seed"] == 7
    assert 0 < figures["acknowledged"] == figures["found"] <= figures["records"]
    assert (figures["missing"], figures["wrong"], figures["old_image_mismatches"]) == (0, 0, 0)
    assert (figures["consumed"], figures["lag"]) == (figures["records"], 0)
    assert figures["consumed_twice"] <= RECORDS_MAX


def test_the_demo_tells_a_story_and_may_keep_its_store(store: Path) -> None:
    """The summary is on stdout, with the seed; a kept store can be read."""
    outcome = run_process("demo", "--seconds", "0.2", "--dir", store)
    assert outcome.status == 0, outcome.talk
    assert "(seed " in outcome.data
    assert "Nothing that was acknowledged is lost." in outcome.data
    assert re.search(r"worker-1 has shards \d, \d, worker-2 has shards \d, \d; [\d,]+ records behind", outcome.data)
    assert "SIGKILL for worker-2" in outcome.data
    assert "worker-1 has shards 0, 1, 2, 3, worker-2 has none" in outcome.data
    assert outcome.talk == ""
    lines = run_process("cat", store / "store", "stock", "--limit", "3").json_lines()
    assert len(lines) == 3
    again = run_process("demo", "--dir", store)
    assert again.status == 1
    assert "expected a new or empty directory" in again.talk


def test_the_demo_fails_where_a_record_is_not_consumed(store: Path) -> None:
    """Lag 0 is not enough: every record has to have been handled."""
    append(store, 0, 2000, shards=4)
    told: list[str] = []
    with shardlog.open(store) as opened:
        stream = opened.stream("s")
        assert not share_and_take_over(str(store), stream, 2001, told.append)["passed"]
    assert "2,000 of 2,001 records handled" in told[-1]


def test_the_demo_fails_where_something_is_lost(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is not for show: leave one record out, and the status is 1."""
    original = demo._records

    def losing(stream: Any) -> Any:
        return islice(original(stream), 1, None)

    monkeypatch.setattr(demo, "_records", losing)
    outcome = command("demo", "--seconds", "0.2")
    assert outcome.status == 1
    assert "FAILED" in outcome.data

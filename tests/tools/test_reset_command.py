"""`shardlog reset` and `shardlog delete-group`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.tools.commands import Outcome
from tests.tools.consumed import append, group_of

import shardlog
from shardlog import InvalidArgument, LeaseLost

Command = Callable[..., Outcome]
GROUP = ("--group", "g")


class Terminal(io.StringIO):
    """A terminal at which something was typed."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def consumed(command: Command, store: Path) -> list[int]:
    """Ten records, all checkpointed by group g."""
    sequences = append(store, 0, 10)
    assert command("consume", store, "s", *GROUP, "--until-drained", "--exec", "true").status == 0
    return sequences


def lag_of(store: Path) -> int:
    with group_of(store, "g") as group:
        return group.lag().records


def test_every_kind_of_position(command: Command, store: Path, consumed: list[int]) -> None:
    """The group goes on where it was told to: horizon, end, number, time."""
    with shardlog.open(store) as opened:
        created_at = next(iter(opened.stream("s").read())).created_at
    later = created_at + timedelta(hours=1)
    places = {"TRIM_HORIZON": 10, "LATEST": 0, consumed[4]: 6, created_at.isoformat(): 10, later.isoformat(): 0}
    for place, records in places.items():
        outcome = command("reset", store, "s", *GROUP, "--to", place, "--yes", "--json")
        assert outcome.status == 0, outcome.talk
        assert outcome.json()["records"] == records == lag_of(store), place
    assert command("reset", store, "s", *GROUP, "--to", consumed[4], "--yes").status == 0
    lines = command("consume", store, "s", *GROUP, "--until-drained").json_lines()
    assert [line["sequence"] for line in lines] == consumed[4:]


def test_it_tells_what_it_did(command: Command, store: Path, consumed: list[int]) -> None:
    """Where it begins, and how far behind it is and was."""
    outcome = command("reset", store, "s", *GROUP, "--to", consumed[9], "--yes")
    assert outcome.data == ""
    assert f"group g of s begins anew at sequence number {consumed[9]}: 1 record behind, the oldest " in outcome.talk
    assert "(it was: nothing behind)" in outcome.talk


def test_a_position_that_would_skip_what_is_to_come(command: Command, store: Path, consumed: list[int]) -> None:
    """A number beyond the next is a mistake: the group would silently leave out records. Also where a group is made."""
    outcome = command("reset", store, "s", *GROUP, "--to", consumed[-1] + 1000, "--yes")
    assert outcome.status == 1
    assert "start: expected at most" in outcome.talk
    with shardlog.open(store) as opened:
        stream = opened.stream("s")
        with pytest.raises(InvalidArgument, match="start: expected at most"):
            stream.group("new", start=consumed[-1] + 1000)
        assert stream.groups() == ["g"]
        assert stream.group("next", start=stream.next_sequence).start == stream.next_sequence


def test_a_running_worker_loses_its_lease(command: Command, store: Path, consumed: list[int]) -> None:
    """A batch from before the reset cannot move the new checkpoint; the same worker goes on at the new place."""
    append(store, 10, 5)
    with group_of(store, "g") as group, group.worker("w") as worker:
        batches = iter(worker.batches(wait=timedelta(0)))
        batch = next(batches)
        assert command("reset", store, "s", *GROUP, "--to", "TRIM_HORIZON", "--yes").status == 0
        with pytest.raises(LeaseLost):
            batch.checkpoint()
        assert next(batches).records[0].sequence == consumed[0]


@pytest.mark.parametrize("words", [("reset", "--to", "LATEST"), ("delete-group",)])
def test_it_asks_first(
    command: Command, store: Path, consumed: list[int], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Without --yes: nobody to ask is wrong use; another answer than the group's name changes nothing."""
    append(store, 10, 5)
    name, *options = words
    monkeypatch.setattr(sys, "stdin", io.StringIO("g\n"))
    outcome = command(name, store, "s", *GROUP, *options)
    assert outcome.status == 2
    assert "say --yes" in outcome.talk
    monkeypatch.setattr(sys, "stdin", Terminal("no\n"))
    outcome = command(name, store, "s", *GROUP, *options)
    assert outcome.status == 1
    assert "(0 workers running, 5 records behind" in outcome.talk
    assert "not confirmed" in outcome.talk
    assert lag_of(store) == 5
    monkeypatch.setattr(sys, "stdin", Terminal("g\n"))
    assert command(name, store, "s", *GROUP, *options).status == 0
    found = command("groups", store, "s", "--json").json()["groups"]
    assert [group["records"] for group in found] == ([0] if name == "reset" else [])


@pytest.mark.parametrize("words", [("reset", "--to", "LATEST"), ("delete-group",)])
def test_a_group_that_is_not_there(command: Command, store: Path, words: tuple[str, ...]) -> None:
    """An error, and no group is made of a mistyped name."""
    append(store, 0, 3)
    name, *options = words
    outcome = command(name, store, "s", *GROUP, *options, "--yes")
    assert outcome.status == 1
    assert "group 'g' not found" in outcome.talk
    assert command("groups", store, "s", "--json").json()["groups"] == []


def test_a_deleted_group_is_forgotten(command: Command, store: Path, consumed: list[int]) -> None:
    """Made anew under its name, it begins at the horizon."""
    assert command("delete-group", store, "s", *GROUP, "--yes", "--json").json() == {"deleted": "g"}
    lines = command("consume", store, "s", *GROUP, "--until-drained").json_lines()
    assert [line["sequence"] for line in lines] == consumed


def test_wrong_use(command: Command, store: Path) -> None:
    """Exit status 2 without a group, a position, or with one that is none."""
    for words in (("reset", store, "s", *GROUP), ("reset", store, "s", "--to", "LATEST"), ("delete-group", store, "s")):
        assert command(*words, "--yes").status == 2
    assert command("reset", store, "s", *GROUP, "--to", "soon", "--yes").status == 2

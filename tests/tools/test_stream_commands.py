"""create, stat, disable and delete."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tools.commands import Outcome

import shardlog
from shardlog import Change

Command = Callable[..., Outcome]


def test_create_passes_every_option_on(command: Command, store: Path) -> None:
    """What was asked for is what the stream is."""
    outcome = command(
        "create",
        *(store, "s", "--view-type", "NEW_IMAGE", "--shards", 3, "--retention", "7d", "--durability", "os"),
        *("--key", "a", "--key", "b", "--partition-key", "a", "--json"),
    )
    assert outcome.status == 0
    description = outcome.json()
    assert description["view_type"] == "NEW_IMAGE"
    assert len(description["shards"]) == 3
    assert description["retention_seconds"] == 7 * 86400
    assert description["durability"] == "os"
    assert description["key_names"] == ["a", "b"]
    assert description["partition_key"] == "a"
    ends = [tuple(map(int, shard["hash_range"])) for shard in description["shards"]]
    assert (ends[0][0], ends[-1][1]) == (0, 2**128)


def test_create_defaults(command: Command, store: Path) -> None:
    """Without options: new and old images, one shard, 24 hours, durable against power loss."""
    outcome = command("create", store, "s")
    assert (outcome.status, outcome.data) == (0, "")
    assert outcome.talk == (
        f"created stream s in {store}: NEW_AND_OLD_IMAGES, 1 shard, durability fsync, retention 24h\n"
    )


def test_retention_for_ever(command: Command, store: Path) -> None:
    """`forever` is null in JSON."""
    assert command("create", store, "s", "--retention", "forever", "--json").json()["retention_seconds"] is None


@pytest.mark.parametrize("name", ["a/b", "", "é", "x" * 256])
def test_a_name_that_streams_cannot_have(command: Command, store: Path, name: str) -> None:
    """The engine's refusal, on one line."""
    outcome = command("create", store, name)
    assert outcome.status == 1
    assert outcome.talk.startswith("shardlog: stream name: expected")
    assert outcome.talk.count("\n") == 1


def test_a_stream_is_not_made_twice(command: Command, store: Path) -> None:
    """An existing stream is an error."""
    command("create", store, "s")
    outcome = command("create", store, "s", "--json")
    assert outcome.status == 1
    assert '"error": "StreamExists"' in outcome.talk


def test_stat_of_a_store(command: Command, store: Path) -> None:
    """A line for each stream, and which implementation computes checksums."""
    command("create", store, "first")
    command("create", store, "second", "--shards", 2)
    with shardlog.open(store) as opened:
        opened.stream("first").append([Change.insert(keys={"a": n}, new={"a": n}) for n in range(1234)])
    outcome = command("stat", store)
    assert outcome.status == 0
    heading, first, second, checksums = outcome.data.splitlines()
    assert heading.split()[:2] == ["STREAM", "LABEL"]
    assert first.split()[0] == "first"
    assert "1,234" in first
    assert second.split()[3:5] == ["2", "0"]
    assert checksums.startswith("checksums: CRC-32C by ")
    found = command("stat", store, "--json").json()
    assert found["checksum"] == checksums.removeprefix("checksums: CRC-32C by ")
    assert [stream["records"] for stream in found["streams"]] == [1234, 0]


def test_stat_of_a_stream(command: Command, store: Path) -> None:
    """Its figures and shards."""
    command("create", store, "s", "--shards", 2, "--key", "a", "--retention", "90s")
    with shardlog.open(store) as opened:
        opened.stream("s").append([Change.insert(keys={"a": n}, new={"a": n}) for n in range(10)])
    outcome = command("stat", store, "s")
    assert outcome.status == 0
    figures = dict(line.split(":", 1) for line in outcome.data.splitlines() if not line.startswith("shard:"))
    assert figures["records"].strip() == "10"
    assert figures["retention"].strip() == "90s"
    assert figures["durability"].strip() == "fsync"
    assert figures["keys"].strip() == "a"
    assert outcome.data.count("shard:") == 2
    found = command("stat", store, "s", "--json").json()
    assert (found["records"], found["trim_horizon"], found["next_sequence"]) == (10, 1, 11)
    assert found["durable_sequence"] == 11
    assert found["segments"] == 1
    assert found["bytes"] > 0
    assert found["first_time"] == found["last_time"]


def test_stat_of_an_empty_store(command: Command, store: Path) -> None:
    """No streams is no error."""
    with shardlog.open(store):
        pass
    assert command("stat", store).data.splitlines()[0] == "no streams"
    assert command("stat", store, "--json").json()["streams"] == []


def test_stat_while_others_append(command: Command, store: Path) -> None:
    """A store in use can be looked at."""
    with shardlog.open(store) as opened:
        opened.create_stream("s").append([Change.insert(keys={"a": 1}, new={"a": 1})])
        assert command("stat", store, "s", "--json").json()["records"] == 1


def test_disable(command: Command, store: Path) -> None:
    """The stream stays, readable and DISABLED."""
    command("create", store, "s")
    with shardlog.open(store) as opened:
        opened.stream("s").append([Change.insert(keys={"a": 1}, new={"a": 1})])
    outcome = command("disable", store, "s", "--json")
    assert outcome.status == 0
    assert outcome.json()["status"] == "DISABLED"
    assert len(command("cat", store, "s").json_lines()) == 1


def test_delete_needs_a_yes(command: Command, store: Path, stdin: Callable[[bytes], None]) -> None:
    """Where there is no terminal to ask on, only --yes deletes."""
    command("create", store, "s")
    stdin(b"s\n")
    outcome = command("delete", store, "s")
    assert outcome.status == 2
    assert "--yes" in outcome.talk
    assert len(command("stat", store, "--json").json()["streams"]) == 1
    outcome = command("delete", store, "s", "--yes", "--json")
    assert (outcome.status, outcome.json()) == (0, {"deleted": "s", "records": 0})
    assert command("stat", store, "--json").json()["streams"] == []


@pytest.mark.parametrize(("answer", "status", "left"), [("s\n", 0, 0), ("y\n", 1, 1), ("", 1, 1)])
def test_delete_asks_on_a_terminal(
    command: Command, store: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int, left: int
) -> None:
    """The stream's name is the only answer that deletes."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    command("create", store, "s")
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    outcome = command("delete", store, "s")
    assert outcome.status == status
    assert "Type the stream's name to confirm" in outcome.talk
    assert len(command("stat", store, "--json").json()["streams"]) == left


@pytest.mark.parametrize("words", [("delete", "t", "--yes"), ("disable", "t"), ("cat", "t"), ("stat", "t")])
def test_a_stream_that_is_not_there(command: Command, store: Path, words: tuple[str, ...]) -> None:
    """Every command says so on one line."""
    command("create", store, "s")
    outcome = command(words[0], store, *words[1:], "--json")
    assert outcome.status == 1
    assert '"error": "StreamNotFound"' in outcome.talk

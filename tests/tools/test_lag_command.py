"""`shardlog lag`: how far behind a group is."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from tests.tools.commands import Outcome, command_of
from tests.tools.consumed import append, group_of, running

Command = Callable[..., Outcome]
GROUP = ("--group", "g")
LINES_MAX = 500


def test_lag_per_shard_and_in_all(command: Command, store: Path) -> None:
    """What was checkpointed does not count; shards add up to the total."""
    append(store, 0, 40, shards=2)
    with group_of(store, "g") as group, group.worker("w") as worker:
        batch = next(iter(worker.batches(max_records=5)))
        batch.checkpoint()
        checkpoint = batch.records[-1].sequence
        found = command("lag", store, "s", *GROUP, "--json").json()
        assert found["group"] == "g"
        assert found["records"] == 35 == sum(shard["records"] for shard in found["shards"])
        assert found["age_seconds"] == max(shard["age_seconds"] for shard in found["shards"]) > 0
        assert {shard["shard"]: shard["checkpoint"] for shard in found["shards"]}[batch.shard_id] == checkpoint
        assert {shard["owner"] for shard in found["shards"]} == {"w"}
        lines = command("lag", store, "s", *GROUP).data.splitlines()
    assert lines[0].split() == ["SHARD", "WORKER", "CHECKPOINT", "BEHIND", "OLDEST"]
    assert lines[-1].split()[:3] == ["in", "all", "35"]
    assert len(lines) == 4


def test_no_lag(command: Command, store: Path) -> None:
    """Nothing behind, no age."""
    append(store, 0, 3)
    assert command("consume", store, "s", *GROUP, "--until-drained", "--exec", "true").status == 0
    found = command("lag", store, "s", *GROUP, "--json").json()
    assert (found["records"], found["age_seconds"]) == (0, 0.0)
    assert command("lag", store, "s", *GROUP).data.splitlines()[-1].split() == ["in", "all", "0", "-"]


def test_a_group_that_is_not_there(command: Command, store: Path) -> None:
    """An error that names those that are; and it is not made by asking."""
    append(store, 0, 3)
    outcome = command("lag", store, "s", *GROUP)
    assert outcome.status == 1
    assert "group 'g' not found; it has no groups yet" in outcome.talk
    with group_of(store, "other"):
        pass
    for follow in ((), ("--follow",)):
        outcome = command("lag", store, "s", *GROUP, *follow)
        assert outcome.status == 1
        assert "expected one of its groups (other), found 'g'" in outcome.talk
    assert [group["group"] for group in command("groups", store, "s", "--json").json()["groups"]] == ["other"]


@pytest.mark.parametrize("words", [(), (*GROUP, "--interval", "0s"), (*GROUP, "--interval", "forever")])
def test_wrong_use(command: Command, store: Path, words: tuple[str, ...]) -> None:
    """Exit status 2."""
    assert command("lag", store, "s", *words).status == 2


@pytest.mark.parametrize("as_json", [False, True])
def test_following(store: Path, as_json: bool) -> None:
    """A line each time, with what came in between, until interrupted."""
    append(store, 0, 3, shards=2)
    with group_of(store, "g"):
        pass
    words = ("lag", store, "s", *GROUP, "--follow", "--interval", "20ms", *(["--json"] if as_json else []))

    def records(line: bytes) -> int:
        if not as_json:
            return int(line.split()[1])
        found = json.loads(line)
        assert datetime.fromisoformat(found["time"]).tzinfo is not None
        return int(found["records"])

    with running(command_of(*words)) as process:
        assert process.stdout is not None
        assert records(process.stdout.readline()) == 3
        append(store, 3, 4)
        counts = (records(process.stdout.readline()) for _ in range(LINES_MAX))
        assert next(count for count in counts if count != 3) == 7
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""

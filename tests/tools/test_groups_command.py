"""`shardlog groups`, and what `stat` tells of groups."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.background import wait_until
from tests.tools.commands import Outcome, command_of
from tests.tools.consumed import append, group_of, running

from shardlog_tools.group_figures import age_words

Command = Callable[..., Outcome]


def consume_all(command: Command, store: Path, group: str) -> None:
    assert command("consume", store, "s", "--group", group, "--until-drained", "--exec", "true").status == 0


def test_no_groups(command: Command, store: Path) -> None:
    """Said as such, with what makes one; looking makes nothing."""
    append(store, 0, 1)
    outcome = command("groups", store, "s")
    assert outcome.status == 0
    assert outcome.data == f"no groups; `shardlog consume {store} s --group NAME` makes one\n"
    assert command("groups", store, "s", "--json").json() == {"stream": "s", "groups": []}
    assert not list(store.rglob("consumers"))


def test_groups_with_their_lag(command: Command, store: Path) -> None:
    """Each group with its start, leases and lag, by name."""
    append(store, 0, 20, shards=2)
    consume_all(command, store, "b")
    append(store, 20, 5)
    assert command("consume", store, "s", "--group", "a", "--from", "LATEST", "--until-drained").data == ""
    lines = [line.split() for line in command("groups", store, "s").data.splitlines()]
    assert lines[0] == ["GROUP", "START", "WORKERS", "LEASES", "BEHIND", "OLDEST"]
    assert [lines[1][index] for index in (0, 2, -2, -1)] == ["a", "0", "0", "-"]
    assert [lines[3][index] for index in (0, 2, -3)] == ["b", "0", "5"]
    assert lines[2][:3] == lines[4][:3] == ["held", "by", "nobody:"]
    found = command("groups", store, "s", "--json").json()["groups"]
    assert [(group["group"], group["records"]) for group in found] == [("a", 0), ("b", 5)]
    assert found[0]["start"] > found[1]["start"]
    assert found[1]["age_seconds"] > 0
    assert len(found[1]["leases"]) == 2
    assert all(isinstance(lease["checkpoint"], int) for lease in found[1]["leases"])


def test_workers_and_who_was_killed(command: Command, store: Path) -> None:
    """A worker is listed with its process and shards; one that was killed is told as gone."""
    append(store, 0, 4, shards=2)
    with group_of(store, "g") as group:
        words = command_of("consume", store, "s", "--group", "g", "--worker", "w", "--exec", "true")
        with running(words) as process:
            wait_until(lambda: not group.lag().records)
            outcome = command("groups", store, "s")
            assert f"  worker w (process {process.pid}): shards 0, 1\n" in outcome.data
            assert "2 of 2" in outcome.data
            [worker] = command("groups", store, "s", "--json").json()["groups"][0]["workers"]
            assert (worker["worker"], worker["process"], worker["alive"]) == ("w", process.pid, True)
            assert len(worker["shards"]) == 2
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert f"  worker w (process {process.pid} is gone): shards 0, 1\n" in command("groups", store, "s").data
    assert f"  worker w (process {process.pid} is gone): shards 0, 1\n" in command("groups", store, "s").data


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write where permissions say no; others cannot tell")
def test_looking_changes_nothing(command: Command, store: Path) -> None:
    """`groups` and `lag` open the store to read: no file changes, however often they are asked."""
    append(store, 0, 4)
    consume_all(command, store, "g")

    def state() -> dict[str, tuple[int, bytes]]:
        files = [path for path in store.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()[:4096]) for path in files}

    before = state()
    for words in (("groups", store, "s"), ("lag", store, "s", "--group", "g"), ("stat", store, "s")):
        assert command(*words).status == 0
    assert state() == before


def test_stat_tells_of_groups(command: Command, store: Path) -> None:
    """A line for each, and the same in JSON; none where there are none."""
    append(store, 0, 7)
    assert "group:" not in command("stat", store, "s").data
    consume_all(command, store, "g")
    append(store, 7, 1)
    assert "g: 0 workers, 1 lease, 1 record behind, the oldest " in command("stat", store, "s").data
    [group] = command("stat", store, "s", "--json").json()["groups"]
    assert (group["group"], group["records"]) == ("g", 1)


def test_stat_tells_the_rest_where_checkpoints_are_damaged(command: Command, store: Path) -> None:
    """Damage in the consumers' file is an error with a message; the stream's figures are there all the same."""
    append(store, 0, 7)
    consume_all(command, store, "g")
    [data] = store.rglob("consumers/data.mdb")
    data.write_bytes(b"\xff" * data.stat().st_size)
    outcome = command("stat", store, "s")
    assert outcome.status == 1
    assert "records:       7\n" in outcome.data
    assert "its groups: " in outcome.talk
    assert command("groups", store, "s").status == 1


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(milliseconds=340), "0.3 s"),
        (timedelta(seconds=250), "4m 10s"),
        (timedelta(hours=1, minutes=59, seconds=59), "1h 59m"),
        (timedelta(days=2, hours=3), "2d 3h"),
    ],
)
def test_ages_for_people(age: timedelta, words: str) -> None:
    """Two units at most."""
    assert age_words(age) == words

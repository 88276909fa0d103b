"""`shardlog consume`: batches for a command or for stdout, checkpointed when they were handled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.background import wait_until
from tests.tools.commands import Outcome, command_of
from tests.tools.consumed import append, group_of, running

from shardlog import Batch

Command = Callable[..., Outcome]
GROUP = ("--group", "g")


def ids_of(text: str) -> list[int]:
    """The items that JSON Lines are about, in order of their sequence numbers."""
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["keys"]["id"] for line in sorted(lines, key=lambda line: int(line["sequence"]))]


def lag_of(store: Path, group: str = "g") -> int:
    with group_of(store, group) as found:
        return found.lag().records


def test_a_command_gets_each_batch_as_cat_prints_it(command: Command, store: Path, tmp_path: Path) -> None:
    """All records of all shards reach the command's stdin, in the lines that `cat` prints."""
    append(store, 0, 100, shards=3)
    handled = tmp_path / "handled"
    outcome = command("consume", store, "s", *GROUP, "--until-drained", "--exec", f"cat >> {handled}")
    assert outcome.status == 0, outcome.talk
    assert outcome.data == ""
    assert "handled 100 records in 3 batches" in outcome.talk
    assert sorted(handled.read_text().splitlines()) == sorted(command("cat", store, "s").data.splitlines())
    assert lag_of(store) == 0


def test_a_command_is_told_what_the_batch_is_about(command: Command, store: Path, tmp_path: Path) -> None:
    """Stream, shard, and first and last sequence number are in its environment."""
    sequences = append(store, 0, 25)
    told = tmp_path / "told"
    words = "$SHARDLOG_STREAM $SHARDLOG_SHARD_ID $SHARDLOG_FIRST_SEQUENCE $SHARDLOG_LAST_SEQUENCE"
    outcome = command(
        *("consume", store, "s", *GROUP, "--until-drained", "--max-records", 10, "--exec", f"echo {words} >> {told}")
    )
    assert outcome.status == 0, outcome.talk
    shard = command("cat", store, "s", "--limit", 1).json()["shard"]
    ends = [(0, 9), (10, 19), (20, 24)]
    assert told.read_text().splitlines() == [f"s {shard} {sequences[i]} {sequences[j]}" for i, j in ends]


def test_a_command_need_not_read_its_stdin(command: Command, store: Path) -> None:
    """More than a pipe holds may be left unread: the exit status decides alone."""
    append(store, 0, 3000)
    words = ("consume", store, "s", *GROUP, "--until-drained", "--max-records", 3000, "--exec", "true", "--json")
    outcome = command(*words)
    assert outcome.status == 0, outcome.talk
    assert (outcome.json()["records"], outcome.json()["batches"]) == (3000, 1)
    assert lag_of(store) == 0


def test_a_command_that_fails_gets_the_batch_again(command: Command, store: Path, tmp_path: Path) -> None:
    """Two failures, then success: the batch is handled, and each failure was told."""
    append(store, 0, 5)
    tries = tmp_path / "tries"
    script = f"echo x >> {tries}; test $(wc -l < {tries}) -ge 3"
    outcome = command("consume", store, "s", *GROUP, "--until-drained", "--exec", script)
    assert outcome.status == 0, outcome.talk
    assert tries.read_text() == "x\nx\nx\n"
    assert "attempt 1 of 10 at records" in outcome.talk
    assert "attempt 2 of 10 at records" in outcome.talk
    assert "the command exited with 1" in outcome.talk
    assert lag_of(store) == 0


@pytest.mark.parametrize(
    ("script", "words"), [("exit 3", "exited with 3"), ("kill -KILL $$", "was ended by SIGKILL"), ("no-such", "127")]
)
def test_a_command_that_always_fails_ends_us(command: Command, store: Path, script: str, words: str) -> None:
    """After so many attempts: exit status 1, a message that says how it ended, and no checkpoint."""
    append(store, 0, 5)
    outcome = command("consume", store, "s", *GROUP, "--attempts", 2, "--exec", script, "--json")
    assert outcome.status == 1
    line, error = outcome.talk.splitlines()[-2:]
    assert line.startswith("shardlog: the command ")
    assert words in line
    assert "2 times at the same batch" in line
    assert json.loads(error)["error"] == "CommandFailed"
    with group_of(store, "g") as group:
        assert [lease.checkpoint for lease in group.leases()] == [None]
        assert [lease.owner for lease in group.leases()] == [None]


def test_without_a_command_lines_go_to_stdout(command: Command, store: Path) -> None:
    """They are what `cat` prints; the next run goes on behind them."""
    append(store, 0, 30)
    first = command("consume", store, "s", *GROUP, "--until-drained")
    assert first.status == 0
    assert first.data == command("cat", store, "s").data
    append(store, 30, 10)
    assert ids_of(command("consume", store, "s", *GROUP, "--until-drained").data) == list(range(30, 40))
    assert command("consume", store, "s", *GROUP, "--until-drained").data == ""


def test_what_could_not_be_written_is_not_checkpointed(store: Path) -> None:
    """A full disk behind stdout: failure, and the records come again."""
    append(store, 0, 3)  # so few that only a flush brings it out
    with open("/dev/full", "wb") as full:
        words = command_of("consume", store, "s", *GROUP, "--until-drained")
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=buffered, timeout=60, check=False)
    assert done.returncode == 1
    assert b"shardlog: " in done.stderr
    assert lag_of(store) == 3


def test_a_new_group_begins_where_it_is_told(command: Command, store: Path) -> None:
    """--from settles where a new group begins; for one that is there it is told that it does nothing."""
    sequences = append(store, 0, 10)
    words = ("consume", store, "s", *GROUP, "--until-drained", "--from", sequences[7])
    outcome = command(*words)
    assert ids_of(outcome.data) == [7, 8, 9]
    assert "which is new" in outcome.talk
    again = command(*words)
    assert again.data == ""
    assert "--from is for a new group" in again.talk


def test_a_name_that_is_taken(command: Command, store: Path) -> None:
    """Two workers of one name: the second fails, and says who has it."""
    append(store, 0, 1)
    with group_of(store, "g") as group, group.worker("w"):
        outcome = command("consume", store, "s", *GROUP, "--worker", "w")
    assert outcome.status == 1
    assert "worker 'w' of group 'g' runs already" in outcome.talk


@pytest.mark.parametrize("words", [("--worker", "a/b"), ("--group", "a b")])
def test_names_that_are_none(command: Command, store: Path, words: tuple[str, ...]) -> None:
    """Refused before a group is made."""
    append(store, 0, 1)
    outcome = command("consume", store, "s", *GROUP, *words)
    assert outcome.status == 1
    assert "expected a name of 1 to 128" in outcome.talk
    assert command("groups", store, "s", "--json").json()["groups"] == []


@pytest.mark.parametrize(
    "words", [(), (*GROUP, "--max-records", "0"), (*GROUP, "--wait", "forever"), (*GROUP, "--from", "soon")]
)
def test_wrong_use(command: Command, store: Path, words: tuple[str, ...]) -> None:
    """Exit status 2, and nothing done."""
    append(store, 0, 1)
    assert command("consume", store, "s", *words).status == 2
    assert command("groups", store, "s", "--json").json()["groups"] == []


def test_a_lost_lease_is_told_and_survived(
    command: Command, store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who lost its lease says so, and goes on: the batch comes again to whoever has the shard."""
    append(store, 0, 3)
    original, losses = Batch.checkpoint, []

    def losing(batch: Batch, sequence: int | None = None) -> None:
        if not losses:
            losses.append(batch)
            with group_of(store, "g") as group:
                group.reset("TRIM_HORIZON")
        original(batch, sequence)

    monkeypatch.setattr(Batch, "checkpoint", losing)
    handled = tmp_path / "handled"
    outcome = command("consume", store, "s", *GROUP, "--until-drained", "--exec", f"cat >> {handled}")
    assert outcome.status == 0, outcome.talk
    assert "expected the lease taken as number" in outcome.talk
    assert len(losses) == 1
    assert ids_of(handled.read_text()) == [0, 0, 1, 1, 2, 2]
    assert lag_of(store) == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopping_lets_the_batch_in_hand_finish(
    store: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    """SIGTERM and the first Ctrl-C: the command is not disturbed, its batch is checkpointed, and no other begins."""
    append(store, 0, 10)
    begun, go, done = tmp_path / "begun", tmp_path / "go", tmp_path / "done"
    script = f"cat > /dev/null; touch {begun}; until test -e {go}; do sleep 0.01; done; echo x >> {done}"
    words = command_of("consume", store, "s", *GROUP, "--max-records", 4, "--wait", "0s", "--exec", script)
    with running(words) as process:
        wait_until(begun.exists)
        os.killpg(process.pid, number)  # as a terminal does: to all that is in the foreground
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        go.touch()
        assert process.wait(60) == status
    assert done.read_text() == "x\n"
    assert lag_of(store) == 6


def test_a_second_interrupt_ends_the_command(store: Path, tmp_path: Path) -> None:
    """Ctrl-C twice: the command and what it started get SIGTERM, and its batch comes again."""
    append(store, 0, 10)
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    script = f"trap 'touch {ended}; exit 1' TERM; touch {begun}; while :; do sleep 0.01; done"
    with running(command_of("consume", store, "s", *GROUP, "--wait", "0s", "--exec", script)) as process:
        wait_until(begun.exists)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        while b"stopping after the batch in hand" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert ended.exists()
    assert lag_of(store) == 10


def test_a_worker_that_is_waiting_stops_at_once(store: Path) -> None:
    """SIGTERM while there is nothing to do: a clean end, and its leases are free."""
    append(store, 0, 1)
    with running(command_of("consume", store, "s", *GROUP, "--exec", "true")) as process, group_of(store, "g") as group:
        wait_until(lambda: any(lease.checkpoint for lease in group.leases()))
        process.terminate()
        assert process.wait(60) == 0
        assert {lease.owner for lease in group.leases()} == {None}
        assert group.workers() == []


def test_two_processes_share_the_shards_and_take_over(store: Path, tmp_path: Path) -> None:
    """Two run side by side with two shards each; one is killed, and what comes after is handled by the other."""
    append(store, 0, 50, shards=4)
    handled = tmp_path / "handled"

    def words(name: str) -> list[str]:
        options = ("--worker", name, "--wait", "0s", "--exec", f"cat >> {handled}")
        return command_of("consume", store, "s", *GROUP, *options)

    def owners(group: Any) -> list[str]:
        return sorted(str(lease.owner) for lease in group.leases())

    with group_of(store, "g") as group, running(words("a")) as first, running(words("b")):
        wait_until(lambda: owners(group) == ["a", "a", "b", "b"])
        first.kill()
        wait_until(lambda: owners(group) == ["b"] * 4)
        append(store, 50, 50)
        wait_until(lambda: group.lag().records == 0)
        assert [worker.name for worker in group.workers()] == ["b"]
    assert set(ids_of(handled.read_text())) == set(range(100))

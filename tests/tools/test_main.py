from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.tools.changes import as_bytes, made_up_lines
from tests.tools.commands import Outcome, command_of, run_process

import shardlog_tools.stat

Command = Callable[..., Outcome]
COMMANDS = (
    *("create", "import", "cat", "stat", "shards", "split", "merge", "roll", "set-sharding", "set-retention", "expire"),
    *("disable", "delete", "dump", "demo", "consume", "groups", "lag", "reset", "delete-group"),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command: Command, name: str) -> None:
    """`--help` prints to stdout, exits with 0, and every command takes --json."""
    outcome = command(name, "--help")
    assert outcome.status == 0
    assert "--json" in outcome.data
    assert not outcome.talk


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("nothing",),
        ("create", "store"),
        ("create", "store", "s", "--shards", "0"),
        ("create", "store", "s", "--retention", "soon"),
        ("create", "store", "s", "--view", "KEYS_ONLY"),
        ("cat", "store", "s", "--from", "yesterday"),
        ("cat", "store", "s", "--limit", "-1"),
        ("cat", "store", "s", "--follow", "--timeout", "0"),
        ("import", "store", "s", "-", "--batch", "0"),
    ],
)
def test_wrong_use_exits_with_2(
    command: Command, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what is wrong on stderr, and touches nothing."""
    monkeypatch.chdir(tmp_path)
    outcome = command(*words)
    assert outcome.status == 2
    assert "shardlog" in outcome.talk
    assert not outcome.data
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("cat", "s"), ("stat",), ("delete", "s", "--yes"), ("disable", "s")])
def test_a_store_that_is_not_there_is_a_failure_and_is_not_made(
    command: Command, store: Path, words: tuple[str, ...]
) -> None:
    """Only `create` and `import --create` make a store."""
    outcome = command(words[0], store, *words[1:], "--json")
    assert outcome.status == 1
    line, text = outcome.talk.splitlines()
    assert line.startswith("shardlog: ")
    assert str(store) in line
    assert json.loads(text)["message"] in line
    assert not store.exists()


def test_a_reader_that_goes_away_ends_us_quietly(store: Path, tmp_path: Path) -> None:
    """`shardlog cat ... | head -1` prints one line and no complaint."""
    path = tmp_path / "lines"
    path.write_bytes(as_bytes(made_up_lines(20_000, seed=1)))
    assert run_process("import", store, "s", path, "--create").status == 0
    with subprocess.Popen(command_of("cat", store, "s"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"sequence":')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


def test_an_interrupt_ends_us_without_a_traceback(store: Path) -> None:
    """Ctrl-C at `cat --follow` exits with 130, having written all it had."""
    line = as_bytes(made_up_lines(1, seed=1))
    assert run_process("import", store, "s", "-", "--create", stdin=line).status == 0
    with subprocess.Popen(
        command_of("cat", store, "s", "--follow"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"sequence":1,')
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(60) == 130
        finally:
            process.kill()
        assert process.stderr.read() == b""


def test_data_that_cannot_be_written_is_a_failure(store: Path) -> None:
    """A full disk behind stdout is not success."""
    assert run_process("create", store, "s").status == 0
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command_of("stat", store), stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"shardlog: ")
    assert done.stderr.count(b"\n") == 1


def test_a_mistake_of_ours_keeps_its_traceback(command: Command, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is not dressed up as the user's error."""

    def fail(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(shardlog_tools.stat, "run", fail)
    with pytest.raises(ZeroDivisionError):
        command("stat", store)

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from tests.tools.changes import as_bytes, contents, made_up_lines
from tests.tools.commands import Outcome, command_of

import shardlog
from shardlog import Change

Command = Callable[..., Outcome]
LINES = made_up_lines(300, seed=1)


@pytest.fixture
def filled(command: Command, store: Path, stdin: Callable[[bytes], None]) -> Path:
    """A store with a stream of two shards."""
    command("create", store, "s", "--shards", "2")
    stdin(as_bytes(LINES))
    assert command("import", store, "s", "-", "--batch", "100").status == 0
    return store


def test_a_line_holds_all_of_a_record(command: Command, filled: Path) -> None:
    """The fields and their order are the documented ones."""
    lines = command("cat", filled, "s").json_lines()
    assert sorted(map(repr, contents(lines))) == sorted(map(repr, contents(LINES)))
    assert list(lines[0]) == ["sequence", "shard", "event", "keys", "new", "old", "created_at"]
    assert lines[0]["sequence"] == 1
    assert lines[0]["shard"].startswith("shardId-")
    assert datetime.fromisoformat(lines[0]["created_at"]).utcoffset() == timedelta(0)
    sequences = [line["sequence"] for line in lines]
    assert sequences == sorted(set(sequences))


def test_a_part_of_a_stream(command: Command, filled: Path) -> None:
    """--from is inclusive, --to exclusive, --limit counts records."""
    everything = command("cat", filled, "s").json_lines()
    middle = everything[100]["sequence"]
    assert command("cat", filled, "s", "--from", middle).json_lines() == everything[100:]
    assert command("cat", filled, "s", "--to", middle).json_lines() == everything[:100]
    assert command("cat", filled, "s", "--from", middle, "--limit", 3).json_lines() == everything[100:103]
    assert command("cat", filled, "s", "--limit", 0).data == ""
    assert command("cat", filled, "s", "--from", "LATEST").data == ""
    assert command("cat", filled, "s", "--from", "TRIM_HORIZON", "--to", "LATEST").json_lines() == everything


def test_a_part_by_time(command: Command, filled: Path) -> None:
    """Times in ISO 8601, in any offset; UTC where there is none."""
    everything = command("cat", filled, "s").json_lines()
    moment = datetime.fromisoformat(everything[150]["created_at"])
    expected = [line for line in everything if datetime.fromisoformat(line["created_at"]) >= moment]
    assert command("cat", filled, "s", "--from", moment.isoformat()).json_lines() == expected
    assert command("cat", filled, "s", "--from", moment.replace(tzinfo=None).isoformat()).json_lines() == expected
    assert command("cat", filled, "s", "--from", moment.isoformat().replace("+00:00", "Z")).json_lines() == expected
    assert command("cat", filled, "s", "--to", "2001-01-01").data == ""


def test_one_shard(command: Command, filled: Path) -> None:
    """The shards together are the stream."""
    everything = command("cat", filled, "s").json_lines()
    shards = sorted({line["shard"] for line in everything})
    assert len(shards) == 2
    for shard in shards:
        lines = command("cat", filled, "s", "--shard", shard).json_lines()
        assert lines == [line for line in everything if line["shard"] == shard]
    outcome = command("cat", filled, "s", "--shard", "shardId-0")
    assert outcome.status == 1
    assert outcome.talk.startswith("shardlog: ")


def test_reading_changes_nothing(command: Command, filled: Path) -> None:
    """Cat opens the store to read: a store that may not be written is no obstacle, and no file changes."""

    def files() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in filled.rglob("*") if path.is_file()
        }

    before = files()
    assert command("cat", filled, "s").status == 0
    assert files() == before


def test_following_waits_for_more(filled: Path) -> None:
    """Records appended by another process come at once, each line whole; --timeout ends it with 0."""
    with (
        shardlog.open(filled) as opened,
        subprocess.Popen(
            command_of("cat", filled, "s", "--from", "LATEST", "--follow", "--timeout", "5"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        stream = opened.stream("s")
        number = 0
        os.set_blocking(process.stdout.fileno(), False)
        line = b""
        while not line:  # until the other process has begun to follow
            number += 1
            stream.append([Change.insert(keys={"id": number}, new={"id": number})])
            line = process.stdout.readline() or b""
        os.set_blocking(process.stdout.fileno(), True)
        seen = json.loads(line)["keys"]["id"]
        while seen < number:
            seen += 1
            assert json.loads(process.stdout.readline())["keys"]["id"] == seen
        stream.append([Change.remove(keys={"id": 0}, old={"id": 0})])
        assert json.loads(process.stdout.readline())["event"] == "REMOVE"
        assert process.stdout.readline() == b""
        assert process.wait(60) == 0


def damage(store: Path) -> None:
    """Overwrite a byte of a record in the middle of the log."""
    (segment,) = store.glob("streams/s/*/log/*.seg")
    content = segment.read_bytes()
    place = content.index(b"number", 4096 + 8000)
    with segment.open("r+b") as file:
        file.seek(place)
        file.write(b"N")


def test_damage_is_an_error_after_what_comes_before_it(command: Command, filled: Path) -> None:
    """What can be read up to there is printed; the status is 1."""
    everything = command("cat", filled, "s").data.splitlines()
    damage(filled)
    outcome = command("cat", filled, "s")
    assert outcome.status == 1
    assert outcome.talk.startswith("shardlog: ")
    printed = outcome.data.splitlines()
    assert 0 < len(printed) < len(everything)
    assert printed == everything[: len(printed)]


def test_damage_can_be_stepped_over_but_not_unnoticed(command: Command, filled: Path, tmp_path: Path) -> None:
    """--on-damage gap prints a line in the gap's place, exits with 1, and import refuses that line."""
    everything = command("cat", filled, "s").json_lines()
    damage(filled)
    outcome = command("cat", filled, "s", "--on-damage", "gap")
    assert outcome.status == 1
    lines = outcome.json_lines()
    gaps = [line["gap"] for line in lines if "gap" in line]
    assert gaps
    assert all(gap["reason"] and gap["first"] < gap["next"] for gap in gaps)
    lost = {number for gap in gaps for number in range(gap["first"], gap["next"])}
    assert [line for line in lines if "gap" not in line] == [
        line for line in everything if line["sequence"] not in lost
    ]
    assert "cannot be read" in outcome.talk
    path = tmp_path / "export"
    path.write_text(outcome.data)
    refused = command("import", tmp_path / "copy", "s", path, "--create")
    assert refused.status == 1
    assert "a gap in the stream" in refused.talk

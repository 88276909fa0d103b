from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tools.changes import as_bytes, contents, made_up_lines
from tests.tools.commands import Outcome

import shardlog
from shardlog import Change

Command = Callable[..., Outcome]
LINES = made_up_lines(300, seed=1)


@pytest.fixture
def segment(command: Command, store: Path, stdin: Callable[[bytes], None]) -> Path:
    """A segment of a stream of two shards, in three commits."""
    command("create", store, "s", "--shards", "2")
    stdin(as_bytes(LINES))
    assert command("import", store, "s", "-", "--batch", "100").status == 0
    (path,) = store.glob("streams/s/*/log/*.seg")
    return path


def parts_of(outcome: Outcome) -> dict[str, list[dict[str, Any]]]:
    """The parts that a dump shows, by kind."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for part in outcome.json_lines():
        parts.setdefault(part["part"], []).append(part)
    return parts


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Damage a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_everything_in_a_segment_is_shown(command: Command, segment: Path) -> None:
    """Header, commits with their batches, and what is not used yet, without holes."""
    outcome = command("dump", segment, "--json")
    assert outcome.status == 0
    parts = parts_of(outcome)
    assert set(parts) <= {"segment", "commit", "unused", "footer", "trailer"}
    (header,) = parts["segment"]
    assert header["first_sequence"] == 1
    assert header["predecessor"] is None
    counts = [
        sum(batch["records"] for batch in commit["batches"] if batch["shard"] is not None) for commit in parts["commit"]
    ]
    assert sum(counts) == 300
    assert sum(count > 0 for count in counts) == 3
    end = 0
    for part in outcome.json_lines():
        assert part["offset"] == end
        end = part.get("end", segment.stat().st_size)
    assert end == segment.stat().st_size


def test_records_are_decoded_on_request(command: Command, segment: Path) -> None:
    """--records shows what cat shows, by shard."""
    parts = parts_of(command("dump", segment, "--records", "--json"))
    records = [
        record
        for commit in parts["commit"]
        for batch in commit["batches"]
        if batch["shard"] is not None
        for record in batch["content"]
    ]
    assert sorted(map(repr, contents(records))) == sorted(map(repr, contents(LINES)))


def test_it_can_be_read_by_people(command: Command, segment: Path) -> None:
    """The same as lines of text, with a sum at the end."""
    outcome = command("dump", segment, "--records")
    assert outcome.status == 0
    lines = outcome.data.splitlines()
    assert "segment 1, from sequence 1" in lines[0]
    assert any(line.lstrip().startswith("shard 0: ") for line in lines)
    assert '"event":"INSERT"' in outcome.data
    assert lines[-1].endswith("300 change records, 0 damaged places")


def test_it_never_writes(command: Command, segment: Path) -> None:
    """Not even to a damaged file."""
    overwrite(segment, 5000, b"\xff" * 10)
    before = (segment.read_bytes(), segment.stat().st_mtime_ns)
    command("dump", segment)
    assert (segment.read_bytes(), segment.stat().st_mtime_ns) == before


def test_a_damaged_body_is_told_and_the_rest_shown(command: Command, segment: Path) -> None:
    """One batch is damaged; every other one is sound."""
    commits = parts_of(command("dump", segment, "--json"))["commit"]
    middle = commits[len(commits) // 2]
    overwrite(segment, middle["end"] - 40, b"\xff" * 8)
    outcome = command("dump", segment, "--json", "--records")
    assert outcome.status == 1
    parts = parts_of(outcome)
    assert len(parts["commit"]) == len(commits)
    (damage,) = parts["damage"]
    assert middle["offset"] < damage["offset"] < damage["end"] <= middle["end"]
    damaged = [batch for commit in parts["commit"] for batch in commit["batches"] if batch["damaged"]]
    assert len(damaged) == 1
    assert "DAMAGE" in command("dump", segment).data


def test_behind_a_damaged_commit_it_goes_on(command: Command, segment: Path) -> None:
    """The bytes that do not check out are told from the first to where the next commit starts."""
    commits = parts_of(command("dump", segment, "--json"))["commit"]
    middle = commits[len(commits) // 2]
    overwrite(segment, middle["offset"] + 30, b"\xff")
    parts = parts_of(command("dump", segment, "--json"))
    assert [commit["offset"] for commit in parts["commit"]] == [
        commit["offset"] for commit in commits if commit is not middle
    ]
    assert [(damage["offset"], damage["end"]) for damage in parts["damage"]] == [(middle["offset"], middle["end"])]


@pytest.fixture
def sealed(store: Path) -> list[Path]:
    """The segments of a stream that has rolled."""
    with shardlog.open(store) as opened:
        stream = opened.create_stream("s", segment_bytes=16 << 10)
        for number in range(100):
            stream.append([Change.insert(keys={"id": number}, new={"id": number, "text": "x" * 500})])
    paths = sorted(store.glob("streams/s/*/log/*.seg"))
    assert len(paths) > 2
    return paths


def test_a_sealed_segment_ends_with_footer_and_trailer(command: Command, sealed: list[Path]) -> None:
    """All segments of a stream check out, each names the one before, and all but the last are sealed."""
    records = 0
    for path in sealed:
        outcome = command("dump", path, "--json")
        assert outcome.status == 0
        parts = parts_of(outcome)
        (header,) = parts["segment"]
        if path != sealed[0]:
            assert header["predecessor"]["segment"] == header["segment"] - 1
        assert header["records_before"] == records
        count = sum(batch["records"] for commit in parts["commit"] for batch in commit["batches"])
        records += count
        assert len(parts.get("footer", [])) == len(parts.get("trailer", [])) == (path != sealed[-1])
        if path != sealed[-1]:
            assert parts["trailer"][0]["footer_offset"] == parts["footer"][0]["offset"]
            assert sum(parts["footer"][0]["shard_records"].values()) == count
        assert "DAMAGE" not in command("dump", path).data
    assert records == 100


def test_a_damaged_footer_hides_nothing(command: Command, sealed: list[Path]) -> None:
    """The commits before it are shown."""
    parts = parts_of(command("dump", sealed[0], "--json"))
    overwrite(sealed[0], parts["footer"][0]["offset"] + 70, b"\xff")
    outcome = command("dump", sealed[0], "--json")
    assert outcome.status == 1
    assert parts_of(outcome)["commit"] == parts["commit"]
    assert parts_of(outcome)["damage"][0]["reason"].startswith("footer: ")


def test_a_neighbour_tells_the_stream_of_a_damaged_header(command: Command, sealed: list[Path]) -> None:
    """All segments beside it are of the same stream."""
    commits = parts_of(command("dump", sealed[1], "--json"))["commit"]
    overwrite(sealed[1], 0, b"\xff" * 4096)
    assert parts_of(command("dump", sealed[1], "--json"))["commit"] == commits


@pytest.mark.parametrize("first", [0, 20, 60, 100])
def test_a_damaged_segment_header_does_not_hide_the_commits(command: Command, segment: Path, first: int) -> None:
    """What is left of the header, and the file's name, are enough to find them."""
    commits = parts_of(command("dump", segment, "--json"))["commit"]
    content = segment.read_bytes()
    overwrite(segment, first, bytes(byte ^ 0xFF for byte in content[first : first + 2]))
    outcome = command("dump", segment, "--json")
    assert outcome.status == 1
    parts = parts_of(outcome)
    assert parts["damage"][0]["offset"] == 0
    if first != 60:  # the stream's own id, and there is no other segment to learn it from
        assert parts["commit"] == commits


def test_a_file_that_ends_too_soon(command: Command, segment: Path) -> None:
    """A commit cut off is damage, at any length; nothing is made up."""
    commits = parts_of(command("dump", segment, "--json"))["commit"]
    last = commits[-1]
    content = segment.read_bytes()
    for length in (last["end"] - 1, last["offset"] + 65, last["offset"] + 10):
        segment.write_bytes(content[:length])
        parts = parts_of(command("dump", segment, "--json"))
        assert parts["commit"] == commits[:-1]
        (damage,) = parts["damage"]
        ends = [part["end"] for part in (damage, *parts.get("unused", []))]
        assert (damage["offset"], ends[-1]) == (last["offset"], length)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 10_000, b"SLOG" * 5000, json.dumps(LINES).encode()])
def test_a_file_that_is_no_segment(command: Command, tmp_path: Path, content: bytes) -> None:
    """It is damaged from end to end, and that is all."""
    path = tmp_path / "00000000000000000001-00000001.seg"
    path.write_bytes(content)
    outcome = command("dump", path, "--json")
    assert outcome.status == 1
    assert [part["part"] for part in outcome.json_lines()] == ["damage"]


def test_a_file_that_is_not_there(command: Command, tmp_path: Path) -> None:
    """One line on stderr."""
    outcome = command("dump", tmp_path / "nothing.seg")
    assert outcome.status == 1
    assert outcome.talk == f"shardlog: {tmp_path / 'nothing.seg'}: No such file or directory\n"

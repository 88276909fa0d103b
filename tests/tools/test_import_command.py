from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tools.changes import as_bytes, contents, made_up_lines, replayed
from tests.tools.commands import Outcome

import shardlog

Command = Callable[..., Outcome]


def stream_contents(store: Path, name: str = "s") -> list[tuple[Any, ...]]:
    """What a stream holds."""
    with shardlog.open(store, create=False) as opened:
        return [
            (record.event, record.keys, record.new_image, record.old_image)
            for record in opened.stream(name).read()
            if not isinstance(record, shardlog.Gap)
        ]


@pytest.fixture
def lines_file(tmp_path: Path) -> Path:
    """A file of 1,200 changes."""
    path = tmp_path / "changes.jsonl"
    path.write_bytes(as_bytes(made_up_lines(1200, seed=1)))
    return path


def test_all_lines_are_imported_in_their_order(command: Command, store: Path, lines_file: Path) -> None:
    """Each line is a record, with its event, keys and images; the summary says so."""
    assert command("create", store, "s").status == 0
    outcome = command("import", store, "s", lines_file, "--json")
    assert outcome.status == 0
    assert not outcome.talk
    summary = outcome.json()
    assert summary.pop("seconds") >= 0
    # Every batch of 500 commits the producer's position as a control record, which takes a number.
    assert summary == {
        "records": 1200,
        "lines": 1200,
        "skipped": [],
        "first_sequence": 1,
        "last_sequence": summary["last_sequence"],
        "failure": None,
    }
    assert stream_contents(store) == contents(made_up_lines(1200, seed=1))


def test_a_missing_stream_is_an_error_that_says_how_to_make_it(command: Command, store: Path, lines_file: Path) -> None:
    """A misspelt name does not make a stream."""
    command("create", store, "s")
    outcome = command("import", store, "t", lines_file)
    assert outcome.status == 1
    assert f"shardlog create {store} t" in outcome.talk
    assert "--create" in outcome.talk
    assert [stream["name"] for stream in command("stat", store, "--json").json()["streams"]] == ["s"]


def test_a_missing_store_is_made_on_request_only(command: Command, store: Path, lines_file: Path) -> None:
    """--create makes store and stream with the default options."""
    outcome = command("import", store, "s", lines_file)
    assert outcome.status == 1
    assert not store.exists()
    assert command("import", store, "s", lines_file, "--create").status == 0
    assert len(stream_contents(store)) == 1200


def test_gzip_and_stdin(command: Command, store: Path, stdin: Callable[[bytes], None]) -> None:
    """Compressed lines are read from stdin as well as plain ones."""
    lines = made_up_lines(10, seed=1)
    stdin(gzip.compress(as_bytes(lines)))
    assert command("import", store, "s", "-", "--create").status == 0
    stdin(as_bytes(lines))
    assert command("import", store, "t", "-", "--create").status == 0
    assert stream_contents(store, "s") == stream_contents(store, "t") == contents(lines)


def test_nothing_is_imported_twice_by_accident(command: Command, store: Path, lines_file: Path) -> None:
    """A second import of the same file is refused; with --resume it finds nothing to do; another name repeats it."""
    command("import", store, "s", lines_file, "--create")
    outcome = command("import", store, "s", lines_file)
    assert outcome.status == 1
    assert "--resume" in outcome.talk
    assert "--producer" in outcome.talk
    outcome = command("import", store, "s", lines_file, "--resume", "--json")
    assert (outcome.status, outcome.json()["records"], outcome.json()["lines"]) == (0, 0, 1200)
    assert len(stream_contents(store)) == 1200
    assert command("import", store, "s", lines_file, "--producer", "again").status == 0
    assert len(stream_contents(store)) == 2400


def test_resume_goes_on_behind_the_last_line(command: Command, store: Path, lines_file: Path) -> None:
    """A file that has grown is imported from where it ended."""
    command("import", store, "s", lines_file, "--create")
    lines_file.write_bytes(as_bytes(made_up_lines(1500, seed=1)))
    outcome = command("import", store, "s", lines_file, "--resume", "--json")
    assert outcome.json()["records"] == 300
    assert "resuming behind line 1,200" in outcome.talk
    assert stream_contents(store) == contents(made_up_lines(1500, seed=1))


def test_resume_with_a_shorter_input_is_an_error(command: Command, store: Path, lines_file: Path) -> None:
    """It cannot be the input whose lines were imported."""
    command("import", store, "s", lines_file, "--create")
    lines_file.write_bytes(as_bytes(made_up_lines(5, seed=1)))
    outcome = command("import", store, "s", lines_file, "--resume")
    assert outcome.status == 1
    assert "1,200" in outcome.talk
    assert "another input?" in outcome.talk


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_a_line_that_does_not_parse_stops_with_its_place(
    command: Command, store: Path, lines_file: Path, batch: int
) -> None:
    """Every good line before it is in the stream, none behind it; corrected, the import goes on there."""
    good = as_bytes(made_up_lines(40, seed=1)).splitlines(keepends=True)
    lines_file.write_bytes(b"".join([*good[:20], b'{"event": "INS\n', *good[20:]]))
    outcome = command("import", store, "s", lines_file, "--create", "--batch", batch, "--json")
    assert outcome.status == 1
    assert f"shardlog: {lines_file}:21: not JSON: " in outcome.talk
    assert f"{lines_file}:21: not JSON: " in outcome.json()["failure"]
    assert outcome.json()["records"] == 20
    assert "imported up to line 20; to go on: shardlog import" in outcome.talk
    assert stream_contents(store) == contents(made_up_lines(20, seed=1))
    lines_file.write_bytes(b"".join(good))
    assert command("import", store, "s", lines_file, "--resume").status == 0
    assert stream_contents(store) == contents(made_up_lines(40, seed=1))


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_a_line_that_the_stream_refuses_stops_with_its_place(
    command: Command, store: Path, lines_file: Path, batch: int
) -> None:
    """Keys that miss the schema are as good as a line that does not parse, and the field is named."""
    command("create", store, "s", "--key", "id")
    lines = made_up_lines(40, seed=1)
    bad = {"event": "INSERT", "keys": {"name": 1}, "new": {"name": 1}, "old": None}
    lines_file.write_bytes(as_bytes([*lines[:20], bad, *lines[20:]]))
    outcome = command("import", store, "s", lines_file, "--batch", batch)
    assert outcome.status == 1
    refusal = next(line for line in outcome.talk.splitlines() if line.startswith("shardlog: "))
    assert refusal.startswith(f"shardlog: {lines_file}:21: ")
    assert "keys" in refusal
    assert stream_contents(store) == contents(lines[:20])


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_skipping_goes_on_and_tells_what_was_skipped(
    command: Command, store: Path, lines_file: Path, batch: int
) -> None:
    """Lines that do not parse and records that are refused are counted and listed; all others are there, in order."""
    command("create", store, "s", "--key", "id")
    lines = made_up_lines(100, seed=1)
    pieces = as_bytes(lines).splitlines(keepends=True)
    bad_key = as_bytes([{"event": "INSERT", "keys": {"name": 1}, "new": {"name": 1}}])
    too_large = as_bytes([{"event": "INSERT", "keys": {"id": 2**64}, "new": {"id": 2**64}}])
    bad = {10: b"no\n", 20: bad_key, 21: bad_key, 50: too_large, 99: b"[]\n", 105: bad_key}
    for number, piece in sorted(bad.items()):
        pieces.insert(number - 1, piece)
    lines_file.write_bytes(b"".join(pieces))
    outcome = command("import", store, "s", lines_file, "--batch", batch, "--on-error", "skip", "--json")
    assert outcome.status == 0
    summary = outcome.json()
    assert summary["records"] == 100
    assert sorted(skipped["line"] for skipped in summary["skipped"]) == sorted(bad)
    assert f"skipped {lines_file}:10: not JSON" in outcome.talk
    assert stream_contents(store) == contents(lines)
    assert command("import", store, "s", lines_file, "--resume", "--on-error", "skip").status == 0
    assert stream_contents(store) == contents(lines)


def test_of_many_skipped_lines_the_first_are_shown(command: Command, store: Path, lines_file: Path) -> None:
    """A file of rubbish does not fill the terminal, and JSON has them all."""
    lines_file.write_bytes(b"no\n" * 100)
    outcome = command("import", store, "s", lines_file, "--create", "--on-error", "skip", "--json")
    assert outcome.status == 0
    assert len(outcome.talk.splitlines()) == 20
    assert len(outcome.json()["skipped"]) == 100


def test_blank_lines_count_and_nothing_else(command: Command, store: Path, lines_file: Path) -> None:
    """Line numbers are those that an editor shows."""
    (line,) = as_bytes(made_up_lines(1, seed=1)).splitlines(keepends=True)
    lines_file.write_bytes(b"\n  \n" + line + b"\n\nno\n")
    outcome = command("import", store, "s", lines_file, "--create", "--json")
    assert outcome.json()["records"] == 1
    assert f"{lines_file}:6: " in outcome.talk
    assert "imported up to line 3" in outcome.talk


def test_what_cat_prints_import_takes(command: Command, store: Path, tmp_path: Path) -> None:
    """All types of value, all events, names that begin with a dollar: the copy is the same to the last bit."""
    rich = {
        "id": 1,
        "$": {"$bytes": [None, True, -0.0, 1.0, 1, 2**64 - 1, -(2**63), "$", "é\u2028"]},
        "b": {"$bytes": "AP8="},
    }
    rich_text = json.dumps(rich).replace('"$":', '"$$":').replace('{"$bytes": [', '{"$$bytes": [')
    forms = (
        '"d":{"$decimal":"1.10"},"s":{"$set":["a",{"$bytes":"AA=="}]},"f":{"$float":"NaN"},"i":{"$float":"-Infinity"},'
        '"u":{"$datetime":"2026-01-02T03:04:05.000006+00:00"},"n":{"$datetime":"2026-01-02T03:04:05"}'
    )
    image = rich_text[:-1] + "," + forms + "}"
    path = tmp_path / "first"
    path.write_text(
        f'{{"event":"INSERT","keys":{{"id":1}},"new":{image}}}\n'
        f'{{"event":"MODIFY","keys":{{"id":1}},"old":{image},"new":{{"id":1}}}}\n'
        '{"event":"REMOVE","keys":{"id":1},"old":{"id":1}}\n'
    )
    assert command("import", store, "s", path, "--create").status == 0
    printed = command("cat", store, "s").data
    path.write_text(printed)
    assert command("import", store, "t", path, "--create").status == 0
    lines = command("cat", store, "t").json_lines()
    for first, second in zip(map(json.loads, printed.splitlines()), lines, strict=True):
        for name in ("event", "keys", "new", "old"):
            assert json.dumps(first[name]) == json.dumps(second[name])
    assert json.loads(printed.splitlines()[0])["new"]["d"] == {"$decimal": "1.10"}


@pytest.mark.parametrize("view_type", ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE"])
def test_a_stream_with_fewer_images_can_be_copied(
    command: Command, store: Path, lines_file: Path, view_type: str, tmp_path: Path
) -> None:
    """What the view type does not carry may be missing in the import."""
    command("create", store, "s", "--view-type", view_type)
    assert command("import", store, "s", lines_file).status == 0
    copy = tmp_path / "copy"
    copy.write_text(command("cat", store, "s").data)
    command("create", store, "t", "--view-type", view_type)
    assert command("import", store, "t", copy).status == 0
    assert stream_contents(store, "t") == stream_contents(store, "s")


def test_a_disabled_stream_takes_nothing(command: Command, store: Path, lines_file: Path) -> None:
    """The engine's refusal is an error of one line."""
    command("create", store, "s")
    command("disable", store, "s")
    outcome = command("import", store, "s", lines_file)
    assert outcome.status == 1
    assert "nothing was imported" in outcome.talk


def test_an_interrupted_import_says_how_to_go_on(
    command: Command, store: Path, lines_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C: what was acknowledged stays, the status is 130, and the printed command finishes the work."""
    command("create", store, "s")
    append, calls = shardlog.Stream.append, []

    def interrupted(stream: shardlog.Stream, changes: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return append(stream, changes, **options)

    monkeypatch.setattr(shardlog.Stream, "append", interrupted)
    outcome = command("import", store, "s", lines_file, "--batch", 100, "--json")
    assert outcome.status == 130
    assert outcome.json()["records"] == 200
    hint = f"imported up to line 200; to go on: shardlog import {store} s {lines_file} --resume"
    assert hint in outcome.talk
    monkeypatch.undo()
    assert command("import", store, "s", lines_file, "--resume").status == 0
    assert replayed(stream_contents(store)) == replayed(contents(made_up_lines(1200, seed=1)))


def test_two_imports_under_one_name_do_not_both_go_on(
    command: Command, store: Path, lines_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another import with the same producer gets ahead, this one stops instead of interleaving."""
    command("create", store, "s")
    append, calls = shardlog.Stream.append, []

    def overtaken(stream: shardlog.Stream, changes: Any, **options: Any) -> Any:
        calls.append(1)
        result = append(stream, changes, **options)
        if len(calls) == 2:
            append(stream, changes, producer=options["producer"], position=options["position"] + 50)
        return result

    monkeypatch.setattr(shardlog.Stream, "append", overtaken)
    outcome = command("import", store, "s", lines_file, "--batch", 100)
    assert outcome.status == 1
    assert "another import runs as producer 'import:changes.jsonl'" in outcome.talk
    assert len(calls) == 2

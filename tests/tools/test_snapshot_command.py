"""`shardlog snapshot`, `shardlog scrub`, `shardlog salvage`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.check.damage import NAME, append_some, new_stream, rows_of
from tests.check.forged import log_paths, overwrite, stream_path
from tests.tools.commands import Outcome, run_process

import shardlog
from shardlog import Change, Record
from shardlog.check import fsck
from shardlog.check.scrub import Pace
from shardlog.testing.images import read_image

Command = Callable[..., Outcome]


@pytest.fixture
def filled(store: Path) -> Path:
    """A store of a few segments."""
    with shardlog.open(store) as opened:
        append_some(new_stream(opened, shards=2), 70, 90)
    return store


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Where the copy goes."""
    return tmp_path / "dest"


def images(path: Path, name: str = NAME) -> list[Any]:
    """What the records of a stream say, without their numbers."""
    with shardlog.open(path, read_only=True) as store:
        return [
            (record.event, record.keys, record.new_image, record.old_image, record.created_at)
            for record in store.stream(name).read()
            if isinstance(record, Record)
        ]


# Snapshot


def test_a_snapshot_is_a_store(command: Command, filled: Path, dest: Path) -> None:
    """With as many records as it says."""
    outcome = command("snapshot", filled, NAME, dest, "--json")
    assert outcome.status == 0
    assert outcome.json()["records"] == 210
    assert rows_of(dest) == rows_of(filled)
    assert command("fsck", dest, "--deep").status == 0
    assert not log_paths(dest)[0].samefile(log_paths(filled)[0])
    assert command("snapshot", filled, NAME, dest.parent / "other", "--link").status == 0
    assert log_paths(dest.parent / "other")[0].samefile(log_paths(filled)[0])


def test_a_snapshot_of_a_store_in_use(filled: Path, dest: Path) -> None:
    """From another process."""
    with shardlog.open(filled) as store:
        append_some(store.stream(NAME), 3)
        assert run_process("snapshot", filled, NAME, dest).status == 0
    assert rows_of(dest) == rows_of(filled)


def test_a_snapshot_that_cannot_be_is_a_failure(command: Command, filled: Path, dest: Path) -> None:
    """Something is there, or there is nothing to copy."""
    dest.mkdir()
    (dest / "mine").touch()
    assert command("snapshot", filled, NAME, dest).status == 1
    assert command("snapshot", filled, "other", dest.parent / "new").status == 1
    assert not (dest.parent / "new").exists()


# Scrub


def test_a_scrub_finds_damage_in_sealed_segments(command: Command, filled: Path) -> None:
    """All good exits with 0; what it finds is printed as fsck does, and its status is fsck's."""
    outcome = command("scrub", filled, "--once", "--rate", "none")
    assert (outcome.status, outcome.data) == (0, "")
    assert "2 sealed segments" in outcome.talk
    overwrite(log_paths(filled)[0], 6000, b"\xff" * 20)
    overwrite(log_paths(filled)[1], log_paths(filled)[1].stat().st_size - 40, b"\xff")
    outcome = command("scrub", filled, "--once", "--json")
    assert outcome.status == 4 + 64
    lines = outcome.json_lines()
    assert [line["code"] for line in lines[:-1]] == ["block-damaged", "footer-damaged"]
    assert lines[-1]["findings"] == 2


def test_a_scrub_of_a_store_in_use(filled: Path) -> None:
    """It takes no lock, and nobody waits for it."""
    with shardlog.open(filled) as store:
        append_some(store.stream(NAME), 40, 90)
        assert run_process("scrub", filled, "--once").status == 0
        overwrite(log_paths(filled)[0], 100, b"\xff" * 50)
        assert run_process("scrub", filled, "--once").status == 4


def test_a_scrub_keeps_its_pace() -> None:
    """Never faster than asked for over more than a moment; idle time is not saved up."""
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    pace = Pace(1_000_000, lambda: now[0], sleep)
    for _ in range(100):
        pace.spend(100_000)
    assert 9.8 <= now[0] - 100 <= 10.1
    now[0] += 1000
    started = now[0]
    for _ in range(10):
        pace.spend(100_000)
    assert now[0] - started >= 0.8


@pytest.mark.parametrize("words", [("--rate", "fast"), ("--rate", "0"), ("--pause", "-1")])
def test_wrong_use_of_scrub(command: Command, filled: Path, words: tuple[str, ...]) -> None:
    """Exit status 2."""
    assert command("scrub", filled, "--once", *words).status == 2


# Salvage


def test_a_sound_store_is_copied_whole(command: Command, filled: Path, dest: Path) -> None:
    """Streams, labels, options, shards, records, their times, producers' positions."""
    with shardlog.open(filled) as store:
        store.disable_stream(NAME)
        append_some(new_stream(store, view_type="NEW_IMAGE", key_names=["id"], partition_key="id", durability="os"), 5)
        keys = store.create_stream("keys", view_type="KEYS_ONLY", shards=3, retention=timedelta(days=2))
        keys.append([Change.insert(keys={"id": 1}), Change.remove(keys={"id": 1})], producer="q", position=7)
        expected = store.streams()
    before = read_image(str(filled))
    outcome = command("salvage", filled, dest, "--json")
    assert outcome.status == 0
    assert [stream["records"] for stream in outcome.json()["streams"]] == [210, 15, 2]
    assert read_image(str(filled)) == before
    assert fsck(dest, deep=True).findings == ()
    assert images(dest) == images(filled)
    assert images(dest, "keys") == images(filled, "keys")
    with shardlog.open(dest) as copy:
        found = copy.streams()
        assert copy.stream("keys").position("q") == 7
    for one, other in zip(found, expected, strict=True):
        assert (one.name, one.label, one.status, one.view_type, one.key_names, one.partition_key) == (
            other.name, other.label, other.status, other.view_type, other.key_names, other.partition_key,
        )  # fmt: skip
        assert (one.durability, one.retention) == (other.durability, other.retention)
        assert [(shard.shard_id, shard.hash_range) for shard in one.shards] == [
            (shard.shard_id, shard.hash_range) for shard in other.shards
        ]


def test_what_is_lost_is_listed(command: Command, filled: Path, dest: Path) -> None:
    """Everything else is copied, in order; the exit status is 1."""
    rows = images(filled)
    overwrite(log_paths(filled)[0], 6000, b"\xff" * 20)
    log_paths(filled)[1].unlink()
    before = read_image(str(filled))
    outcome = command("salvage", filled, dest)
    assert outcome.status == 1
    assert outcome.data.count("  lost: ") == 2
    assert "differ" in outcome.talk
    assert read_image(str(filled)) == before
    kept = images(dest)
    assert 0 < len(kept) < len(rows)
    assert [row for row in rows if row in kept] == kept
    report = fsck(filled)
    assert len(rows) - len(kept) <= sum(end - first for _, first, end in report.lost)
    assert fsck(dest, deep=True).findings == ()


@pytest.mark.parametrize("what", ["headers", "last header", "first header", "MARK and index", "STORE"])
def test_streams_that_do_not_open_are_salvaged(command: Command, filled: Path, dest: Path, what: str) -> None:
    """Not one record is lost with headers, MARK, index or STORE."""
    rows = images(filled)
    segments = log_paths(filled)
    chosen = {"headers": segments, "last header": segments[-1:], "first header": segments[:1]}.get(what, [])
    for segment in chosen:
        overwrite(segment, 0, os.urandom(4096))
    if what == "MARK and index":
        (stream_path(filled) / "MARK").unlink()
        shutil.rmtree(stream_path(filled) / "index")
    if what == "STORE":
        (filled / "STORE").write_bytes(b"\xff")
    outcome = command("salvage", filled, dest)
    assert "210 records copied" in outcome.data
    assert [row[1] for row in images(dest)] == [row[1] for row in rows]
    assert fsck(dest, deep=True).findings == ()
    assert ("guessed" in outcome.data) == (what == "headers")


@pytest.mark.parametrize("what", ["nothing", "a file", "another directory"])
def test_what_is_no_store_is_not_copied_nor_called_good(command: Command, tmp_path: Path, what: str) -> None:
    """Wrong use: a scrub that says "all good" of nothing, and an empty copy, would be lies."""
    source = tmp_path / "source"
    if what == "a file":
        source.touch()
    elif what == "another directory":
        source.mkdir()
    for words in (("scrub", source, "--once"), ("salvage", source, tmp_path / "dest")):
        outcome = command(*words)
        assert outcome.status == 2
        assert what in outcome.talk
    assert not (tmp_path / "dest").exists()


def test_one_stream_is_salvaged_and_scrubbed(command: Command, filled: Path, dest: Path) -> None:
    """By its directory, wherever that is: its log tells its name."""
    moved = dest.parent / "moved"
    stream_path(filled).rename(moved)
    assert command("scrub", moved, "--once", "--rate", "none").status == 0
    outcome = command("salvage", moved, dest)
    assert outcome.status == 0
    assert outcome.data.startswith(f"{NAME} ")
    assert len(images(dest)) == 210


def test_a_source_is_not_written_into(command: Command, filled: Path) -> None:
    """A copy within the store that is copied, by whatever path, is refused."""
    before = read_image(str(filled))
    (filled.parent / "link").symlink_to(filled)
    for inside in (filled / "copy", filled / "streams" / "copy", filled.parent / "link" / "copy"):
        assert command("salvage", filled, inside).status == 2
        assert command("snapshot", filled, NAME, inside).status == 1
    assert {name for name in read_image(str(filled)) if "index" not in name} == {
        name for name in before if "index" not in name
    }


def test_a_salvage_that_fails_leaves_nothing(
    command: Command, filled: Path, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is there whole or not at all."""

    def full(_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shardlog_tools.salvage._sync", full)
    assert command("salvage", filled, dest).status == 1
    assert not list(dest.parent.glob("dest*"))


def test_what_cannot_be_seen_is_told(command: Command, filled: Path, dest: Path) -> None:
    """A stream whose names cannot be listed, and one without a log: the copy is not said to be whole."""
    (filled / "streams" / "file").symlink_to("file")
    (filled / "streams" / "bare" / "2026-01-01T00:00:00.000").mkdir(parents=True)
    outcome = command("salvage", filled, dest)
    assert outcome.status == 1
    assert "210 records copied" in outcome.data
    assert "nothing of it can be read" in outcome.data


def test_salvage_makes_a_new_store_only(command: Command, filled: Path, dest: Path) -> None:
    """Nothing is written over, and what is no store is not salvaged."""
    dest.mkdir()
    (dest / "mine").touch()
    assert command("salvage", filled, dest).status == 2
    assert [file.name for file in dest.iterdir()] == ["mine"]
    assert command("salvage", dest.parent / "nothing", dest.parent / "new").status == 2
    assert not (dest.parent / "new").exists()


@pytest.mark.parametrize("name", ["fsck", "snapshot", "scrub", "salvage"])
def test_they_explain_themselves(command: Command, name: str) -> None:
    """`--help` to stdout, and each takes --json."""
    outcome = command(name, "--help")
    assert outcome.status == 0
    assert "--json" in outcome.data

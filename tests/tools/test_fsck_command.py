"""`shardlog fsck`: exit status, words, JSON, and repairs that are asked for."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.check.damage import NAME, append_some, new_stream
from tests.check.forged import log_end, log_paths, overwrite, stream_path
from tests.tools.commands import Outcome, run_process

import shardlog
from shardlog.format.identity import encode_identity
from shardlog.testing.images import read_image

Command = Callable[..., Outcome]


@pytest.fixture
def filled(store: Path) -> Path:
    """A store of a few segments."""
    with shardlog.open(store) as opened:
        append_some(new_stream(opened, shards=2), 70, 90)
    return store


def damage(store: Path) -> None:
    """A commit in the middle."""
    overwrite(log_paths(store)[0], 6000, b"\xff" * 20)


def test_a_clean_store_exits_with_0(command: Command, filled: Path) -> None:
    """One line, no talk."""
    outcome = command("fsck", filled)
    assert outcome.status == 0
    assert outcome.data == f"{filled}: clean, 0 notes\n"
    assert outcome.talk == ""
    assert command("fsck", filled, "--deep").status == 0
    assert command("fsck", stream_path(filled)).status == 0


def test_notes_leave_it_clean(command: Command, filled: Path) -> None:
    """They are printed, and the status is 0."""
    (stream_path(filled) / "LOCK").unlink()
    outcome = command("fsck", filled)
    assert outcome.status == 0
    assert outcome.data.startswith("note: lock-missing: ")
    assert outcome.data.endswith(": clean, 1 notes\n")


def test_lost_records_are_told_with_their_range(command: Command, filled: Path) -> None:
    """4 for errors that are left, 64 for acknowledged records that are lost."""
    damage(filled)
    outcome = command("fsck", filled)
    assert outcome.status == 4 + 64
    assert "error: block-damaged: " in outcome.data
    assert "lost: " in outcome.data
    assert "sequence numbers " in outcome.data


def test_errors_that_cost_no_record_exit_with_4(command: Command, filled: Path) -> None:
    """MARK is not what was written."""
    (stream_path(filled) / "MARK").write_bytes(b"x" * 100)
    assert command("fsck", filled).status == 4


def test_a_repair_is_shown_and_carried_out(command: Command, filled: Path) -> None:
    """The plan, what was done, and 1 for errors corrected; the next check is clean."""
    damage(filled)
    outcome = command("fsck", filled, "--repair", "--yes")
    assert outcome.status == 1 + 64
    assert "plan: " in outcome.data
    assert "done: " in outcome.talk
    assert "repaired" in outcome.data
    again = command("fsck", filled)
    assert again.status == 0
    assert "note: known-gap: " in again.data


def test_a_repair_without_loss_exits_with_1(command: Command, filled: Path) -> None:
    """MARK written anew."""
    (stream_path(filled) / "MARK").unlink()
    assert command("fsck", filled, "--repair", "--yes").status == 1
    assert command("fsck", filled).status == 0


def test_a_clean_store_is_not_repaired(command: Command, filled: Path) -> None:
    """Nothing is asked, nothing is done."""
    before = read_image(str(filled))
    assert command("fsck", filled, "--repair", "--yes").status == 0
    assert read_image(str(filled)) == before


def test_a_repair_asks_first(
    command: Command, filled: Path, monkeypatch: pytest.MonkeyPatch, stdin: Callable[[bytes], None]
) -> None:
    """Nobody to ask is wrong use; anything but yes changes nothing."""
    damage(filled)
    before = read_image(str(filled))
    stdin(b"yes\n")
    outcome = command("fsck", filled, "--repair")
    assert outcome.status == 16
    assert "--yes" in outcome.talk
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, status in ((b"no\n", 4 + 64), (b"\n", 4 + 64), (b"yes\n", 1 + 64)):
        assert read_image(str(filled)) == before
        stdin(answer)
        monkeypatch.setattr("shardlog_tools.fsck.sys.stdin", _Terminal(answer.decode()))
        outcome = command("fsck", filled, "--repair")
        assert outcome.status == status
        assert "Carry out this plan?" in outcome.talk
    assert read_image(str(filled)) != before


class _Terminal:
    """Somebody who answers."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer


def test_json_says_the_same(command: Command, filled: Path) -> None:
    """One object: findings, ranges lost, and with a repair the plan and the check after it."""
    assert command("fsck", filled, "--json").json() == {
        "path": str(filled), "clean": True, "exit_status": 0, "findings": [], "lost": [],
    }  # fmt: skip
    damage(filled)
    outcome = command("fsck", filled, "--json")
    found = outcome.json()
    assert (found["clean"], found["exit_status"]) == (False, outcome.status)
    (finding,) = found["findings"]
    assert set(finding) == {"code", "severity", "path", "offset", "sequences", "message"}
    assert found["lost"] == [
        {"stream": str(stream_path(filled)), "first": finding["sequences"][0], "next": finding["sequences"][1]}
    ]
    outcome = command("fsck", filled, "--repair", "--yes", "--json")
    repaired = outcome.json()
    assert repaired["plan"]
    assert repaired["after"]["clean"]
    assert repaired["exit_status"] == outcome.status == 65


def unknown_version(store: Path) -> None:
    """STORE as a later release would write it, which this one cannot judge."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shardlog.format.identity.STORE_FORMAT", 2)
        content = encode_identity(bytes(16))
    (store / "STORE").write_bytes(content)


def lose_mark(store: Path) -> None:
    """An error that costs no record."""
    (stream_path(store) / "MARK").unlink()


@pytest.mark.parametrize(
    ("damages", "found", "repaired"),
    [
        ((), 0, 0),
        ((lose_mark,), 4, 1),
        ((damage,), 4 + 64, 1 + 64),
        ((unknown_version,), 8, 8),
        ((unknown_version, lose_mark), 4 + 8, 1 + 8),
        ((unknown_version, damage, lose_mark), 4 + 8 + 64, 1 + 8 + 64),
    ],
)
def test_the_exit_status_is_a_sum(
    command: Command, filled: Path, damages: tuple[Callable[[Path], None], ...], found: int, repaired: int
) -> None:
    """Each part by itself: 4 errors left, 8 not checked, 64 records lost; 1 where a repair corrected something."""
    for each in damages:
        each(filled)
    assert command("fsck", filled).status == found
    assert command("fsck", filled, "--repair", "--yes").status == repaired
    assert command("fsck", filled).status == repaired & 8


def test_a_repair_in_part_says_what_is_left(command: Command, filled: Path) -> None:
    """1 corrected, 4 left, 8 for the stream whose repair failed, 64 lost: the other stream is whole again."""
    with shardlog.open(filled) as opened:
        append_some(opened.create_stream("other", segment_bytes=16384, retention=None), 60, 90)
    (log,) = filled.glob("streams/other/*/log")
    overwrite(min(log.iterdir()), 6000, b"\xff" * 20)
    (log.parent / "lost+found").write_text("in the way\n")
    log_of_first = min(filled.glob(f"streams/{NAME}/*/log"))
    overwrite(min(log_of_first.iterdir()), 6000, b"\xff" * 20)
    outcome = command("fsck", filled, "--repair", "--yes")
    assert outcome.status == 1 + 4 + 8 + 64
    assert f"failed: {log.parent}: " in outcome.talk
    assert "repaired in part" in outcome.data
    assert re.search("left: error: (block|batch)-damaged: ", outcome.data)
    again = command("fsck", filled, "--repair", "--yes", "--json")
    assert again.status == again.json()["exit_status"]
    assert [failure["error"] for failure in again.json()["failed"]] == ["StorageFailed"]
    assert command("fsck", log_of_first.parent).status == 0


def test_what_cannot_be_repaired_is_told(command: Command, filled: Path) -> None:
    """No plan that would change anything: nothing is asked, the status is the check's, and salvage is named."""
    for segment in log_paths(filled):
        overwrite(segment, 0, b"\xff" * 4096)
    before = read_image(str(filled))
    outcome = command("fsck", filled, "--repair", "--yes")
    assert outcome.status == 4 + 64
    assert "cannot be repaired" in outcome.data
    assert "salvage" in outcome.talk
    assert read_image(str(filled)) == before


def test_a_torn_tail_is_set_aside_on_request(command: Command, filled: Path) -> None:
    """Only a note, so the status is 0; with --repair it goes to lost+found."""
    overwrite(log_paths(filled)[-1], log_end(filled).offset, b"half a commit")
    assert command("fsck", filled).status == 0
    outcome = command("fsck", filled, "--repair", "--yes")
    assert outcome.status == 0
    assert "set the torn tail aside" in outcome.data
    assert command("fsck", filled).data == f"{filled}: clean, 0 notes\n"


def test_lost_and_found_is_known_everywhere(command: Command, filled: Path) -> None:
    """Repairs make it in a store and in a stream; a file system's own root has one, too."""
    for path in (filled, filled / "streams", stream_path(filled)):
        (path / "lost+found").mkdir()
    assert command("fsck", filled).data == f"{filled}: clean, 0 notes\n"


class _Screen(io.StringIO):
    """A terminal that keeps all that was written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("words", [(), ("--deep",), ("--json",)])
def test_a_bar_is_drawn_on_a_terminal(
    command: Command, filled: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Percent, MiB and MiB/s while the check takes long, gone when it ends; the data is the same."""
    expected = command("fsck", filled, *words).data
    screen = _Screen()
    monkeypatch.setattr("shardlog_tools.output._PROGRESS_AFTER_SECONDS", 0.0)
    monkeypatch.setattr("shardlog_tools.output._PROGRESS_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("sys.stderr", screen)
    assert command("fsck", filled, *words).data == expected
    drawn = screen.getvalue()
    assert re.search(r"\[=+ +\] +\d+%  [\d,]+ MiB, [\d,]+/s", drawn)
    assert "100%" in drawn
    assert drawn.endswith("\r\x1b[K")


@pytest.mark.parametrize("words", [(), ("--nothing",), ("store", "--repair", "more")])
def test_wrong_use_exits_with_16(command: Command, words: tuple[str, ...]) -> None:
    """Not with 2: the sum has a place for it."""
    outcome = command("fsck", *words)
    assert outcome.status == 16
    assert "usage" in outcome.talk
    assert not outcome.data


def test_what_is_no_store_is_wrong_use(command: Command, tmp_path: Path) -> None:
    """Nothing is made there."""
    outcome = command("fsck", tmp_path / "nothing", "--json")
    assert outcome.status == 16
    assert json.loads(outcome.talk.splitlines()[1])["error"]
    assert not (tmp_path / "nothing").exists()
    assert command("fsck", "--help").status == 0


def test_a_store_in_use_is_checked_and_not_repaired(filled: Path) -> None:
    """From another process: clean is clean; a repair is refused with 8, and says why."""
    with shardlog.open(filled) as opened:
        stream = opened.stream(NAME)
        append_some(stream, 5)
        assert run_process("fsck", filled).status == 0
        damage(filled)
        assert run_process("fsck", filled).status == 68
        outcome = run_process("fsck", filled, "--repair", "--yes")
        assert outcome.status == 8
        assert "open" in outcome.talk
    assert run_process("fsck", filled, "--repair", "--yes").status == 65

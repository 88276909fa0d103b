from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from shardlog import Change
from shardlog_tools import input_lines
from shardlog_tools.input_lines import LineError, change_of, open_lines
from shardlog_tools.output import CommandFailed


def lines_of(path: Path) -> list[tuple[int, bytes]]:
    """The numbered lines of a file."""
    with open_lines(str(path)) as lines:
        return list(lines)


@pytest.mark.parametrize(
    ("line", "change"),
    [
        (b'{"event":"INSERT","keys":{"a":1},"new":{"a":1}}', Change.insert(keys={"a": 1}, new={"a": 1})),
        (b'{"event":"INSERT","keys":{"a":1},"new":{},"old":null,"time":5}', Change.insert(keys={"a": 1}, new={})),
        (b'{"event":"MODIFY","keys":{},"new":{"b":2},"old":{}}\r\n', Change.modify(keys={}, old={}, new={"b": 2})),
        (b'{"event":"REMOVE","keys":{},"new":null,"old":null}', Change.remove(keys={})),
        (b'{"event":"REMOVE","keys":{"$$a":{"$bytes":""}},"$x":{}}', Change.remove(keys={"$a": b""})),
    ],
)
def test_a_line_is_a_change(line: bytes, change: Change) -> None:
    """Event, keys and images are taken, images may be missing or null, other fields do not matter."""
    assert change_of(line) == change


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b'{"event":"\xff"}', "not UTF-8: invalid start byte at byte 11"),
        (b"[]", "expected an object, found an array"),
        (b"null", "expected an object, found null"),
        (b"{}", "event: expected INSERT, MODIFY, REMOVE, found none"),
        (b'{"event":"PUT"}', "event: expected INSERT, MODIFY, REMOVE, found 'PUT'"),
        (b'{"event":[]}', "event: expected INSERT, MODIFY, REMOVE, found []"),
        (b'{"event":"INSERT"}', "keys: expected an object, found none"),
        (b'{"event":"INSERT","keys":[1]}', "keys: expected an object, found an array"),
        (b'{"event":"INSERT","keys":{"$bytes":""}}', "keys: expected an object, found a bytes"),
        (b'{"event":"INSERT","keys":{},"new":"x"}', "new: expected an object, found a string"),
        (b'{"event":"INSERT","keys":{},"new":{"a":{"$bytes":"!"}}}', "new: $bytes: expected base64, found '!'"),
        (b'{"event":"INSERT","keys":{},"old":{}}', "old: expected none in an INSERT"),
        (b'{"event":"REMOVE","keys":{},"new":{}}', "new: expected none in a REMOVE"),
        (b'{"gap":{"first":1}}', "a gap in the stream that this was read from, no change: {'first': 1}"),
    ],
)
def test_a_line_that_is_no_change_says_why(line: bytes, reason: str) -> None:
    """The reason names the field, what was expected and what was found."""
    with pytest.raises(LineError) as refusal:
        change_of(line)
    assert str(refusal.value) == reason


def test_lines_are_numbered_from_one(tmp_path: Path) -> None:
    """Blank lines count; the last line needs no line break."""
    path = tmp_path / "lines"
    path.write_bytes(b"a\n\n\nb")
    assert lines_of(path) == [(1, b"a\n"), (2, b"\n"), (3, b"\n"), (4, b"b")]


def test_gzip_is_recognised_by_its_content(tmp_path: Path) -> None:
    """Neither the name nor the number of members matters."""
    path = tmp_path / "lines"
    path.write_bytes(gzip.compress(b"a\n") + gzip.compress(b"b\n"))
    assert lines_of(path) == [(1, b"a\n"), (2, b"b\n")]


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    """Nothing is not an error."""
    path = tmp_path / "lines"
    path.write_bytes(b"")
    assert lines_of(path) == []


def test_a_gzip_stream_cut_off_is_an_error_with_its_place(tmp_path: Path) -> None:
    """What could be decompressed is given first; the end is not mistaken for the file's end."""
    path = tmp_path / "lines"
    path.write_bytes(
        gzip.compress(b"".join(b"%d %s\n" % (n, os.urandom(50).hex().encode()) for n in range(1000)))[:-2000]
    )
    seen = []
    with open_lines(str(path)) as lines, pytest.raises(CommandFailed, match=r"lines:\d+: the gzip stream is damaged"):
        seen.extend(lines)
    assert 0 < len(seen) < 1000


def test_a_line_without_end_is_not_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit is refused as one line, and the lines behind it have their own numbers."""
    monkeypatch.setattr(input_lines, "LINE_BYTES_MAX", 10)
    path = tmp_path / "lines"
    path.write_bytes(b"a\n" + b"x" * 3_000_000 + b"\nb\n" + b"y" * 11)
    numbers, lines = zip(*lines_of(path), strict=True)
    assert numbers == (1, 2, 3, 4)
    assert list(map(len, lines)) == [2, 11, 2, 11]
    with pytest.raises(LineError, match="expected a line of at most 10 bytes, found more"):
        change_of(lines[1])

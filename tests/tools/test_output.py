from __future__ import annotations

import io
import json
from typing import Any

import pytest

import shardlog
from shardlog_tools.output import CommandFailed, Output, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def make_output(*, as_json: bool) -> tuple[Output, io.BytesIO, io.StringIO]:
    """An output, its data and its talk."""
    data, talk = io.BytesIO(), io.StringIO()
    return Output(as_json=as_json, data=data, talk=talk), data, talk


def test_a_progress_bar_shows_on_a_terminal_when_work_takes_long() -> None:
    """Nothing for the first half second, then a line that replaces itself, and at the end it is gone."""
    talk, clock = Terminal(), Clock()
    progress = Progress(talk, 1000, clock)
    progress.show(100, 5, "records")
    assert talk.getvalue() == ""
    clock.now += 2
    progress.show(500, 5000, "records")
    assert talk.getvalue() == "\r\x1b[K[" + "=" * 15 + " " * 15 + "]  50%  5,000 records, 2,500/s"
    length = len(talk.getvalue())
    progress.show(501, 5001, "records")
    assert len(talk.getvalue()) == length
    progress.clear()
    assert talk.getvalue().endswith("/s\r\x1b[K")


def test_no_progress_bar_but_on_a_terminal() -> None:
    """A log file gets no control characters."""
    talk, clock = io.StringIO(), Clock()
    progress = Progress(talk, None, clock)
    clock.now += 60
    progress.show(1, 1, "records")
    progress.clear()
    assert talk.getvalue() == ""


def test_an_error_is_one_line() -> None:
    """Whatever a message holds, whoever reads stderr line by line sees one."""
    output, data, talk = make_output(as_json=False)
    output.say_error(CommandFailed("one\n two\n"))
    assert talk.getvalue() == "shardlog: one; two\n"
    assert data.getvalue() == b""


def test_an_error_is_also_an_object_where_json_was_asked_for() -> None:
    """Programs get the class and what the exception carries."""
    output, _, talk = make_output(as_json=True)
    output.say_error(shardlog.CorruptLog("broken", segment="x.seg", offset=4096, sequences=(1, 5)))
    line, text = talk.getvalue().splitlines()
    assert line == "shardlog: broken"
    assert json.loads(text) == {
        "error": "CorruptLog",
        "message": "broken",
        "segment": "x.seg",
        "offset": 4096,
        "sequences": [1, 5],
    }


def test_data_is_utf8_whatever_the_locale() -> None:
    """File names that are no UTF-8 are escaped, so that JSON stays JSON."""
    output, data, _ = make_output(as_json=True)
    output.object({"path": "é\udcff"})
    assert data.getvalue() == '{"path": "é\\udcff"}\n'.encode()


class ShortWrites(io.BytesIO):
    """What stdout is with PYTHONUNBUFFERED: a stream that may take less than it is given."""

    def write(self, content: Any) -> int:
        return super().write(bytes(content)[:7])


def test_data_is_whole_where_stdout_takes_a_part() -> None:
    """A signal may end a write to an unbuffered pipe early; the rest was lost, and then checkpointed."""
    data = ShortWrites()
    output = Output(as_json=False, data=data, talk=io.StringIO())
    output.lines(b"one line\nanother line\n")
    output.line("and é")
    assert data.getvalue().decode() == "one line\nanother line\nand é\n"


def test_stdout_that_would_block_is_an_error() -> None:
    """Not a loop that waits for it."""

    class Full(io.BytesIO):
        def write(self, content: Any) -> Any:
            return None

    with pytest.raises(BlockingIOError):
        Output(as_json=False, data=Full(), talk=io.StringIO()).line("x")

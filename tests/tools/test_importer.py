from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tools.changes import as_bytes

from shardlog import Change, InvalidArgument
from shardlog.model import Appended
from shardlog_tools.importing import Importer, Totals
from shardlog_tools.input_lines import InputLines
from shardlog_tools.output import CommandFailed, Output


class PickyStream:
    """Appends to a list, atomically, and refuses what `is_refused` says; it may or may not name the record."""

    def __init__(self, *, is_refused: Callable[[int], bool], batch_max: int = 10**9, names_record: bool) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.refuses_producer = False
        self._is_refused = is_refused
        self._batch_max = batch_max
        self._names_record = names_record

    def append(self, changes: list[Change], *, producer: str, position: int) -> Appended:
        if self.refuses_producer:
            raise InvalidArgument("too many producers")
        for index, change in enumerate(changes):
            if self._is_refused(change.keys["id"]):
                raise InvalidArgument("refused", position=index if self._names_record else None)
        if len(changes) > self._batch_max:
            raise InvalidArgument("too much at once")
        first = len(self.ids)
        self.ids += [change.keys["id"] for change in changes]
        self.positions.append(position)
        return Appended(list(range(first, len(self.ids))), False)

    def position(self, producer: str) -> int | None:
        return self.positions[-1] if self.positions else None


def run_import(stream: Any, path: Path, *, skips_refused: bool) -> Totals:
    """Import a file into a stream."""
    output = Output(as_json=False, data=io.BytesIO(), talk=io.StringIO())
    with path.open("rb") as source:
        lines = InputLines("lines", source)
        importer = Importer(stream, lines, output, producer="p", batch_records=100, skips_refused=skips_refused)
        importer.run(None)
    return importer.totals


@pytest.fixture
def lines_file(tmp_path: Path) -> Path:
    """A file of inserts whose ids are their line numbers."""
    path = tmp_path / "lines"
    path.write_bytes(as_bytes([{"event": "INSERT", "keys": {"id": number}} for number in range(1, 301)]))
    return path


@pytest.mark.parametrize("names_record", [True, False])
@pytest.mark.parametrize(
    "is_refused",
    [lambda _: True, lambda _: False, lambda n: n == 1, lambda n: n == 300, lambda n: n % 7 == 0, lambda n: n % 2 == 0],
)
def test_only_refused_records_are_left_out(
    lines_file: Path, is_refused: Callable[[int], bool], names_record: bool
) -> None:
    """Whether or not the refusal names the record, the others go in, in order, under growing positions."""
    stream = PickyStream(is_refused=is_refused, names_record=names_record)
    totals = run_import(stream, lines_file, skips_refused=True)
    assert stream.ids == [number for number in range(1, 301) if not is_refused(number)]
    assert stream.positions == sorted(set(stream.positions))
    assert [skipped["line"] for skipped in totals.skipped] == list(filter(is_refused, range(1, 301)))
    assert totals.records == len(stream.ids)


@pytest.mark.parametrize("names_record", [True, False])
def test_stopping_appends_what_stands_before_the_refused_record(lines_file: Path, names_record: bool) -> None:
    """Nothing before it is lost, nothing behind it is appended."""
    stream = PickyStream(is_refused=lambda n: n == 150, names_record=names_record)
    with pytest.raises(CommandFailed, match="lines:150: refused"):
        run_import(stream, lines_file, skips_refused=False)
    assert stream.ids == list(range(1, 150))
    assert stream.positions[-1] == 149


@pytest.mark.parametrize("skips_refused", [True, False])
def test_a_refusal_of_the_producer_is_not_blamed_on_lines(lines_file: Path, skips_refused: bool) -> None:
    """Where no append would be accepted, skipping would end with nothing imported and no error."""
    stream = PickyStream(is_refused=lambda _: False, names_record=True)
    stream.refuses_producer = True
    with pytest.raises((InvalidArgument, CommandFailed), match="too many producers"):
        run_import(stream, lines_file, skips_refused=skips_refused)


def test_a_batch_that_is_too_much_at_once_is_cut(lines_file: Path) -> None:
    """A refusal of the whole is no refusal of any record."""
    stream = PickyStream(is_refused=lambda _: False, batch_max=30, names_record=True)
    run_import(stream, lines_file, skips_refused=False)
    assert stream.ids == list(range(1, 301))

"""`shardlog import`: append the changes of a JSON Lines file, once each, whatever happens in between.

Owns batching, positions and what happens to a line that is refused. The idea: lines are appended in batches with a
producer's position, which is the number of the batch's last line; the log commits it together with the records. So
after a crash `--resume` asks the stream how far the producer came and goes on behind that line, and nothing is
imported twice or left out. A second import under the same name is refused unless it says `--resume`.

What it cannot know: whether the file is still the one that the producer's earlier lines came from. It refuses a file
with fewer lines than were imported.
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from dataclasses import dataclass, field
from typing import Any, Final

import shardlog
from shardlog import Change, InvalidArgument, ShardlogError, StreamNotFound
from shardlog_tools.arguments import Subparsers, add_stream_arguments, integer_between
from shardlog_tools.input_lines import InputLines, LineError, change_of, open_lines
from shardlog_tools.output import DONE, CommandFailed, Output

_BATCH_RECORDS_DEFAULT: Final = 500
_BATCH_RECORDS_MAX: Final = 10_000
_BATCH_BYTES_MAX: Final = 4 << 20
_SKIPPED_SHOWN_MAX: Final = 20
_REPORT_EVERY_LINES: Final = 1024


@dataclass
class Totals:
    """What one run of an import came to; `lines` is the number of the last line read."""

    lines: int = 0
    records: int = 0
    first_sequence: int | None = None
    last_sequence: int | None = None
    skipped: list[dict[str, Any]] = field(default_factory=list)


class LineRefused(CommandFailed):
    """A line cannot be imported, and the import stops there."""


class Importer:
    """Appends lines to a stream under a producer's name. `totals` is true at any moment, also after an exception."""

    def __init__(
        self,
        stream: shardlog.Stream,
        lines: InputLines,
        output: Output,
        *,
        producer: str,
        batch_records: int,
        skips_refused: bool,
    ) -> None:
        self.totals = Totals()
        self._stream = stream
        self._lines = lines
        self._output = output
        self._producer = producer
        self._position: int | None = None
        self._batch_records = batch_records
        self._skips_refused = skips_refused

    def run(self, after_line: int | None) -> None:
        """Import every line behind `after_line`, the producer's position when this run began (None: all lines)."""
        progress = self._output.progress(self._lines.bytes_total)
        self._position = after_line
        changes: list[Change] = []
        numbers: list[int] = []
        batch_bytes = 0
        for number, line in self._lines:
            self.totals.lines = number
            if number % _REPORT_EVERY_LINES == 0:
                progress.show(self._lines.bytes_read(), self.totals.records, "records")
            if (after_line is not None and number <= after_line) or line.isspace():
                continue
            try:
                change = change_of(line)
            except LineError as error:
                if not self._skips_refused:
                    self._append(changes, numbers)
                self._refuse(number, str(error))
                continue
            changes.append(change)
            numbers.append(number)
            batch_bytes += len(line)
            if len(changes) >= self._batch_records or batch_bytes >= _BATCH_BYTES_MAX:
                self._append(changes, numbers)
                changes, numbers, batch_bytes = [], [], 0
        self._append(changes, numbers)
        progress.clear()
        if after_line is not None and self.totals.lines < after_line:
            raise CommandFailed(
                f"{self._lines.name}: expected the input that producer {self._producer!r} has read {after_line:,} "
                f"lines of, found only {self.totals.lines:,}: another input?"
            )

    def _append(self, changes: list[Change], numbers: list[int]) -> None:
        """Append a batch; a record that is refused is dealt with alone, and the others go in, in their order."""
        while changes:
            self._expect_to_be_alone()
            try:
                result = self._stream.append(changes, producer=self._producer, position=numbers[-1])
            except InvalidArgument as error:
                index = error.position
                if index is None and len(changes) > 1:
                    # The batch as a whole is refused: a half of it may not be, and the other names its record.
                    middle = len(changes) // 2
                    self._append(changes[:middle], numbers[:middle])
                    changes, numbers = changes[middle:], numbers[middle:]
                    continue
                if index is None:
                    self._expect_fault_in_record(error, numbers[0])
                    index = 0
                self._append(changes[:index], numbers[:index])
                self._refuse(numbers[index], str(error).removeprefix(f"record {index}, "))
                changes, numbers = changes[index + 1 :], numbers[index + 1 :]
                continue
            if result.duplicate:
                raise self._disturbed()
            self._position = numbers[-1]
            self.totals.records += len(result.sequences)
            if self.totals.first_sequence is None:
                self.totals.first_sequence = result.sequences[0]
            self.totals.last_sequence = result.sequences[-1]
            return

    def _expect_to_be_alone(self) -> None:
        if self._stream.position(self._producer) != self._position:
            raise self._disturbed()

    def _expect_fault_in_record(self, error: InvalidArgument, number: int) -> None:
        """A refusal that names no record may be about the producer; skipping line after line would not help then.

        An append of nothing tells, and where it is accepted the line's number counts as dealt with, as it is.
        """
        if not self._skips_refused:
            return
        try:
            self._stream.append([], producer=self._producer, position=number)
        except InvalidArgument:
            raise error from None
        self._position = number

    def _disturbed(self) -> CommandFailed:
        return CommandFailed(f"another import runs as producer {self._producer!r}; give each its own --producer")

    def _refuse(self, number: int, reason: str) -> None:
        if not self._skips_refused:
            raise LineRefused(f"{self._lines.name}:{number}: {reason}")
        self.totals.skipped.append({"line": number, "reason": reason})
        if len(self.totals.skipped) <= _SKIPPED_SHOWN_MAX:
            self._output.say(f"skipped {self._lines.name}:{number}: {reason}")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "import",
        help="append the changes of a JSON Lines file",
        description="Append changes to a stream, one per line: "
        '{"event": "INSERT" | "MODIFY" | "REMOVE", "keys": {...}, "new": {...} | null, "old": {...} | null}. '
        "Other fields are ignored, blank lines too, gzip is recognised. "
        "An acknowledged batch is durable at the stream's level.",
    )
    add_stream_arguments(parser)
    parser.add_argument("file", metavar="FILE", help="the file, or - for stdin")
    parser.add_argument("--resume", action="store_true", help="go on behind the last line that this producer imported")
    parser.add_argument(
        "--producer", metavar="NAME", help="the name under which the stream remembers lines (default: import:FILE)"
    )
    parser.add_argument(
        "--batch",
        type=integer_between(1, _BATCH_RECORDS_MAX),
        default=_BATCH_RECORDS_DEFAULT,
        metavar="N",
        help="records per durable append (default: %(default)s; 1 for a pipe that trickles)",
    )
    parser.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="what to do at a line that is refused (default: %(default)s)",
    )
    parser.add_argument("--create", action="store_true", help="create store and stream where they do not exist")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Import; returns the exit status."""
    producer = args.producer or f"import:{'stdin' if args.file == '-' else os.path.basename(args.file)}"
    with open_lines(args.file) as lines, _store(args) as store:
        stream = _stream(store, args)
        position = stream.position(producer)
        if position is not None and not args.resume:
            raise CommandFailed(
                f"producer {producer!r} has imported lines up to {position:,} into {args.stream}: "
                "go on behind them with --resume, or import them once more with another --producer"
            )
        if position is not None:
            output.say(f"resuming behind line {position:,}")
        importer = Importer(
            stream,
            lines,
            output,
            producer=producer,
            batch_records=args.batch,
            skips_refused=args.on_error == "skip",
        )
        started = time.monotonic()
        failure: str | None = "an unexpected error"
        try:
            importer.run(position)
            failure = None
        except (KeyboardInterrupt, CommandFailed, ShardlogError) as error:
            failure = str(error) or type(error).__name__
            _say_how_to_resume(stream, producer, args, output)
            raise
        finally:
            _report(importer.totals, time.monotonic() - started, failure, output)
    return DONE


def _store(args: argparse.Namespace) -> shardlog.Store:
    try:
        return shardlog.open(args.store, create=args.create)
    except InvalidArgument as error:
        raise CommandFailed(f"{error}; {_creation(args)}") from error


def _stream(store: shardlog.Store, args: argparse.Namespace) -> shardlog.Stream:
    try:
        return store.stream(args.stream)
    except StreamNotFound as error:
        if args.create:
            return store.create_stream(args.stream)
        raise CommandFailed(f"{error}; {_creation(args)}") from error


def _creation(args: argparse.Namespace) -> str:
    return f"to make it: {shlex.join(['shardlog', 'create', args.store, args.stream])}, or import with --create"


def _say_how_to_resume(stream: shardlog.Stream, producer: str, args: argparse.Namespace, output: Output) -> None:
    try:
        position = stream.position(producer)
    except ShardlogError as error:
        output.say(f"how far the import came cannot be told now ({error}); --resume will find out")
        return
    if position is None:
        output.say("nothing was imported")
        return
    words = ["shardlog", "import", args.store, args.stream, args.file, "--resume"]
    if args.producer:
        words += ["--producer", args.producer]
    output.say(f"imported up to line {position:,}; to go on: {shlex.join(words)}")


def _report(totals: Totals, seconds: float, failure: str | None, output: Output) -> None:
    if output.as_json:
        output.object(
            {
                "records": totals.records,
                "lines": totals.lines,
                "skipped": totals.skipped,
                "first_sequence": totals.first_sequence,
                "last_sequence": totals.last_sequence,
                "seconds": round(seconds, 3),
                "failure": failure,
            }
        )
        return
    skipped = f", {len(totals.skipped):,} lines skipped" if totals.skipped else ""
    rate = totals.records / seconds if seconds else 0
    output.say(f"{totals.records:,} records in {seconds:.2f} s ({rate:,.0f}/s){skipped}")

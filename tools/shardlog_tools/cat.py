"""`shardlog cat`: the records of a stream as JSON Lines, in their total order.

Owns the positions that `--from` and `--to` take and the line that a record becomes: what `shardlog import` reads. Made
for bulk: what is per record is one JSON encoding of its images, and lines are written in pieces of about
`_PIECE_BYTES`. When it follows, each line is written at once.

A damaged range that `--on-damage gap` steps over is a line of its own, `{"gap": {"first", "next", "reason"}}`, and the
exit status is 1: `import` refuses such a line, so a hole in an export is noticed.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import shardlog
from shardlog.format.record import Record
from shardlog.model import Gap
from shardlog_tools.arguments import Subparsers, add_stream_arguments, integer_between, seconds
from shardlog_tools.json_values import to_json
from shardlog_tools.output import DONE, FAILED, Output
from shardlog_tools.shard_names import find_shard

_PIECE_BYTES: Final = 256 << 10
_RECORDS_MAX: Final = 2**63 - 1

Position = str | int | datetime


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "cat",
        help="print records as JSON Lines",
        description="Print records as JSON Lines, in their total order. POSITION is TRIM_HORIZON, LATEST, a sequence "
        "number, or a time such as 2026-01-02T03:04:05+01:00 (UTC where it has no offset).",
    )
    add_stream_arguments(parser)
    parser.add_argument("--label", help="an older stream of this name (default: the newest)")
    parser.add_argument(
        "--from",
        dest="start",
        type=position,
        default="TRIM_HORIZON",
        metavar="POSITION",
        help="the first record (default: %(default)s)",
    )
    parser.add_argument("--to", dest="stop", type=position, metavar="POSITION", help="end before this record")
    parser.add_argument("--shard", metavar="SHARD", help="records of this shard only: its id, number, or part of it")
    parser.add_argument("--limit", type=integer_between(0, _RECORDS_MAX), metavar="N", help="at most N records")
    parser.add_argument("--follow", action="store_true", help="wait for more records, until interrupted")
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="with --follow: end after so long without a record"
    )
    parser.add_argument(
        "--on-damage",
        choices=("raise", "gap"),
        default="raise",
        help="at records that cannot be read: raise - end with an error; gap - print a line about them, go on, and "
        "exit with 1 (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def position(text: str) -> Position:
    """A type for argparse: where reading starts or stops."""
    if text in ("TRIM_HORIZON", "LATEST"):
        return text
    if re.fullmatch(r"\d{1,20}", text, re.ASCII):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected TRIM_HORIZON, LATEST, a sequence number or a time in ISO 8601, found {text!r}"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def run(args: argparse.Namespace, output: Output) -> int:
    """Print the records; returns the exit status."""
    with shardlog.open(args.store, create=False, read_only=not args.follow) as store:
        stream = store.stream(args.stream, args.label)
        records = stream.read(
            args.start,
            stop=args.stop,
            shard_id=None if args.shard is None else find_shard(stream.describe(), args.shard).shard_id,
            follow=args.follow,
            timeout=args.timeout,
            on_damage=args.on_damage,
        )
        gaps: list[Gap] = []
        lines = record_lines(islice(records, args.limit), gaps)
        if args.follow:
            _write_each(lines, output)
        else:
            _write_in_pieces(lines, output)
    for gap in gaps:
        output.say(f"records {gap.first} to {gap.next - 1} cannot be read: {gap.reason}")
    return FAILED if gaps else DONE


def record_lines(records: Iterable[Record | Gap], gaps: list[Gap]) -> Iterator[str]:
    """A line for each record and gap; the gaps are also put into `gaps`."""
    timestamp_us, created_at = None, ""
    for record in records:
        if isinstance(record, Gap):
            gaps.append(record)
            yield to_json({"gap": {"first": record.first, "next": record.next, "reason": record.reason}}) + "\n"
            continue
        if record.timestamp_us != timestamp_us:  # all records of a commit share it, and its text is dear
            timestamp_us, created_at = record.timestamp_us, record.created_at.isoformat()
        images = to_json({"keys": record.keys, "new": record.new_image, "old": record.old_image})
        yield (
            f'{{"sequence":{record.sequence},"shard":"{record.shard_id}","event":"{record.event}",'
            f'{images[1:-1]}{_identity(record)},"created_at":"{created_at}"}}\n'
        )


def _identity(record: Record) -> str:
    """The service that made the change, where it was not the application."""
    return "" if record.identity is None else f',"identity":{to_json(record.identity)}'


def _write_each(lines: Iterator[str], output: Output) -> None:
    for line in lines:
        output.lines(line.encode())
        output.write_out()


def _write_in_pieces(lines: Iterator[str], output: Output) -> None:
    """Few large writes; what was read is written also when reading fails."""
    piece: list[str] = []
    size = 0
    try:
        for line in lines:
            piece.append(line)
            size += len(line)
            if size >= _PIECE_BYTES:
                output.lines("".join(piece).encode())
                piece.clear()
                size = 0
    finally:
        output.lines("".join(piece).encode())

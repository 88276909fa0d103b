"""`shardlog set-retention`: change how long a stream keeps its records."""

from __future__ import annotations

import argparse

import shardlog
from shardlog_tools.arguments import Subparsers, add_stream_arguments, duration, size
from shardlog_tools.descriptions import retention_words, stream_as_json
from shardlog_tools.output import DONE, Output


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "set-retention",
        help="change how long records stay readable",
        description="Change how long records stay readable. What is too old goes with the next expiry.",
    )
    add_stream_arguments(parser)
    parser.add_argument("retention", type=duration, metavar="TIME", help="such as 90s, 24h, 7d, forever")
    parser.add_argument(
        "--bytes",
        type=size,
        default=argparse.SUPPRESS,
        metavar="N",
        help="keep at most so many bytes of log, such as 10GiB; none: any number (default: as it is)",
    )
    parser.add_argument(
        "--hold",
        type=_groups,
        default=argparse.SUPPRESS,
        metavar="GROUP[,GROUP]",
        help="keep what these groups have not checkpointed; none: nothing (default: as it is)",
    )
    parser.add_argument(
        "--hold-bytes",
        type=size,
        default=argparse.SUPPRESS,
        metavar="N",
        help="keep it until the log takes so many bytes; none: without end (default: as it is)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Change the retention; returns the exit status."""
    with shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        before = stream.describe()
        hold = getattr(args, "hold", before.hold)
        stream.set_retention(
            args.retention,
            retention_bytes=getattr(args, "bytes", before.retention_bytes),
            hold=hold,
            hold_bytes_max=getattr(args, "hold_bytes", before.hold_bytes_max if hold else None),
        )
        after = stream.describe()
    if output.as_json:
        output.object(stream_as_json(after))
    else:
        output.say(f"retention of {args.stream}: {retention_words(after)} (it was: {retention_words(before)})")
    return DONE


def _groups(text: str) -> tuple[str, ...]:
    return () if text == "none" else tuple(text.split(","))

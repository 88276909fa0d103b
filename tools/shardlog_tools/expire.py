"""`shardlog expire`: remove the segments whose records are older than the retention."""

from __future__ import annotations

import argparse

import shardlog
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.descriptions import bytes_words, count_words, retention_words
from shardlog_tools.output import DONE, FAILED, Output


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "expire",
        help="remove what is older than the retention",
        description="Remove the segments whose records are all older than the retention, or over the cap by bytes. "
        "Exits with 1 where it held back from removing what is old enough.",
    )
    add_stream_arguments(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="do not hold back: also right after the clock jumped, and if it removes all of several sealed segments",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Expire; returns the exit status."""
    with shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        trimmed = stream.expire(force=args.force)
        retention = retention_words(stream.describe())
    if output.as_json:
        output.object(
            {
                "horizon_before": trimmed.horizon_before,
                "horizon_after": trimmed.horizon_after,
                "segments": trimmed.segments,
                "bytes": trimmed.bytes,
                "held_back": trimmed.held_back,
            }
        )
    if trimmed.held_back is not None:
        output.say(f"shardlog: stream {args.stream}: nothing removed: {trimmed.held_back}")
        return FAILED
    if not output.as_json:
        output.say(
            f"removed {count_words(trimmed.segments, 'segment')} of {args.stream}, {bytes_words(trimmed.bytes)}: "
            f"the trim horizon went from {trimmed.horizon_before:,} to {trimmed.horizon_after:,}"
            if trimmed.segments
            else f"nothing of {args.stream} is old enough (retention {retention})"
        )
    return DONE

"""`shardlog snapshot`: a copy of one stream, as of now, in a store of its own."""

from __future__ import annotations

import argparse

import shardlog
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.output import DONE, Output


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "snapshot",
        help="copy a stream, as of now, into a new store",
        description="Copy a stream, as of now, into a new store, while others append. Damage to either leaves the "
        "other good. With --link sealed segments are hard-linked where that is possible: that takes no space, but a "
        "bit that flips on the disk is flipped in both.",
    )
    add_stream_arguments(parser)
    parser.add_argument("dest", metavar="DEST", help="the new store's directory, which must not exist or be empty")
    parser.add_argument("--label", help="an older stream of this name (default: the newest)")
    parser.add_argument("--link", action="store_true", help="link sealed segments instead of copying them")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Take the snapshot; returns the exit status."""
    with shardlog.open(args.store, create=False, read_only=True) as store:
        stream = store.stream(args.stream, args.label)
        stream.snapshot(args.dest, links=args.link)
    with shardlog.open(args.dest, create=False, read_only=True) as store:
        statistics = store.stream(args.stream).statistics()
    if output.as_json:
        output.object({"dest": args.dest, "records": statistics.records, "next_sequence": statistics.next_sequence})
    else:
        output.say(f"{args.dest}: {statistics.records:,} records of {args.stream}, up to {statistics.next_sequence:,}")
    return DONE

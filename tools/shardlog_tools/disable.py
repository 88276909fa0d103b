"""`shardlog disable`: close a stream to appends; what it holds stays readable until it has expired."""

from __future__ import annotations

import argparse

import shardlog
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.descriptions import stream_as_json
from shardlog_tools.output import DONE, Output


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "disable",
        help="close a stream to appends",
        description="Close a stream to appends. Its records stay readable until they have expired.",
    )
    add_stream_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Disable the stream; returns the exit status."""
    with shardlog.open(args.store, create=False) as store:
        label = store.stream(args.stream).describe().label
        store.disable_stream(args.stream)
        description = store.stream(args.stream, label).describe()
    if output.as_json:
        output.object(stream_as_json(description))
    else:
        output.say(f"disabled stream {args.stream} in {args.store}; its records stay readable")
    return DONE

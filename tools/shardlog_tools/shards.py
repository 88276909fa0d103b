"""`shardlog shards`: the lineage of a stream, drawn as a tree, and as a picture on request."""

from __future__ import annotations

import argparse

import shardlog
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.lineage import lineage_as_json, read_lineage
from shardlog_tools.lineage_picture import draw
from shardlog_tools.lineage_tree import summary, tree_lines
from shardlog_tools.output import DONE, Output


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "shards",
        help="draw the lineage of a stream's shards",
        description="Draw the lineage of a stream's shards: what split, merged and rolled over into what, with hash "
        "ranges, records and rates.",
    )
    add_stream_arguments(parser)
    parser.add_argument("--label", help="an older stream of this name (default: the newest)")
    parser.add_argument("--svg", metavar="FILE", help="draw it over time, as a picture in this file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Draw it; returns the exit status."""
    with shardlog.open(args.store, create=False, read_only=True) as store:
        lineage = read_lineage(store.stream(args.stream, args.label))
    if args.svg is not None:
        with open(args.svg, "w", encoding="utf-8") as picture:
            picture.write(draw(lineage))
    if output.as_json:
        output.object(lineage_as_json(lineage))
    else:
        for line in (summary(lineage), "", *tree_lines(lineage)):
            output.line(line)
    if args.svg is not None:
        output.say(f"the picture is in {args.svg}")
    return DONE

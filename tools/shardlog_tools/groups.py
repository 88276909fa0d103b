"""`shardlog groups`: who consumes a stream, how the work is shared, and how far behind they are."""

from __future__ import annotations

import argparse

import shardlog
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.descriptions import table
from shardlog_tools.group_figures import GroupFigures, age_words, figures_of, group_as_json, worker_lines
from shardlog_tools.output import DONE, Output

_HEADINGS = ("GROUP", "START", "WORKERS", "LEASES", "BEHIND", "OLDEST")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "groups",
        help="show the groups that consume a stream, and their workers",
        description="Show the groups that consume a stream: the sequence number that each began at, its workers, the "
        "leases on shards that are not finished (held ones of all), how many records are not checkpointed, and how old "
        "the oldest of them is. Below each group: its workers, with the numbers of the shards that they hold.",
    )
    add_stream_arguments(parser)
    parser.add_argument("--label", help="an older stream of this name (default: the newest)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Show the groups; returns the exit status."""
    with shardlog.open(args.store, create=False, read_only=True) as store:
        stream = store.stream(args.stream, args.label)
        groups = [figures_of(stream.group(name)) for name in stream.groups()]
    if output.as_json:
        output.object({"stream": args.stream, "groups": list(map(group_as_json, groups))})
    elif not groups:
        output.line(f"no groups; `shardlog consume {args.store} {args.stream} --group NAME` makes one")
    else:
        _show(groups, output)
    return DONE


def _show(groups: list[GroupFigures], output: Output) -> None:
    headings, *lines = table([_HEADINGS, *map(_row, groups)])
    output.line(headings)
    for figures, line in zip(groups, lines, strict=True):
        output.line(line)
        for worker in worker_lines(figures):
            output.line(f"  {worker}")


def _row(figures: GroupFigures) -> tuple[str, ...]:
    held = sum(lease.owner is not None for lease in figures.open_leases)
    return (
        figures.name,
        f"{figures.start:,}",
        f"{len(figures.workers):,}",
        f"{held:,} of {len(figures.open_leases):,}",
        f"{figures.lag.records:,}",
        age_words(figures.lag.age) if figures.lag.records else "-",
    )

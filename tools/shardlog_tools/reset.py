"""`shardlog reset` and `shardlog delete-group`: let a group begin anew, or forget it; both after asking."""

from __future__ import annotations

import argparse

import shardlog
from shardlog import Group
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.asking import check_can_ask, is_confirmed
from shardlog_tools.cat import position
from shardlog_tools.descriptions import count_words
from shardlog_tools.group_figures import existing_group, lag_words
from shardlog_tools.output import DONE, CommandFailed, Output


def add_parser(subparsers: Subparsers) -> None:
    """Declare the commands' arguments."""
    parser = subparsers.add_parser(
        "reset",
        help="let a group begin anew at another position",
        description="Let a group begin anew: all its checkpoints are forgotten, and it goes on at POSITION. That is "
        "TRIM_HORIZON, LATEST, a sequence number, or a time such as 2026-01-02T03:04:05+01:00 (UTC where it has no "
        "offset). Running workers lose what they hold, and go on there. Asks first.",
    )
    _add_group_arguments(parser)
    parser.add_argument("--to", required=True, type=position, metavar="POSITION", help="the first record to consume")
    parser.set_defaults(run=run)
    parser = subparsers.add_parser(
        "delete-group",
        help="forget a group with its leases and checkpoints",
        description="Forget a group with its leases and checkpoints; the records stay. Its running workers end with an "
        "error. Asks first.",
    )
    _add_group_arguments(parser)
    parser.set_defaults(run=run_delete)


def run(args: argparse.Namespace, output: Output) -> int:
    """Reset the group; returns the exit status."""
    check_can_ask(args.yes, "reset")
    with shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        group = existing_group(stream, args.group)
        stream.sequence_of(args.to)  # what is wrong with it is said before anything is asked
        _ask(args, group, f"Let group {args.group} of {args.stream} begin anew at {args.to}", "reset", output)
        before = group.lag()
        group.reset(args.to)
        start, lag = group.start, group.lag()
    if output.as_json:
        output.object({"group": args.group, "start": start, "records_before": before.records, "records": lag.records})
    else:
        output.say(
            f"group {args.group} of {args.stream} begins anew at sequence number {start:,}: {lag_words(lag)} "
            f"(it was: {lag_words(before)})"
        )
    return DONE


def run_delete(args: argparse.Namespace, output: Output) -> int:
    """Delete the group; returns the exit status."""
    check_can_ask(args.yes, "delete")
    with shardlog.open(args.store, create=False) as store:
        group = existing_group(store.stream(args.stream), args.group)
        _ask(args, group, f"Delete group {args.group} of {args.stream} with its checkpoints", "deleted", output)
        group.delete()
    if output.as_json:
        output.object({"deleted": args.group})
    else:
        output.say(f"deleted group {args.group} of {args.stream}")
    return DONE


def _add_group_arguments(parser: argparse.ArgumentParser) -> None:
    add_stream_arguments(parser)
    parser.add_argument("--group", required=True, metavar="GROUP", help="the group's name")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _ask(args: argparse.Namespace, group: Group, question: str, done: str, output: Output) -> None:
    if args.yes:
        return
    running = sum(worker.is_alive for worker in group.workers())
    state = f"{count_words(running, 'worker')} running, {lag_words(group.lag())}"
    if not is_confirmed(f"{question} ({state})? Type the group's name to confirm:", args.group, output):
        raise CommandFailed(f"not confirmed, nothing {done}")

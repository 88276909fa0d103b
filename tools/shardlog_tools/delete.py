"""`shardlog delete`: remove a stream with all its records, after asking."""

from __future__ import annotations

import argparse

import shardlog
from shardlog import InvalidArgument, ShardlogError, StreamNotFound
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.asking import check_can_ask, is_confirmed
from shardlog_tools.output import DONE, CommandFailed, Output


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "delete",
        help="remove a stream with all its records",
        description="Remove a stream with all its records, all its labels and its consumers' checkpoints. Asks first.",
    )
    add_stream_arguments(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Delete the stream; returns the exit status."""
    check_can_ask(args.yes, "delete")
    records = _records(args)
    words = f"stream {args.stream} with {'an unknown number of' if records is None else f'{records:,}'} records"
    question = f"Delete {words} from {args.store}? Type the stream's name to confirm:"
    if not args.yes and not is_confirmed(question, args.stream, output):
        raise CommandFailed("not confirmed, nothing deleted")
    with shardlog.open(args.store, create=False) as store:
        store.delete_stream(args.stream)
    if output.as_json:
        output.object({"deleted": args.stream, "records": records})
    else:
        output.say(f"deleted {words} from {args.store}")
    return DONE


def _records(args: argparse.Namespace) -> int | None:
    """How many records would go; None where the stream is too damaged to tell, which is no reason to keep it."""
    with shardlog.open(args.store, create=False, read_only=True) as store:
        try:
            return store.stream(args.stream).statistics().records
        except (InvalidArgument, StreamNotFound):
            raise
        except ShardlogError:
            return None

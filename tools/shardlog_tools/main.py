"""The command `shardlog`: arguments in, exit status out.

Owns the parser of the whole command line and the translation of what a command raises into one line on stderr and an
exit status: 0 done, 1 failed, 2 used wrongly, 130 interrupted. What a command does is in its own module, which has
`add_parser(subparsers)` and `run(args, output)`.

An exception that is not expected here keeps its traceback: it is a mistake of ours, and hiding it helps nobody.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from shardlog import ShardlogError
from shardlog_tools import (
    bench,
    cat,
    consume,
    create,
    delete,
    demo,
    disable,
    dump,
    expire,
    fsck,
    groups,
    importing,
    lag,
    reset,
    resharding,
    salvage,
    scrub,
    serve,
    set_retention,
    set_sharding,
    shards,
    snapshot,
    stat,
)
from shardlog_tools.output import DONE, FAILED, INTERRUPTED, USED_WRONGLY, CommandFailed, Output

_COMMANDS: Final = (
    create,
    importing,
    cat,
    stat,
    shards,
    resharding,
    set_sharding,
    set_retention,
    expire,
    disable,
    delete,
    consume,
    groups,
    lag,
    reset,
    fsck,
    snapshot,
    scrub,
    salvage,
    dump,
    serve,
    bench,
    demo,
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="shardlog",
        description="A durable change log in a directory: append item changes, read them back in order.",
        epilog="exit status: 0 done, 1 failed, 2 used wrongly (fsck: see its help)",
        allow_abbrev=False,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    for subparser in subparsers.choices.values():
        subparser.allow_abbrev = False
        subparser.add_argument(
            "--json", action="store_true", help="print data as JSON, and an error also as a JSON object on stderr"
        )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        args = build_parser().parse_args(words)
    except SystemExit as stop:  # argparse has said what was wrong, or printed the help that was asked for
        status = stop.code if isinstance(stop.code, int) else USED_WRONGLY
        return fsck.USAGE_STATUS if status == USED_WRONGLY and words[:1] == ["fsck"] else status
    output = Output(as_json=args.json, data=sys.stdout.buffer, talk=sys.stderr)
    try:
        status = _run(args, output)
        output.write_out()
    except BrokenPipeError:
        output.abandon()
        return DONE  # whoever read our output has seen enough
    except OSError as error:
        output.abandon()
        output.say_error(error)
        return FAILED
    return status


def _run(args: argparse.Namespace, output: Output) -> int:
    """The exit status of a command. What goes wrong between it and its output is not settled here."""
    try:
        status: int = args.run(args, output)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return INTERRUPTED
    except CommandFailed as failure:
        output.say_error(failure)
        return failure.status
    except (ShardlogError, OSError) as error:
        output.say_error(error)
        return FAILED
    return status

"""`shardlog bench`: how fast shardlog is on this machine, in this directory, beside a loop that does only what it must.

Works in a temporary directory that is removed at the end. Comparisons with other stores are in the project's `bench/`.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Final

from shardlog_tools.arguments import Subparsers, integer_between, seconds
from shardlog_tools.measuring.machine import describe
from shardlog_tools.measuring.results import as_json, render
from shardlog_tools.measuring.rounds import Settings
from shardlog_tools.measuring.workloads import WORKLOADS
from shardlog_tools.output import DONE, Output

# Not the default of `tempfile`: that may be kept in memory, where a sync costs nothing.
_DIRECTORY: Final = "/var/tmp"  # noqa: S108 - a directory of its own is made in it
_ROUNDS_MAX: Final = 1_000
_RECORDS_MAX: Final = 10_000_000


def add_parser(subparsers: Subparsers) -> None:
    """Arguments of the command."""
    parser = subparsers.add_parser(
        "bench",
        help="measure how fast appending and reading is here",
        description="Measures shardlog beside a bare loop that encodes, checksums, writes and syncs the same records.",
        epilog="\n".join(f"{name:18} {workload.description}" for name, workload in WORKLOADS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *WORKLOADS], help="workloads; default: all")
    parser.add_argument("--dir", default=_DIRECTORY, help=f"where to write, on the disk in question ({_DIRECTORY})")
    parser.add_argument("--seconds", type=seconds, default=1.5, help="for each contestant, in all rounds (1.5)")
    parser.add_argument("--rounds", type=integer_between(1, _ROUNDS_MAX), default=9, help="turns of each (9)")
    parser.add_argument(
        "--records", type=integer_between(1, _RECORDS_MAX), default=200_000, help="in the log that is read (200000)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Measure, printing each table when it is there; with --json one object at the end."""
    machine = describe(args.dir)
    tables = []
    if not output.as_json:
        for name, value in machine.items():
            output.line(f"{name:10} {value}")
    with tempfile.TemporaryDirectory(prefix="shardlog-bench-", dir=args.dir) as directory:
        settings = Settings(directory, seconds=args.seconds, rounds=args.rounds, read_records=args.records)
        for name in args.names or WORKLOADS:
            table = WORKLOADS[name].run(settings)
            tables.append(table)
            if not output.as_json:
                output.line(f"\n{render(table)}")
                output.write_out()
    if output.as_json:
        output.object({"machine": machine, "tables": [as_json(table) for table in tables]})
    return DONE

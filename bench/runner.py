"""The command line: which workloads, how long, where, and what is printed."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.machine import describe
from bench.results import Table, as_json, render
from bench.rounds import Settings
from bench.workloads import WORKLOADS

# Not the default of `tempfile`: that may be kept in memory, where a sync costs nothing.
_DIRECTORY: Final = "/var/tmp"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit status."""
    given = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="shardlog-bench-", dir=given.dir) as directory:
        settings = Settings(
            directory=directory,
            seconds=given.seconds,
            rounds=given.rounds,
            log_bytes=round(given.log_gb * 1e9),
            shards=given.shards,
        )
        lines = describe(directory)
        print("\n".join(lines), flush=True)
        tables = []
        for name in given.names or WORKLOADS:
            table = WORKLOADS[name](settings)
            tables.append(table)
            print(f"\n{render(table)}", flush=True)
    if given.json:
        _write_json(given.json, lines, settings, tables)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures shardlog beside other stores.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *WORKLOADS], help=", ".join(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant, in all rounds (default 3)")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (default 15)")
    parser.add_argument("--dir", default=_DIRECTORY, help=f"where to write (default {_DIRECTORY})")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there, too")
    parser.add_argument("--log-gb", type=float, default=0.5, help="size of the log of `memory`, GB (default 0.5)")
    parser.add_argument("--shards", type=int, default=1, help="shards of the streams (default 1)")
    return parser


def _write_json(path: str, machine: list[str], settings: Settings, tables: list[Table]) -> None:
    content = {
        "machine": machine,
        "seconds": settings.seconds,
        "rounds": settings.rounds,
        "tables": [as_json(table) for table in tables],
    }
    Path(path).write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nwritten: {path}", file=sys.stderr)

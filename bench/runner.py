"""The command line: `python -m bench [NAME ...]` measures; `compare`, `pictures` and `goals` show what was measured."""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import lmdb

from bench.comparison import caption_of, goals_table, origin_note, render_differences
from bench.peers import program, skipped
from bench.pictures import picture
from bench.readme import publish
from bench.settings import Settings
from bench.workloads import LONG, WORKLOADS
from shardlog_tools.measuring.machine import describe
from shardlog_tools.measuring.results import Table, as_json, render

# Not the default of `tempfile`: that may be kept in memory, where a sync costs nothing.
_DIRECTORY: Final = "/var/tmp"
_ROOT: Final = Path(__file__).resolve().parent.parent
_PEER_PACKAGES: Final = ("rocksdict", "redis", "hiredis", "nats-py", "persist-queue")
_PEER_PROGRAMS: Final = ("redis-server", "nats-server")
_FIGURES: Final = "figures.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked for; the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] and words[0] in _SHOWS:
        return _show(words)
    given = _parser().parse_args(words)
    everything = {**WORKLOADS, **LONG}
    if given.list:
        for name, workload in everything.items():
            print(f"{name:22} {workload.description}{' (long)' if name in LONG else ''}")
        return 0
    with tempfile.TemporaryDirectory(prefix="shardlog-bench-", dir=given.dir) as directory:
        settings = _settings(given, directory)
        content = _heading(given, settings)
        tables = []
        for name in given.names or ([*LONG] if given.long else [*WORKLOADS]):
            start = time.monotonic()
            table = everything[name].run(settings)
            tables.append(table)
            print(f"\n{render(table)}\n  {time.monotonic() - start:.0f} s", flush=True)
    content["tables"] = [as_json(table) for table in tables]
    _print_missed(tables)
    if given.json:
        _write(Path(given.json), content)
    if given.out:
        _write(Path(given.out, _FIGURES), content)
        _draw(content, Path(given.out))
    return 0


def _settings(given: argparse.Namespace, directory: str) -> Settings:
    return Settings(
        directory=directory,
        seconds=given.seconds,
        rounds=given.rounds,
        log_bytes=round(given.log_gb * 1e9),
        shards=given.shards,
    )


def _heading(given: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """What the file says before its tables; printed, too."""
    content: dict[str, Any] = {
        "machine": {**describe(settings.directory), "directory": describe(given.dir)["directory"], "peers": _peers()},
        "commit": _commit(),
        "options": {
            "seconds": settings.seconds,
            "rounds": settings.rounds,
            "shards": settings.shards,
            "read_records": settings.read_records,
            "log_bytes": settings.log_bytes,
        },
        "skipped": skipped(),
    }
    for name, value in content["machine"].items():
        print(f"{name:10} {value}")
    for name, lacks in content["skipped"].items():
        print(f"skipped    {name}: {lacks} is not installed")
    sys.stdout.flush()
    return content


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures shardlog beside other stores.",
        epilog="python -m bench compare EARLIER LATER | pictures FILE DIR | goals FILE | readme FILE",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *WORKLOADS, *LONG], help="see --list")
    parser.add_argument("--list", action="store_true", help="say what there is, and do nothing")
    parser.add_argument("--long", action="store_true", help="without names: what takes too long for every run")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each contestant, in all rounds (default 1.5)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each contestant (default 9)")
    parser.add_argument("--dir", default=_DIRECTORY, help=f"where to work (default {_DIRECTORY})")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    parser.add_argument("--out", metavar="DIR", help=f"write {_FIGURES} and a picture of each table there")
    parser.add_argument("--log-gb", type=float, default=0.5, help="size of the log of `memory`, GB (default 0.5)")
    parser.add_argument("--shards", type=int, default=1, help="shards of the streams (default 1)")
    return parser


def _show(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (help_text, *operands) in _SHOWS.items():
        command = commands.add_parser(name, help=help_text)
        for operand in operands:
            command.add_argument(operand, type=Path)
    given = parser.parse_args(words)
    if given.command == "compare":
        print(render_differences(_read(given.earlier), _read(given.later)))
    elif given.command == "pictures":
        _draw(_read(given.file), given.directory)
    elif given.command == "goals":
        print(f"{goals_table(_read(given.file))}\n\n{origin_note(_read(given.file))}")
    else:
        publish(_ROOT, _read(given.file))
    return 0


_SHOWS: Final = {
    "compare": ("two result files, side by side", "earlier", "later"),
    "pictures": ("draw a result file again", "file", "directory"),
    "goals": ("the goals and what was measured, as Markdown", "file"),
    "readme": ("put the goals of a result file into the README", "file"),
}


def _print_missed(tables: Sequence[Table]) -> None:
    judged = [(table, row) for table in tables for row in table.rows if row.goal is not None]
    missed = [(table, row) for table, row in judged if row.goal is not None and not row.goal.is_met(row.judged)]
    print(f"\n{len(judged) - len(missed)} of {len(judged)} goals met")
    for table, row in missed:
        print(f"  missed: {table.name}, {row.series.name}: {row.judged:.3g}, {row.verdict}")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"written: {path}", file=sys.stderr)


def _draw(content: dict[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    caption = caption_of(content)
    for table in content["tables"]:
        (directory / f"{table['name']}.svg").write_text(picture(table, caption))


def _commit() -> str:
    """The commit of the working tree, with + where something is changed."""
    asked = ["git", "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(asked, cwd=_ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _peers() -> str:
    found = [f"SQLite {sqlite3.sqlite_version}", f"LMDB {'.'.join(map(str, lmdb.version(lib_version=0)))}"]
    for name in _PEER_PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    for name in _PEER_PROGRAMS:
        if path := program(name):
            told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.split()
            found.append(f"{name} {next((word for word in told if any(map(str.isdigit, word))), '?').lstrip('v=:')}")
    return ", ".join(found)

"""`shardlog fsck`: check a store or a stream, and repair it on request.

Owns the presentation of findings and plans; checking and repairing are the engine's (`shardlog.fsck`,
`shardlog.plan_repair`). The exit status is a sum, as e2fsck's: 0 clean, 1 errors corrected, 4 errors left, 8 something
could not be checked, 16 used wrongly, 64 acknowledged records are lost. A store with only notes is clean.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

import shardlog
from shardlog import InvalidArgument, RepairPlan, Report, ShardlogError
from shardlog.check.findings import CORRECTED, ERRORS_LEFT, OPERATIONAL, USAGE
from shardlog_tools.arguments import Subparsers
from shardlog_tools.descriptions import finding_as_json
from shardlog_tools.output import CommandFailed, Output

USAGE_STATUS: Final = USAGE
FAILURE_STATUS: Final = OPERATIONAL


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "fsck",
        help="check a store or a stream, and repair it",
        description="Check a store, or the directory of one stream in it. The check never writes, and works on streams "
        "in use and on streams that do not open. A repair shows its plan and asks; it changes no segment file, and "
        "keeps what it takes out of use in lost+found.",
        epilog="exit status, a sum: 0 clean, 1 errors corrected, 4 errors left, 8 something could not be checked, "
        "16 used wrongly, 64 acknowledged records are lost",
    )
    parser.add_argument("store", metavar="STORE", help="the store's directory, or that of one of its streams")
    parser.add_argument(
        "--deep", action="store_true", help="verify every byte and record by a second implementation, too (slow)"
    )
    parser.add_argument("--repair", action="store_true", help="repair what can be repaired")
    parser.add_argument("--yes", action="store_true", help="with --repair: do not ask")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Check, repair if asked to; returns the exit status."""
    if args.repair and not args.yes and not sys.stdin.isatty():
        raise CommandFailed("nobody to ask whether to repair: say --yes", USAGE_STATUS)
    try:
        report = _checked(args, output)
        if not args.repair or report.clean:
            _show(report, None, output)
            return report.exit_status
        return _repaired(args, report, output)
    except InvalidArgument as error:
        raise CommandFailed(str(error), USAGE_STATUS) from error
    except (ShardlogError, OSError) as error:
        raise CommandFailed(str(error), FAILURE_STATUS) from error


def _checked(args: argparse.Namespace, output: Output) -> Report:
    progress = output.progress(1 << 20)

    def show(behind: int, total: int) -> None:
        progress.show(behind * (1 << 20) // max(total, 1), behind >> 20, "MiB")

    try:
        return shardlog.fsck(args.store, deep=args.deep, progress=show)
    finally:
        progress.clear()


def _repaired(args: argparse.Namespace, report: Report, output: Output) -> int:
    plan = shardlog.plan_repair(report)
    if not output.as_json:
        _show(report, plan, output)
    if not plan.changes_anything:
        if output.as_json:
            _show(report, plan, output)
        output.say("nothing that a repair could do")
        return report.exit_status
    if not args.yes and not _confirmed(output):
        raise CommandFailed("not confirmed, nothing changed", report.exit_status)
    plan.apply(lambda action: output.say(f"done: {action}"))
    after = _checked(args, output)
    lost = after.lost or report.lost
    status = CORRECTED | after.exit_status | (report.exit_status & ~ERRORS_LEFT & ~OPERATIONAL)
    if output.as_json:
        output.object(_as_json(report, plan) | {"after": _as_json(after, None), "exit_status": status})
    else:
        for finding in after.findings:
            if finding.severity == "error":
                output.line(f"left: {finding}")
        output.line("repaired" if after.clean else "repaired in part; for the rest: shardlog salvage STORE DEST")
        if lost:
            output.line("readers get CorruptLog, or a Gap, for the lost records, and can go on behind them")
    return status


def _confirmed(output: Output) -> bool:
    output.say("Carry out this plan? Type yes:")
    return sys.stdin.readline().strip() == "yes"


def _show(report: Report, plan: RepairPlan | None, output: Output) -> None:
    if output.as_json:
        output.object(_as_json(report, plan))
        return
    for finding in report.findings:
        output.line(str(finding))
    for path, first, end in report.lost:
        output.line(f"lost: {path}: sequence numbers {first} to {end} (exclusive)")
    errors = sum(finding.severity == "error" for finding in report.findings)
    notes = len(report.findings) - errors
    output.line(f"{report.path}: {'clean' if report.clean else f'{errors:,} errors'}, {notes:,} notes")
    for action in plan.actions if plan is not None else ():
        output.line(f"plan: {action}")


def _as_json(report: Report, plan: RepairPlan | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "path": report.path,
        "clean": report.clean,
        "exit_status": report.exit_status,
        "findings": [finding_as_json(finding) for finding in report.findings],
        "lost": [{"stream": path, "first": first, "next": end} for path, first, end in report.lost],
    }
    return fields if plan is None else fields | {"plan": list(map(str, plan.actions))}

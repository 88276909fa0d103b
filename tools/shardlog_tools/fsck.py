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
from shardlog.check.findings import CLEAN, CORRECTED, OPERATIONAL, RECORDS_LOST, USAGE
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
        plan = shardlog.plan_repair(report) if args.repair else None
        if plan is None or (report.clean and not plan.changes_anything):
            _show(report, None, output)
            return report.exit_status
        return _repaired(args, report, plan, output)
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


def _repaired(args: argparse.Namespace, report: Report, plan: RepairPlan, output: Output) -> int:
    if not output.as_json or not plan.changes_anything:
        _show(report, plan, output)
    if not plan.changes_anything:
        output.say("nothing that a repair could do; what is good can be copied: shardlog salvage STORE DEST")
        return report.exit_status
    if not args.yes and not _confirmed(plan, output):
        raise CommandFailed("not confirmed, nothing changed", report.exit_status)
    failures: list[tuple[str, Exception]] = []
    plan.apply(lambda action: output.say(f"done: {action}"), lambda *failure: failures.append(failure))
    for path, error in failures:
        output.say(f"failed: {path}: {error}")
    after = _checked(args, output)
    status = _status(report, after, bool(failures))
    if output.as_json:
        failed = [{"path": path, "error": type(error).__name__, "message": str(error)} for path, error in failures]
        result = {"failed": failed, "after": _as_json(after, None), "exit_status": status}
        output.object(_as_json(report, plan) | result)
        return status
    for finding in after.findings:
        if finding.severity == "error":
            output.line(f"left: {finding}")
    outcome = "repaired" if after.clean else "repaired in part" if status & CORRECTED else "not repaired"
    output.line(outcome if after.clean else f"{outcome}; to copy what is good: shardlog salvage STORE DEST")
    if after.lost or report.lost:
        output.line("readers get CorruptLog, or a Gap, for the lost records, and can go on behind them")
    return status


def _status(before: Report, after: Report, has_failures: bool) -> int:
    """1 where fewer errors are left than there were; what is lost stays lost."""
    errors = [sum(finding.severity == "error" for finding in each.findings) for each in (before, after)]
    return (
        (CORRECTED if errors[1] < errors[0] else CLEAN)
        | after.exit_status
        | (before.exit_status & RECORDS_LOST)
        | (OPERATIONAL if has_failures else CLEAN)
    )


def _confirmed(plan: RepairPlan, output: Output) -> bool:
    if output.as_json:  # the object on stdout comes at the end
        for action in plan.actions:
            output.say(f"plan: {action}")
    output.write_out()
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

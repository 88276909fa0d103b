"""`shardlog scrub`: verify sealed segments of streams in use, slowly, again and again.

Owns the repetition and the presentation; a pass over a store is `shardlog.check.scrub`. A finding is one line, as soon
as it is made. With `--once` the exit status is that of `fsck` for what was found.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Final

from shardlog import Finding, InvalidArgument, Report
from shardlog.check.scrub import Pace, scrub_pass
from shardlog.files.posix import PosixFiles
from shardlog_tools.arguments import Subparsers, seconds, size
from shardlog_tools.descriptions import bytes_words, finding_as_json
from shardlog_tools.output import DONE, USED_WRONGLY, CommandFailed, Output

_RATE_DEFAULT: Final = "50MB/s"
_PAUSE_SECONDS_DEFAULT: Final = 3600.0


def rate(text: str) -> int | None:
    """A type for argparse: bytes per second, such as 50MB/s; `none` is no limit."""
    return size(text.removesuffix("/s"))


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "scrub",
        help="verify sealed segments of streams in use, slowly",
        description="Read all sealed segments of a store from the disk at a limited rate and verify them, again and "
        "again until interrupted. Nobody is kept from anything; nothing is written.",
    )
    parser.add_argument("store", metavar="STORE", help="the store's directory, or that of one of its streams")
    parser.add_argument(
        "--rate", type=rate, default=_RATE_DEFAULT, metavar="RATE", help="bytes per second (default: %(default)s)"
    )
    parser.add_argument("--once", action="store_true", help="one pass, and exit with the status of fsck")
    parser.add_argument(
        "--pause",
        type=seconds,
        default=_PAUSE_SECONDS_DEFAULT,
        metavar="SECONDS",
        help="between the starts of two passes at least (default: %(default)g)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Scrub; returns the exit status."""
    pace = Pace(args.rate)
    while True:
        started = time.monotonic()
        report = _pass(args.store, pace, output)
        if args.once:
            return report.exit_status
        output.write_out()
        time.sleep(max(0.0, started + args.pause - time.monotonic()))


def _pass(store: str, pace: Pace, output: Output) -> Report:
    progress = output.progress(None)
    findings: list[Finding] = []
    segments = verified = 0
    started = time.monotonic()
    try:
        for scrubbed in scrub_pass(PosixFiles(), os.path.abspath(store), pace):
            segments += scrubbed.bytes > 0
            verified += scrubbed.bytes
            findings += scrubbed.findings
            progress.show(verified, verified >> 20, "MiB")
            for finding in scrubbed.findings:
                _show(finding, output)
    except InvalidArgument as error:
        raise CommandFailed(str(error), USED_WRONGLY) from error
    finally:
        progress.clear()
    report = Report(store, tuple(findings), (), True)
    elapsed = time.monotonic() - started
    if output.as_json:
        output.object({"segments": segments, "bytes": verified, "seconds": elapsed, "findings": len(findings)})
    else:
        output.say(
            f"{segments:,} sealed segments, {bytes_words(verified)} in {elapsed:.1f} s: "
            f"{'all good' if report.clean and report.exit_status == DONE else f'{len(findings):,} findings'}"
        )
    return report


def _show(finding: Finding, output: Output) -> None:
    if output.as_json:
        output.object(finding_as_json(finding))
    else:
        output.line(str(finding))
    output.write_out()

"""`shardlog consume`: take part in a group, and hand its batches to a command, or to stdout.

Owns how a batch meets a command: JSON Lines on its stdin, as `cat` prints them, what it is about in its environment,
and its exit status as the answer: only 0 moves the checkpoint. The command has a process group of its own, so Ctrl-C at
the terminal reaches us and not it: the batch in hand is finished first. Retries, leases and SIGTERM are the worker's.

Without a command a batch is handled when it is written to stdout. What reads a pipe may die with lines that it has not
looked at; who must not lose those uses --exec.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

import shardlog
from shardlog import Batch, Stream, Worker
from shardlog.consumer import checked_name
from shardlog.consumer.worker import ATTEMPTS, RECORDS_MAX
from shardlog_tools.arguments import Subparsers, add_stream_arguments, duration, integer_between
from shardlog_tools.cat import position, record_lines
from shardlog_tools.descriptions import count_words
from shardlog_tools.output import DONE, INTERRUPTED, CommandFailed, Output

_ATTEMPTS_MAX: Final = 1_000_000
_HOST_CHARACTERS_MAX: Final = 100
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]", re.ASCII)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "consume",
        help="hand a group's records to a command, batch by batch",
        description="Take part in a group: share the stream's shards with its other workers, and hand over batches of "
        "one shard's records. With --exec a command gets each batch as JSON Lines on its stdin (SHARDLOG_STREAM, "
        "SHARDLOG_SHARD_ID, SHARDLOG_FIRST_SEQUENCE and SHARDLOG_LAST_SEQUENCE in its environment), and the batch is "
        "checkpointed when it exits with 0; otherwise it is run again, with pauses that double. Without --exec the "
        "lines go to stdout, and are checkpointed when they are written. Goes on until SIGTERM or Ctrl-C, which let "
        "the command finish the batch in hand (Ctrl-C again ends the command). What was not checkpointed comes again. "
        "SIGKILL cannot be passed on: the command runs on alone then, while another worker is given the batch.",
    )
    add_stream_arguments(parser)
    parser.add_argument("--group", required=True, metavar="GROUP", help="the group's name; it is made if need be")
    parser.add_argument(
        "--worker",
        metavar="NAME",
        help="this worker's name, unlike any other's of the group (default: host, process)",
    )
    parser.add_argument(
        "--from",
        dest="start",
        type=position,
        metavar="POSITION",
        help="where a new group begins: TRIM_HORIZON, LATEST, a sequence number or a time (default: TRIM_HORIZON)",
    )
    parser.add_argument("--exec", dest="command_line", metavar="COMMAND", help="what handles a batch, run by /bin/sh")
    parser.add_argument(
        "--max-records",
        type=integer_between(1, RECORDS_MAX),
        default=500,
        metavar="N",
        help="at most N records in a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--wait",
        type=_wait,
        default="1s",
        metavar="TIME",
        help="how long records are gathered for a batch at most (default: %(default)s)",
    )
    parser.add_argument(
        "--attempts",
        type=integer_between(1, _ATTEMPTS_MAX),
        default=ATTEMPTS,
        metavar="N",
        help="with --exec: give up when the command failed so often at one batch (default: %(default)s)",
    )
    parser.add_argument(
        "--until-drained", action="store_true", help="end when everything that is there was handled, instead of waiting"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Consume; returns the exit status."""
    name = checked_name("worker", args.worker or _own_name())
    with _warnings_told(output), shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        origin = _origin(args, stream)
        group = stream.group(args.group, start=args.start or "TRIM_HORIZON")
        output.say(f"consuming {args.stream} as worker {name} of group {args.group}, {origin}")
        worker = group.worker(name)
        handling = Printing(output) if args.command_line is None else Running(args.command_line, stream)
        with _stopped_by_interrupt(worker, handling, output) as interrupts:
            _consume(worker, handling, args)
    if output.as_json and args.command_line is not None:
        output.object({"group": args.group, "worker": name, "records": handling.records, "batches": handling.batches})
    else:
        batches = "1 batch" if handling.batches == 1 else f"{handling.batches:,} batches"
        output.say(f"handled {count_words(handling.records, 'record')} in {batches}")
    return INTERRUPTED if interrupts else DONE


class Handling:
    """What is done with a batch, and how much was."""

    def __init__(self, attempts: int | None = None) -> None:
        self.attempts = attempts
        """How often a batch may be tried; None: as often as was asked for."""
        self.records = 0
        self.batches = 0

    def __call__(self, batch: Batch) -> None:
        """Handle a batch; raises where it was not."""
        self.handle(batch)
        self.records += len(batch.records)
        self.batches += 1

    def handle(self, batch: Batch) -> None:
        """Handle it."""
        raise NotImplementedError

    def end(self) -> None:
        """Give up the batch in hand. From a signal handler."""


class Printing(Handling):
    """To stdout. Lines that were written in part cannot be taken back, so there is one attempt."""

    def __init__(self, output: Output) -> None:
        super().__init__(attempts=1)
        self._output = output

    def handle(self, batch: Batch) -> None:
        """Write the lines, and hand them on."""
        self._output.lines(_lines_of(batch))
        self._output.write_out()


class Running(Handling):
    """To the stdin of a command, run for each batch."""

    def __init__(self, command_line: str, stream: Stream) -> None:
        super().__init__()
        self._command_line = command_line
        self._stream_name = stream.name
        self._process: subprocess.Popen[bytes] | None = None

    def handle(self, batch: Batch) -> None:
        """Run the command; raises CommandFailed unless it exits with 0."""
        first, last = batch.records[0].sequence, batch.records[-1].sequence
        about = {
            "SHARDLOG_STREAM": self._stream_name,
            "SHARDLOG_SHARD_ID": batch.shard_id,
            "SHARDLOG_FIRST_SEQUENCE": str(first),
            "SHARDLOG_LAST_SEQUENCE": str(last),
        }
        # The command line is the user's own, and a shell is what it is written for.
        with subprocess.Popen(  # noqa: S602
            self._command_line, shell=True, stdin=subprocess.PIPE, env=os.environ | about, process_group=0
        ) as process:
            self._process = process
            try:
                process.communicate(_lines_of(batch))  # a command need not read it all
            finally:
                self._process = None
        if process.returncode:
            raise CommandFailed(f"the command {_end_words(process.returncode)}")

    def end(self) -> None:
        """Tell the command, and what it started, to end."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)


def _consume(worker: Worker, handling: Handling, args: argparse.Namespace) -> None:
    attempts = handling.attempts or args.attempts
    try:
        worker.run(
            handling,
            max_records=args.max_records,
            wait=args.wait,
            until_drained=args.until_drained,
            attempts=attempts,
        )
    except CommandFailed as failure:
        tries = "once" if attempts == 1 else f"{attempts:,} times"
        raise CommandFailed(
            f"{failure}, {tries} at the same batch; it was not checkpointed and comes again"
        ) from failure


def _lines_of(batch: Batch) -> bytes:
    return "".join(record_lines(batch.records, [])).encode()


def _end_words(returncode: int) -> str:
    if returncode > 0:
        return f"exited with {returncode}"
    return f"was ended by {signal.Signals(-returncode).name}"


def _origin(args: argparse.Namespace, stream: Stream) -> str:
    if args.group not in stream.groups():
        return f"which is new and begins at {args.start or 'TRIM_HORIZON'}"
    ignored = "" if args.start is None else " (--from is for a new group; `shardlog reset` moves this one)"
    return f"which goes on where it was{ignored}"


def _own_name() -> str:
    return f"{_NOT_IN_NAMES.sub('-', socket.gethostname())[:_HOST_CHARACTERS_MAX]}-{os.getpid()}"


def _wait(text: str) -> timedelta:
    found = duration(text)
    if found is None:
        raise argparse.ArgumentTypeError("expected a duration that has an end, such as 0s or 500ms, found 'forever'")
    return found


@contextmanager
def _stopped_by_interrupt(worker: Worker, handling: Handling, output: Output) -> Iterator[list[int]]:
    """Let the first Ctrl-C stop the worker after the batch in hand, and the next end that batch; gives the interrupts.

    Where SIGINT is ignored (a job in the background) it stays so.
    """
    interrupts: list[int] = []

    def interrupt(signal_number: int, _: object) -> None:
        worker.stop()
        if interrupts:
            handling.end()
        interrupts.append(signal_number)
        with suppress(RuntimeError):  # we came in the middle of other talk
            output.say("stopping after the batch in hand; Ctrl-C again ends it, and it comes again")

    previous = signal.getsignal(signal.SIGINT)
    if previous is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _warnings_told(output: Output) -> Iterator[None]:
    """Let the engine's warnings (a failed attempt, a lost lease) be talk."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            output.say(f"shardlog: {record.getMessage()}")

    told = Told(logging.WARNING)
    logger = logging.getLogger("shardlog")
    logger.addHandler(told)
    try:
        yield
    finally:
        logger.removeHandler(told)

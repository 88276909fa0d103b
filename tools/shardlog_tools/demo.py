"""`shardlog demo`: capture changes, kill the capturing process, open again, and prove that nothing is lost.

Owns the order of events, their timing and the summary. What must be true afterwards is in `demo_proof`, what is
captured in `demo_changes`, and the process that dies in `demo_capture`. `demo_consumers` tells the end: two workers
share the stream's shards. `demo --shards` is another story, told by `demo_shards`.

It shows what it can and no more: a SIGKILL loses no byte that the kernel has taken, so this proves recovery, atomicity
and order, while durability against power loss is what the project's crash tests are for.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import shardlog
from shardlog.files.mounts import filesystem_kind
from shardlog.format.record import Record
from shardlog_tools.arguments import Subparsers, integer_between, seconds
from shardlog_tools.demo_consumers import share_and_take_over
from shardlog_tools.demo_proof import compare, items_after, replay
from shardlog_tools.demo_shards import STREAM as LOADED_STREAM
from shardlog_tools.demo_shards import run_shards
from shardlog_tools.output import DONE, FAILED, USED_WRONGLY, CommandFailed, Output

_STREAM: Final = "stock"
_SHARDS: Final = 4
_START_SECONDS_MAX: Final = 60
_PROBE_WRITES: Final = 100
_PROBE_BYTES: Final = 4096
_THREADS_MAX: Final = 64
_CAPTURE_SECONDS: Final = 2.0
_LOAD_SECONDS: Final = 8.0

Figures = dict[str, Any]


@dataclass(frozen=True)
class Capture:
    """What the capturing process told before it died: per thread, the sequence numbers of each append."""

    acknowledged: dict[int, list[list[int]]]
    seconds: float

    @property
    def appends(self) -> int:
        """Acknowledged appends."""
        return sum(map(len, self.acknowledged.values()))

    @property
    def records(self) -> int:
        """Acknowledged records."""
        return sum(len(sequences) for numbered in self.acknowledged.values() for sequences in numbered)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "demo",
        help="capture changes, kill the process, prove that nothing is lost",
        description="A process captures changes from some threads and is killed with SIGKILL; the store is opened "
        "again, and every record that was acknowledged is proven to be there. Then two workers share the stream's "
        "shards; one is killed, and the other takes over. With --shards: hot spots move over a "
        "stream, its shards split and merge after them, and nothing is lost or reordered.",
    )
    parser.add_argument("--shards", action="store_true", help="show shards that follow a load")
    parser.add_argument(
        "--input", metavar="FILE", help="with --shards: the changes of this JSON Lines file as the load"
    )
    parser.add_argument("--svg", metavar="FILE", help="with --shards: a picture of the shards over time")
    parser.add_argument("--dir", metavar="DIR", help="keep the store in this new directory (default: a temporary one)")
    parser.add_argument(
        "--seconds",
        type=seconds,
        help=f"how long to capture (default: {_CAPTURE_SECONDS:g}); with --shards: to keep up the load (default: "
        f"{_LOAD_SECONDS:g})",
    )
    parser.add_argument(
        "--threads", type=integer_between(1, _THREADS_MAX), default=4, help="appending threads (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=integer_between(0, 2**63), help="what the changes are made from (default: another each time)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Run the demo; the exit status says whether everything was there."""
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1_000_000)
    tell = _teller(output)
    if args.shards:
        return _run_shards(args, seed, tell, output)
    if args.input is not None or args.svg is not None:
        raise CommandFailed("--input and --svg: expected with --shards", USED_WRONGLY)
    tell(f"shardlog demo: capture changes, kill the process, prove that nothing is lost   (seed {seed})\n")
    with _directory(args.dir) as directory:
        store_path = os.path.join(directory, "store")
        figures = {"seed": seed, "threads": args.threads} | _measure_device(directory, tell)
        with shardlog.open(store_path) as store:
            store.create_stream(_STREAM, key_names=["sku"], shards=_SHARDS)
        captured = _capture_and_kill(store_path, seed, args.threads, args.seconds or _CAPTURE_SECONDS)
        figures |= _tell_capture(captured, args.threads, tell)
        figures |= _open_and_prove(store_path, captured, seed, tell)
        consumed = _consume(store_path, figures["records"], tell)
        passed = figures["passed"] and consumed["passed"]
        figures |= consumed | {"passed": passed}
    tell(f"\n  {'Nothing that was acknowledged is lost.' if passed else 'FAILED: see above.'}")
    tell("  (A kill is no power cut: what the kernel has taken survives it. For that there are the crash tests.)")
    if args.dir:
        tell(f"  The store is yours: shardlog cat {store_path} {_STREAM} --limit 3")
    if output.as_json:
        output.object(figures)
    return DONE if passed else FAILED


def _run_shards(args: argparse.Namespace, seed: int, tell: Callable[[str], None], output: Output) -> int:
    made_from = f"seed {seed}" if args.input is None else args.input
    tell(f"shardlog demo: shards follow the load, and nothing is lost or reordered by it   ({made_from})\n")
    with _directory(args.dir) as directory:
        figures = {"seed": seed if args.input is None else None, "threads": args.threads}
        figures |= run_shards(args, directory, seed, args.seconds or _LOAD_SECONDS, tell)
        if args.dir:
            tell(f"  The store is yours: shardlog shards {os.path.join(directory, 'store')} {LOADED_STREAM}")
    if args.svg is not None:
        tell(f"  The picture is in {args.svg}")
    tell(f"\n  {'Nothing is lost, every item is in order.' if figures['passed'] else 'FAILED: see above.'}")
    if output.as_json:
        output.object(figures)
    return DONE if figures["passed"] else FAILED


def _teller(output: Output) -> Callable[[str], None]:
    """Where the story goes: it is the data, unless JSON was asked for."""
    if output.as_json:
        return output.say

    def tell(text: str) -> None:
        output.line(text)
        output.write_out()

    return tell


@contextmanager
def _directory(kept: str | None) -> Iterator[str]:
    if kept is None:
        with tempfile.TemporaryDirectory(prefix="shardlog-demo-") as directory:
            yield directory
        return
    os.makedirs(kept, exist_ok=True)
    if os.listdir(kept):
        raise CommandFailed(f"--dir: expected a new or empty directory, found something in {kept}")
    yield kept


def _measure_device(directory: str, tell: Callable[[str], None]) -> Figures:
    """The time of a 4 KiB write and fdatasync into preallocated space: no append is faster than its device."""
    path = os.path.join(directory, "fdatasync-probe")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        os.posix_fallocate(descriptor, 0, _PROBE_WRITES * _PROBE_BYTES)
        os.fsync(descriptor)
        durations = []
        for number in range(_PROBE_WRITES):
            started = time.perf_counter()
            os.pwrite(descriptor, b"x" * _PROBE_BYTES, number * _PROBE_BYTES)
            os.fdatasync(descriptor)
            durations.append(time.perf_counter() - started)
    finally:
        os.close(descriptor)
        os.unlink(path)
    sync_us = statistics.median(durations) * 1e6
    filesystem = filesystem_kind(directory)
    tell(f"  device    {filesystem or 'file system unknown'}; write and fdatasync of 4 KiB: {sync_us:,.0f} us (median)")
    return {"filesystem": filesystem, "write_and_fdatasync_us": round(sync_us, 1)}


def _capture_and_kill(store_path: str, seed: int, threads: int, capture_seconds: float) -> Capture:
    """Let the capturing process append for so long, kill it, and read what it had acknowledged."""
    command = [sys.executable, "-m", "shardlog_tools.demo_capture", store_path, _STREAM, str(seed), str(threads)]
    # What we start is ourselves, with our own arguments.
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(  # noqa: S603
            command, stdout=subprocess.PIPE, stderr=complaints
        ) as process,
    ):
        assert process.stdout is not None
        watchdog = threading.Timer(_START_SECONDS_MAX + capture_seconds, process.kill)
        watchdog.start()
        try:
            lines = [process.stdout.readline()]
            started = now = time.monotonic()
            while lines[-1] and now < started + capture_seconds:
                lines.append(process.stdout.readline())
                now = time.monotonic()
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
            process.wait()
        finally:
            process.kill()
            watchdog.cancel()
        complaints.seek(0)
        if process.returncode != -signal.SIGKILL or complaints.read(1):
            complaints.seek(0)
            text = complaints.read().decode(errors="replace")
            raise CommandFailed(f"the capturing process ended by itself, with {process.returncode}: {text}")
    acknowledged: dict[int, list[list[int]]] = {thread: [] for thread in range(threads)}
    for line in lines:
        if line:
            thread, *sequences = map(int, line.split())
            acknowledged[thread].append(sequences)
    return Capture(acknowledged, now - started)


def _tell_capture(captured: Capture, threads: int, tell: Callable[[str], None]) -> Figures:
    if not captured.records:
        raise CommandFailed(f"the capturing process acknowledged nothing within {_START_SECONDS_MAX} s")
    rate = captured.records / captured.seconds
    tell(
        f"  capture   {threads} threads append 1 to 20 changes at a time, each append durable when it returns\n"
        f"            {captured.records:,} records in {captured.appends:,} appends acknowledged in "
        f"{captured.seconds:.1f} s: {rate:,.0f} records/s\n"
        "  kill      SIGKILL, while they were appending"
    )
    return {
        "acknowledged": captured.records,
        "acknowledged_appends": captured.appends,
        "append_records_per_second": round(rate),
    }


def _open_and_prove(store_path: str, captured: Capture, seed: int, tell: Callable[[str], None]) -> Figures:
    """Open the store after the kill, and hold it against what was acknowledged."""
    started = time.perf_counter()
    with shardlog.open(store_path, create=False) as store:
        stream = store.stream(_STREAM)
        open_seconds = time.perf_counter() - started
        tell(f"  open      {open_seconds * 1000:.1f} ms, recovery included")
        comparison = compare(_records(stream), captured.acknowledged, seed)
        started = time.perf_counter()
        items, mismatches = replay(_records(stream))
        replay_seconds = time.perf_counter() - started
    same_items = items == items_after(comparison.append_counts, seed)
    rate = comparison.records / replay_seconds
    tell(
        f"  proof     {comparison.found:,} of {captured.records:,} acknowledged records found, with their numbers "
        f"and contents; {comparison.missing:,} missing, {comparison.wrong:,} wrong\n"
        f"            appends that were under way at the kill and got in, whole: {comparison.in_flight_whole}"
    )
    tell(
        f"  replay    {comparison.records:,} records rebuild {len(items):,} items in {replay_seconds:.2f} s: "
        f"{rate:,.0f} records/s\n"
        f"            {'the same items' if same_items else 'NOT THE SAME ITEMS'} as without the log; old images that "
        f"are not the item as it was: {mismatches:,}"
    )
    return {
        "passed": comparison.found == captured.records
        and not (comparison.missing or comparison.wrong or mismatches)
        and same_items,
        "open_seconds": round(open_seconds, 6),
        "replay_records_per_second": round(rate),
        "records": comparison.records,
        "found": comparison.found,
        "missing": comparison.missing,
        "wrong": comparison.wrong,
        "in_flight_whole": comparison.in_flight_whole,
        "items": len(items),
        "same_items": same_items,
        "old_image_mismatches": mismatches,
    }


def _consume(store_path: str, records: int, tell: Callable[[str], None]) -> Figures:
    with shardlog.open(store_path, create=False) as store:
        return share_and_take_over(store_path, store.stream(_STREAM), records, tell)


def _records(stream: shardlog.Stream) -> Iterator[Record]:
    """All records. Reading raises at damage, so there are no gaps among them."""
    return cast("Iterator[Record]", stream.read())

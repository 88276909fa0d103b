"""What needs a process of its own: writers, workers to be killed, readers and openers whose memory and time are told.

Run as `python -m bench.children TASK ...`; the outcome goes to standard output. `start` and `ask` are for the parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Self

import shardlog
from bench.peers.sqlite import Sqlite
from shardlog import Change
from shardlog_tools.measuring.changes import change_commits
from shardlog_tools.measuring.contestants import STREAM, Peer, Shardlog, block_bytes

_ROOT = Path(__file__).resolve().parent.parent
_READY = "ready"


def build_and_kill(
    store: str, *, records_per_commit: int, log_bytes: int, segments: int, segment_bytes: int, records: int = 0
) -> None:
    """A process appends until the log has so many bytes, segments or records (0: no matter); SIGKILL ends it."""
    given = (records_per_commit, log_bytes, segments, segment_bytes, records)
    process = _start("build", store, *map(str, given))
    assert process.stdout is not None
    with process:
        answer = process.stdout.readline().strip()
        process.kill()
    if answer != _READY:
        raise RuntimeError(f"the writer ended early: {answer!r}")


def opening_ms(store: str) -> float:
    """Milliseconds that `open` and `stream` take in a fresh process, which then dies of SIGKILL."""
    return float(_ask("open", store))


def peak_memory_mb(store: str) -> tuple[int, float]:
    """Records that a fresh process read, and its greatest resident memory in MB (10^6 bytes)."""
    records, kilobytes = _ask("read", store).split()
    return int(records), int(kilobytes) * 1024 / 1e6


@contextmanager
def working(store: str, group: str, name: str, lease_seconds: float) -> Iterator[subprocess.Popen[str]]:
    """A process with a worker that only holds leases."""
    with _start("work", store, group, name, str(lease_seconds)) as process:
        try:
            yield process
        finally:
            process.kill()


class Appender:
    """A process that appends a record whenever it is asked to. A context manager."""

    def __init__(self, store: str, stream: str) -> None:
        self._process = _start("append", store, stream)

    def append(self) -> tuple[int, int]:
        """Have a record appended: its sequence number, and the monotonic time in nanoseconds when that was done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        sequence, done_ns = self._process.stdout.readline().split()
        return int(sequence), int(done_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


class Committer:
    """A process with a store of its own to commit to, alone or beside others. A context manager."""

    def __init__(self, kind: str, directory: str) -> None:
        self._process = _start("commit", directory, kind)
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != _READY:
            raise RuntimeError(f"the process that commits to {kind} ended early")

    def begin(self, seconds: float) -> None:
        """Have it commit one record after the other for so long."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()

    def outcome(self) -> tuple[float, float, int]:
        """When it began and ended, by the clock of all processes, and how many it committed."""
        assert self._process.stdout is not None
        start, end, count = self._process.stdout.readline().split()
        return float(start), float(end), int(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()


def time_opening(path: str) -> float:
    """Open and close in this process; milliseconds of the opening."""
    start = time.perf_counter()
    store = shardlog.open(path)
    store.stream(STREAM)
    elapsed = time.perf_counter() - start
    store.close()
    return elapsed * 1e3


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.children", *arguments]
    return subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(*arguments: str) -> str:
    process = _start(*arguments)
    answer, _ = process.communicate()
    if not answer:
        raise RuntimeError(f"{arguments} ended with {process.returncode} and no answer")
    return answer


def _build(path: str, records_per_commit: int, log_bytes: int, segments: int, segment_bytes: int, records: int) -> None:
    # What is to be measured is made without waiting for the device: page cache and files are as with real syncs.
    os.fdatasync = os.fsync = _no_sync
    store = shardlog.open(path)
    stream = store.create_stream(STREAM, retention=None, segment_bytes=segment_bytes)
    log = next(Path(path).glob("streams/*/*/log"))
    commits = change_commits(records_per_commit)
    commit_bytes = sum(map(block_bytes, commits)) / len(commits)
    written, appended = 0.0, 0
    for changes in cycle(commits):
        stream.append(changes)
        written += commit_bytes
        appended += records_per_commit
        if records and appended >= records:
            break
        if log_bytes and written >= log_bytes:
            break
        if segments and len(os.listdir(log)) >= segments:
            break
    print(_READY, flush=True)
    signal.pause()


def _no_sync(fd: object) -> None:
    pass


def _open(path: str) -> None:
    start = time.perf_counter()
    store = shardlog.open(path)
    stream = store.stream(STREAM)
    print((time.perf_counter() - start) * 1e3, flush=True)
    assert stream.next_sequence > 1
    os.kill(os.getpid(), signal.SIGKILL)


def _read(path: str) -> None:
    with shardlog.open(path) as store:
        records = sum(1 for _ in store.stream(STREAM).read())
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(records, peak.split()[1], flush=True)


def _append(path: str, name: str) -> None:
    stream = shardlog.open(path).stream(name)
    change = Change.insert(keys={"id": 1}, new={"id": 1})
    for _ in sys.stdin:
        (sequence,) = stream.append([change]).sequences
        print(sequence, time.monotonic_ns(), flush=True)


def _commit(directory: str, kind: str) -> None:
    peer: Peer = Shardlog(directory) if kind == "shardlog" else Sqlite(directory)
    commits = cycle(change_commits(1))
    print(_READY, flush=True)
    for line in sys.stdin:
        start = end = time.monotonic()
        deadline = start + float(line)
        count = 0
        while end < deadline:
            peer.commit(next(commits))
            end = time.monotonic()
            count += 1
        print(start, end, count, flush=True)


def _work(path: str, group: str, name: str, lease_seconds: str) -> None:
    stream = shardlog.open(path).stream(STREAM)
    with stream.group(group).worker(name, lease_duration=timedelta(seconds=float(lease_seconds))):
        signal.pause()


def main(arguments: list[str]) -> None:
    task, path, *numbers = arguments
    if task == "build":
        _build(path, *map(int, numbers))
    elif task == "append":
        _append(path, *numbers)
    elif task == "commit":
        _commit(path, *numbers)
    elif task == "work":
        _work(path, *numbers)
    elif task == "open":
        _open(path)
    else:
        _read(path)


if __name__ == "__main__":
    main(sys.argv[1:])

"""What needs a process of its own: a writer to be killed, and readers and openers whose memory and time are told.

Run as `python -m bench.children TASK ...`; the outcome goes to standard output. `start` and `ask` are for the parent.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import shardlog
from bench.changes import change_commits
from bench.peers.engine import STREAM, block_bytes

_ROOT = Path(__file__).resolve().parent.parent
_READY = "ready"


def build_and_kill(store: str, *, records_per_commit: int, log_bytes: int, segments: int, segment_bytes: int) -> None:
    """A process appends until the log has so many bytes or so many segments, and then dies of SIGKILL."""
    given = (records_per_commit, log_bytes, segments, segment_bytes)
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
    return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True)


def _ask(*arguments: str) -> str:
    process = _start(*arguments)
    answer, _ = process.communicate()
    if not answer:
        raise RuntimeError(f"{arguments} ended with {process.returncode} and no answer")
    return answer


def _build(path: str, records_per_commit: int, log_bytes: int, segments: int, segment_bytes: int) -> None:
    # What is to be measured is made without waiting for the device: page cache and files are as with real syncs.
    os.fdatasync = os.fsync = _no_sync
    store = shardlog.open(path)
    stream = store.create_stream(STREAM, retention=None, segment_bytes=segment_bytes)
    log = next(Path(path).glob("streams/*/*/log"))
    commits = change_commits(records_per_commit)
    commit_bytes = sum(map(block_bytes, commits)) / len(commits)
    written = 0.0
    for changes in cycle(commits):
        stream.append(changes)
        written += commit_bytes
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


def main(arguments: list[str]) -> None:
    task, path, *numbers = arguments
    if task == "build":
        _build(path, *map(int, numbers))
    elif task == "open":
        _open(path)
    else:
        _read(path)


if __name__ == "__main__":
    main(sys.argv[1:])

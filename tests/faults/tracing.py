"""strace(1) as a saboteur: kills a process at its Nth system call of a kind, or makes that call fail.

It attaches to a child that waits to be told to begin, so that only what the child does from then on counts. A call that
fails so was never made; a process killed at a call is killed before it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.background import LIMIT_SECONDS

CHANGING: Final = (
    "pwrite64",
    "write",
    "writev",
    "pwritev",
    "fdatasync",
    "fsync",
    "rename",
    "renameat",
    "renameat2",
    "fallocate",
    "unlink",
    "unlinkat",
    "ftruncate",
    "mkdir",
    "mkdirat",
    "rmdir",
)
"""Calls that change a disk, or make it durable. Which of them a machine has depends on its architecture."""
ASKING: Final = ("openat", "pread64", "getdents64", "newfstatat", "statfs", "fcntl", "lseek")
"""Calls that do not (but for the files that `openat` creates)."""

_LINE = re.compile(r"^(?P<thread>\d+) +(?P<call>\w+)\((?P<rest>.*)$")
_PATH = re.compile(r"(?<!AT_FDCWD)<(/[^<>]*)>|\"([^\"]*)\"")


@dataclass(frozen=True)
class Injection:
    """What happens at the nth call (from 1) of a kind: "KILL", or an errno's name. `onward`: at all later ones too."""

    call: str
    fault: str
    nth: int
    onward: bool = False

    def __str__(self) -> str:
        return f"{self.call}-{self.fault}-{self.nth}{'+' if self.onward else ''}"

    @property
    def option(self) -> str:
        """As strace wants it."""
        what = "signal=KILL" if self.fault == "KILL" else f"error={self.fault}"
        return f"inject={self.call}:{what}:when={self.nth}{'+' if self.onward else ''}"


class Trace:
    """strace, attached to a process. `close` waits for the process to end first."""

    def __init__(self, pid: int, output: Path, injection: Injection | None) -> None:
        self._output = output
        self._injection = injection
        calls = CHANGING + ASKING if injection is None else (injection.call,)
        command = [
            "strace", "-f", "-y", "-o", str(output), "-e", "signal=none",
            "-e", "trace=" + ",".join("?" + call for call in calls),
            *(("-e", injection.option) if injection else ()),
            "-p", str(pid),
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if "attached" not in line:
            self.close()
            raise RuntimeError(f"strace did not attach: {line.strip()}")

    def close(self) -> None:
        """Wait for strace to end, which it does with the process."""
        assert self._process.stderr is not None
        try:
            self._process.wait(LIMIT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stderr.close()

    def counts(self) -> dict[str, int]:
        """How often each call was made, by the thread that made it most: injections are counted by thread."""
        by_thread = Counter((match["thread"], match["call"]) for line in self._lines() if (match := _LINE.match(line)))
        counts: dict[str, int] = {}
        for (_, call), count in by_thread.items():
            counts[call] = max(count, counts.get(call, 0))
        return counts

    def struck(self, status: int) -> list[str]:
        """The kinds of files at which the injection struck; empty where the process ended before, with that status."""
        assert self._injection is not None
        lines = self._lines()
        if self._injection.fault == "KILL":
            struck = [line for line in lines if _LINE.match(line)][-1:] if status == -signal.SIGKILL else []
        else:
            struck = [line for line in lines if line.endswith("(INJECTED)")]
        return [kind_of_file(line) for line in struck]

    def _lines(self) -> list[str]:
        return self._output.read_text(errors="replace").splitlines() if self._output.exists() else []


def kind_of_file(line: str) -> str:
    """What a line of a trace is about, as far as its first path tells."""
    path = next((first or second for first, second in _PATH.findall(line) if first or second), "")
    for ending, kind in (
        (".seg.tmp", "new segment"),
        (".seg", "segment"),
        ("/MARK", "MARK"),
        ("/LOCK", "LOCK"),
        (".mdb", "index"),
        ("/log", "log directory"),
        ("/index", "index directory"),
    ):
        if path.endswith(ending):
            return kind
    return "lost+found" if "lost+found" in path else "other"


@cache
def why_not() -> str | None:
    """Why this machine cannot do it; None if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        trace = Trace(child.pid, Path(os.devnull), Injection("pwrite64", "EIO", 1))
    except RuntimeError as error:
        return str(error)
    finally:
        child.kill()
        child.communicate()
    trace.close()
    return None

"""Running the command line in tests: within the test's process, or in one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any


@dataclass
class Outcome:
    status: int
    data: str
    talk: str

    def json(self) -> Any:
        return json.loads(self.data)

    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.data.splitlines()]


def command_of(*words: object) -> list[str]:
    """The words of a process that runs `shardlog` with this interpreter."""
    return [sys.executable, "-m", "shardlog_tools", *map(str, words)]


def run_process(*words: object, stdin: bytes = b"") -> Outcome:
    """Run a command in a process of its own."""
    done = subprocess.run(command_of(*words), input=stdin, capture_output=True, timeout=120, check=False)
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())

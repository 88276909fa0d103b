"""How much was tried, over all tests of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.tracing import Injection


@dataclass
class Tally:
    """Figures of a run. `losses` are promises broken, but for those of the controls, which are to break some."""

    killed_at: Counter[str] = field(default_factory=Counter)
    """Processes killed, by the system call before which they died."""
    failed_at: Counter[str] = field(default_factory=Counter)
    """System calls that failed, by call and errno."""
    files: Counter[str] = field(default_factory=Counter)
    """The kinds of files that those calls were about."""
    runs: int = 0
    power_cuts: Counter[str] = field(default_factory=Counter)
    """By moment."""
    losses: int = 0
    losses_of_controls: int = 0

    def add_injection(self, injection: Injection, struck: Iterable[str]) -> None:
        """Count a run in which an injection struck at files of some kinds, or at none."""
        files = list(struck)
        self.runs += bool(files)
        self.files.update(files)
        if injection.fault == "KILL":
            self.killed_at[injection.call] += len(files)
        else:
            self.failed_at[f"{injection.call} {injection.fault}"] += len(files)

    def lines(self) -> list[str]:
        """The summary; empty where nothing was tried."""
        lines = []
        if self.runs:
            lines.append(f"runs in which a system call was tampered with: {self.runs}")
            lines.append(f"killed at a system call: {_listed(self.killed_at)}")
            lines.append(f"system calls made to fail: {_listed(self.failed_at)}")
            lines.append(f"files that these were about: {_listed(self.files)}")
        if self.power_cuts:
            lines.append(f"power cuts: {_listed(self.power_cuts)}")
        if lines:
            lines.append(f"losses: {self.losses} (and {self.losses_of_controls} in the controls, as there should be)")
        return lines


def _listed(counts: Counter[str]) -> str:
    parts = ", ".join(f"{name} {count}" for name, count in counts.most_common() if count)
    return f"{counts.total()} ({parts})"

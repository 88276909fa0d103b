"""What a run of the tests tried, and the one summary of it.

Every harness adds its figures to the `Tally` of its test. They travel with the test's report, so that they also arrive
from other processes; a `Run` puts the reports of a run together. `shortfalls` are the reasons why the long run
(`make torture`) does not count as passed although no test failed: too little was tried, a control is missing.

A *control* is a test, marked `control(harness)`, of a harness that is made to find something: were it blind, the others
would prove nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

PROPERTY: Final = "tally"
CONTROL: Final = "control"
"""What figures and controls are called among the properties of a report."""


class Figure(StrEnum):
    """What is counted, in the order and the words of the summary."""

    IMAGES = "distinct crash images, by the sync that the crash forestalls"
    WORKLOADS = "the same, by workload"
    JUDGEMENTS = "crash states judged"
    SITES = "sync sites proven"
    RUNS = "runs with tampered system calls"
    KILLED = "system calls at which it was killed"
    FAILED = "system calls made to fail"
    FILES = "files that these were about"
    POWER_CUTS = "power cuts on a real file system"
    DAMAGE = "damage"
    EXAMPLES = "examples of the state machine"
    RESHARDS = "changes of shards while others append"
    SCHEDULES = "schedules of consumers"
    CONSUMERS = "processes that consume, killed or frozen"
    LOSSES = "losses"
    LOSSES_OF_CONTROLS = "losses in the controls, as there should be"


AS_TABLES: Final = (Figure.IMAGES, Figure.WORKLOADS)

HARNESSES: Final = {
    "crash states": (Figure.IMAGES, 100_000),
    "crash states of copies and repairs": (Figure.JUDGEMENTS, 1),
    "sync sites": (Figure.SITES, 1),
    "system calls": (Figure.KILLED, 1),
    "power cuts": (Figure.POWER_CUTS, 1),
    "damage": (Figure.DAMAGE, 1),
    "shards": (Figure.RESHARDS, 1),
    "state machine": (Figure.EXAMPLES, 1),
    "schedules of consumers": (Figure.SCHEDULES, 1),
}
"""Each with a figure that tells that it was at work, and how much of it the long run needs at least."""


class Tally:
    """The figures of one test. `figures` holds plain values only."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, int]] = {}

    def add(self, figure: Figure, what: str = "", number: int = 1) -> None:
        """Count so many more of a kind."""
        kinds = self.figures.setdefault(figure.value, {})
        kinds[what] = kinds.get(what, 0) + number

    def add_all(self, figure: Figure, counts: Mapping[str, int]) -> None:
        """Count several kinds."""
        for what, number in counts.items():
            self.add(figure, what, number)


@dataclass
class Run:
    """All reports of a run together. `controls`: what became of each harness's controls. `skipped`: tests by reason."""

    figures: dict[str, Counter[str]] = field(default_factory=dict)
    controls: dict[str, Counter[str]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def take(self, report: Any) -> None:
        """Take the next report of pytest, of any phase of any test."""
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = str(report.longrepr[2]).removeprefix("Skipped: ")
            self.skipped.setdefault(reason, []).append(report.nodeid)
        for name, value in report.user_properties:
            if name == CONTROL and (report.when == "call" or not report.passed):
                self.controls.setdefault(value, Counter())[report.outcome] += 1
            elif name == PROPERTY and report.when == "teardown":
                for figure, counts in value.items():
                    self.figures.setdefault(figure, Counter()).update(counts)

    def total(self, figure: Figure) -> int:
        """How many of a figure."""
        return self.figures.get(figure, Counter()).total()


def summary(run: Run) -> list[str]:
    """The figures in words; empty where nothing was tried."""
    lines: list[str] = []
    for figure in Figure:
        counts = run.figures.get(figure)
        if not counts or figure is Figure.LOSSES:
            continue
        if figure in AS_TABLES:
            lines += [f"{figure}: {counts.total():,}", *_table(counts)]
        else:
            lines.append(f"{figure}: {counts.total():,}{_listed(counts)}")
    if lines:
        lines.append(f"{Figure.LOSSES}: {run.total(Figure.LOSSES)}{_listed(run.figures.get(Figure.LOSSES, Counter()))}")
    return lines


def whole_summary(run: Run) -> list[str]:
    """The summary of the long run, with the controls, and what could not be run."""
    lines = summary(run)
    for harness in HARNESSES:
        lines.append(f"control of {harness}: {_control(run.controls.get(harness, Counter()))}")
    for reason, tests in sorted(run.skipped.items()):
        files = sorted({test.partition("::")[0] for test in tests})
        lines.append(f"not run, {len(tests)} tests of {', '.join(files)}: {reason}")
    return lines


def shortfalls(run: Run) -> list[str]:
    """Why the long run proves too little. What was skipped for a reason of the machine is not asked for."""
    found = []
    for harness in HARNESSES:
        figure, least = HARNESSES[harness]
        outcomes = run.controls.get(harness, Counter())
        if outcomes.keys() == {"skipped"}:
            continue
        if not outcomes["passed"] or outcomes["failed"]:
            found.append(f"{harness}: {_control(outcomes)}")
        if run.total(figure) < least:
            found.append(
                f"{harness}: expected {least:,} {figure.partition(',')[0]} at least, found {run.total(figure):,}"
            )
    if run.total(Figure.LOSSES):
        found.append(f"{run.total(Figure.LOSSES)} losses")
    return found


def _control(outcomes: Mapping[str, int]) -> str:
    if not outcomes:
        return "MISSING"
    words = {"passed": "failed as it should", "failed": "DID NOT FAIL", "skipped": "not run"}
    return ", ".join(f"{words[outcome]} ({number})" for outcome, number in outcomes.items())


def _table(counts: Mapping[str, int]) -> Iterable[str]:
    return (f"    {name:40} {number:8,}" for name, number in sorted(counts.items()))


def _listed(counts: Counter[str]) -> str:
    parts = [f"{name} {count:,}" for name, count in counts.most_common() if name and count]
    return f" ({', '.join(parts)})" if parts else ""

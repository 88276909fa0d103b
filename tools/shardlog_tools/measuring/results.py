"""What a workload found, and how it is shown. Pure.

A `Table` has one row per contestant, the subject first. Where a row is a peer's, its ratio is the subject's figure
divided by the peer's: medians by medians; the range beside it is that of the rounds' own ratios.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

PERCENTILES: Final = (0.5, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a ratio, or on a figure that is not compared."""

    bound: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Whether the value meets it."""
        return value >= self.bound if self.at_least else value <= self.bound

    def verdict(self, value: float) -> str:
        """The goal, and whether the value meets it."""
        return f"goal {'>=' if self.at_least else '<='} {self.bound:g}: {'met' if self.is_met(value) else 'MISSED'}"


def at_least(bound: float) -> Goal:
    """A goal that greater values meet."""
    return Goal(bound, True)


def at_most(bound: float) -> Goal:
    """A goal that smaller values meet."""
    return Goal(bound, False)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long single operations took, in microseconds: of all rounds together."""

    p50_us: float
    p99_us: float
    p999_us: float

    @classmethod
    def of(cls, times_us: Sequence[float]) -> Latency:
        """Of the times of at least one operation."""
        ordered = sorted(times_us)
        return cls(*(ordered[min(len(ordered) - 1, int(part * len(ordered)))] for part in PERCENTILES))


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one contestant, round by round.

    `operations` were timed one by one for `latency`. `setting` says how durable a peer is.
    """

    name: str
    values: tuple[float, ...]
    operations: int = 0
    latency: Latency | None = None
    setting: str = ""

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)


@dataclass(frozen=True, slots=True)
class Row:
    """A series and how the subject compares with it. Without `subject` the goal is for the series' own median."""

    series: Series
    subject: Series | None = None
    goal: Goal | None = None

    @property
    def ratio(self) -> float | None:
        """Median of the subject by this median."""
        return self.subject.median / self.series.median if self.subject else None

    @property
    def ratios(self) -> tuple[float, ...]:
        """The same, round by round."""
        if self.subject is None:
            return ()
        return tuple(mine / theirs for mine, theirs in zip(self.subject.values, self.series.values, strict=True))

    @property
    def judged(self) -> float:
        """What a goal is for."""
        return self.series.median if self.ratio is None else self.ratio

    @property
    def verdict(self) -> str:
        """The goal, and whether it is met; empty where there is none."""
        return "" if self.goal is None else self.goal.verdict(self.judged)


@dataclass(frozen=True, slots=True)
class Table:
    """A workload's outcome. `sync` is the device's fdatasync time in microseconds; `notes` say what was done."""

    name: str
    title: str
    unit: str
    rows: tuple[Row, ...]
    sync: Series
    notes: tuple[str, ...] = ()

    def row(self, name: str) -> Row:
        """The row of a contestant."""
        return next(row for row in self.rows if row.series.name == name)


def compare(subject: Series, peers: Sequence[tuple[Series, Goal | None]]) -> tuple[Row, ...]:
    """Rows for a subject and what it is measured against."""
    return (Row(subject), *(Row(peer, subject, goal) for peer, goal in peers))


def compare_by_name(
    subject: Series,
    peers: Sequence[Series],
    goals: Mapping[str, Goal],
    best_of: Collection[str] = (),
    goal: Goal | None = None,
) -> tuple[Row, ...]:
    """The same with goals by the peers' names, and `goal` for whichever of `best_of` has the greatest figure."""
    candidates = [peer for peer in peers if peer.name in best_of]
    best = max(candidates, key=lambda peer: peer.median, default=None)
    return compare(subject, [(peer, goal if peer is best else goals.get(peer.name)) for peer in peers])


def render(table: Table) -> str:
    """A table as text."""
    sync = table.sync
    head = ("", f"median {table.unit}", "min-max", "p50 us", "p99 us", "p99.9 us", "ratio to it", "min-max", "")
    cells = [head, *(_cells(row) for row in table.rows)]
    kept = [column for column in range(len(head)) if column == 0 or any(row[column] for row in cells[1:])]
    widths = {column: max(len(row[column]) for row in cells) for column in kept}
    lines = [f"{table.name}: {table.title}"]
    lines += [f"  {note}" for note in table.notes]
    lines.append(f"  fdatasync of 4 KiB here: {number(sync.median)} us ({_extent(sync.values)})")
    for row in cells:
        first, *others = kept
        texts = [row[first].ljust(widths[first])]
        texts += [
            row[column].ljust(0) if column == len(head) - 1 else row[column].rjust(widths[column]) for column in others
        ]
        lines.append("  " + "  ".join(texts).rstrip())
    return "\n".join(lines)


def as_json(table: Table) -> dict[str, Any]:
    """A table as values that JSON knows."""
    return {
        "name": table.name,
        "title": table.title,
        "unit": table.unit,
        "notes": list(table.notes),
        "fdatasync_us": {"median": table.sync.median, "values": list(table.sync.values)},
        "rows": [_row_as_json(row) for row in table.rows],
    }


def _row_as_json(row: Row) -> dict[str, Any]:
    series, latency, goal = row.series, row.series.latency, row.goal
    return {
        "name": series.name,
        "setting": series.setting,
        "median": series.median,
        "values": list(series.values),
        "operations": series.operations,
        "latency_us": latency and {"p50": latency.p50_us, "p99": latency.p99_us, "p99.9": latency.p999_us},
        "ratio": row.ratio,
        "ratios": list(row.ratios),
        "goal": goal and {"bound": goal.bound, "at_least": goal.at_least, "is_met": goal.is_met(row.judged)},
    }


def _cells(row: Row) -> tuple[str, ...]:
    series, latency = row.series, row.series.latency
    times = (latency.p50_us, latency.p99_us, latency.p999_us) if latency else ()
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return (
        series.name,
        number(series.median),
        _extent(series.values),
        *(map(number, times) if times else ("", "", "")),
        ratio,
        _extent(row.ratios),
        row.verdict,
    )


def _extent(values: Sequence[float]) -> str:
    return f"{number(min(values))}-{number(max(values))}" if values else ""


def number(value: float) -> str:
    """A figure for people: three digits or so."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

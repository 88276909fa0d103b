"""What a workload found, and how it is shown. Pure.

A `Table` has one row per contestant, the subject first. Where a row is a peer's, its ratio is the subject's figure
divided by the peer's: medians by medians; the range beside it is that of the rounds' own ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on a ratio, or on a figure that is not compared."""

    bound: float
    at_least: bool

    def verdict(self, value: float) -> str:
        """The goal, and whether the value meets it."""
        is_met = value >= self.bound if self.at_least else value <= self.bound
        return f"goal {'>=' if self.at_least else '<='} {self.bound:g}: {'met' if is_met else 'MISSED'}"


def at_least(bound: float) -> Goal:
    """A goal that greater values meet."""
    return Goal(bound, True)


def at_most(bound: float) -> Goal:
    """A goal that smaller values meet."""
    return Goal(bound, False)


@dataclass(frozen=True, slots=True)
class Series:
    """One figure of one contestant, round by round."""

    name: str
    values: tuple[float, ...]

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
    def verdict(self) -> str:
        """The goal, and whether it is met; empty where there is none."""
        if self.goal is None:
            return ""
        return self.goal.verdict(self.series.median if self.ratio is None else self.ratio)


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


def render(table: Table) -> str:
    """A table as text."""
    sync = table.sync
    head = ("", f"median {table.unit}", "min-max", "ratio to it", "min-max", "")
    cells = [head, *(_cells(row) for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [f"{table.name}: {table.title}"]
    lines += [f"  {note}" for note in table.notes]
    lines.append(f"  fdatasync of 4 KiB here: {_number(sync.median)} us ({_extent(sync.values)})")
    for row in cells:
        texts = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:5], widths[1:5], strict=True)),
        ]
        lines.append("  " + "  ".join([*texts, row[5]]).rstrip())
    return "\n".join(lines)


def as_json(table: Table) -> dict[str, Any]:
    """A table as values that JSON knows."""
    return {
        "name": table.name,
        "title": table.title,
        "unit": table.unit,
        "notes": list(table.notes),
        "fdatasync_us": {"median": table.sync.median, "values": list(table.sync.values)},
        "rows": [
            {
                "name": row.series.name,
                "median": row.series.median,
                "values": list(row.series.values),
                "ratio": row.ratio,
                "ratios": list(row.ratios),
                "goal": row.verdict or None,
            }
            for row in table.rows
        ],
    }


def _cells(row: Row) -> tuple[str, ...]:
    series = row.series
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return (series.name, _number(series.median), _extent(series.values), ratio, _extent(row.ratios), row.verdict)


def _extent(values: Sequence[float]) -> str:
    return f"{_number(min(values))}-{_number(max(values))}" if values else ""


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"

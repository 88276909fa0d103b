"""Two result files, side by side; and the goals of one. Pure: values as JSON holds them, to text.

Absolute figures of two runs are only comparable on the same, equally quiet machine; ratios to what ran beside it are
comparable anywhere. So both are shown, and a change counts as one only where the ranges of the rounds do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from shardlog_tools.measuring.results import number

Content = dict[str, Any]


class Difference(NamedTuple):
    """One contestant of one table in both files. `change` is later by earlier."""

    table: str
    name: str
    unit: str
    earlier: float
    later: float
    change: float
    is_clear: bool
    ratio_change: float | None


def differences(earlier: Content, later: Content) -> list[Difference]:
    """What both files have."""
    found = []
    for table, unit, before, after in _common(earlier, later):
        ratios = before["ratio"], after["ratio"]
        is_clear = min(before["values"]) > max(after["values"]) or max(before["values"]) < min(after["values"])
        found.append(
            Difference(
                table, before["name"], unit, before["median"], after["median"], after["median"] / before["median"],
                is_clear, ratios[1] / ratios[0] if ratios[0] and ratios[1] else None,
            )
        )  # fmt: skip
    return found


def render_differences(earlier: Content, later: Content) -> str:
    """The comparison as text, and which machine and commit each is of."""
    lines = [f"{label}: {_origin(content)}" for label, content in (("earlier", earlier), ("later", later))]
    if earlier["machine"].get("processor") != later["machine"].get("processor"):
        lines.append("different machines: only the ratios to what ran beside them can be compared")
    table = ""
    for found in differences(earlier, later):
        if found.table != table:
            table = found.table
            lines.append(f"\n{table}, {found.unit}")
        ratio = "" if found.ratio_change is None else f"   shardlog's ratio to it: x {found.ratio_change:.2f}"
        mark = "" if found.is_clear else "   (within the rounds' ranges)"
        figures = f"{number(found.earlier):>12} -> {number(found.later):>12}   x {found.change:.2f}"
        lines.append(f"  {found.name:32} {figures}{mark}{ratio}")
    missing = sorted({table["name"] for table in earlier["tables"]} ^ {table["name"] for table in later["tables"]})
    if missing:
        lines.append(f"\nin one file only: {', '.join(missing)}")
    return "\n".join(lines)


def goals_table(content: Content) -> str:
    """The goals and what was measured, as Markdown."""
    lines = [
        "| workload | shardlog | against | its figure | ratio | goal | |",
        "|---|---:|---|---:|---:|---:|---|",
    ]
    for table in content["tables"]:
        subject = table["rows"][0]
        for row in table["rows"]:
            goal = row["goal"]
            if not goal:
                continue
            bound = f"{'≥' if goal['at_least'] else '≤'} {goal['bound']:.3g}"
            verdict = "met" if goal["is_met"] else "**missed**"
            if row["ratio"] is None:
                cells = (f"{number(row['median'])} {table['unit']}", row["name"], "", "")
            else:
                cells = (
                    f"{number(subject['median'])} {table['unit']}", row["name"], number(row["median"]),
                    f"{row['ratio']:.2f}",
                )  # fmt: skip
            lines.append(f"| {table['name']}: {table['title']} | {' | '.join(cells)} | {bound} | {verdict} |")
    return "\n".join(lines)


def origin_note(content: Content) -> str:
    """Where and when the figures were measured, as a sentence."""
    machine = content["machine"]
    skipped = "; not measured: " + ", ".join(content["skipped"]) if content["skipped"] else ""
    sync = sorted(table["fdatasync_us"]["median"] for table in content["tables"])
    return (
        f"{machine['date']}, {machine['processor']}, {machine['system']}, {machine['directory']}, {machine['python']}, "
        f"{machine['packages']}, {machine['peers']}; {machine['checksum']}; fdatasync of 4 KiB takes "
        f"{number(sync[len(sync) // 2])} us; commit {content['commit']}{skipped}."
    )


def caption_of(content: Content) -> str:
    """Date, processor and commit, to stand under a picture."""
    return f"{content['machine']['date']}, {content['machine']['processor']}, commit {content['commit']}"


def _common(earlier: Content, later: Content) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    tables = {table["name"]: table for table in later["tables"]}
    for table in earlier["tables"]:
        other = {row["name"]: row for row in tables.get(table["name"], {"rows": ()})["rows"]}
        for row in table["rows"]:
            if row["name"] in other:
                yield table["name"], table["unit"], row, other[row["name"]]


def _origin(content: Content) -> str:
    return f"{content['commit']}, {content['machine']['date']}, {content['machine']['processor']}"

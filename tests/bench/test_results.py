"""Ratios, goals and percentiles are what they say; two files compare; pictures are well-formed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bench.comparison import differences, goals_table, render_differences
from bench.pictures import picture
from bench.readme import FIRST, LAST, PICTURED, publish, with_figures

from shardlog_tools.measuring.results import (
    Latency,
    Row,
    Series,
    Table,
    as_json,
    at_least,
    at_most,
    compare,
    compare_by_name,
    render,
)
from shardlog_tools.measuring.rounds import Settings, Turn, take_turns


def content_of(*tables: Table, commit: str = "abc", processor: str = "one") -> dict[str, Any]:
    """What a result file holds."""
    return {
        "machine": {
            "date": "today", "processor": processor, "system": "S", "directory": "d", "python": "3", "packages": "p",
            "peers": "q", "checksum": "c",
        },
        "commit": commit,
        "options": {},
        "skipped": {},
        "tables": [as_json(table) for table in tables],
    }  # fmt: skip


def table_of(*figures: float, peer: float = 10.0) -> Table:
    """A subject, and a peer that is the same in every round."""
    subject = Series("shardlog", figures)
    rows = compare(subject, [(Series("a <peer>", (peer,) * len(figures)), at_least(1.0))])
    return Table("append", "appending & more", "records/s", rows, Series("fdatasync", (50.0,)))


def test_a_ratio_is_one_of_medians_and_its_range_that_of_the_rounds() -> None:
    """The ratio of medians, not the median of ratios."""
    subject, peer = Series("subject", (10.0, 20.0, 90.0)), Series("peer", (10.0, 40.0, 30.0))
    mine, theirs = compare(subject, [(peer, at_least(0.5))])
    assert mine.ratio is None
    assert theirs.ratio == pytest.approx(20 / 30)
    assert theirs.ratios == pytest.approx((1.0, 0.5, 3.0))
    assert theirs.verdict == "goal >= 0.5: met"


def test_a_goal_without_a_peer_is_for_the_figure_itself() -> None:
    """Without a peer the goal judges the row's own median; a row may have none."""
    assert Row(Series("memory", (120.0,)), goal=at_most(100)).verdict == "goal <= 100: MISSED"
    assert Row(Series("memory", (80.0,))).verdict == ""


def test_the_goal_against_the_best_is_for_the_best_alone() -> None:
    """Whoever of them is fastest; the others, and faster ones that are not of them, have their own goals or none."""
    peers = [Series("limit", (90.0,)), Series("SQLite", (10.0,)), Series("LMDB", (20.0,)), Series("RocksDB", (15.0,))]
    rows = compare_by_name(
        Series("shardlog", (30.0,)), peers, {"limit": at_least(0.5)}, ("SQLite", "LMDB", "RocksDB"), at_least(1.2)
    )
    goals = {row.series.name: row.verdict for row in rows}
    assert goals == {
        "shardlog": "", "limit": "goal >= 0.5: MISSED", "SQLite": "", "LMDB": "goal >= 1.2: met", "RocksDB": "",
    }  # fmt: skip


def test_percentiles_are_of_the_operations_themselves() -> None:
    """Of a thousand, the 99.9th is the last but none; of one, all are it."""
    assert Latency.of([float(value) for value in range(1000)]) == Latency(500.0, 990.0, 999.0)
    assert Latency.of([3.0]) == Latency(3.0, 3.0, 3.0)


class Scripted:
    """A contestant whose figures are known."""

    name = "scripted"
    setting = "synced"

    def __init__(self) -> None:
        self.turns = 0

    def turn(self, seconds: float) -> Turn:
        self.turns += 1
        return Turn(float(self.turns), [float(self.turns)])


def test_the_first_round_warms_up_and_is_not_counted() -> None:
    """Nor are its operations."""
    (series,) = take_turns([Scripted()], Settings("", rounds=3))
    assert series == Series("scripted", (2.0, 3.0, 4.0), 3, Latency(3.0, 4.0, 4.0), "synced")


def test_every_row_and_no_empty_column_is_shown() -> None:
    """A table without latencies has no columns for them."""
    text = render(table_of(20.0))
    assert "a <peer>" in text
    assert "p99" not in text
    timed = Table("t", "t", "us", (Row(Series("s", (1.0,), 1, Latency(1.0, 2.0, 3.0))),), Series("fdatasync", (1.0,)))
    assert "p99.9" in render(timed)


def test_a_difference_is_clear_where_the_ranges_do_not_overlap() -> None:
    """Otherwise it may be nothing; the ratio to what ran beside it is compared as well."""
    before, after = content_of(table_of(10.0, 12.0)), content_of(table_of(20.0, 22.0, peer=20.0))
    mine, theirs = differences(before, after)
    assert mine.is_clear
    assert mine.change == pytest.approx(21 / 11)
    assert theirs.ratio_change == pytest.approx((21 / 20) / (11 / 10))
    assert not differences(before, content_of(table_of(11.0, 30.0)))[0].is_clear


def test_a_comparison_names_what_it_cannot_compare() -> None:
    """Other machines, and tables that one file lacks."""
    text = render_differences(content_of(table_of(10.0)), content_of(commit="def", processor="two"))
    assert "different machines" in text
    assert "in one file only: append" in text


def test_the_goals_are_a_table_with_what_was_missed() -> None:
    """A row for each goal, met or missed."""
    text = goals_table(content_of(table_of(20.0), table_of(5.0)))
    assert text.count("\n| append") == 2
    assert "| 2.00 | ≥ 1 | met |" in text
    assert "| 0.50 | ≥ 1 | **missed** |" in text


def test_the_readme_keeps_what_is_around_its_figures() -> None:
    """What is between the markers is made anew; without them nothing is guessed."""
    made = with_figures(f"before\n{FIRST}\nold\n{LAST}\nafter", content_of(table_of(20.0)))
    assert made.startswith("before\n")
    assert made.endswith("\nafter")
    assert "old" not in made
    assert with_figures(made, content_of(table_of(20.0))) == made
    with pytest.raises(ValueError, match="markers"):
        with_figures("nothing here", content_of())


def test_publishing_keeps_the_file_and_the_picture_beside_the_code(tmp_path: Path) -> None:
    """What the README shows can be read, and compared with, later."""
    (tmp_path / "README.md").write_text(f"{FIRST}{LAST}")
    (tmp_path / "bench").mkdir()
    content = content_of(replace(table_of(20.0), name=PICTURED))
    publish(tmp_path, content)
    published = tmp_path / "bench" / "published"
    assert json.loads((published / "figures.json").read_text()) == content
    assert f"](bench/published/{PICTURED}.svg)" in (tmp_path / "README.md").read_text()
    assert (published / f"{PICTURED}.svg").exists()


def test_a_picture_is_well_formed_and_its_bars_are_in_proportion() -> None:
    """Names are escaped; the longest bar is the greatest figure's."""
    root = ElementTree.fromstring(picture(as_json(table_of(20.0)), "today & here"))
    bars = [float(bar.get("width", "")) for bar in root.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert bars[0] == pytest.approx(2 * bars[1])
    assert any(text.text == "a <peer>" for text in root.iter("{http://www.w3.org/2000/svg}text"))

"""Every workload runs, and its figures hang together; how good they are is nobody's concern here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from bench.results import Row, Series, as_json, at_least, at_most, compare, render
from bench.rounds import Settings
from bench.runner import main
from bench.workloads import WORKLOADS
from bench.workloads.reading import Passes


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """So little to do that figures mean nothing."""
    return Settings(
        directory=str(tmp_path),
        seconds=0.04,
        rounds=2,
        log_bytes=1 << 20,
        read_records=2_000,
        segments=4,
        fill_bytes=1 << 18,
    )


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_gives_a_table_with_a_figure_per_round(name: str, settings: Settings) -> None:
    """One positive figure per round and contestant; files and directories are cleared away."""
    table = WORKLOADS[name](settings)
    assert table.name == name
    assert table.sync.median > 0
    for row in table.rows:
        assert all(math.isfinite(value) and value > 0 for value in row.series.values)
        assert len(row.series.values) == (1 if name == "memory" else settings.rounds)
        if row.ratio is not None:
            assert min(row.ratios) <= max(row.ratios)
    assert table.title in render(table)
    assert not list(Path(settings.directory).iterdir()), "a workload leaves nothing behind"


def test_the_command_prints_the_machine_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine, the device's sync time and the goals are printed; the file has the same table."""
    target = tmp_path / "figures.json"
    given = ["append-1", "--seconds", "0.02", "--rounds", "1", "--dir", str(tmp_path), "--json", str(target)]
    assert main(given) == 0
    printed = capsys.readouterr().out
    assert "CRC-32C by" in printed
    assert "fdatasync of 4 KiB here" in printed
    assert "goal <= 1.4" in printed
    (table,) = json.loads(target.read_text())["tables"]
    assert table["name"] == "append-1"
    assert [row["name"] for row in table["rows"]] == ["shardlog", "pwrite+fdatasync", "SQLite"]


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


def test_a_turn_counts_whole_passes() -> None:
    """Even a turn without time goes through everything once."""
    assert Passes("pass", lambda: 1_000).turn(0.0) > 0


def test_json_holds_every_round(settings: Settings) -> None:
    """Medians can be computed again from the file."""
    table = WORKLOADS["read-100"](settings)
    rows = as_json(table)["rows"]
    assert [len(row["values"]) for row in rows] == [settings.rounds] * 2

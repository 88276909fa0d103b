"""Every workload runs, and its figures hang together; how good they are is nobody's concern here."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.runner import main
from bench.settings import Settings
from bench.workloads import LONG, WORKLOADS

from shardlog_tools.measuring.reading import Passes
from shardlog_tools.measuring.results import as_json

_IN_MEMORY = "/dev/shm"
_EVERYTHING = {**WORKLOADS, **LONG}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: a slow disk is nobody's concern here, either."""
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else tmp_path) as path:
        yield Path(path)


@pytest.fixture
def settings(directory: Path) -> Settings:
    """So little to do that figures mean nothing."""
    return Settings(
        directory=str(directory),
        seconds=0.002,
        rounds=1,
        log_bytes=1 << 18,
        read_records=1_000,
        segments=4,
        fill_bytes=1 << 17,
        checkpoint_threads=2,
        leases=4,
        lease_workers=2,
        lease_seconds=0.2,
        followers=2,
        idle_seconds=0.05,
        expired_segments=4,
        growth_records=(2_000, 4_000),
    )


@pytest.mark.parametrize("name", _EVERYTHING)
def test_a_workload_gives_a_table_with_a_figure_per_round(name: str, settings: Settings) -> None:
    """Positive figures for every contestant, percentiles in order; files and directories are cleared away."""
    table = _EVERYTHING[name].run(settings)
    assert table.name == name
    assert table.sync.median > 0
    for row in table.rows:
        assert row.series.values
        assert all(math.isfinite(value) and value >= 0 for value in row.series.values)
        if row.ratio is not None:
            assert row.ratio > 0
        if row.series.latency is not None:
            latency = row.series.latency
            assert 0 < latency.p50_us <= latency.p99_us <= latency.p999_us
            assert row.series.operations > 0
    assert list(Path(settings.directory).iterdir()) == []
    json.dumps(as_json(table), allow_nan=False)


def test_names_say_what_is_measured() -> None:
    """One line each, for `--list`."""
    for workload in _EVERYTHING.values():
        assert 10 < len(workload.description) < 110
        assert "\n" not in workload.description


def test_the_command_writes_results_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine, peers, options, the device's sync time and the goals are printed, and in the file."""
    out = tmp_path / "out"
    assert main(["append-1", "--seconds", "0.01", "--rounds", "1", "--dir", str(tmp_path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "CRC-32C by" in printed
    assert "fdatasync of 4 KiB here" in printed
    assert "goal >= 0.75" in printed
    content = json.loads((out / "figures.json").read_text())
    assert content["machine"]["processor"]
    assert content["options"]["rounds"] == 1
    (table,) = content["tables"]
    assert [row["name"] for row in table["rows"]][:4] == ["shardlog", "limit", "pwrite+fdatasync", "SQLite"]
    assert all(row["setting"] for row in table["rows"])
    assert (out / "append-1.svg").read_text().startswith("<svg")
    assert main(["compare", str(out / "figures.json"), str(out / "figures.json")]) == 0
    assert "x 1.00" in capsys.readouterr().out
    assert main(["goals", str(out / "figures.json")]) == 0
    assert "| append-1:" in capsys.readouterr().out


def test_the_list_does_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    """Every workload in a line."""
    assert main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(_EVERYTHING)


def test_a_turn_counts_whole_passes() -> None:
    """Even a turn without time goes through everything once."""
    assert Passes("pass", lambda: 1_000).turn(0.0) > 0

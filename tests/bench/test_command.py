"""`shardlog bench` measures on a user's machine, without other stores, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardlog_tools.main import main
from shardlog_tools.measuring.workloads import WORKLOADS

_SHORT = ["--seconds", "0.002", "--rounds", "1", "--records", "1000"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_runs_alone(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its table is printed, with the device's sync time; the directory is empty again."""
    assert main(["bench", name, "--dir", str(tmp_path), *_SHORT]) == 0
    printed = capfd.readouterr().out
    assert f"\n{name}: " in printed
    assert "fdatasync of 4 KiB here" in printed
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The machine and the tables, with every round's figures."""
    assert main(["bench", "append-100", "--json", "--dir", str(tmp_path), *_SHORT]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content["machine"]["checksum"].startswith("CRC-32C by")
    (table,) = content["tables"]
    assert [row["name"] for row in table["rows"]] == ["shardlog", "limit"]


def test_a_workload_that_does_not_exist_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """As wrong usage, with the names that there are."""
    assert main(["bench", "append-7"]) == 2
    assert "append-100" in capfd.readouterr().err

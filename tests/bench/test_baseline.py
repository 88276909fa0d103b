"""The baseline of hot functions: multiples of a calibration, stored, and compared with a tolerance."""

from __future__ import annotations

import json
from pathlib import Path

from bench import baseline
from bench.baseline import TOLERATED, calibration_seconds, read_baseline, slower, write_baseline


def test_a_function_may_be_slower_within_the_tolerance_only() -> None:
    """What is slower is named with both figures; what is faster is fine."""
    stored = {"same": 1.0, "faster": 1.0, "slower": 1.0}
    found = slower(stored, {"same": TOLERATED, "faster": 0.1, "slower": TOLERATED * 1.01})
    assert found == [f"slower: {TOLERATED * 1.01:.3f} times the calibration, baseline 1.000"]


def test_a_function_that_the_baseline_does_not_know_is_named() -> None:
    """Or nobody would notice that it has none."""
    assert slower({}, {"new": 1.0}) == ["new: not in the baseline; measured 1.000"]


def test_storing_keeps_the_others(tmp_path: Path) -> None:
    """One function can be measured anew by itself."""
    path = tmp_path / "baseline.json"
    assert read_baseline(path) == {}
    write_baseline(path, {"a": 1.0, "b": 2.0})
    write_baseline(path, {"b": 3.0})
    assert read_baseline(path) == {"a": 1.0, "b": 3.0}


def test_the_calibration_takes_time() -> None:
    """It is what all is divided by."""
    assert calibration_seconds() > 0


def test_the_stored_baseline_is_sound() -> None:
    """Positive multiples by name."""
    stored = json.loads(Path(baseline.__file__).with_name("baseline.json").read_text())
    assert "append-100" in stored
    assert all(multiple > 0 for multiple in stored.values())

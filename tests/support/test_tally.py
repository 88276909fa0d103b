"""The long run passes only where enough was tried, every control failed as it should, and nothing was lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.support.tally import CONTROL, HARNESSES, PROPERTY, Figure, Run, Tally, shortfalls, summary, whole_summary


@dataclass
class Report:
    """As pytest makes one of each phase of a test."""

    nodeid: str = "tests/x/test_x.py::test_x"
    when: str = "call"
    outcome: str = "passed"
    user_properties: list[tuple[str, Any]] = field(default_factory=list)
    longrepr: Any = None

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"

    @property
    def skipped(self) -> bool:
        return self.outcome == "skipped"


def figures(figure: Figure, number: int) -> Report:
    """Of a test that added some."""
    tally = Tally()
    tally.add(figure, "some", number)
    return Report(when="teardown", user_properties=[(PROPERTY, tally.figures)])


def control(harness: str, outcome: str = "passed", when: str = "call", reason: str = "") -> Report:
    """Of a control."""
    return Report(
        when=when, outcome=outcome, user_properties=[(CONTROL, harness)], longrepr=("file", 1, f"Skipped: {reason}")
    )


def run_of(*reports: Report, without: Iterable[str] = ()) -> Run:
    """Enough of every harness but some, and more reports."""
    run = Run()
    for harness, (figure, least) in HARNESSES.items():
        if harness not in without:
            run.take(figures(figure, least))
            run.take(control(harness))
    for report in reports:
        run.take(report)
    return run


def test_enough_is_enough() -> None:
    """All harnesses at work, all controls found what they were to find."""
    assert shortfalls(run_of()) == []


@pytest.mark.parametrize("harness", HARNESSES)
def test_a_harness_that_was_not_at_work_is_missed(harness: str) -> None:
    """Its figure and its control."""
    found = shortfalls(run_of(without=[harness]))
    assert any(line.startswith(f"{harness}: MISSING") for line in found)
    assert any(line.startswith(f"{harness}: expected") for line in found)


def test_too_few_images_are_too_few() -> None:
    """By one."""
    name = "crash states"
    assert shortfalls(run_of(figures(Figure.IMAGES, 99_999), control(name), without=[name])) == [
        "crash states: expected 100,000 distinct crash images at least, found 99,999"
    ]


def test_a_control_that_does_not_fail_proves_nothing() -> None:
    """Nor does a harness whose other controls are fine."""
    assert shortfalls(run_of(control("damage", "failed"))) == [
        "damage: failed as it should (1), DID NOT FAIL (1)",
    ]


def test_a_control_that_breaks_before_it_begins_is_no_control() -> None:
    """An error of its fixtures."""
    assert any("DID NOT FAIL" in line for line in shortfalls(run_of(control("damage", "failed", "setup"))))


def test_what_a_machine_cannot_do_is_told_and_not_asked_for() -> None:
    """Without loop devices there are no power cuts."""
    run = run_of(control("power cuts", "skipped", "setup", "only root may mount"), without=["power cuts"])
    assert shortfalls(run) == []
    assert "not run, 1 tests of tests/x/test_x.py: only root may mount" in whole_summary(run)


def test_a_loss_is_a_shortfall() -> None:
    """Whatever else was tried; those of the controls are none."""
    assert shortfalls(run_of(figures(Figure.LOSSES, 1))) == ["1 losses"]
    assert shortfalls(run_of(figures(Figure.LOSSES_OF_CONTROLS, 1))) == []


def test_the_summary_adds_up_what_tests_counted() -> None:
    """Over all of them; a table for the crash images."""
    run = Run()
    assert summary(run) == []
    for _ in range(2):
        run.take(figures(Figure.POWER_CUTS, 3))
        run.take(figures(Figure.IMAGES, 1000))
    assert summary(run) == [
        "distinct crash images, by the sync that the crash forestalls: 2,000",
        "    some                                        2,000",
        "power cuts on a real file system: 6 (some 6)",
        "losses: 0",
    ]

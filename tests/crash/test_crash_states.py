"""No power cut, at no point of these workloads, breaks a promise. The short form; the long one is `-m tests.crash`."""

from __future__ import annotations

import pytest
from tests.crash.exploration import Plan, explore
from tests.crash.rig import Workload, record
from tests.crash.workloads import BY_NAME, WORKLOADS, sweeps, torn_sweep

from shardlog.files.protocol import Site
from shardlog.testing.crash_states import Strategy, crash_states

SHORT = Plan(Strategy(random_choices=4), one_in=10, recovered_one_in=40, recovery_states=10)
SWEEP = Plan(Strategy(random_choices=2), one_in=12)
SWEPT_ONE_IN = 30


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_no_crash_breaks_a_promise(workload: Workload) -> None:
    """What was acknowledged is there, whole and once, whatever the power cut left of what was not synced."""
    tally = explore([record(workload)], SHORT)
    assert not tally.failures, tally.report()
    assert len(tally.distinct) > 10, "hardly anything was tried"


@pytest.mark.parametrize("level", ["fsync", "os", "torn"])
def test_nor_after_a_kill_an_interrupt_a_full_disk_or_a_failed_sync(level: str) -> None:
    """The same where the program was stopped or failed at one of its steps before, at every nth step here."""
    workloads = torn_sweep() if level == "torn" else sweeps(level)
    tally = explore(map(record, workloads[:: SWEPT_ONE_IN if level != "torn" else 8]), SWEEP)
    assert not tally.failures, tally.report()
    assert len(tally.distinct) > 50, "hardly anything was tried"


def test_the_harness_can_fail() -> None:
    """Control: with the commits' syncs left out, an acknowledged record is found to be lost."""
    tally = explore([record(BY_NAME["appends, fsync"], frozenset({Site.COMMIT}))], Plan(stops_at_failure=True))
    assert "is gone" in tally.failures[0] or "CorruptLog" in tally.failures[0]
    assert "commit): skipped" in tally.failures[0], "the story tells what was left out"


def test_the_states_are_the_same_every_time() -> None:
    """A seed is enough to find a failure again."""
    seen = []
    for _ in range(2):
        states = crash_states(record(BY_NAME["rolls, fsync"]).recording, Strategy(seed=7))
        seen.append([state.digest for state in states])
    assert seen[0] == seen[1]

"""No power cut, at no point of these workloads, breaks a promise."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial

import pytest
from tests.crash.exploration import Explored, Plan, Task, explore, explore_together
from tests.crash.rig import Workload, record
from tests.crash.workloads import BY_NAME, LEVELS, LIVES, WORKLOADS, all_sweeps, sweeps, torn_sweep
from tests.support.tally import Tally

from shardlog.files.protocol import Site
from shardlog.options import Durability
from shardlog.testing.crash_states import Strategy, crash_states

SHORT = Plan(Strategy(random_choices=4), one_in=10, recovered_one_in=40, recovery_states=10)
SWEEP = Plan(Strategy(random_choices=2), one_in=12)
SWEPT_ONE_IN = 40
TORN_ONE_IN = 8
LONG_SECONDS = 540
LONG_TURNS = 8


def check(explored: Explored, tally: Tally, least: int) -> None:
    """Nothing was broken, and something was tried."""
    explored.add_to(tally)
    assert not explored.failures, explored.report()
    assert len(explored.distinct) > least, "hardly anything was tried"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_no_crash_breaks_a_promise(workload: Workload, tally: Tally) -> None:
    """What was acknowledged is there, whole and once, whatever the power cut left of what was not synced."""
    check(explore([record(workload)], SHORT), tally, 10)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("life", LIVES)
def test_nor_after_a_kill_an_interrupt_a_full_disk_or_a_failed_sync(
    life: str, level: Durability, seed: int, tally: Tally
) -> None:
    """The same where the program was stopped or failed at one of its steps before, at every nth step here."""
    check(explore(map(record, sweeps(life, level)[seed % SWEPT_ONE_IN :: SWEPT_ONE_IN]), SWEEP), tally, 50)


def test_nor_after_a_kill_when_a_tail_was_torn(tally: Tally) -> None:
    """The same for recoveries that set a torn tail aside."""
    check(explore(map(record, torn_sweep()[::TORN_ONE_IN]), SWEEP), tally, 50)


def long_tasks(seed: int) -> list[Task]:
    """All workloads in every state, then all sweeps, in turns that each take other states."""
    plan = Plan(Strategy(random_choices=12, seed=seed), recovered_one_in=32, recovery_states=20)
    turns = [
        replace(plan, strategy=replace(plan.strategy, seed=seed + turn), one_in=LONG_TURNS)
        for turn in range(LONG_TURNS)
    ]
    swept = all_sweeps()
    return [(workload, plan) for workload in WORKLOADS] + [(workload, turn) for turn in turns for workload in swept]


@pytest.mark.torture
def test_a_hundred_thousand_images(seed: int, tally: Tally) -> None:
    """All workloads and all sweeps, crashes during recovery included, for the better part of ten minutes."""
    explored = explore_together(partial(long_tasks, seed), len(os.sched_getaffinity(0)), LONG_SECONDS)
    explored.add_to(tally)
    print(explored.report())
    assert not explored.failures, explored.report()


@pytest.mark.control("crash states")
def test_the_harness_can_fail() -> None:
    """With the commits' syncs left out, an acknowledged record is found to be lost."""
    explored = explore([record(BY_NAME["appends, fsync"], frozenset({Site.COMMIT}))], Plan(stops_at_failure=True))
    assert "is gone" in explored.failures[0] or "CorruptLog" in explored.failures[0]
    assert "commit): skipped" in explored.failures[0], "the story tells what was left out"


def test_the_states_are_the_same_every_time() -> None:
    """A seed is enough to find a failure again."""
    seen = []
    for _ in range(2):
        states = crash_states(record(BY_NAME["rolls, fsync"]).recording, Strategy(seed=7))
        seen.append([state.digest for state in states])
    assert seen[0] == seen[1]

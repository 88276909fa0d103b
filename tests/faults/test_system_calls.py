from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faults.bodies import acknowledge_early, write_without_cancelling
from tests.faults.devices import why_no_power_cuts
from tests.faults.sweep import (
    Case,
    Outcome,
    Workload,
    all_cases,
    basic_workloads,
    count_calls,
    power_cut_cases,
    recovery_workloads,
    run_all,
)
from tests.faults.tracing import Injection, why_not
from tests.support.children import Children
from tests.support.tally import Figure, Tally

WORKLOADS = 9
SAMPLE = 120
SAMPLE_WITH_POWER_CUT = 10
WORKERS = os.cpu_count() or 1
ONE_CASE = "SHARDLOG_TEST_CASE"
"""Environment: the name of a case, as a failure prints it, to run that one alone."""

Cases = list[Case]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stores are made. Skips where system calls cannot be tampered with."""
    if reason := why_not():
        pytest.skip(reason)
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def workloads(place: Path, child_server: Children) -> list[Workload]:
    """What is struck."""
    workloads = basic_workloads() + recovery_workloads(child_server, place)
    assert len(workloads) == WORKLOADS
    return workloads


@pytest.fixture(scope="module")
def counts(workloads: list[Workload], place: Path, child_server: Children) -> list[dict[str, int]]:
    """How often each workload makes each system call."""
    return [count_calls(workload, child_server, place / f"count-{number}") for number, workload in enumerate(workloads)]


def of_each(
    list_cases: Callable[[Workload, dict[str, int]], Iterator[Case]],
    workloads: list[Workload],
    counts: list[dict[str, int]],
) -> Cases:
    """Cases of all workloads."""
    return [case for workload, count in zip(workloads, counts, strict=True) for case in list_cases(workload, count)]


def sweep(cases: Sequence[Case], place: Path, tally: Tally) -> None:
    """Run cases; fail with all that was lost in any."""
    if wanted := os.environ.get(ONE_CASE):
        cases = [case for case in cases if str(case) == wanted]

    def take_down(case: Case, outcome: Outcome) -> None:
        count(tally, case.injection, outcome.struck)
        tally.add(Figure.LOSSES, "system calls", len(outcome.violations))
        if case.cuts_power:
            tally.add(Figure.POWER_CUTS, "after a failure")

    failed = run_all(cases, place, take_down, WORKERS)
    assert not failed, f"{len(failed)} of {len(cases)} cases:\n" + "\n".join(failed)


def count(tally: Tally, injection: Injection, struck: Sequence[str]) -> None:
    """Count a run in which an injection struck at files of some kinds, or at none."""
    tally.add(Figure.RUNS, number=bool(struck))
    for kind in struck:
        tally.add(Figure.FILES, kind)
        if injection.fault == "KILL":
            tally.add(Figure.KILLED, injection.call)
        else:
            tally.add(Figure.FAILED, f"{injection.call} {injection.fault}")


def sample(cases: Iterable[Case], size: int, seed: int) -> Cases:
    """One case of each call and fault, and more at random."""
    source = random.Random(seed)
    shuffled = sorted(cases, key=lambda case: source.random())
    firsts = {str(case) for case in {(case.injection.call, case.injection.fault): case for case in shuffled}.values()}
    return sorted(shuffled, key=lambda case: str(case) not in firsts)[:size]


def test_some_system_calls(
    workloads: list[Workload], counts: list[dict[str, int]], place: Path, tally: Tally, seed: int
) -> None:
    """Killed at any system call, or with any failing, nothing acknowledged is lost: a sample."""
    sweep(sample(of_each(all_cases, workloads, counts), SAMPLE, seed), place, tally)


@pytest.mark.torture
@pytest.mark.parametrize("number", range(WORKLOADS))
def test_every_system_call(
    workloads: list[Workload], counts: list[dict[str, int]], place: Path, tally: Tally, number: int
) -> None:
    """Killed at any system call, LMDB's own included, or with any failing, nothing acknowledged is lost."""
    sweep(list(all_cases(workloads[number], counts[number])), place, tally)


def test_some_syncs_that_fail_before_a_power_cut(
    workloads: list[Workload], counts: list[dict[str, int]], place: Path, tally: Tally, seed: int
) -> None:
    """What was not synced because a sync failed, or a process died before it, is not acknowledged: a sample."""
    if reason := why_no_power_cuts():
        pytest.skip(reason)
    sweep(sample(of_each(power_cut_cases, workloads, counts), SAMPLE_WITH_POWER_CUT, seed), place, tally)


@pytest.mark.torture
def test_every_sync_that_fails_before_a_power_cut(
    workloads: list[Workload], counts: list[dict[str, int]], place: Path, tally: Tally
) -> None:
    """What was not synced because a sync failed, or a process died before it, is not acknowledged."""
    if reason := why_no_power_cuts():
        pytest.skip(reason)
    sweep(of_each(power_cut_cases, workloads, counts), place, tally)


@pytest.mark.control("system calls")
@pytest.mark.parametrize(
    ("body", "injections"),
    [
        (acknowledge_early, [Injection("pwrite64", "KILL", nth) for nth in range(30, 40)]),
        (write_without_cancelling, [Injection("pwrite64", "ENOSPC", nth, onward=True) for nth in range(8, 40, 2)]),
    ],
    ids=["acknowledged early", "not cancelled"],
)
def test_a_broken_promise_is_caught(
    place: Path, tally: Tally, body: Callable[..., None], injections: list[Injection]
) -> None:
    """The control: a process that acknowledges before append returns, an engine that leaves what it refused."""
    liar = replace(basic_workloads()[0], body=body)
    caught: list[str] = []

    def take_down(case: Case, outcome: Outcome) -> None:
        caught.extend(violation for violation in outcome.violations if violation.startswith("append"))

    run_all([Case(liar, injection, "none") for injection in injections], place, take_down, WORKERS)
    assert caught
    tally.add(Figure.LOSSES_OF_CONTROLS, "system calls", len(caught))

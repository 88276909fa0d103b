from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.faults.devices import LoopDisk, why_no_power_cuts
from tests.faults.machine import MOMENTS, Cut, Machine
from tests.faults.writer import Plan
from tests.support.children import Children
from tests.support.tally import Figure, Tally

from shardlog.files.protocol import Site

DISK_BYTES = 32 << 20
DISK_BYTES_IN_TORTURE = 256 << 20
LEVELS = ["fsync", "os"]
CUTS = 6
CONTROL_CUTS_MAX = 40
CUTS_IN_TORTURE = 30
SEEDS_IN_TORTURE = range(4)

PLANS = {
    "small segments": Plan("", read_every=7),
    "large segments": Plan("", segment_bytes=2 << 20, text_bytes=8000, read_every=30),
}
"""Rolls are common in the one; in the other there are checkpoints, at every MiB."""

NewMachine = Callable[[Plan, int], Machine]


@pytest.fixture
def new_machine(tmp_path: Path, child_server: Children) -> Iterator[NewMachine]:
    """Makes a machine, with a disk whose power can be cut."""
    if reason := why_no_power_cuts():
        pytest.skip(reason)
    with ExitStack() as disks:

        def make(plan: Plan, disk_bytes: int) -> Machine:
            disk = disks.enter_context(LoopDisk(tmp_path, disk_bytes))
            disks.callback(child_server.end_all)
            return Machine(disk, child_server, plan)

        yield make


def cut_again_and_again(machine: Machine, cuts: list[Cut], tally: Tally) -> None:
    """Cut the power as often as told, and fail at the first loss."""
    for number, cut in enumerate(cuts):
        violations = machine.survive(cut)
        tally.add(Figure.POWER_CUTS, cut.moment)
        tally.add(Figure.LOSSES, "power cuts", len(violations))
        assert not violations, f"cut {number}, {cut}:\n    " + "\n    ".join(violations[:20])


@pytest.mark.parametrize("level", LEVELS)
def test_a_few_power_cuts(new_machine: NewMachine, tally: Tally, seed: int, level: str) -> None:
    """Whatever processes are doing when the power goes: what was promised is there, once and under its numbers."""
    source = random.Random(seed)
    machine = new_machine(Plan("", level, read_every=12), DISK_BYTES)
    moments = source.sample(MOMENTS, len(MOMENTS)) + source.choices(MOMENTS, k=CUTS - len(MOMENTS))
    cut_again_and_again(machine, [Cut.drawn(source, moment) for moment in moments], tally)


@pytest.mark.torture
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("number", SEEDS_IN_TORTURE)
def test_many_power_cuts(new_machine: NewMachine, tally: Tally, seed: int, number: int, level: str, plan: Plan) -> None:
    """The same, many times over on one disk; and with segments so large that they hold checkpoints."""
    source = random.Random(f"{seed} {number}")
    machine = new_machine(replace(plan, level=level), DISK_BYTES_IN_TORTURE)
    cut_again_and_again(machine, [Cut.drawn(source) for _ in range(CUTS_IN_TORTURE)], tally)


@pytest.mark.torture
@pytest.mark.parametrize("level", LEVELS)
def test_a_power_cut_before_every_step(new_machine: NewMachine, tally: Tally, level: str) -> None:
    """The power goes before the first change to the disk, then before the second, and so on: creating, then opening."""
    machine = new_machine(Plan("", level), DISK_BYTES_IN_TORTURE)
    cut_again_and_again(machine, [Cut("a step", step, 1) for step in range(1, 60)], tally)


@pytest.mark.control("power cuts")
@pytest.mark.parametrize(
    ("level", "left_out"),
    [
        ("fsync", frozenset(Site)),
        ("fsync", {Site.COMMIT}),
        ("os", {Site.LOG_SYNC}),
        ("os", {Site.MARK_UNSYNCED}),
    ],
    ids=["all", "commit", "sync()", "unsynced flag"],
)
def test_without_a_sync_something_is_lost(
    new_machine: NewMachine, tally: Tally, seed: int, level: str, left_out: set[Site]
) -> None:
    """The control: were it blind, the tests above would prove nothing. A promise is soon broken without these syncs."""
    source = random.Random(seed)
    machine = new_machine(Plan("", level), DISK_BYTES)
    machine.start_stream()
    for _ in range(CONTROL_CUTS_MAX):
        violations = machine.survive(Cut.drawn(source, "appending"), frozenset(left_out))
        if violations:
            tally.add(Figure.LOSSES_OF_CONTROLS, "power cuts", len(violations))
            return
    pytest.fail(f"{CONTROL_CUTS_MAX} power cuts broke no promise although these were not synced: {sorted(left_out)}")

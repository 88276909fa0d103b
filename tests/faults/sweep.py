"""One run of a workload with one injection, and what became of its promises; and many of them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tests.faults.bodies import read, write, write_along, write_and_remove, write_and_reshape, write_in_threads
from tests.faults.devices import LoopDisk, cut_power
from tests.faults.history import Event, History, sealed_next
from tests.faults.puppet import examine_store
from tests.faults.tracing import CHANGING, Injection, Trace
from tests.faults.writer import Plan
from tests.support.background import Background
from tests.support.children import Child, Children

Company = Literal["none", "goes on", "dies too"]
"""Whether a second process appends at the same time, and what becomes of it."""

EXAMINER: Final = Plan("examiner", appends=2)
ALLOWED_ERRORS: Final = {"KILL": set[str](), "EIO": {"StorageFailed"}, "ENOSPC": {"StorageFull", "StorageFailed"}}
"""Which errors a fault may show as. ENOSPC of a sync is a StorageFailed: nobody knows what reached the disk."""
SYNCS: Final = ("fdatasync", "fsync")

_DISK_BYTES: Final = 16 << 20
_STRIDE: Final = 5
_COMPANION_APPENDS: Final = 60
_APPENDS_BEFORE_RECOVERY: Final = 12


@dataclass(frozen=True)
class Workload:
    """What the process does that the injection strikes. `template`: a store, and its history, to start with."""

    name: str
    plan: Plan
    body: Callable[..., None] = write
    companies: tuple[Company, ...] = ("goes on", "dies too", "none")
    template: Path | None = None
    history: History | None = None

    def begin(self, store: Path) -> History:
        """Put the template in its place."""
        if self.template is not None:
            shutil.copytree(self.template, store)
        return self.history.copy() if self.history else History(self.plan.level)


@dataclass(frozen=True)
class Case:
    """A workload with an injection. Its name is enough to run it again. `cuts_power`: and then the power goes, too."""

    workload: Workload
    injection: Injection
    company: Company
    cuts_power: bool = False

    def __str__(self) -> str:
        return f"{self.workload.name}/{self.injection}/{self.company}{'/power cut' if self.cuts_power else ''}"


@dataclass
class Outcome:
    """What a run led to. `struck`: the kinds of files at which the injection struck."""

    struck: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def basic_workloads() -> list[Workload]:
    """Those that need no template."""
    return [
        Workload("fsync", Plan("victim", reopen_after=11)),
        Workload("os", Plan("victim", "os", reopen_after=11)),
        Workload("threads", Plan("victim", appends=6), write_in_threads, ("goes on", "none")),
        Workload("remove", Plan("victim", appends=8), write_and_remove, ("none",)),
        Workload("reshape", Plan("victim", appends=15), write_and_reshape, ("none",)),
    ]


def recovery_workloads(children: Children, directory: Path) -> list[Workload]:
    """Opening what a killed process left, with a torn tail, or with the unsynced flag of level "os"."""
    workloads = []
    for level, tears in (("fsync", True), ("os", False)):
        template = directory / f"template-{level}"
        history = History(level)
        child = children.start(write, str(template), Plan("first", level, appends=1000, pause_seconds=0.001))
        assert child.receive() == "ready"
        child.send("go")
        events: list[Event] = []
        while sum(event[0] == "acknowledged" for event in events) < _APPENDS_BEFORE_RECOVERY:
            events.append(child.receive())
        os.kill(child.pid, signal.SIGKILL)
        events += child.rest()
        child.wait()
        history.hear(events)
        if tears:
            tear_tail(template)
        what = f"level {level}{' with a torn tail' if tears else ''}"
        plan = Plan("victim", level, appends=7, read_every=3)
        workloads.append(Workload(f"recovery of {what}", plan, write, ("none", "goes on"), template, history))
        workloads.append(Workload(f"reading of {what}", plan, read, ("none", "dies too"), template, history))
    return workloads


def tear_tail(store: Path) -> None:
    """Garbage behind the last block of the last segment, as a write leaves it that was cut short."""
    segment = max(store.glob("streams/*/*/log/*.seg"))
    content = segment.read_bytes()
    end = (len(content.rstrip(b"\0")) + 7) // 8 * 8
    garbage = random.Random(7).randbytes(700)
    segment.write_bytes(content[:end] + garbage + content[end + len(garbage) :])


def all_cases(workload: Workload, counts: dict[str, int]) -> Iterator[Case]:
    """Every call of every kind, with every fault.

    One in a few of faults that stay; and one in a few but EIO of calls that change nothing, because to be killed before
    them is to be killed before the next that does.
    """
    for call, count in sorted(counts.items()):
        for nth in range(1, count + 1):
            company = workload.companies[nth % len(workload.companies)]
            is_one_in_a_few = nth % _STRIDE == 1
            for fault in ("KILL", "EIO", "ENOSPC"):
                if call in CHANGING or fault == "EIO" or is_one_in_a_few:
                    yield Case(workload, Injection(call, fault, nth), company)
                if fault != "KILL" and is_one_in_a_few:
                    yield Case(workload, Injection(call, fault, nth, onward=True), company)


def power_cut_cases(workload: Workload, counts: dict[str, int]) -> Iterator[Case]:
    """Every sync that fails, or before which a process is killed, with a power cut afterwards."""
    for call in SYNCS:
        for nth in range(1, counts.get(call, 0) + 1):
            for fault in ("KILL", "EIO"):
                for company in workload.companies:
                    yield Case(workload, Injection(call, fault, nth), company, cuts_power=True)


def count_calls(workload: Workload, children: Children, directory: Path) -> dict[str, int]:
    """How often a thread of the victim makes each call when nothing happens to it."""
    directory.mkdir()
    try:
        history = workload.begin(directory / "store")
        run = _Run(Case(workload, Injection("", "EIO", 1), "none"), children, directory, history, injects=False)
        run.processes()
        assert not history.violations, history.violations
        assert not history.failures, history.failures
        return run.trace.counts()
    finally:
        children.end_all()
        shutil.rmtree(directory)


def run_case(case: Case, children: Children, directory: Path, disk: LoopDisk | None = None) -> Outcome:
    """Run it in an empty directory, or on a disk, and judge."""
    store = disk.path / "store" if disk else directory / "store"
    try:
        shutil.rmtree(store, ignore_errors=True)
        history = case.workload.begin(store)
        if disk is not None:
            disk.sync()
        run = _Run(case, children, directory, history, disk)
        run.processes()
        if disk is not None:
            cut_power(str(disk.path))
            children.end_all()
            disk.restart()
        run.judge()
        return Outcome(run.trace.struck(run.status), history.violations)
    finally:
        children.end_all()
        shutil.rmtree(directory)


class _Run:
    """One case on its way."""

    trace: Trace
    status: int

    def __init__(
        self,
        case: Case,
        children: Children,
        directory: Path,
        history: History,
        disk: LoopDisk | None = None,
        *,
        injects: bool = True,
    ) -> None:
        self._case = case
        self._children = children
        self._store = (disk.path if disk else directory) / "store"
        self._output = directory / "trace"
        self._history = history
        self._disk = disk
        self._injects = injects

    def processes(self) -> None:
        """The victim under trace, and whoever keeps it company, to their ends."""
        case, workload = self._case, self._case.workload
        victim = self._children.start(workload.body, str(self._store), workload.plan)
        assert victim.receive() == "ready"
        self.trace = Trace(victim.pid, self._output, case.injection if self._injects else None)
        companion = None
        if case.company != "none":
            plan = Plan("companion", workload.plan.level, appends=_COMPANION_APPENDS)
            companion = self._children.start(write_along, str(self._store), plan)
            companion_tells = Background(_listen, companion)
        victim.send("go")
        events = _listen(victim)
        if companion is not None and case.company == "dies too":
            if self._disk is not None:
                cut_power(str(self._disk.path))
            os.kill(companion.pid, signal.SIGKILL)
        self.status = victim.wait()
        self.trace.close()
        if case.injection.fault != "KILL" and self.status != 0:
            self._history.violations.append(f"the process ended with status {self.status}")
        self._history.hear(events)
        self._judge_errors(0, ALLOWED_ERRORS[case.injection.fault])
        if companion is not None:
            self._end_of(companion, companion_tells)

    def _end_of(self, companion: Child, companion_tells: Background[list[Event]]) -> None:
        goes_on = self._case.company == "goes on"
        if goes_on:
            with suppress(BrokenPipeError):  # it ended before, which is judged below
                companion.send("finish")
        told = companion_tells.result()
        companion.wait()
        failures = len(self._history.failures)
        self._history.hear(told)
        self._judge_errors(failures, {"StorageFailed"} if self._disk and not goes_on else set())
        if goes_on and told[-1:] != [("closed",)]:
            self._history.violations.append(f"the other process did not get to its end: {told[-3:]}")

    def judge(self) -> None:
        """What is there now."""
        synced = sealed_next(self._store)
        examination = examine_store(self._children, self._store, EXAMINER)
        failures = len(self._history.failures)
        self._history.judge(examination, power_cut=self._disk is not None, synced_next=synced)
        self._judge_errors(failures, set())

    def _judge_errors(self, start: int, allowed: set[str]) -> None:
        for what, kind, message in self._history.failures[start:]:
            is_disabled = kind == "StreamDisabled" and "disable" in self._history.steps.get("begun to", ())
            if kind not in allowed and not is_disabled:
                self._history.violations.append(f"{what} raised {kind}: {message}")


def _listen(child: Child) -> list[Event]:
    """All that a child tells. A child that falls silent is killed, and its silence is trouble."""
    events: list[Event] = []
    while True:
        try:
            events.append(child.receive())
        except (EOFError, ConnectionResetError):
            return events
        except TimeoutError:
            events.append(("trouble", f"nothing told for a long time after {events[-3:]}"))
            os.kill(child.pid, signal.SIGKILL)
            return events


def run_all(
    cases: Sequence[Case], directory: Path, on_outcome: Callable[[Case, Outcome], None], workers: int
) -> list[str]:
    """Run cases, several at a time; what went wrong, in words."""
    failed: list[str] = []
    local = threading.local()
    lock = threading.Lock()

    with ExitStack() as cleanup:

        def prepare() -> None:
            with lock:
                local.place = Path(tempfile.mkdtemp(prefix="worker-", dir=directory))
                local.children = cleanup.enter_context(Children())
                local.disk = None

        def disk() -> LoopDisk:
            with lock:
                if local.disk is None:
                    local.disk = cleanup.enter_context(LoopDisk(local.place, _DISK_BYTES))
                    cleanup.callback(local.children.end_all)
                found: LoopDisk = local.disk
                return found

        def run(case: Case) -> None:
            place = Path(tempfile.mkdtemp(prefix="case-", dir=directory))
            outcome = run_case(case, local.children, place, disk() if case.cuts_power else None)
            with lock:
                on_outcome(case, outcome)
                if outcome.violations:
                    failed.append(f"{case}:\n    " + "\n    ".join(outcome.violations))

        with ThreadPoolExecutor(workers, initializer=prepare) as pool:
            list(pool.map(run, cases))
    return failed

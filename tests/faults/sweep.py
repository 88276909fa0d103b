"""One run of a workload with one injection, and what became of its promises."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from tests.faults.history import Event, History
from tests.faults.tracing import Injection, Trace
from tests.faults.workload import Plan, examine, write, write_along, write_and_remove
from tests.support.background import Background
from tests.support.children import Child, Children

Company = Literal["none", "goes on", "dies too"]
"""Whether a second process appends at the same time, and what becomes of it."""

EXAMINER: Final = Plan("examiner", appends=2)
ALLOWED_ERRORS: Final = {"KILL": set[str](), "EIO": {"StorageFailed"}, "ENOSPC": {"StorageFull", "StorageFailed"}}
"""Which errors a fault may show as. ENOSPC of a sync is a StorageFailed: nobody knows what reached the disk."""


@dataclass(frozen=True)
class Workload:
    """What the process does that the injection strikes. `template`: a store, and its history, to start with."""

    name: str
    plan: Plan
    body: Callable[..., None] = write
    companies: tuple[Company, ...] = ("goes on", "dies too", "none")
    template: Path | None = None
    history: History | None = None


@dataclass(frozen=True)
class Case:
    """A workload with an injection. Its name is enough to run it again."""

    workload: Workload
    injection: Injection
    company: Company

    def __str__(self) -> str:
        return f"{self.workload.name}/{self.injection}/{self.company}"


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
        Workload("remove", Plan("victim", appends=8), write_and_remove, ("none",)),
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
        while sum(event[0] == "acknowledged" for event in events) < 12:
            events.append(child.receive())
        os.kill(child.pid, signal.SIGKILL)
        events += child.rest()
        child.wait()
        history.hear(events)
        if tears:
            tear_tail(template)
        plan = Plan("victim", level, appends=7, read_every=3)
        name = f"recovery of level {level}{' with a torn tail' if tears else ''}"
        workloads.append(Workload(name, plan, write, ("none", "goes on"), template, history))
    return workloads


def tear_tail(store: Path) -> None:
    """Garbage behind the last block of the last segment, as a write leaves it that was cut short."""
    segment = max(store.glob("streams/*/*/log/*.seg"))
    content = segment.read_bytes()
    end = (len(content.rstrip(b"\0")) + 7) // 8 * 8
    garbage = random.Random(7).randbytes(700)
    segment.write_bytes(content[:end] + garbage + content[end + len(garbage) :])


def run_case(case: Case, children: Children, directory: Path) -> Outcome:
    """Run it in an empty directory, and judge."""
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
        cleanup.callback(children.end_all)
        store = directory / "store"
        if case.workload.template is not None:
            shutil.copytree(case.workload.template, store)
        history = _history(case)
        trace, status = _run_processes(case, children, store, directory / "trace", history)
        child = children.start(examine, str(store), EXAMINER)
        _judge(case, history, _listen(child))
        if (examined := child.wait()) != 0:
            history.violations.append(f"the examination ended with status {examined}")
        return Outcome(trace.struck(status), history.violations)


def count_calls(workload: Workload, children: Children, directory: Path) -> dict[str, int]:
    """How often the victim makes each call when nothing happens to it."""
    try:
        if workload.template is not None:
            shutil.copytree(workload.template, directory / "store")
        case = Case(workload, Injection("none", "EIO", 1), "none")
        history = _history(case)
        trace, _ = _run_processes(case, children, directory / "store", directory / "trace", history, injects=False)
        assert not history.violations, history.violations
        assert not history.failures, history.failures
        return dict(trace.counts())
    finally:
        children.end_all()
        shutil.rmtree(directory)


def run_all(
    cases: Sequence[Case], directory: Path, on_outcome: Callable[[Case, Outcome], None], workers: int
) -> list[str]:
    """Run cases, several at a time; what went wrong, in words."""
    failed: list[str] = []
    local = threading.local()
    lock = threading.Lock()

    with ExitStack() as cleanup, ThreadPoolExecutor(workers) as pool:

        def run(case: Case) -> None:
            if not hasattr(local, "children"):
                with lock:
                    local.children = cleanup.enter_context(Children())
            place = Path(tempfile.mkdtemp(prefix="case-", dir=directory))
            outcome = run_case(case, local.children, place)
            with lock:
                on_outcome(case, outcome)
                if outcome.violations:
                    failed.append(f"{case}:\n    " + "\n    ".join(outcome.violations))

        list(pool.map(run, cases))
        pool.shutdown()
    return failed


def _history(case: Case) -> History:
    return case.workload.history.copy() if case.workload.history else History(case.workload.plan.level)


def _run_processes(
    case: Case, children: Children, store: Path, output: Path, history: History, injects: bool = True
) -> tuple[Trace, int]:
    """The victim under trace, and whoever keeps it company, to their ends; the trace, and the victim's status."""
    workload = case.workload
    victim = children.start(workload.body, str(store), workload.plan)
    assert victim.receive() == "ready"
    trace = Trace(victim.pid, output, case.injection if injects else None)
    companion = None
    if case.company != "none":
        companion = children.start(write_along, str(store), Plan("companion", workload.plan.level, appends=60))
        companion_tells = Background(_listen, companion)
    victim.send("go")
    events = _listen(victim)
    if companion is not None and case.company == "dies too":
        os.kill(companion.pid, signal.SIGKILL)
    status = victim.wait()
    trace.close()
    if case.injection.fault != "KILL" and status != 0:
        history.violations.append(f"the process ended with status {status}")
    history.hear(events)
    _judge_errors(case, history)
    if companion is not None:
        if case.company == "goes on":
            with suppress(BrokenPipeError):  # it ended before, which is judged below
                companion.send("finish")
        told = companion_tells.result()
        companion.wait()
        failures = len(history.failures)
        history.hear(told)
        if len(history.failures) > failures:
            history.violations.append(f"the other process had to see {history.failures[failures:]}")
        if case.company == "goes on" and told[-1:] != [("closed",)]:
            history.violations.append(f"the other process did not get to its end: {told[-3:]}")
    return trace, status


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


def _judge_errors(case: Case, history: History) -> None:
    allowed = ALLOWED_ERRORS[case.injection.fault]
    for what, kind, message in history.failures:
        if kind in allowed or (kind == "StreamDisabled" and "disable" in history.steps.get("begun to", ())):
            continue
        history.violations.append(f"{what} raised {kind}: {message}")


def _judge(case: Case, history: History, examination: Sequence[Event]) -> None:
    failures = len(history.failures)
    history.judge(examination)
    for what, kind, message in history.failures[failures:]:
        if kind != "StreamDisabled" or "disable" not in history.steps.get("begun to", ()):
            history.violations.append(f"afterwards {what} raised {kind}: {message}")


def all_cases(workload: Workload, counts: dict[str, int], onward_stride: int) -> Iterable[Case]:
    """Every call of every kind, with every fault; of faults that stay, one in a few."""
    for call, count in sorted(counts.items()):
        for nth in range(1, count + 1):
            for fault in ("KILL", "EIO", "ENOSPC"):
                injections = [Injection(call, fault, nth)]
                if fault != "KILL" and nth % onward_stride == 1:
                    injections.append(Injection(call, fault, nth, onward=True))
                for place, injection in enumerate(injections):
                    company = workload.companies[(nth + place) % len(workload.companies)]
                    yield Case(workload, injection, company)


"""Judges the crash states of recorded workloads, on several processes, and counts.

Each distinct image is used once with the real engine, and held against the promises of every point that allows it. Some
of these uses are recorded themselves: their crash states are crashes during recovery, or soon after it.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.crash.rig import Recorded, Workload, record, same_uuids

from shardlog.testing.crash_states import CrashState, Strategy, crash_states, next_sync
from shardlog.testing.images import scratch_directory
from shardlog.testing.journal import Catalogue, catalogue_of
from shardlog.testing.oracle import Observation, Probe, observe, producers_of, violations
from shardlog.testing.promises import Promises
from shardlog.testing.recording import RecordingFiles

Story = Callable[[], str]

FIRST_APPEND_AFTER = 1_000_000
STORY_OPERATIONS = 30
FAILURES_SHOWN = 5
FAILURES_KEPT = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do."""

    strategy: Strategy = field(default_factory=Strategy)
    one_in: int = 1
    """Of the images, those whose digest leaves the strategy's seed when divided by this."""
    recovered_one_in: int = 0
    """Crashes during one in so many recoveries; 0: none."""
    recovery_states: int = 40
    """At most so many distinct states of each."""
    stops_at_failure: bool = False


class Origin(NamedTuple):
    """Where an image came up first."""

    workload: str
    site: str
    """Of the sync that the crash forestalls."""


@dataclass(slots=True)
class Tally:
    """What was done and found."""

    distinct: dict[bytes, Origin] = field(default_factory=dict)
    judged: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    processor_seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Take what another process did."""
        self.distinct = {**other.distinct, **self.distinct}
        self.judged += other.judged
        self.failures = (self.failures + other.failures)[:FAILURES_KEPT]
        self.processor_seconds += other.processor_seconds

    def report(self) -> str:
        """A table of all that."""
        lines = [
            f"{len(self.distinct)} distinct images, {self.judged} judgements, {self.seconds:.0f} s, "
            f"{self.processor_seconds:.0f} s of processor time",
        ]
        kinds = Counter(origin.workload.partition(",")[0] for origin in self.distinct.values())
        sites = Counter(origin.site for origin in self.distinct.values())
        for title, counts in (("the sync that the crash forestalls", sites), ("workload", kinds)):
            lines += ["", f"{title:48} images", *(f"  {name:46} {count:6}" for name, count in sorted(counts.items()))]
        lines += ["", f"{len(self.failures)} failures" + (" or more" if len(self.failures) == FAILURES_KEPT else "")]
        return "\n".join(lines + self.failures[:FAILURES_SHOWN])


class _Explorer:
    """Judges recordings, one after the other."""

    def __init__(self, plan: Plan, root: str, deadline: float | None) -> None:
        self.tally = Tally()
        self._plan = plan
        self._root = root
        self._deadline = deadline

    def is_over(self) -> bool:
        """Whether the time is up, or what was looked for is found."""
        if self._plan.stops_at_failure and self.tally.failures:
            return True
        return self._deadline is not None and time.monotonic() > self._deadline

    def explore(self, recorded: Recorded) -> None:
        """Judge the crash states of one recording."""
        self._explore(recorded, Promises(), catalogue_of(recorded.recording), depth=0, story=str)

    def _explore(self, recorded: Recorded, before: Promises, catalogue: Catalogue, depth: int, story: Story) -> None:
        recording = recorded.recording
        promises, point, judged = before.copy(), 0, set[bytes]()
        observed: dict[bytes, Observation] = {}
        for state in crash_states(recording, self._plan.strategy, recorded.first):
            if self.is_over():
                return
            if state.point != point:
                promises.take_all(recording.operations[point : state.point])
                point, judged = state.point, set()
            if state.digest in judged or not self._is_wanted(state, depth):
                continue
            judged.add(state.digest)
            if state.digest not in observed:
                if depth and len(observed) >= self._plan.recovery_states:
                    continue
                site = str(next_sync(recording, point) or "none")
                self.tally.distinct.setdefault(state.digest, Origin(recorded.name, site))
                observed[state.digest] = self._observe(recorded, state, promises, catalogue, depth)
            self.tally.judged += 1
            found = violations(promises, observed[state.digest], state.image)
            if found:
                told = story() + _story(recorded, state)
                self.tally.failures.append("\n".join([f"{recorded.name}: {found[0]}", *found[1:], told, ""]))

    def _is_wanted(self, state: CrashState, depth: int) -> bool:
        one_in = self._plan.one_in if depth == 0 else 1
        return (int.from_bytes(state.digest[:4]) - self._plan.strategy.seed) % one_in == 0

    def _observe(
        self, recorded: Recorded, state: CrashState, promises: Promises, catalogue: Catalogue, depth: int
    ) -> Observation:
        """Use an image, and sometimes judge the crashes that may happen then."""
        probe = Probe(
            catalogue=catalogue,
            producers=producers_of(promises.appends.values()),
            first_append=FIRST_APPEND_AFTER * (depth + 1),
            reopens_first=state.digest[4] % 3 == 0,
            creates=state.digest[5] % 8 == 0,
            garbage=None if state.digest[6] % 2 else state.digest * 512,
        )
        every = self._plan.recovered_one_in
        if depth or not every or int.from_bytes(state.digest[7:9]) % every:
            return observe(state.image, f"{self._root}/{depth}", probe)
        recorder: list[RecordingFiles] = []

        def files_in(root: str) -> RecordingFiles:
            recorder.append(RecordingFiles(root, base=state.image))
            return recorder[0]

        with same_uuids(1):
            observation = observe(
                state.image, f"{self._root}/{depth}", probe, files_in, lambda mark: recorder[0].mark(mark)
            )
        if observation.error is None:
            recovery = Recorded(f"recovery, {recorded.name}", recorder[0].recording(), 0)
            known = {**catalogue, **catalogue_of(recovery.recording)}
            self._explore(recovery, promises, known, depth + 1, lambda: _story(recorded, state) + "\nthen\n")
        return observation


def _story(recorded: Recorded, state: CrashState) -> str:
    return state.story(recorded.recording, max(0, state.point - STORY_OPERATIONS))


def explore(recordings: Iterable[Recorded], plan: Plan, deadline: float | None = None) -> Tally:
    """Judge the crash states of some recordings, in this process."""
    started, processor_started = time.monotonic(), time.process_time()
    with _quiet(), scratch_directory() as root:
        explorer = _Explorer(plan, root, deadline)
        for recorded in recordings:
            explorer.explore(recorded)
    explorer.tally.seconds = time.monotonic() - started
    explorer.tally.processor_seconds = time.process_time() - processor_started
    return explorer.tally


def explore_together(workloads: Sequence[Workload], plan: Plan, processes: int, seconds: float) -> Iterator[Tally]:
    """The same on several processes, for so many seconds at most: what has been done so far, again and again."""
    started = time.monotonic()
    _work[:] = [_Work(workload, plan, started + seconds) for workload in workloads]
    tally = Tally()
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        for part in pool.imap_unordered(_explore_one, range(len(workloads))):
            tally.add(part)
            tally.seconds = time.monotonic() - started
            yield tally


@dataclass(frozen=True, slots=True)
class _Work:
    workload: Workload
    plan: Plan
    deadline: float


# What the processes of a pool inherit: workloads are functions, which do not travel otherwise.
_work: list[_Work] = []


def _explore_one(number: int) -> Tally:
    work = _work[number]
    if time.monotonic() > work.deadline:
        return Tally()
    with _quiet():
        recorded = record(work.workload)
    return explore([recorded], work.plan, work.deadline)


@contextmanager
def _quiet() -> Iterator[None]:
    """Torn tails are what this is about."""
    log = logging.getLogger("shardlog")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)

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
from zlib import crc32

from tests.crash.rig import Recorded, Workload, record, same_uuids
from tests.support.tally import Figure, Tally

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
    """Of the images, those whose digest and workload leave the strategy's seed when divided by this."""
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
class Explored:
    """What was done and found."""

    distinct: dict[bytes, Origin] = field(default_factory=dict)
    judged: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    processor_seconds: float = 0.0

    def add(self, other: Explored) -> None:
        """Take what another process did."""
        for digest, origin in other.distinct.items():
            self.distinct.setdefault(digest, origin)
        self.judged += other.judged
        for failure in other.failures:
            self.fail(failure)
        self.processor_seconds += other.processor_seconds

    def fail(self, failure: str) -> None:
        """Keep a failure, if no other begins with the same line: one cause shows in many states."""
        heads = {kept.partition("\n")[0] for kept in self.failures}
        if failure.partition("\n")[0] not in heads and len(heads) < FAILURES_KEPT:
            self.failures.append(failure)

    def add_to(self, tally: Tally) -> None:
        """Tell the summary of the run."""
        tally.add_all(Figure.IMAGES, Counter(origin.site for origin in self.distinct.values()))
        tally.add_all(Figure.WORKLOADS, Counter(_kind_of(origin.workload) for origin in self.distinct.values()))
        tally.add(Figure.JUDGEMENTS, "crash states", self.judged)
        tally.add(Figure.LOSSES, "crash states", len(self.failures))

    def report(self) -> str:
        """What was found broken, and how much was tried."""
        more = " or more" if len(self.failures) == FAILURES_KEPT else ""
        found = (
            f"{len(self.failures)}{more} failures in {len(self.distinct)} distinct images, {self.seconds:.0f} s, "
            f"{self.processor_seconds:.0f} s of processor time"
        )
        return "\n".join([found, *self.failures[:FAILURES_SHOWN]])


def _kind_of(workload: str) -> str:
    return workload.partition(",")[0]


class _Explorer:
    """Judges recordings, one after the other."""

    def __init__(self, plan: Plan, root: str, deadline: float | None) -> None:
        self.explored = Explored()
        self._plan = plan
        self._root = root
        self._deadline = deadline

    def is_over(self) -> bool:
        """Whether the time is up, or what was looked for is found."""
        if self._plan.stops_at_failure and self.explored.failures:
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
            if state.digest in judged or not self._is_wanted(recorded, state, depth):
                continue
            judged.add(state.digest)
            if state.digest not in observed:
                if depth and len(observed) >= self._plan.recovery_states:
                    continue
                site = str(next_sync(recording, point) or "none")
                self.explored.distinct.setdefault(state.digest, Origin(recorded.name, site))
                observed[state.digest] = self._observe(recorded, state, promises, catalogue, depth)
            self.explored.judged += 1
            found = violations(promises, observed[state.digest], state.image)
            if found:
                told = story() + _story(recorded, state)
                self.explored.fail("\n".join([f"{recorded.name}: {found[0]}", *found[1:], told, ""]))

    def _is_wanted(self, recorded: Recorded, state: CrashState, depth: int) -> bool:
        """One in so many. Workloads that come to the same image do not all choose it: few would be tried, often."""
        one_in = self._plan.one_in if depth == 0 else 1
        place = int.from_bytes(state.digest[:4]) + crc32(recorded.name.encode())
        return (place - self._plan.strategy.seed) % one_in == 0

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


def explore(recordings: Iterable[Recorded], plan: Plan, deadline: float | None = None) -> Explored:
    """Judge the crash states of some recordings, in this process."""
    started, processor_started = time.monotonic(), time.process_time()
    with _quiet(), scratch_directory() as root:
        explorer = _Explorer(plan, root, deadline)
        for recorded in recordings:
            explorer.explore(recorded)
    explorer.explored.seconds = time.monotonic() - started
    explorer.explored.processor_seconds = time.process_time() - processor_started
    return explorer.explored


def explore_together(list_tasks: Callable[[], Sequence[Task]], processes: int, seconds: float) -> Explored:
    """Tasks on several processes, for so many seconds at most. Each process makes the list for itself."""
    started = time.monotonic()
    deadline = started + seconds
    explored = Explored()
    with multiprocessing.get_context("spawn").Pool(processes, _begin, (list_tasks, deadline)) as pool:
        for part in pool.imap_unordered(_explore_one, range(len(list_tasks()))):
            explored.add(part)
    explored.seconds = time.monotonic() - started
    return explored


Task = tuple[Workload, Plan]


@dataclass(frozen=True, slots=True)
class _Work:
    tasks: Sequence[Task]
    deadline: float


# What a process of the pool works on: workloads are functions, which do not travel.
_work: list[_Work] = []


def _begin(list_tasks: Callable[[], Sequence[Task]], deadline: float) -> None:
    _work.append(_Work(list_tasks(), deadline))


def _explore_one(number: int) -> Explored:
    (work,) = _work
    if time.monotonic() > work.deadline:
        return Explored()
    workload, plan = work.tasks[number]
    with _quiet():
        recorded = record(workload)
    return explore([recorded], plan, work.deadline)


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

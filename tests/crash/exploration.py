"""Judges the crash states of recorded workloads, on several processes, and counts.

Each distinct image is used once with the real engine, and held against the promises of every point that allows it. Some
of these uses are recorded themselves: their crash states are crashes during recovery, or soon after it.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.crash.rig import Recorded, same_uuids

from shardlog.testing.crash_states import CrashState, Strategy, crash_states, next_sync
from shardlog.testing.images import scratch_directory
from shardlog.testing.journal import Catalogue, catalogue_of
from shardlog.testing.operations import Recording
from shardlog.testing.oracle import Observation, Probe, observe, producers_of, violations
from shardlog.testing.promises import Promises, promises_at
from shardlog.testing.recording import RecordingFiles

FIRST_APPEND_AFTER = 1_000_000
STORY_OPERATIONS = 30


class Share(NamedTuple):
    """The part of the images that one process takes: those whose digest leaves `index` when divided by `of`."""

    index: int = 0
    of: int = 1


WHOLE = Share()


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to do."""

    strategy: Strategy = field(default_factory=Strategy)
    recovered_one_in: int = 0
    """Crashes during one in so many recoveries; 0: none."""
    recovery_states: int = 40
    """At most so many distinct states of each."""
    states: int | None = None
    """At most so many distinct states of each workload."""
    seconds: float | None = None
    stops_at_failure: bool = False


@dataclass(slots=True)
class Tally:
    """What was done and found."""

    distinct: set[bytes] = field(default_factory=set)
    judged: int = 0
    sites: Counter[str] = field(default_factory=Counter)
    workloads: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, other: Tally) -> None:
        """Take another process's part."""
        self.distinct |= other.distinct
        self.judged += other.judged
        self.sites += other.sites
        self.workloads += other.workloads
        self.failures += other.failures

    def report(self) -> str:
        """A table of all that."""
        lines = [f"{len(self.distinct)} distinct images, {self.judged} judgements, {self.seconds:.0f} s", ""]
        for title, counts in (("forestalled sync", self.sites), ("workload", self.workloads)):
            lines += [f"{title:52} images", *(f"  {name:50} {count}" for name, count in sorted(counts.items())), ""]
        lines.append(f"{len(self.failures)} failures")
        return "\n".join(lines + self.failures[:5])


class _Explorer:
    """One process's work."""

    def __init__(self, plan: Plan, share: Share, root: str) -> None:
        self.tally = Tally()
        self._plan = plan
        self._share = share
        self._root = root
        self._deadline = None if plan.seconds is None else time.monotonic() + plan.seconds

    def explore(self, recorded: Recorded) -> None:
        """Judge the crash states of one recording."""
        before = Promises()
        catalogue = catalogue_of(recorded.recording)
        self._explore(recorded, before, catalogue, depth=0)

    def is_over(self) -> bool:
        """Whether the time is up, or what was looked for is found."""
        if self._plan.stops_at_failure and self.tally.failures:
            return True
        return self._deadline is not None and time.monotonic() > self._deadline

    def _explore(self, recorded: Recorded, before: Promises, catalogue: Catalogue, depth: int, story: str = "") -> None:
        recording = recorded.recording
        promises, point, judged = Promises(), -1, set[bytes]()
        observed: dict[bytes, Observation] = {}
        limit = self._plan.recovery_states if depth else self._plan.states
        for state in crash_states(recording, self._plan.strategy, recorded.first):
            if int.from_bytes(state.digest[:4]) % self._share.of != self._share.index and not depth:
                continue
            if self.is_over():
                return
            if state.point != point:
                point, judged = state.point, set()
                promises = promises_at(recording.operations[:point], before)
            if state.digest in judged:
                continue
            judged.add(state.digest)
            if state.digest not in observed:
                if limit is not None and len(observed) >= limit:
                    continue
                observed[state.digest] = self._observe(recorded, state, promises, catalogue, depth, story)
            self._judge(recorded.name, recording, state, promises, observed[state.digest], story)

    def _observe(
        self, recorded: Recorded, state: CrashState, promises: Promises, catalogue: Catalogue, depth: int, story: str
    ) -> Observation:
        if state.digest not in self.tally.distinct:
            self.tally.distinct.add(state.digest)
            self.tally.sites[str(next_sync(recorded.recording, state.point) or "none")] += 1
            self.tally.workloads[recorded.name] += 1
        probe = Probe(
            catalogue=catalogue,
            producers=producers_of(promises.appends.values()),
            first_append=FIRST_APPEND_AFTER * (depth + 1),
            opens_twice=state.digest[4] % 2 == 0,
            creates=state.digest[5] % 8 == 0,
            garbage=None if state.digest[6] % 2 else state.digest * 512,
        )
        every = self._plan.recovered_one_in
        if depth or not every or int.from_bytes(state.digest[7:9]) % every:
            return observe(state.image, f"{self._root}/{depth}", probe)
        recorders: list[RecordingFiles] = []

        def files(root: str) -> RecordingFiles:
            recorders.append(RecordingFiles(root, base=state.image))
            return recorders[0]

        with same_uuids(1):
            observation = observe(
                state.image, f"{self._root}/{depth}", probe, files, lambda mark: recorders[0].mark(mark)
            )
        if recorders and observation.error is None:
            recovery = Recorded(f"{recorded.name}: recovery", recorders[0].recording(), 0)
            known = {**catalogue, **catalogue_of(recovery.recording)}
            told = story + state.story(recorded.recording, max(0, state.point - STORY_OPERATIONS)) + "\nthen\n"
            self._explore(recovery, promises, known, depth + 1, told)
        return observation

    def _judge(
        self, name: str, recording: Recording, state: CrashState, promises: Promises, seen: Observation, story: str
    ) -> None:
        self.tally.judged += 1
        found = violations(promises, seen, state.image)
        if found:
            told = state.story(recording, max(0, state.point - STORY_OPERATIONS))
            self.tally.failures.append("\n".join([f"{name}: {found[0]}", *found[1:], story + told, ""]))


def explore(workloads: Iterable[Recorded], plan: Plan, share: Share = WHOLE) -> Tally:
    """Judge the crash states of some recordings, in this process."""
    started = time.monotonic()
    log = logging.getLogger("shardlog")
    level = log.level
    log.setLevel(logging.CRITICAL)  # torn tails are what this is about
    try:
        with scratch_directory() as root:
            explorer = _Explorer(plan, share, root)
            for recorded in workloads:
                explorer.explore(recorded)
                if explorer.is_over():
                    break
    finally:
        log.setLevel(level)
    explorer.tally.seconds = time.monotonic() - started
    return explorer.tally


def explore_together(workloads: Sequence[Recorded], plan: Plan, processes: int) -> Tally:
    """The same on several processes."""
    started = time.monotonic()
    context = multiprocessing.get_context("fork")
    with context.Pool(processes) as pool:
        shares = [(workloads, plan, Share(index, processes)) for index in range(processes)]
        tally = Tally()
        for part in pool.starmap(explore, shares):
            tally.add(part)
    tally.seconds = time.monotonic() - started
    return tally

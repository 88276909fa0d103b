"""Every way a power cut may leave the disk, at every point of a recording: the ALICE method (Pillai et al., OSDI 2014).

At each point the changes that are not durable yet meet their fates (`disk`): all whole, all absent, each one lost while
the others are whole, each one kept alone, each kind of damage to each write with the others whole and with the others
absent, all pairs while there are few, and beyond that random choices under a seed. The same disk comes up again and
again; who wants distinct ones compares digests.

A point is the number of operations that happened before the power cut. Two points that differ in neither marks nor
changes are taken as one, the later: more may have been promised there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from shardlog.files.protocol import Site
from shardlog.testing.disk import ABSENT, WHOLE, Disk, Fate, Pending
from shardlog.testing.operations import (
    DirectorySynced,
    Image,
    Marked,
    Opened,
    Recording,
    Synced,
    shown,
)

Choices = Mapping[int, Fate]


@dataclass(frozen=True, slots=True)
class Strategy:
    """How far to go at each point, beyond every single change."""

    pending_for_pairs: int = 6
    """Pairs are tried where no more changes than this are pending."""
    random_choices: int = 8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class CrashState:
    """One disk that a power cut at `point` may leave."""

    point: int
    choices: Choices
    otherwise: Fate
    image: Image
    digest: bytes

    def story(self, recording: Recording, first: int = 0) -> str:
        """What happened from operation `first` on, line by line, and what became of it."""
        lines = [
            f"{index:5} {shown(operation)}" + (f"  => {' '.join(map(str, fate))}" if fate else "")
            for index, operation in enumerate(recording.operations[: self.point])
            if index >= first and not isinstance(operation, Opened)
            for fate in [self.choices.get(index)]
        ]
        return "\n".join([*lines, f"      power cut; what else was not synced is {self.otherwise.kind}"])


def crash_states(recording: Recording, strategy: Strategy, first: int = 0) -> Iterator[CrashState]:
    """The states of a recording from a point on, in the order of the points. Many have the same image."""
    disk = Disk(recording.base)
    operations = recording.operations
    newest: int | None = None
    is_marked = True
    for point in range(len(operations) + 1):
        is_last = point == len(operations)
        if point < first:
            newest = None
        elif is_last or (is_marked and not isinstance(operations[point], Marked)):
            # Something was promised since: all that may be on the disk now is judged by that.
            yield from _states_at(disk, point, strategy, None)
            newest, is_marked = None, False
        elif newest is not None:
            # Without the newest change the disk would be one of an earlier point.
            yield from _states_at(disk, point, strategy, newest)
            newest = None
        if not is_last:
            operation = operations[point]
            is_marked = is_marked or isinstance(operation, Marked)
            if not isinstance(operation, Marked | Opened | Synced | DirectorySynced):
                newest = point
            disk.apply(operation)


def next_sync(recording: Recording, point: int) -> Site | None:
    """The site of the first sync that a power cut at a point forestalls."""
    for operation in recording.operations[point:]:
        if isinstance(operation, Synced | DirectorySynced):
            return operation.site
    return None


def _states_at(disk: Disk, point: int, strategy: Strategy, newest: int | None) -> Iterator[CrashState]:
    pending = disk.pending()
    for choices, otherwise in _choices(pending, point, strategy):
        if newest is None or choices.get(newest, otherwise) != ABSENT:
            image, digest = disk.image(choices, otherwise)
            yield CrashState(point, choices, otherwise, image, digest)


def _choices(pending: list[Pending], point: int, strategy: Strategy) -> Iterator[tuple[Choices, Fate]]:
    yield {}, WHOLE
    if not pending:
        return
    yield {}, ABSENT
    for change in pending:
        for otherwise in (WHOLE, ABSENT):
            for fate in change.fates:
                if fate != otherwise:
                    yield {change.at: fate}, otherwise
    if len(pending) <= strategy.pending_for_pairs:
        for one, other in combinations(pending, 2):
            yield from _pair(one, other)
    rng = random.Random(strategy.seed << 32 | point)
    for _ in range(strategy.random_choices if len(pending) > 1 else 0):
        yield _random_choice(pending, rng)


def _pair(one: Pending, other: Pending) -> Iterator[tuple[Choices, Fate]]:
    for fate in one.fates:
        for other_fate in other.fates:
            yield {one.at: fate, other.at: other_fate}, WHOLE
            yield {one.at: fate, other.at: other_fate}, ABSENT


def _random_choice(pending: list[Pending], rng: random.Random) -> tuple[Choices, Fate]:
    """Mostly lost, mostly there or in between; a few of those that are there damaged."""
    presence = rng.choice((0.2, 0.5, 0.8))
    choices: dict[int, Fate] = {}
    for change in pending:
        damaged = change.fates[2:]
        if rng.random() >= presence:
            choices[change.at] = ABSENT
        elif damaged and rng.random() < 0.3:
            choices[change.at] = rng.choice(damaged)
        else:
            choices[change.at] = WHOLE
    return choices, WHOLE

"""The load of `shardlog demo --shards`: changes for some threads, made up with hot spots that move, or from a file.

A hot spot is a stretch of the hash range whose keys take most of the changes, and the last one is a single key, which no
split can help. Both loads give each item to one thread, so that the order of an item's changes is the order in which
its thread appended them. What a thread appends depends on the seed and the thread, how it falls into appends on the
clock.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any, Final, Protocol

from shardlog import Change
from shardlog.model import HASH_RANGE_END
from shardlog.stream.sampling import hash_of
from shardlog_tools.input_lines import LineError, change_of, open_lines
from shardlog_tools.output import CommandFailed

PARTITION_KEY: Final = "item"
INPUT_CHANGES_MAX: Final = 200_000
INPUT_CHANGES_MIN: Final = 1_000

_ITEMS: Final = 4_000
_HOT_PART: Final = 0.8
_HOT_WIDTH: Final = 1 / 8
_INSERTED_FIRST: Final = "INSERT"


@dataclass(frozen=True)
class Phase:
    """A time of the load: what is hot, in words, and from which part of the time under load on."""

    words: str
    begins_at: float
    hash_range: tuple[int, int] | None
    hot_key: str | None = None


class Load(Protocol):
    """Changes for each thread, without end or until there are no more."""

    phases: Sequence[Phase]
    partition_key: str | None

    def changes(self, thread: int) -> Iterator[Change]:
        """What one thread appends, change by change."""
        ...

    def turn_to(self, phase: Phase) -> None:
        """The load changes as this phase says."""
        ...


class HotSpots:
    """Made-up changes of a shop's items."""

    partition_key: str | None = PARTITION_KEY

    def __init__(self, seed: int, threads: int) -> None:
        self._seed = seed
        self._threads = threads
        names = [f"item-{number:05d}" for number in range(_ITEMS)]
        self._names = sorted(names, key=hash_of)
        starts = _spread(random.Random(seed), 3)
        hot_name = random.Random(seed + 1).choice(self._names)
        self.phases: Sequence[Phase] = (
            *(_spot(start, begins_at) for start, begins_at in zip(starts, (0.0, 0.3, 0.6), strict=True)),
            Phase(f"one key takes most: {hot_name}", 0.85, None, hot_name),
        )
        self._phase = self.phases[0]

    def turn_to(self, phase: Phase) -> None:
        """From now on, this is hot."""
        self._phase = phase

    def changes(self, thread: int) -> Iterator[Change]:
        """One thread's changes, without end."""
        choices = random.Random(f"{self._seed}/{thread}")
        mine = [name for name in self._names if hash_of(name) % self._threads == thread]
        versions: dict[str, dict[str, Any]] = {}
        phase, hot = None, mine
        while True:
            if phase is not self._phase:
                phase = self._phase
                hot = _hot_names(mine, phase)
            name = choices.choice(hot if hot and choices.random() < _HOT_PART else mine)
            yield _change(name, versions, choices)


class FileLoad:
    """The changes of a JSON Lines file, in its order for each item."""

    partition_key: str | None = None

    def __init__(self, path: str, threads: int) -> None:
        self._by_thread: list[list[Change]] = [[] for _ in range(threads)]
        self.phases: Sequence[Phase] = (Phase(f"the changes of {path}", 0.0, None),)
        self.count = 0
        with open_lines(path) as lines:
            for number, line in lines:
                if line.isspace():
                    continue
                try:
                    change = change_of(line)
                except LineError as error:
                    raise CommandFailed(f"{lines.name}:{number}: {error}") from error
                self._by_thread[hash_of(change.keys) % threads].append(change)
                self.count += 1
                if self.count == INPUT_CHANGES_MAX:
                    break
        if self.count < INPUT_CHANGES_MIN:
            raise CommandFailed(f"{path}: expected at least {INPUT_CHANGES_MIN:,} changes, found {self.count:,}")

    def turn_to(self, phase: Phase) -> None:
        """A file has one phase."""

    def changes(self, thread: int) -> Iterator[Change]:
        """The changes of the items that are this thread's."""
        return iter(self._by_thread[thread])


def _spread(choices: random.Random, count: int) -> list[float]:
    """Starts of hot spots, far from one another."""
    shift = choices.random() / count
    starts = [(shift + index / count) * (1 - _HOT_WIDTH) for index in range(count)]
    choices.shuffle(starts)
    return starts


def _spot(start: float, begins_at: float) -> Phase:
    first = int(start * 2**16) << 112
    end = first + int(_HOT_WIDTH * HASH_RANGE_END)
    return Phase(f"hot spot at hashes {first >> 112:04x} to {end >> 112:04x}", begins_at, (first, end))

"""The load of `shardlog demo --shards`: changes for some threads, made up with hot spots that move, or from a file.

A hot spot is a stretch of the hash range whose keys take most of the changes; the last one is a single key, which no
split can help. Every item belongs to one thread, so the order of its changes is the order in which that thread appends.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from shardlog import Change
from shardlog.model import HASH_RANGE_END
from shardlog.stream.sampling import hash_of
from shardlog_tools.descriptions import hash_words
from shardlog_tools.input_lines import LineError, change_of, open_lines
from shardlog_tools.output import CommandFailed

INPUT_CHANGES_MAX: Final = 200_000
INPUT_CHANGES_MIN: Final = 1_000

_RECORDS_PER_SECOND: Final = 6_000.0
_ITEMS: Final = 4_000
_SPOTS: Final = 3
_SPOT_WIDTH: Final = HASH_RANGE_END // 8
_HOT_PART: Final = 0.8
_REMOVES: Final = 0.03
_PART_UNDER_LOAD: Final = 0.96
"""Of a file, which has an end: the rest is for the time after the load."""


@dataclass(frozen=True)
class Phase:
    """What is hot, in words and as a hash range or a key, from `begins_at` (a part of the time under load) on."""

    begins_at: float
    words: str
    hash_range: tuple[int, int] = (0, HASH_RANGE_END)
    key: str | None = None


class Load(Protocol):
    """What some threads append, and how fast."""

    partition_key: str | None
    phases: Sequence[Phase]
    phase: Phase

    def changes(self, thread: int) -> Iterator[Change]:
        """One thread's changes, in their order."""
        ...

    def rates(self, load_seconds: float) -> list[float]:
        """How many records per second each thread should append while the load lasts."""
        ...


class HotSpots:
    """A shop's items, made up from a seed. Setting `phase` moves the hot spot."""

    partition_key: str | None = "item"

    def __init__(self, seed: int, threads: int) -> None:
        self._seed = seed
        self._threads = threads
        self._hashes = {name: hash_of(name) for name in (f"item-{number:05d}" for number in range(_ITEMS))}
        choices = random.Random(seed)
        starts = [int((index + choices.random() / 2) / _SPOTS * HASH_RANGE_END) for index in range(_SPOTS)]
        choices.shuffle(starts)
        spots = [(start, min(start + _SPOT_WIDTH, HASH_RANGE_END)) for start in starts]
        key = choices.choice(list(self._hashes))
        self.phases: Sequence[Phase] = (
            *(
                Phase(index * 0.28, f"hot: hashes {hash_words(first, 4)} to {hash_words(end, 4)}", (first, end))
                for index, (first, end) in enumerate(spots)
            ),
            Phase(_SPOTS * 0.28, f"hot: one key, {key}", key=key),
        )
        self.phase = self.phases[0]

    def changes(self, thread: int) -> Iterator[Change]:
        """One thread's changes, without end."""
        choices = random.Random(f"{self._seed}/{thread}")
        mine = [name for name, value in self._hashes.items() if value % self._threads == thread]
        items: dict[str, dict[str, Any]] = {}
        phase: Phase | None = None
        hot: list[str] = []
        while True:
            if phase is not self.phase:
                phase = self.phase
                hot = self._hot(mine, phase)
            is_hot = hot and choices.random() < _HOT_PART
            yield _change(choices.choice(hot if is_hot else mine), items, choices)

    def rates(self, _load_seconds: float) -> list[float]:
        """The same for all threads."""
        return [_RECORDS_PER_SECOND / self._threads] * self._threads

    def _hot(self, mine: Sequence[str], phase: Phase) -> list[str]:
        first, end = phase.hash_range
        return [name for name in mine if phase.key in (None, name) and first <= self._hashes[name] < end]


class FileLoad:
    """The changes of a JSON Lines file, up to INPUT_CHANGES_MAX of them."""

    partition_key: str | None = None

    def __init__(self, path: str, threads: int) -> None:
        self.phases: Sequence[Phase] = (Phase(0.0, f"the changes of {path}"),)
        self.phase = self.phases[0]
        self._changes: list[list[Change]] = [[] for _ in range(threads)]
        with open_lines(path) as lines:
            for number, line in lines:
                if line.isspace():
                    continue
                try:
                    change = change_of(line)
                    self._changes[hash_of(change.keys) % threads].append(change)
                except (LineError, TypeError, ValueError) as error:
                    raise CommandFailed(f"{lines.name}:{number}: {error}") from error
                if sum(map(len, self._changes)) >= INPUT_CHANGES_MAX:
                    break
        found = sum(map(len, self._changes))
        if found < INPUT_CHANGES_MIN:
            raise CommandFailed(f"{path}: expected at least {INPUT_CHANGES_MIN:,} changes, found {found:,}")

    def changes(self, thread: int) -> Iterator[Change]:
        """The changes of the items that are this thread's, in the order of the file."""
        return iter(self._changes[thread])

    def rates(self, load_seconds: float) -> list[float]:
        """So that nearly all of the file goes in while the load lasts."""
        return [len(changes) * _PART_UNDER_LOAD / load_seconds for changes in self._changes]


def _change(name: str, items: dict[str, dict[str, Any]], choices: random.Random) -> Change:
    keys = {"item": name}
    old = items.get(name)
    if old is None:
        items[name] = {**keys, "version": 1, "stock": choices.randrange(1000)}
        return Change.insert(keys=keys, new=items[name])
    if choices.random() < _REMOVES:
        return Change.remove(keys=keys, old=items.pop(name))
    items[name] = {**old, "version": old["version"] + 1, "stock": choices.randrange(1000)}
    return Change.modify(keys=keys, old=old, new=items[name])

"""Contestants take turns.

A contestant's turn lasts about some seconds and returns its figure, in the unit of its table. Turns are interleaved
round by round; the first round warms up and is not counted. The collector runs between turns, so that nobody pays for
another's garbage; it stays enabled during turns, as it is in a program.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from shardlog_tools.measuring.results import Latency, Series


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to do. `seconds` are those of one contestant in all its rounds."""

    directory: str
    seconds: float = 3.0
    rounds: int = 15
    read_records: int = 200_000
    """Records in the log that the reading workloads read."""
    shards: int = 1

    @property
    def turn_seconds(self) -> float:
        """How long one turn lasts."""
        return self.seconds / self.rounds


class Turn(NamedTuple):
    """The figure of a turn, and how long each operation took, in microseconds, where that was measured."""

    figure: float
    times_us: Sequence[float] = ()


class Contestant(Protocol):
    """Whose turn it may be. It may have a `setting`: what its peer does to be durable."""

    name: str

    def turn(self, seconds: float) -> Turn | float:
        """Work for about so many seconds; the figure."""
        ...


@dataclass(slots=True)
class _Collected:
    figures: list[float] = field(default_factory=list)
    times_us: list[float] = field(default_factory=list)

    def series(self, contestant: Contestant) -> Series:
        latency = Latency.of(self.times_us) if self.times_us else None
        setting = getattr(contestant, "setting", "")
        return Series(contestant.name, tuple(self.figures), len(self.times_us), latency, setting)


def take_turns(contestants: Sequence[Contestant], settings: Settings) -> list[Series]:
    """One series for each contestant, in order."""
    collected = [_Collected() for _ in contestants]
    for number in range(settings.rounds + 1):
        for contestant, kept in zip(contestants, collected, strict=True):
            gc.collect()
            outcome = contestant.turn(settings.turn_seconds)
            turn = outcome if isinstance(outcome, Turn) else Turn(outcome)
            if number:
                kept.figures.append(turn.figure)
                kept.times_us.extend(turn.times_us)
        _show_progress(number, settings.rounds)
    return [kept.series(contestant) for contestant, kept in zip(contestants, collected, strict=True)]


def _show_progress(done: int, rounds: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r  round {done} of {rounds}\033[K" if done < rounds else "\r\033[K")
        sys.stderr.flush()

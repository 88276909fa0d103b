"""Contestants take turns.

A contestant's turn lasts about some seconds and returns its figure, in the unit of its table. Turns are interleaved
round by round; the first round warms up and is not counted. The collector runs between turns, so that nobody pays for
another's garbage; it stays enabled during turns, as it is in a program.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bench.results import Series


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to do. `seconds` are those of one contestant in all its rounds."""

    directory: str
    seconds: float = 3.0
    rounds: int = 15
    log_bytes: int = 500 << 20
    """Size of the log that the memory workload reads."""
    read_records: int = 200_000
    """Records in the log that the reading workloads read."""
    segments: int = 1_000
    """Segments of the log that is opened."""
    fill_bytes: int = 60 << 20
    """How full the last segment of the others is, of 64 MiB."""
    shards: int = 1

    @property
    def turn_seconds(self) -> float:
        """How long one turn lasts."""
        return self.seconds / self.rounds


class Contestant(Protocol):
    """Whose turn it may be."""

    name: str

    def turn(self, seconds: float) -> float:
        """Work for about so many seconds; the figure."""
        ...


def take_turns(contestants: Sequence[Contestant], settings: Settings) -> list[Series]:
    """One series for each contestant, in order."""
    values: list[list[float]] = [[] for _ in contestants]
    for number in range(settings.rounds + 1):
        for contestant, figures in zip(contestants, values, strict=True):
            gc.collect()
            figure = contestant.turn(settings.turn_seconds)
            if number:
                figures.append(figure)
        _show_progress(number, settings.rounds)
    return [Series(contestant.name, tuple(figures)) for contestant, figures in zip(contestants, values, strict=True)]


def _show_progress(done: int, rounds: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r  round {done} of {rounds}\033[K" if done < rounds else "\r\033[K")
        sys.stderr.flush()

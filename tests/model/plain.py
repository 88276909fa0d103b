"""What the model is told and tells: items, rows, shards, what a stream looks like, what may be under way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

HASH_END = 1 << 128


class Broken(AssertionError):
    """A promise that was not kept."""


def expect(holds: bool, message: str) -> None:
    """Raise Broken unless it holds."""
    if not holds:
        raise Broken(message)


class Item(NamedTuple):
    """One change of one item, as it is appended."""

    event: str
    keys: dict[str, Any]
    new: dict[str, Any] | None
    old: dict[str, Any] | None


class Row(NamedTuple):
    """One record, as it is read."""

    sequence: int
    shard_id: str
    item: Item
    at_us: int


class Shard(NamedTuple):
    """One shard. Hashes and sequence numbers are half-open; `end` None: it is open."""

    shard_id: str
    parents: tuple[str, ...]
    hash_first: int
    hash_next: int
    first: int
    end: int | None


@dataclass(frozen=True)
class State:
    """What a stream is, but for its records. `retention_us` None: for ever."""

    status: str
    retention_us: int | None
    horizon: int
    shards: dict[str, Shard]

    @property
    def open_shards(self) -> list[Shard]:
        """The open ones by hash."""
        return sorted((shard for shard in self.shards.values() if shard.end is None), key=lambda one: one.hash_first)


@dataclass(frozen=True)
class Sight:
    """A stream as somebody saw it. `gaps` are the ranges that could not be read."""

    state: State
    rows: list[Row]
    gaps: list[tuple[int, int]]
    positions: dict[str, int]
    next_sequence: int


@dataclass(frozen=True)
class Options:
    """What a stream is created with."""

    view_type: str
    durability: str
    shards: int
    retention_us: int | None


# What may be under way when something is interrupted


@dataclass(frozen=True)
class Appending:
    """An append. `at_us` is the time by the clock."""

    items: tuple[Item, ...]
    at_us: int
    producer: tuple[str, int] | None = None


@dataclass(frozen=True)
class Resharding:
    """Open shards are replaced by children of these ranges; `ranges` None: two that meet anywhere within."""

    parents: tuple[str, ...]
    ranges: tuple[tuple[int, int], ...] | None


@dataclass(frozen=True)
class Configuring:
    """The retention changes."""

    retention_us: int | None


@dataclass(frozen=True)
class Trimming:
    """Expiry, at a time by the clock."""

    now_us: int


@dataclass(frozen=True)
class Disabling:
    """The stream is to take no more records."""


@dataclass(frozen=True)
class Creating:
    """A stream of this name is created."""

    name: str
    options: Options


@dataclass(frozen=True)
class Deleting:
    """All streams of this name are deleted."""

    name: str


Change = Appending | Resharding | Configuring | Trimming | Disabling
Pending = Change | Creating | Deleting


def is_within(sequence: int, ranges: Iterable[tuple[int, int]]) -> bool:
    """Whether a number lies in one of some half-open ranges."""
    return any(first <= sequence < end for first, end in ranges)


def check_partition(state: State) -> None:
    """Open shards partition the whole range of hashes; a disabled stream has none."""
    ranges = [(shard.hash_first, shard.hash_next) for shard in state.open_shards]
    if state.status == "DISABLED":
        expect(not ranges, f"a disabled stream has open shards: {ranges}")
        return
    bounds = [0, *(end for _, end in ranges)]
    expect([first for first, _ in ranges] == bounds[:-1] and bounds[-1] == HASH_END, f"open shards: {ranges}")

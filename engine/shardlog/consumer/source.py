"""What consumers ask of a stream: its public interface only, so that another kind of stream can stand in for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import Literal, Protocol

from shardlog.clock import Clock
from shardlog.model import Backlog, Gap, StreamDescription
from shardlog.stream.log_reader import RecordBatch

Start = int | datetime | Literal["TRIM_HORIZON", "LATEST"]


class Reader(Protocol):
    """A place in the log; see `stream.log_reader.LogReader`."""

    @property
    def position(self) -> int:
        """The first sequence number that it has not passed."""
        ...

    def select(self, shard_ids: Collection[str]) -> None:
        """From here on give the records of these shards."""
        ...

    def published(self) -> Iterator[RecordBatch | Gap]:
        """What is published now and was not read yet."""
        ...


class Source(Protocol):
    """A stream to consume; see `api.Stream`."""

    name: str
    label: str

    @property
    def clock(self) -> Clock:
        """Time, injected."""
        ...

    @property
    def trim_horizon(self) -> int:
        """The first readable sequence number."""
        ...

    @property
    def next_sequence(self) -> int:
        """The sequence number that the next record will have at least."""
        ...

    def describe(self) -> StreamDescription:
        """The stream and its shards."""
        ...

    def sequence_of(self, position: Start) -> int:
        """The sequence number of a position, now."""
        ...

    def reader(
        self, start: int, shard_ids: Collection[str] | None = None, *, on_damage: Literal["raise", "gap"] = "raise"
    ) -> Reader:
        """Reads on from a sequence number."""
        ...

    def backlog(self, positions: Mapping[str, int]) -> dict[str, Backlog]:
        """What each shard holds from a sequence number on."""
        ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` whenever something may have been appended; returns what ends that."""
        ...

    def sync(self) -> None:
        """Make durable what was appended."""
        ...

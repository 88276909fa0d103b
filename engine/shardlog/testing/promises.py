"""What a store has promised at a point of a recording. Pure.

A workload marks what it does: before an operation what it wants, after it what it was told. `Promises` folds the marks,
and the syncs between them, into what must be true after a crash at that point:

- An append is in flight from `Appending` on. `Acknowledged`, it is durable: under level "fsync" at once, under "os"
  when `MadeDurable` follows (sync, close) or a roll is through. `Refused`, it must never show.
- What `Seen` tells was shown to somebody. Under "fsync" it is durable by that; at every level its number belongs to it
  for ever. Where the reader was the first after a crash (`is_settled`), what did not show then is lost: it may come
  back only as if it had been appended since.
- `Changing` a stream (its shards, its trim horizon, whether it takes records) ends with `Changed`, and what the stream
  looks like then is durable at every level; in between the old or the new look holds.
- Streams exist from `Created` on, and are gone from `Deleted` on; while `Deleting` either holds.
- What a consumer has `Checkpointed` is durable at every level, and so is the checkpoint.
- `SetAside` bytes must be in lost+found, or still where they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, NamedTuple

from shardlog.files.protocol import Site
from shardlog.model import Change, ShardDescription
from shardlog.options import Durability, ShardingPolicy
from shardlog.testing.operations import Created as FileCreated
from shardlog.testing.operations import DirectorySynced, Marked, Opened, Operation, Outcome, Synced


class StreamKey(NamedTuple):
    """One incarnation of a stream."""

    name: str
    label: str


class Number(NamedTuple):
    """A sequence number and what it was given to: a place (from 0) in an append."""

    sequence: int
    append: int
    place: int


@dataclass(frozen=True, slots=True)
class Creating:
    """A stream of this name is about to be created."""

    name: str
    durability: Durability


@dataclass(frozen=True, slots=True)
class Created:
    """It was."""

    stream: StreamKey
    durability: Durability
    look: Look


@dataclass(frozen=True, slots=True)
class Appending:
    """An append, told from others by its number, begins."""

    stream: StreamKey
    append: int
    changes: tuple[Change, ...]
    producer: str | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """It returned. `sequences` None: as a duplicate of an earlier one, whose numbers are not told again."""

    append: int
    sequences: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Refused:
    """It raised an error that says that nothing was appended."""

    append: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A whole stream was read. `is_settled`: nobody was appending, so what is missing was lost."""

    stream: StreamKey
    numbers: tuple[Number, ...]
    is_settled: bool


@dataclass(frozen=True, slots=True)
class MadeDurable:
    """A sync or a close of the stream returned."""

    stream: StreamKey


class Look(NamedTuple):
    """What a stream is, its records apart."""

    status: str
    trim_horizon: int
    shards: tuple[ShardDescription, ...]
    retention: timedelta | None = None
    sharding: ShardingPolicy | None = None


@dataclass(frozen=True, slots=True)
class Changing:
    """The stream is about to be changed. `becomes`: what it is then, filled in when that is known."""

    stream: StreamKey
    becomes: list[Look] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Changed:
    """It was."""

    stream: StreamKey
    look: Look


@dataclass(frozen=True, slots=True)
class Copying:
    """The stream is about to be copied into a store of that name."""

    stream: StreamKey
    name: str


@dataclass(frozen=True, slots=True)
class Copied:
    """It was, and the copy is durable."""

    stream: StreamKey
    name: str


@dataclass(frozen=True, slots=True)
class Checkpointed:
    """A consumer has handled the records up to a number, of a stream of one shard."""

    stream: StreamKey
    sequence: int


@dataclass(frozen=True, slots=True)
class Deleting:
    """The stream is about to be deleted."""

    stream: StreamKey


@dataclass(frozen=True, slots=True)
class Deleted:
    """It was."""

    stream: StreamKey


@dataclass(frozen=True, slots=True)
class SetAside:
    """Recovery took bytes out of a segment: they are the content of `file` now, and were at an offset before."""

    file: str
    content: bytes
    segment: str
    offset: int


AppendState = Literal["in flight", "acknowledged", "refused", "lost"]
Phase = Literal["existing", "deleting", "deleted"]


@dataclass(slots=True)
class AppendPromise:
    """One append. `numbers` are known once it was acknowledged or seen."""

    stream: StreamKey
    size: int
    producer: tuple[str, int] | None
    state: AppendState = "in flight"
    is_durable: bool = False
    numbers: tuple[Number, ...] = ()


@dataclass(slots=True)
class StreamPromise:
    """One stream. `given` has every number that anybody was told, and what it belongs to.

    `looks`: what it may be, one of these; empty where nobody knows, after a change that was interrupted.
    """

    durability: Durability
    looks: tuple[Look, ...] = ()
    checkpoint: int = 0
    """The last number that a consumer has handled."""
    phase: Phase = "existing"
    given: dict[int, Number] = field(default_factory=dict)


class Promises:
    """What holds after some operations."""

    def __init__(self) -> None:
        self.streams: dict[StreamKey, StreamPromise] = {}
        self.appends: dict[int, AppendPromise] = {}
        self.creating: dict[str, Durability] = {}
        self.set_aside: list[SetAside] = []
        self._paths: dict[int, str] = {}
        self._rolling: dict[StreamKey, list[int]] = {}
        """Appends that were acknowledged when a segment was sealed."""

    def copy(self) -> Promises:
        """The same, to go on from here elsewhere."""
        return deepcopy(self)

    def take_all(self, operations: Iterable[Operation]) -> Promises:
        """Take some operations; returns itself."""
        for operation in operations:
            self.take(operation)
        return self

    def take(self, operation: Operation) -> None:
        """Take the next operation."""
        match operation:
            case Marked(mark):
                self._take_mark(mark)
            case Opened(handle, path) | FileCreated(handle, path):
                self._paths[handle] = path
            case Synced(handle, Site.SEGMENT_SEALED, outcome) if outcome is not Outcome.FAILED:
                stream = self._stream_of(self._paths.get(handle, ""))
                if stream:
                    self._rolling[stream] = self._acknowledged(stream)
            case DirectorySynced(path, Site.SEGMENT_ENTRY, outcome) if outcome is not Outcome.FAILED:
                stream = self._stream_of(path)
                for append in self._rolling.pop(stream, []) if stream else ():
                    self.appends[append].is_durable = True

    def of_stream(self, stream: StreamKey) -> dict[int, AppendPromise]:
        """The appends of a stream."""
        return {number: append for number, append in self.appends.items() if append.stream == stream}

    def _take_mark(self, mark: object) -> None:
        match mark:
            case Creating(name, durability):
                self.creating[name] = durability
            case Created(stream, durability, look):
                self.creating.pop(stream.name, None)
                self.streams[stream] = StreamPromise(durability, (look,))
            case Appending(stream, append, changes, producer, position):
                self.appends[append] = AppendPromise(
                    stream,
                    len(changes),
                    None if producer is None or position is None else (producer, position),
                )
            case Acknowledged(append, sequences):
                self._acknowledge(append, sequences)
            case Refused(append):
                self.appends[append].state = "refused"
            case Seen():
                self._see(mark)
            case MadeDurable(stream):
                for append in self._acknowledged(stream):
                    self.appends[append].is_durable = True
            case Changing(stream, becomes):
                promise = self._stream(stream)
                promise.looks = (*promise.looks, *becomes) if becomes and promise.looks else ()
            case Changed(stream, look):
                self._stream(stream).looks = (look,)
            case Checkpointed(stream, sequence):
                self._stream(stream).checkpoint = sequence
                for handled in self.of_stream(stream).values():
                    if handled.numbers and handled.numbers[-1].sequence <= sequence:
                        handled.is_durable = True
            case Deleting(stream):
                self._stream(stream).phase = "deleting"
            case Deleted(stream):
                self._stream(stream).phase = "deleted"
            case SetAside():
                self.set_aside.append(mark)

    def _acknowledge(self, number: int, sequences: tuple[int, ...] | None) -> None:
        append = self.appends[number]
        stream = self._stream(append.stream)
        if sequences is None:
            # Told that it is there already: the first append of that position is acknowledged by this.
            append.state = "refused"
            for other in self.of_stream(append.stream).values():
                if other.producer == append.producer and other.state in ("in flight", "acknowledged"):
                    other.state = "acknowledged"
                    other.is_durable = other.is_durable or stream.durability == "fsync"
            return
        append.state = "acknowledged"
        append.is_durable = append.is_durable or stream.durability == "fsync"
        append.numbers = tuple(Number(sequence, number, place) for place, sequence in enumerate(sequences))
        stream.given.update((given.sequence, given) for given in append.numbers)

    def _see(self, seen: Seen) -> None:
        stream = self._stream(seen.stream)
        stream.given.update((number.sequence, number) for number in seen.numbers)
        shown: dict[int, list[Number]] = {}
        for given in seen.numbers:
            shown.setdefault(given.append, []).append(given)
        for number, append in self.of_stream(seen.stream).items():
            if number in shown:
                append.state = "acknowledged"
                append.is_durable = append.is_durable or stream.durability == "fsync"
                append.numbers = tuple(sorted(shown[number], key=lambda given: given.place))
            elif seen.is_settled and append.state in ("in flight", "acknowledged"):
                append.state, append.is_durable = "lost", False

    def _stream(self, key: StreamKey) -> StreamPromise:
        """The promises to a stream, whose creator may have been stopped before it could tell."""
        return self.streams.setdefault(key, StreamPromise(self.creating.get(key.name, "fsync")))

    def _acknowledged(self, stream: StreamKey) -> list[int]:
        return [number for number, append in self.of_stream(stream).items() if append.state == "acknowledged"]

    def _stream_of(self, path: str) -> StreamKey | None:
        names = path.split("/")
        found = (StreamKey(names[index], names[index + 1]) for index in range(len(names) - 1))
        return next((key for key in found if key in self.streams), None)


def promises_at(operations: Iterable[Operation], before: Promises | None = None) -> Promises:
    """What holds after some operations, upon what held before them."""
    return (before.copy() if before else Promises()).take_all(operations)

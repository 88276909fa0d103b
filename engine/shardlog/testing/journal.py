"""A program that uses a store and marks what it was promised; workloads and the oracle are written with it.

Every method does one thing with the store, and marks what it wanted before and what it was told after. Appends may come
from several threads. `abandon` leaves everything as a killed process would.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any, Final

from shardlog.api import Store, Stream, open_store
from shardlog.clock import Clock
from shardlog.errors import InvalidArgument, ShardlogError, StorageFull, StreamDisabled
from shardlog.files.protocol import Files
from shardlog.format import names
from shardlog.format.record import Record
from shardlog.index.lmdb_files import DATA_FILE
from shardlog.model import Appended, Change, Gap
from shardlog.options import Durability
from shardlog.stream.open_stream import Surroundings
from shardlog.stream.sampling import hash_of
from shardlog.testing.failing import Killed
from shardlog.testing.operations import Marked, Placed, Recording
from shardlog.testing.promises import (
    Acknowledged,
    Appending,
    Changed,
    Changing,
    Checkpointed,
    Copied,
    Copying,
    Created,
    Creating,
    Deleted,
    Deleting,
    Look,
    MadeDurable,
    Number,
    Refused,
    Seen,
    SetAside,
    StreamKey,
)

STORE: Final = "store"
"""The store's directory within the recorded one."""

GROUP: Final = "group"
"""The consumers of each stream that has some."""

Catalogue = Mapping[str, tuple[StreamKey, int, int, Change]]
"""What was appended, by the id in its keys: stream, append, place in it, and the change itself."""

_LOCK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """A stream as somebody saw it. `strange` are records that nobody appended like that."""

    numbers: tuple[Number, ...]
    strange: tuple[str, ...]
    shards: tuple[str, ...]
    """The shard of each record of `numbers`."""
    hashes: tuple[int, ...]
    """And the hash of its keys, which routes it."""
    positions: tuple[tuple[str, int | None], ...]
    look: Look
    next_sequence: int
    checkpoint: int = 0
    """How far the group of consumers is, if there is one; 0: nowhere."""


def ignore(mark: object) -> None:
    """For journals that nobody reads."""


def look_of(stream: Stream) -> Look:
    """What a stream is, its records apart."""
    description = stream.describe()
    horizon = stream.trim_horizon
    return Look(description.status, horizon, description.shards, description.retention, description.sharding)


def catalogue_of(recording: Recording) -> Catalogue:
    """All that a recording's marks say was appended."""
    catalogue: dict[str, tuple[StreamKey, int, int, Change]] = {}
    for operation in recording.operations:
        if isinstance(operation, Marked) and isinstance(operation.mark, Appending):
            catalogue.update(_rows_of(operation.mark))
    return catalogue


def changes_of(append: int, size: int, payload: int) -> tuple[Change, ...]:
    """The changes of an append: always the same for the same arguments."""
    return tuple(_change(append, place, payload) for place in range(size))


def _change(append: int, place: int, payload: int) -> Change:
    rng = random.Random(append << 16 | place)
    keys = {"id": f"{append}.{place}"}
    # Values that end in a byte with a single bit: torn there, a block lacks but one bit.
    image: dict[str, Any] = {**keys, "text": rng.randbytes(payload), "bit": 1 << rng.randrange(7)}
    match rng.randrange(3):
        case 0:
            return Change.insert(keys, image)
        case 1:
            return Change.modify(keys, old=image, new={**keys, "text": ""})
        case _:
            return Change.remove(keys, image)


@cache
def _hash_of(item: str) -> int:
    return hash_of({"id": item})


class Journal:
    """A user of the store in the directory `root`; appends are numbered from `first_append`."""

    def __init__(
        self,
        files: Files,
        root: str,
        clock: Clock,
        mark: Callable[[object], None] = ignore,
        *,
        first_append: int = 0,
        known: Catalogue | None = None,
    ) -> None:
        self.path = f"{root}/{STORE}"
        self.files = files
        self._root = root
        self._surroundings = Surroundings(files, clock, _LOCK_SECONDS)
        self._mark = mark
        self._appends = count(first_append)
        self._catalogue = dict(known or {})
        self._store: Store | None = None
        self._set_aside: set[str] = set()

    @property
    def store(self) -> Store:
        """The store, open."""
        assert self._store is not None
        return self._store

    @property
    def is_open(self) -> bool:
        """Whether the store is open."""
        return self._store is not None

    def open(self) -> None:
        """Open the store, or create it."""
        self._store = open_store(self.path, True, False, self._surroundings)

    def close(self) -> None:
        """Close the store, and with it its streams."""
        store, self._store = self.store, None
        used = [StreamKey(stream.name, stream.label) for stream in store._streams.values()]
        store.close()
        for stream in used:
            self._mark(MadeDurable(stream))

    def abandon(self) -> None:
        """Give up what is held, as the kernel does for a killed process; `files` must be dead by then."""
        if self._store is None:
            return
        store, self._store = self._store, None
        for stream in list(store._streams.values()):
            with suppress(Killed, ShardlogError):
                stream.close()
        store.close()

    def streams(self) -> list[StreamKey]:
        """All streams there are."""
        root = f"{self.path}/{names.STREAMS}"
        if not self.files.exists(root):
            return []
        return [StreamKey(name, label) for name in sorted(self.files.names(root)) for label in self.store._labels(name)]

    def stream(self, key: StreamKey) -> Stream:
        """A stream, open."""
        stream = self.store.stream(key.name, key.label)
        self._note_set_aside(key)
        return stream

    def create(self, name: str, *, durability: Durability = "fsync", **options: Any) -> StreamKey:
        """Create a stream."""
        self._mark(Creating(name, durability))
        stream = self.store.create_stream(name, durability=durability, **options)
        key = StreamKey(name, stream.label)
        self._mark(Created(key, durability, look_of(stream)))
        return key

    def append(
        self,
        key: StreamKey,
        size: int = 2,
        *,
        payload: int = 60,
        producer: str | None = None,
        position: int | None = None,
    ) -> Appended:
        """Append some changes."""
        stream = self.stream(key)
        number = next(self._appends)
        changes = changes_of(number, size, payload)
        appending = Appending(key, number, changes, producer, position)
        self._catalogue.update(_rows_of(appending))
        self._mark(appending)
        try:
            result = stream.append(changes, producer=producer, position=position)
        except (InvalidArgument, StorageFull, StreamDisabled):
            self._mark(Refused(number))
            raise
        self._mark(Acknowledged(number, None if result.duplicate else tuple(result.sequences)))
        return result

    def sync(self, key: StreamKey) -> None:
        """Make a stream of level "os" durable."""
        self.stream(key).sync()
        self._mark(MadeDurable(key))

    def disable(self, key: StreamKey) -> None:
        """Disable a stream, the newest of its name."""
        self.change(key, lambda _: self.store.disable_stream(key.name))

    def change(self, key: StreamKey, change: Callable[[Stream], object]) -> None:
        """Change what a stream is: its shards, its trim horizon, whether it takes records."""
        stream = self.stream(key)
        changing = Changing(key)
        self._mark(changing)
        change(stream)
        look = look_of(stream)
        changing.becomes.append(look)
        self._mark(Changed(key, look))

    def consume(self, key: StreamKey) -> None:
        """Handle what there is in a stream of one shard, in small batches, and checkpoint each."""
        stream = self.stream(key)
        directory = f"{self._root}/{self._consumers(key)}"
        if not self.files.exists(directory):
            os.mkdir(directory)
            self._mark(Placed(self._consumers(key), None))
        group = stream.group(GROUP)
        self._note_consumers(key)
        with group.worker("worker") as worker:
            for batch in worker.batches(max_records=3, wait=timedelta(0), until_drained=True):
                batch.checkpoint()
                self._note_consumers(key)
                self._mark(Checkpointed(key, batch.records[-1].sequence))
        self._note_consumers(key)

    def _consumers(self, key: StreamKey) -> str:
        return f"{STORE}/{names.STREAMS}/{key.name}/{key.label}/{names.CONSUMERS}"

    def _note_consumers(self, key: StreamKey) -> None:
        """What LMDB has synced, as it is in its file: nobody writes to it just now."""
        path = f"{self._consumers(key)}/{DATA_FILE}"
        self._mark(Placed(path, self._content(f"{self._root}/{path}")))

    def _checkpoint(self, key: StreamKey) -> int:
        if not self.files.exists(f"{self._root}/{self._consumers(key)}/{DATA_FILE}"):
            return 0
        leases = self.stream(key).group(GROUP).leases()
        return max([0, *(lease.checkpoint for lease in leases if isinstance(lease.checkpoint, int))])

    def snapshot(self, key: StreamKey, name: str) -> None:
        """Copy a stream into a store of its own, beside the store."""
        self._mark(Copying(key, name))
        self.stream(key).snapshot(f"{self._root}/{name}")
        self._mark(Copied(key, name))

    def delete(self, key: StreamKey) -> None:
        """Delete a stream, the only one of its name."""
        self._mark(Deleting(key))
        self.store.delete_stream(key.name)
        self._mark(Deleted(key))

    def look(self, key: StreamKey, producers: Iterable[str] = (), *, is_settled: bool = False) -> Sight:
        """Read a whole stream, and mark what was seen."""
        stream = self.stream(key)
        numbers: list[Number] = []
        strange: list[str] = []
        shards: list[str] = []
        hashes: list[int] = []
        for record in stream.read():
            number = self._recognised(key, record)
            if number is None:
                strange.append(repr(record)[:300])
            else:
                numbers.append(number)
                assert isinstance(record, Record)
                shards.append(record.shard_id)
                hashes.append(_hash_of(record.keys["id"]))
        sight = Sight(
            tuple(numbers),
            tuple(strange),
            tuple(shards),
            tuple(hashes),
            tuple((producer, stream.position(producer)) for producer in producers),
            look_of(stream),
            stream.next_sequence,
            self._checkpoint(key),
        )
        self._mark(Seen(key, sight.numbers, is_settled))
        return sight

    def _recognised(self, key: StreamKey, record: Record | Gap) -> Number | None:
        if isinstance(record, Gap):
            return None
        known = self._catalogue.get(record.keys.get("id", ""))
        if known is None:
            return None
        stream, append, place, change = known
        was = (record.event, record.keys, record.new_image, record.old_image)
        if stream.name != key.name or was != (change.event, change.keys, change.new, change.old):
            return None
        return Number(record.sequence, append, place)

    def _note_set_aside(self, key: StreamKey) -> None:
        directory = f"{STORE}/{names.STREAMS}/{key.name}/{key.label}"
        lost = f"{self._root}/{directory}/{names.LOST_AND_FOUND}"
        if not self.files.exists(lost):
            return
        for name in self.files.names(lost):
            if not name.endswith(".torn.json") or f"{lost}/{name}" in self._set_aside:
                continue
            self._set_aside.add(f"{lost}/{name}")
            fields = _manifest(self._content(f"{lost}/{name}"))
            file = f"{directory}/{names.LOST_AND_FOUND}/{fields['file']}"
            if not self.files.exists(f"{self._root}/{file}"):
                continue  # the power failed before the names were synced, so the bytes were still in their place
            segment = f"{directory}/{names.LOG}/{fields['segment']}"
            self._mark(SetAside(file, self._content(f"{self._root}/{file}"), segment, fields["offset"]))

    def _content(self, path: str) -> bytes:
        file = self.files.open_to_read(path)
        try:
            return file.pread(file.size(), 0)
        finally:
            file.close()


def _manifest(content: bytes) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise AssertionError(f"a manifest in lost+found is not what was written: {error}") from error
    return fields


def _rows_of(appending: Appending) -> dict[str, tuple[StreamKey, int, int, Change]]:
    return {
        change.keys["id"]: (appending.stream, appending.append, place, change)
        for place, change in enumerate(appending.changes)
    }

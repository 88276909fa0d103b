"""A writer in a child process: it appends by a plan, and tells over the child's channel what it does to a store.

Every step is told before it is taken and when it is done, so that what was told survives the teller; `history` makes
one picture of what all children told. A channel sends with `sendto`, which no test makes fail.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tests.support.children import Channel

import shardlog
from shardlog import (
    Change,
    Gap,
    InvalidArgument,
    Record,
    StorageFull,
    Store,
    Stream,
    StreamExists,
    StreamNotFound,
)
from shardlog.clock import Clock

STREAM: Final = "s"
SEGMENT_BYTES: Final = 16 << 10  # the least: rolls are common
RECORDS_PER_APPEND: Final = 3
TRIES: Final = 6

_TEXT_BYTES: Final = 500
_RECORDS_PER_MESSAGE: Final = 1000

Name = tuple[str, int, int]
"""Which record: who appended it, in which append, its index there."""


@dataclass(frozen=True)
class Plan:
    """What a writer does: appends numbered from `first`, under the name `who`."""

    who: str
    level: str = "fsync"
    appends: int = 16
    first: int = 0
    sync_every: int = 5
    reopen_after: int | None = None
    read_every: int | None = None
    segment_bytes: int = SEGMENT_BYTES
    text_bytes: int = _TEXT_BYTES
    pause_seconds: float = 0.0
    retention: timedelta | None = None


def batch(who: str, number: int, text_bytes: int = _TEXT_BYTES) -> list[Change]:
    """The changes of append `number` of `who`. Their items fall into different shards."""
    changes = []
    for index in range(RECORDS_PER_APPEND):
        image = image_of((who, number, index), text_bytes)
        changes.append(Change.insert(keys={"id": image["id"]}, new=image))
    return changes


def image_of(name: Name, text_bytes: int = _TEXT_BYTES) -> dict[str, Any]:
    """The image of a record."""
    who, number, index = name
    word = f"{who}{number}.{index}/"
    text = (word * (text_bytes // len(word) + 1))[:text_bytes]
    return {"id": f"{who}-{number}-{index}", "who": who, "append": number, "index": index, "text": text}


def name_of(record: Record | Gap) -> Name | None:
    """Which record it is, if it is one of ours to the last byte."""
    image = record.new_image if isinstance(record, Record) else None
    if image is None or image.keys() != image_of(("", 0, 0)).keys():
        return None
    name = (image["who"], image["append"], image["index"])
    assert isinstance(record, Record)
    found = (record.event, record.keys, image, record.old_image)
    expected = image_of(name, len(image["text"]))
    return name if found == ("INSERT", {"id": expected["id"]}, expected, None) else None


def producer_of(who: str, number: int) -> dict[str, Any]:
    """Every other append comes from a producer."""
    return {"producer": who, "position": number} if number % 2 else {}


class Writer:
    """Appends by a plan. An error of the package is told and survived; any other is left to the caller."""

    def __init__(self, channel: Channel, path: str, plan: Plan, clock: Clock | None = None) -> None:
        self._channel = channel
        self._path = path
        self._plan = plan
        self._clock = clock
        self._store: Store | None = None
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The stream. It is open."""
        assert self._stream is not None
        return self._stream

    def open(self) -> bool:
        """Open the store and the stream, creating both if need be; several tries. Whether it is open."""
        for _ in range(TRIES):
            try:
                self._open(True)
            except shardlog.ShardlogError as error:
                self._failed("open", error)
                self.close()
            else:
                self._channel.send(("opened",))
                return True
        return False

    def open_what_is_there(self) -> bool:
        """Open the stream if there is one yet."""
        try:
            self._open(False)
        except (StreamNotFound, InvalidArgument):
            self.close()
            return False
        except shardlog.ShardlogError as error:
            self._failed("open", error)
            self.close()
            return False
        self._channel.send(("opened",))
        return True

    def _open(self, create: bool) -> None:
        plan = self._plan
        self._store = shardlog.open(self._path, create=create, clock=self._clock)
        try:
            self._stream = self._store.stream(STREAM)
        except StreamNotFound:
            if not create:
                raise
            try:
                self._stream = self._store.create_stream(
                    STREAM,
                    shards=2,
                    retention=plan.retention,
                    durability=plan.level,
                    segment_bytes=plan.segment_bytes,
                )
            except StreamExists:
                self._stream = self._store.stream(STREAM)

    def appends(self, numbers: Iterable[int]) -> None:
        """Append, sync, read and reopen as planned."""
        plan = self._plan
        for number in numbers:
            if self._stream is None and not self.open():
                return
            self.append(number)
            if plan.level == "os" and number % plan.sync_every == plan.sync_every - 1:
                self.sync()
            if plan.read_every and number % plan.read_every == plan.read_every - 1:
                self.look()
            if plan.reopen_after == number:
                self.close()
            if plan.pause_seconds:
                time.sleep(plan.pause_seconds)

    def append(self, number: int) -> bool:
        """One append, with what the errors ask for: after StorageFull again, after StorageFailed on a stream reopened.

        Whether it was acknowledged.
        """
        who = self._plan.who
        producer = producer_of(who, number)
        for _ in range(TRIES):
            if self._stream is None:
                return False
            self._channel.send(("begun", who, number))
            try:
                result = self._stream.append(batch(who, number, self._plan.text_bytes), **producer)
            except StorageFull as error:
                self._failed("append", error)
                self._channel.send(("refused", who, number))
            except shardlog.ShardlogError as error:
                self._failed("append", error)
                self._channel.send(("unknown", who, number))
                self.close()
                self.open()
                if not producer:
                    return False  # whether it is there nobody can tell
            else:
                if result.duplicate:
                    self._channel.send(("duplicate", who, number))
                else:
                    self._channel.send(("acknowledged", who, number, result.sequences))
                return True
        return False

    def sync(self) -> None:
        """Make durable what was appended."""
        if self.attempt("sync", lambda stream: stream.sync()):
            self._channel.send(("synced",))
        else:
            self.close()
            self.open()

    def look(self) -> None:
        """Read all of it, and tell what is there."""
        self.attempt("read", lambda stream: tell_records(self._channel, "on the way", stream.read()))

    def attempt(self, what: str, function: Callable[[Stream], object]) -> bool:
        """Do something with the stream, if it is open, and tell what error that met. Whether it met none."""
        if self._stream is None:
            return False
        try:
            function(self._stream)
        except shardlog.ShardlogError as error:
            self._failed(what, error)
            return False
        return True

    def insist(self, what: str, function: Callable[[Stream], object]) -> bool:
        """The same, several times if need be, each time on a stream opened anew. Whether it was done."""
        for _ in range(TRIES):
            if self._stream is None and not self.open():
                return False
            if self.attempt(what, function):
                return True
            self.close()
        return False

    def close(self) -> None:
        """Close, and tell whether that made everything durable."""
        store, self._store, self._stream = self._store, None, None
        if store is None:
            return
        try:
            store.close()
        except shardlog.ShardlogError as error:
            self._failed("close", error)
        else:
            self._channel.send(("closed",))

    def _failed(self, what: str, error: shardlog.ShardlogError) -> None:
        self._channel.send(("failed", what, type(error).__name__, str(error)))


def tell_records(channel: Channel, view: str, found: Iterable[Record | Gap]) -> None:
    """Tell which records are there and under which numbers, in the order in which they come."""
    records = []
    for record in found:
        if name := name_of(record):
            assert isinstance(record, Record)
            records.append((record.sequence, name))
        else:
            channel.send(("trouble", f"expected a record that was appended, found {record!r}"))
    for start in range(0, max(1, len(records)), _RECORDS_PER_MESSAGE):
        channel.send(("found", view, records[start : start + _RECORDS_PER_MESSAGE]))


def telling_trouble(channel: Channel, function: Callable[[], object]) -> None:
    """Run a function; an exception that no caller of the package should have to expect is trouble."""
    try:
        function()
    except Exception:  # told, and judged by the test
        channel.send(("trouble", traceback.format_exc()))

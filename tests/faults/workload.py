"""What the child processes of these tests do to a store, and what they tell about it while they do it.

Every step is told over the child's channel, before it is taken and when it is done, so that what was told survives the
teller; `history` makes one picture of what all children told. A channel sends with `sendto`, which no test makes fail.
"""

from __future__ import annotations

import itertools
import os
import resource
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from tests.support.background import LIMIT_SECONDS
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
    StreamDisabled,
    StreamExists,
    StreamNotFound,
)

STREAM: Final = "s"
SEGMENT_BYTES: Final = 16 << 10  # the least: rolls are common
RECORDS_PER_APPEND: Final = 3
VIEWS: Final = ("read", "opened", "opened again")
"""What an examination finds: the same records each time."""
AT_LAST: Final = "at last"
"""What it finds after its own appends."""

_TEXT_BYTES: Final = 500
_RECORDS_PER_MESSAGE: Final = 1000
_TRIES: Final = 6
_PAUSE_SECONDS: Final = 0.002

Name = tuple[str, int, int]
"""Which record: who appended it, in which append, its index there."""


@dataclass(frozen=True)
class Plan:
    """What a writer does."""

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
        keys = {"id": f"{who}-{number}-{index}"}
        changes.append(Change.insert(keys=keys, new=image_of((who, number, index), text_bytes)))
    return changes


def image_of(name: Name, text_bytes: int = _TEXT_BYTES) -> dict[str, Any]:
    """The image of a record."""
    who, number, index = name
    word = f"{who}{number}.{index}/"
    text = (word * (text_bytes // len(word) + 1))[:text_bytes]
    return {"id": f"{who}-{number}-{index}", "who": who, "append": number, "index": index, "text": text}


def name_of(record: Record) -> Name | None:
    """Which record it is, if it is one of ours to the last byte."""
    image = record.new_image
    try:
        assert image is not None
        name = (image["who"], image["append"], image["index"])
        right = image == image_of(name, len(image["text"])) and record.keys == {"id": image["id"]}
        right = right and record.event == "INSERT" and record.old_image is None
    except (AssertionError, KeyError, TypeError):
        return None
    return name if right else None


def producer_of(who: str, number: int) -> dict[str, Any]:
    """Every other append comes from a producer."""
    return {"producer": who, "position": number} if number % 2 else {}


class Writer:
    """Appends by a plan, and tells about it. An error of the package is told and survived; any other is trouble."""

    def __init__(self, channel: Channel, path: str, plan: Plan) -> None:
        self._channel = channel
        self._path = path
        self._plan = plan
        self._store: Store | None = None
        self._stream: Stream | None = None

    @property
    def stream(self) -> Stream:
        """The stream. It is open."""
        assert self._stream is not None
        return self._stream

    def open(self) -> bool:
        """Open the store and the stream, creating both if need be; several tries. Whether it is open."""
        for _ in range(_TRIES):
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
        self._channel.send(("opened",))
        return True

    def _open(self, create: bool) -> None:
        plan = self._plan
        self._store = shardlog.open(self._path, create=create)
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
        """Append, sync and read as planned."""
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
        plan = self._plan
        who = plan.who
        producer = producer_of(who, number)
        for _ in range(_TRIES):
            if self._stream is None:
                return False
            self._channel.send(("begun", who, number))
            try:
                result = self._stream.append(batch(who, number, plan.text_bytes), **producer)
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
                told = "duplicate" if result.duplicate else "acknowledged"
                self._channel.send((told, who, number, *([] if result.duplicate else [result.sequences])))
                return True
        return False

    def sync(self) -> None:
        """Make durable what was appended."""
        if self._stream is None:
            return
        try:
            self._stream.sync()
        except shardlog.ShardlogError as error:
            self._failed("sync", error)
            self.close()
            self.open()
        else:
            self._channel.send(("synced",))

    def look(self) -> None:
        """Read all of it, and tell what is there."""
        self.attempt("read", lambda stream: tell_records(self._channel, "on the way", stream.read()))

    def attempt(self, what: str, function: Callable[[Stream], object]) -> None:
        """Do something with the stream, if it is open, and tell what error that met."""
        if self._stream is None:
            return
        try:
            function(self._stream)
        except shardlog.ShardlogError as error:
            self._failed(what, error)

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
        name = name_of(record) if isinstance(record, Record) else None
        if name is None:
            channel.send(("trouble", f"expected a record that was appended, found {record!r}"))
        else:
            assert isinstance(record, Record)
            records.append((record.sequence, name))
    for start in range(0, max(1, len(records)), _RECORDS_PER_MESSAGE):
        channel.send(("found", view, records[start : start + _RECORDS_PER_MESSAGE]))


def telling_trouble(channel: Channel, function: Callable[[], object]) -> None:
    """Run a function; an exception that no caller of the package should have to expect is trouble."""
    try:
        function()
    except Exception:  # told, and judged by the test
        channel.send(("trouble", traceback.format_exc()))


def write(channel: Channel, path: str, plan: Plan) -> None:
    """Open, append by a plan, close; begins when told to."""
    await_go(channel)
    writer = Writer(channel, path, plan)

    def run() -> None:
        if not writer.open():
            return
        writer.appends(range(plan.first, plan.first + plan.appends))
        writer.close()

    telling_trouble(channel, run)


def write_and_remove(channel: Channel, path: str, plan: Plan) -> None:
    """The rest of a stream's life: append, disable, delete, create it again under the same name, append."""
    await_go(channel)
    writer = Writer(channel, path, plan)
    half = plan.first + plan.appends // 2

    def is_done(what: str) -> bool:
        channel.send(("begun to", what))
        try:
            with shardlog.open(path) as store:
                getattr(store, f"{what}_stream")(STREAM)
        except StreamDisabled:
            pass  # an attempt before this one did it
        except StreamNotFound:
            assert what == "delete"  # likewise
        except shardlog.ShardlogError as error:
            channel.send(("failed", what, type(error).__name__, str(error)))
            return False
        channel.send(("done", what))
        return True

    def run() -> None:
        if writer.open():
            writer.appends(range(plan.first, half))
            writer.close()
            for what in ("disable", "delete"):
                if not any(is_done(what) for _ in range(_TRIES)):
                    return
            if writer.open():
                writer.appends(range(half, plan.first + plan.appends))
                writer.close()

    telling_trouble(channel, run)


def write_along(channel: Channel, path: str, plan: Plan) -> None:
    """Append beside another process, which is in trouble: nothing of that may be seen here.

    Waits for the stream to be there; told "finish", it creates the stream if nobody did, and appends a few more.
    """
    writer = Writer(channel, path, plan)

    def run() -> None:
        numbers = itertools.count(plan.first)
        is_finishing = False
        while not is_finishing and not writer.open_what_is_there():
            is_finishing = told(channel, _PAUSE_SECONDS)
        if is_finishing and not writer.open():
            return
        for number in itertools.islice(numbers, plan.appends):
            is_finishing = is_finishing or told(channel, _PAUSE_SECONDS)
            if is_finishing:
                break
            writer.appends([number])
        if not is_finishing:
            channel.receive()
        writer.look()
        writer.appends(itertools.islice(numbers, 5))
        writer.look()
        writer.close()

    telling_trouble(channel, run)


def await_go(channel: Channel) -> None:
    """Say that all is ready, then wait to be told to begin."""
    # What is imported only when a stream is first used must not count as its opening.
    with tempfile.TemporaryDirectory() as path, shardlog.open(path) as store:
        list(store.create_stream("scratch").read())
    channel.send("ready")
    assert channel.receive() == "go"


def told(channel: Channel, patience_seconds: float) -> bool:
    """Whether a message came within some time; it is taken."""
    connection = channel._connection
    connection.settimeout(patience_seconds)
    try:
        channel.receive()
    except TimeoutError:
        return False
    finally:
        connection.settimeout(LIMIT_SECONDS)
    return True


def examine(channel: Channel, path: str, plan: Plan) -> None:
    """What a store holds after the crash: to a reader, to the first writer that opens it, and to the second.

    The second one also appends.
    """
    writer = Writer(channel, path, plan)

    def run() -> None:
        reading, first, second = VIEWS
        try:
            with shardlog.open(path, read_only=True) as store:
                tell_records(channel, reading, store.stream(STREAM).read())
        except (StreamNotFound, InvalidArgument):
            pass  # it never came to be
        if writer.open():
            tell_records(channel, first, writer.stream.read())
            writer.close()
        if writer.open():
            tell_records(channel, second, writer.stream.read())
            writer.appends(range(plan.first, plan.first + plan.appends))
            tell_records(channel, AT_LAST, writer.stream.read())
            writer.close()

    telling_trouble(channel, run)


def obey(channel: Channel, path: str, plan: Plan) -> None:
    """Do what one is told, one thing after the other; ends when told to close for good."""
    writer = Writer(channel, path, plan)
    numbers = itertools.count(plan.first)

    def until_full() -> None:
        for number in numbers:
            if not writer.append(number):
                return

    actions: dict[str, Callable[..., object]] = {
        "open": writer.open,
        "append": lambda count=1: writer.appends(itertools.islice(numbers, count)),
        "append until full": until_full,
        "sync": writer.sync,
        "look": writer.look,
        "follow": lambda: writer.attempt("follow", _follow),
        "expire": lambda: writer.attempt("expire", lambda stream: stream.expire(force=True)),
        "close": writer.close,
        "limit": lambda kind, value: resource.setrlimit(kind, (value, resource.getrlimit(kind)[1])),
        "limit files": lambda more: resource.setrlimit(
            resource.RLIMIT_NOFILE, (_open_files() + more, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        ),
    }
    await_go(channel)
    while (order := channel.receive()) is not None:
        action, *arguments = order
        telling_trouble(channel, lambda: actions[action](*arguments))  # noqa: B023 - called at once
        channel.send(("obeyed", action))


def _follow(stream: Stream) -> None:
    for _ in stream.read("LATEST", follow=True, timeout=0.01):
        pass


def _open_files() -> int:
    """One more than the highest descriptor in use: what a limit on files is compared with."""
    return max(map(int, os.listdir("/proc/self/fd"))) + 1

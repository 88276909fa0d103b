"""What the child processes of these tests do from beginning to end."""

from __future__ import annotations

import itertools
import os
import resource
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from tests.faults.writer import STREAM, TRIES, Plan, Writer, batch, tell_records, telling_trouble
from tests.support.background import LIMIT_SECONDS
from tests.support.children import Channel

import shardlog
from shardlog import InvalidArgument, ShardDescription, Stream, StreamDisabled, StreamNotFound
from shardlog.log.writer import ActiveSegment
from shardlog.testing.clock import ManualClock

VIEWS: Final = ("read", "opened", "opened again")
"""What an examination finds: the same records each time."""
AT_LAST: Final = "at last"
"""What it finds after its own appends."""

_PAUSE_SECONDS: Final = 0.002
_THREADS: Final = 3


def write(channel: Channel, path: str, plan: Plan) -> None:
    """Open, append by a plan, close; begins when told to."""
    await_go(channel)
    _write(channel, path, plan)


def _write(channel: Channel, path: str, plan: Plan) -> None:
    writer = Writer(channel, path, plan)

    def run() -> None:
        if writer.open():
            writer.appends(range(plan.first, plan.first + plan.appends))
            writer.close()

    telling_trouble(channel, run)


def write_in_threads(channel: Channel, path: str, plan: Plan) -> None:
    """The same in several threads, whose appends are committed together. What one meets, all do."""
    await_go(channel)
    threads = [
        threading.Thread(target=_write, args=(channel, path, replace(plan, who=f"{plan.who}{number}")))
        for number in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def read(channel: Channel, path: str, plan: Plan) -> None:
    """Open to read, and read in every way, several times."""
    await_go(channel)

    def look(what: str, function: Callable[[], object]) -> None:
        try:
            function()
        except shardlog.ShardlogError as error:
            channel.send(("failed", what, type(error).__name__, str(error)))

    def look_around(stream: Stream) -> None:
        look("read", lambda: tell_records(channel, "on the way", stream.read()))
        look("statistics", stream.statistics)
        for shard in stream.describe().shards:
            iterator = stream.iterator(shard.shard_id, "TRIM_HORIZON")
            look("get records", lambda: stream.get_records(iterator))  # noqa: B023 - called at once

    def open_and_look() -> None:
        with shardlog.open(path, read_only=True) as store:
            look("describe", store.streams)
            look_around(store.stream(STREAM))

    for _ in range(2):
        telling_trouble(channel, lambda: look("open", open_and_look))


def acknowledge_early(channel: Channel, path: str, plan: Plan) -> None:
    """The same, but for a lie: an append is acknowledged before it is made."""
    await_go(channel)
    with shardlog.open(path) as store:
        stream = store.create_stream(STREAM, shards=2, segment_bytes=plan.segment_bytes)
        for number in range(plan.appends):
            channel.send(("begun", plan.who, number))
            channel.send(("acknowledged", plan.who, number, None))
            stream.append(batch(plan.who, number))


def write_without_cancelling(channel: Channel, path: str, plan: Plan) -> None:
    """Write, with an engine that leaves the blocks of failed commits where they are."""
    ActiveSegment.cancel = lambda self, offset: None  # type: ignore[method-assign]
    write(channel, path, plan)


def write_and_remove(channel: Channel, path: str, plan: Plan) -> None:
    """A stream's whole life: append, disable, delete, create it again under the same name, append."""
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
                if not any(is_done(what) for _ in range(TRIES)):
                    return
            if writer.open():
                writer.appends(range(half, plan.first + plan.appends))
                writer.close()

    telling_trouble(channel, run)


def write_and_reshape(channel: Channel, path: str, plan: Plan) -> None:
    """Append, split, append, merge, append; the first two thirds grow old and expire."""
    await_go(channel)
    clock = ManualClock()
    writer = Writer(channel, path, replace(plan, retention=timedelta(hours=1)), clock)
    first, second, third, end = (plan.first + third * plan.appends // 3 for third in range(4))

    def run() -> None:
        if not writer.open():
            return
        writer.appends(range(first, second))
        writer.insist("split", _split)
        writer.appends(range(second, third))
        writer.insist("merge", _merge)
        clock.advance(timedelta(hours=2))
        writer.insist("look ahead", lambda stream: channel.send(("may expire", stream.next_sequence)))
        writer.appends(range(third, end))
        writer.insist("expire", lambda stream: channel.send(("expired", stream.expire(force=True).horizon_after)))
        writer.look()
        writer.close()

    telling_trouble(channel, run)


def _open_shards(stream: Stream) -> list[ShardDescription]:
    shards = [shard for shard in stream.describe().shards if shard.end_sequence is None]
    return sorted(shards, key=lambda shard: shard.hash_range)


def _split(stream: Stream) -> None:
    shards = _open_shards(stream)
    if len(shards) == 2:  # else an attempt before this one did it
        first, end = shards[0].hash_range
        stream.split_shard(shards[0].shard_id, at=(first + end) // 2)


def _merge(stream: Stream) -> None:
    shards = _open_shards(stream)
    if len(shards) == 3:  # likewise
        stream.merge_shards(shards[1].shard_id, shards[2].shard_id)


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
    """Do what one is told, one thing after the other, until told None."""
    writer = Writer(channel, path, plan)
    numbers = itertools.count(plan.first)

    def append_until_full() -> None:
        while writer.append(next(numbers)):
            pass

    actions: dict[str, Callable[..., object]] = {
        "open": writer.open,
        "append": lambda count=1: writer.appends(itertools.islice(numbers, count)),
        "append until full": append_until_full,
        "sync": writer.sync,
        "look": writer.look,
        "follow": lambda: writer.attempt("follow", _follow),
        "expire": lambda: writer.attempt("expire", lambda stream: stream.expire(force=True)),
        "close": writer.close,
        "limit": lambda kind, value: resource.setrlimit(kind, (value, resource.getrlimit(kind)[1])),
        "limit files": lambda more: resource.setrlimit(
            resource.RLIMIT_NOFILE, (_lowest_free_descriptor() + more, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        ),
        "lift": lambda kind: resource.setrlimit(kind, (resource.getrlimit(kind)[1],) * 2),
    }
    await_go(channel)
    while (order := channel.receive()) is not None:
        action, *arguments = order
        telling_trouble(channel, lambda: actions[action](*arguments))  # noqa: B023 - called at once
        channel.send(("obeyed", action))


def _follow(stream: Stream) -> None:
    for _ in stream.read("LATEST", follow=True, timeout=0.01):
        pass


def _lowest_free_descriptor() -> int:
    """The next file will have this number, which is what a limit on files is compared with."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


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

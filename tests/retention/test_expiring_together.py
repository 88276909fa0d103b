"""Several who expire one stream, while others append, read and ask: nothing fails, and nothing is said twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.retention.aging import DAY, TEXT, Aging
from tests.support.background import Background
from tests.support.children import Channel, Children
from tests.support.history import change, numbers, records_only

import shardlog
from shardlog import ShardClosed, Store, Stream, TrimmedData
from shardlog.clock import datetime_of
from shardlog.testing.clock import ManualClock

CAP = 6 * 16384
APPENDS = 50


def expire_until_told(channel: Channel, path: str) -> None:
    """Expire by bytes again and again; tells how much was removed."""
    with shardlog.open(path) as store:
        stream = store.stream("s")
        channel.send("open")
        assert channel.receive() == "go"
        stop = threading.Event()
        thread = threading.Thread(target=lambda: channel.receive() and stop.set(), daemon=True)
        thread.start()
        segments = 0
        while not stop.is_set():
            segments += stream.expire().segments
        thread.join()
        channel.send(segments)


def until(stop: threading.Event, action: Callable[[], object]) -> int:
    """Do it until told to stop; how often it was done."""
    count = 0
    while not stop.is_set() or not count:
        action()
        count += 1
    return count


def test_threads_and_processes_expire_while_others_append_and_read(store: Store, children: Children) -> None:
    """By bytes, so that segments go all the time; who reads gets records or TrimmedData, who asks gets an answer."""
    stream = Aging(store, ManualClock(), retention=None, retention_bytes=CAP).stream
    child = children.start(expire_until_told, store.path)
    assert child.receive() == "open"
    child.send("go")
    stop = threading.Event()

    def read() -> None:
        found: list[int] = []
        try:
            for record in stream.read():
                found += numbers([record])
        except TrimmedData:
            pass
        assert found == list(range(found[0], found[0] + len(found))) if found else True

    def ask() -> None:
        statistics = stream.statistics()
        assert statistics.trim_horizon <= statistics.next_sequence
        assert stream.throughput().since <= datetime.now(UTC)
        shard_id = stream.describe().shards[-1].shard_id
        stream.iterator(shard_id, "AT_TIMESTAMP", timestamp=datetime_of(0))
        try:
            stream.split_shard(shard_id)
        except ShardClosed:
            return
        left, right = [shard.shard_id for shard in stream.describe().shards if shard.end_sequence is None]
        stream.merge_shards(left, right)

    helpers = [Background(until, stop, action) for action in (stream.expire, stream.expire, read, ask)]
    try:
        for number in range(APPENDS):
            stream.append([change(number, TEXT)])
    finally:
        stop.set()
    for helper in helpers:
        assert helper.result() > 0
    child.send("stop")
    assert child.receive() > 0
    assert child.wait() == 0
    stream.expire()
    kept = numbers(stream.read())
    assert kept == list(range(kept[0], APPENDS))
    assert stream.statistics().bytes <= CAP


@pytest.mark.parametrize("method", ["_ages", "_trim"])
def test_a_pass_that_comes_second_removes_nothing(aging: Aging, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Another one expired the same segments just before it looked at them, or just before it moved the horizon."""
    retention = aging.stream._stream.retention
    aging.fill(3)
    aging.clock.advance(2 * DAY)
    aging.fill(2)
    real = getattr(retention, method)
    first: list[shardlog.Trimmed] = []

    def overtaken(*arguments: object) -> object:
        monkeypatch.undo()
        first.append(aging.stream.expire())
        return real(*arguments)

    monkeypatch.setattr(retention, method, overtaken)
    second = aging.stream.expire()
    assert first[0].segments == 3
    assert second.horizon_after == first[0].horizon_after == aging.stream.trim_horizon
    assert second.held_back is None


def expire_once(channel: Channel, path: str, wall_us: int) -> None:
    """One forced pass."""
    with shardlog.open(path, clock=ManualClock(datetime_of(wall_us))) as store:
        channel.send(store.stream("s").expire(force=True))


def test_a_process_sees_what_another_one_expired(aging: Aging, timed_store: Store, children: Children) -> None:
    """The horizon, the description, the statistics, and its own next pass."""
    stream: Stream = aging.stream
    aging.fill(4)
    (parent,) = stream.describe().shards
    child_id = stream.roll_shard(parent.shard_id)
    aging.clock.advance(2 * DAY)
    aging.fill(2)
    trimmed = children_result(children, timed_store, aging)
    assert trimmed.horizon_before == 1
    assert trimmed.segments >= 4
    assert stream.trim_horizon == trimmed.horizon_after
    assert [shard.shard_id for shard in stream.describe().shards] == [child_id]
    assert stream.statistics().records == 2
    assert numbers(stream.read()) == [4, 5]
    with pytest.raises(TrimmedData):
        stream.read(1)
    assert stream.expire().segments == 0
    appended = aging.fill(1)
    assert records_only(stream.read(appended[0]))[0].sequence == appended[0]


def children_result(children: Children, store: Store, aging: Aging) -> shardlog.Trimmed:
    """What a forced pass in another process did."""
    child = children.start(expire_once, store.path, aging.clock.wall_us())
    trimmed = child.receive()
    assert child.wait() == 0
    assert isinstance(trimmed, shardlog.Trimmed)
    return trimmed


def test_a_stream_that_another_process_deleted(aging: Aging, timed_store: Store, children: Children) -> None:
    """Its next pass says so, in an error of ours."""
    aging.fill(3)
    child = children.start(delete_stream, timed_store.path)
    assert child.receive() == "deleted"
    assert child.wait() == 0
    assert not Path(timed_store.path, "streams", "s").exists()
    aging.clock.advance(2 * DAY)
    with pytest.raises(shardlog.ShardlogError):
        aging.stream.expire(force=True)


def delete_stream(channel: Channel, path: str) -> None:
    """Delete the stream."""
    with shardlog.open(path) as store:
        store.delete_stream("s")
    channel.send("deleted")

"""The background thread of a store: it expires and follows the load while nobody appends, and ends with its store."""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.retention.aging import DAY, Aging
from tests.support.background import Background, wait_until
from tests.support.children import Channel, Children
from tests.support.faults import FaultyFiles, failing, open_with
from tests.support.history import change, numbers

import shardlog
from shardlog import Closed, InvalidArgument, ReadOnly, ShardingPolicy, Store
from shardlog.testing.clock import ManualClock

SHORT = timedelta(seconds=1)
"""A retention whose segments are looked at ten times a second."""


@pytest.fixture
def maintained(store_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A store on a manual clock, with its thread."""
    with shardlog.open(store_path, maintenance=True, clock=clock) as store:
        yield store
    assert maintenance_threads() == []


def maintenance_threads() -> list[threading.Thread]:
    """Those that run."""
    return [thread for thread in threading.enumerate() if thread.name == "shardlog-maintenance"]


def test_idle_streams_expire_by_themselves(maintained: Store, clock: ManualClock) -> None:
    """Every stream that was opened through the store; records of others stay until somebody opens those."""
    streams = [Aging(maintained, clock, name, retention=SHORT) for name in ("a", "b", "c")]
    for aging in streams:
        aging.fill(1)
    streams[2].stream.close()
    clock.advance(2 * SHORT)
    for aging in streams[:2]:
        wait_until(lambda aging=aging: aging.stream.statistics().records == 0)
        wait_until(lambda aging=aging: len(aging.segments) == 1)
    assert len(streams[2].segments) == 1
    reopened = maintained.stream("c")
    wait_until(lambda: reopened.statistics().records == 0)


def test_a_pass_that_is_held_back_is_told(
    maintained: Store, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log; nothing is removed, and a forced pass by hand goes through beside the thread."""
    aging = Aging(maintained, clock, retention=SHORT)
    aging.fill(4)
    clock.advance(2 * SHORT)
    with caplog.at_level(logging.WARNING, "shardlog"):
        wait_until(lambda: "sealed segments" in caplog.text)
    assert numbers(aging.stream.read()) == [0, 1, 2, 3]
    assert aging.stream.expire(force=True).segments >= 4


def test_cold_shards_merge_while_nobody_appends(store_path: Path) -> None:
    """An idle stream goes back to the fewest shards that its policy allows."""
    window = timedelta(milliseconds=400)
    with shardlog.open(store_path, maintenance=True) as store:
        policy = ShardingPolicy(window=window, cooldown=window, min_shards=2)
        stream = store.create_stream("s", retention=None, sharding=policy, shards=6)
        wait_until(lambda: sum(shard.end_sequence is None for shard in stream.describe().shards) == 2)


def test_an_error_does_not_end_the_thread(
    store_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the stream; the next pass finds the disk well again, and the other streams got theirs."""
    files = FaultyFiles()
    with open_with(store_path, files, clock=clock) as store:
        store.start_maintenance()
        one, other = (Aging(store, clock, name, retention=SHORT) for name in ("one", "other"))
        fault = files.arm(lambda step: step.operation == "create" and "/one/" in step.path, failing, times=10**9)
        one.fill(1)
        other.fill(1)
        clock.advance(2 * SHORT)
        wait_until(lambda: "maintenance failed" in caplog.text)
        wait_until(lambda: other.stream.statistics().records == 0)
        assert "/one/" in caplog.text
        assert numbers(one.stream.read()) == [0]
        fault.times = 0
    with shardlog.open(store_path, maintenance=True, clock=clock) as store:
        stream = store.stream("one")
        wait_until(lambda: stream.statistics().records == 0)


def delete_stream(channel: Channel, path: str, name: str) -> None:
    """Delete a stream that others have open."""
    with shardlog.open(path) as store:
        store.delete_stream(name)
    channel.send("deleted")


def test_a_stream_deleted_elsewhere_does_not_end_the_thread(
    maintained: Store, clock: ManualClock, children: Children, caplog: pytest.LogCaptureFixture
) -> None:
    """Its directory is gone; the others are looked after as before."""
    gone, other = (Aging(maintained, clock, name, retention=SHORT) for name in ("gone", "other"))
    gone.fill(2)
    other.fill(1)
    child = children.start(delete_stream, maintained.path, "gone")
    assert child.receive() == "deleted"
    assert child.wait() == 0
    clock.advance(2 * SHORT)
    wait_until(lambda: "/gone/" in caplog.text)
    wait_until(lambda: other.stream.statistics().records == 0)
    other.fill(1)
    clock.advance(2 * SHORT)
    wait_until(lambda: other.stream.statistics().records == 0)


def test_closing_waits_for_a_pass_under_way(store_path: Path, clock: ManualClock) -> None:
    """The thread is gone when `close` returns, and so are its streams' files; closing twice is harmless."""
    files = FaultyFiles()
    store = open_with(store_path, files, clock=clock)
    store.start_maintenance()
    store.start_maintenance()
    assert len(maintenance_threads()) == 1
    aging = Aging(store, clock, retention=SHORT)
    aging.fill(2)
    reached, release = threading.Event(), threading.Event()

    def hold_up() -> None:
        reached.set()
        assert release.wait(20)

    files.arm(lambda step: step.operation == "create", hold_up)
    clock.advance(2 * SHORT)
    assert reached.wait(20)
    closing = Background(store.close)
    assert closing.is_running
    release.set()
    closing.result()
    store.close()
    assert maintenance_threads() == []
    with pytest.raises(Closed):
        aging.stream.expire()
    with pytest.raises(Closed):
        store.start_maintenance()


def test_closing_one_stream_ends_its_maintenance_only(maintained: Store, clock: ManualClock) -> None:
    """Over and over, in the middle of passes."""
    other = Aging(maintained, clock, "other", retention=SHORT)
    stream = maintained.create_stream("s", retention=SHORT, segment_bytes=16384)
    for number in range(20):
        stream.append([change(number, "")])
        clock.advance(2 * SHORT)
        stream.close()
        stream = maintained.stream("s")
    other.fill(1)
    clock.advance(2 * SHORT)
    wait_until(lambda: other.stream.statistics().records == 0)


def test_who_only_reads_maintains_nothing(store: Store) -> None:
    """The two options exclude each other."""
    with pytest.raises(InvalidArgument):
        shardlog.open(store.path, read_only=True, maintenance=True)
    with shardlog.open(store.path, read_only=True) as reader, pytest.raises(ReadOnly):
        reader.start_maintenance()


def fork_under_maintenance(channel: Channel, path: str) -> None:
    """Fork again and again while passes are under way; the child of a fork closes what it inherited."""
    clock = ManualClock()
    store = shardlog.open(path, maintenance=True, clock=clock)
    aging = Aging(store, clock, retention=SHORT)
    for number in range(10):
        aging.stream.append([change(number, "")])
        clock.advance(2 * SHORT)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with pytest.raises(Closed):
                    aging.stream.expire()
                with pytest.raises(Closed):
                    aging.stream.append([change(0, "")])
                store.close()
                with shardlog.open(path + "-2", maintenance=True, clock=clock) as own:
                    Aging(own, clock, f"s{number}", retention=SHORT).fill(1)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        _, waited = os.waitpid(pid, 0)
        assert waited == 0
    aging.stream.append([change(99, "")])
    assert numbers(aging.stream.read())[-1] == 99
    aging.stream.expire(force=True)
    aging.stream.append([change(100, "")])
    clock.advance(2 * SHORT)
    wait_until(lambda: aging.stream.statistics().records == 0)
    store.close()
    channel.send("closed")


def test_a_fork_while_the_thread_runs(store_path: Path, children: Children) -> None:
    """The parent's thread goes on; the child has none, closes cleanly, and may have one for a store of its own."""
    child = children.start(fork_under_maintenance, str(store_path))
    assert child.receive() == "closed"
    assert child.wait() == 0


def test_retention_set_elsewhere_is_followed(maintained: Store, clock: ManualClock, children: Children) -> None:
    """The thread asks the stream, not its own picture of it."""
    aging = Aging(maintained, clock, retention=SHORT)
    child = children.start(set_retention, maintained.path)
    assert child.receive() == "set"
    assert child.wait() == 0
    aging.fill(1)
    clock.advance(2 * SHORT)
    aging.fill(2)
    clock.advance(DAY / 2)
    assert aging.stream.expire().segments == 0
    assert numbers(aging.stream.read()) == [0, 1, 2]


def set_retention(channel: Channel, path: str) -> None:
    """Keep records for a day."""
    with shardlog.open(path) as store:
        store.stream("s").set_retention(DAY)
    channel.send("set")

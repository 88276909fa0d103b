"""Processes that consume a stream under load, and that are killed or frozen while they do. See `handled`."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tests.processes.handled import Journal
from tests.support.background import wait_until
from tests.support.children import Channel, Child, Children
from tests.support.history import new_stream

import shardlog
from shardlog import Batch, Change, LeaseLost, Stream
from shardlog.consumer.environment import Rows
from shardlog.consumer.leases import Fence

GROUP: Final = "g"
MAX_RECORDS: Final = 20
WAIT: Final = timedelta(milliseconds=10)
APPENDS_PER_SECOND: Final = 100
RESHARDS_PER_SECOND: Final = 4
SHARDS_MAX: Final = 6
KEYS: Final = 8
WORK_SECONDS: Final = 0.04
"""How long a worker takes to handle a batch, so that many are in hand when they are killed."""


def make_stream(path: Path, shards: int = 4) -> None:
    """A store with a stream to consume, and nobody who has it open."""
    with shardlog.open(path) as store:
        new_stream(store, shards=shards, partition_key="id")


def item(key: str, version: int) -> Change:
    """A new version of an item."""
    return Change.insert(keys={"id": key}, new={"id": key, "version": version})


def consume(channel: Channel, path: Path, journal_path: Path, name: str, life: str, lease: timedelta) -> None:
    """A worker that handles, then checkpoints, until SIGTERM."""
    journal = Journal(journal_path)
    with shardlog.open(path) as store:
        worker = store.stream("s").group(GROUP).worker(name, lease_duration=lease)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        channel.send("open")
        with worker:
            for number, batch in enumerate(worker.batches(MAX_RECORDS, WAIT)):
                if number == 0:
                    channel.send("at work")
                _handle(batch, journal, life, lambda: time.sleep(WORK_SECONDS))


def _handle(batch: Batch, journal: Journal, life: str, handled: Callable[[], object] = lambda: None) -> None:
    """Note a batch, checkpoint it, and note what came of that."""
    sequences = [record.sequence for record in batch.records]
    journal.note("handled", life, batch.shard_id, sequences)
    handled()
    try:
        batch.checkpoint()
    except LeaseLost:
        journal.note("lost", life, batch.shard_id, sequences)
    else:
        journal.note("checkpointed", life, batch.shard_id, sequences)


def consume_on_command(
    channel: Channel, path: Path, journal_path: Path, life: str, lease: timedelta, has_fences: bool
) -> None:
    """A worker that handles one batch, says so, and checkpoints when told to; without fences it knows no loss."""
    if not has_fences:
        pytest.MonkeyPatch().setattr(Fence, "admits", lambda *_: True)
    journal = Journal(journal_path)
    with (
        shardlog.open(path) as store,
        store.stream("s").group(GROUP).worker(life, lease_duration=lease) as worker,
    ):
        batch = next(iter(worker.batches(MAX_RECORDS, WAIT)))
        _handle(batch, journal, life, lambda: (channel.send("handled"), channel.receive()))


def stop_inside_a_transaction(channel: Channel, path: Path, journal_path: Path, life: str, lease: timedelta) -> None:
    """A worker that stops itself (SIGSTOP) while it checkpoints its first batch, in the middle of the transaction."""
    journal = Journal(journal_path)
    put_lease = Rows.put_lease

    def stop(rows: Rows, *arguments: Any) -> None:
        put_lease(rows, *arguments)
        channel.send("stops")
        os.kill(os.getpid(), signal.SIGSTOP)

    with (
        shardlog.open(path) as store,
        store.stream("s").group(GROUP).worker(life, lease_duration=lease) as worker,
        pytest.MonkeyPatch.context() as patch,
    ):
        batch = next(iter(worker.batches(MAX_RECORDS, WAIT)))
        _handle(batch, journal, life, lambda: patch.setattr(Rows, "put_lease", stop))
        patch.undo()


def checkpoint_first(channel: Channel, path: Path, journal_path: Path, life: str) -> None:
    """A program that does it wrong: it checkpoints, then handles, and dies in between, at its third batch."""
    journal = Journal(journal_path)
    worker = shardlog.open(path).stream("s").group(GROUP).worker(life)
    for number, batch in enumerate(worker.batches(MAX_RECORDS, WAIT)):
        batch.checkpoint()
        if number == 2:
            channel.send("dies")
            os.kill(os.getpid(), signal.SIGKILL)
        sequences = [record.sequence for record in batch.records]
        journal.note("handled", life, batch.shard_id, sequences)
        journal.note("checkpointed", life, batch.shard_id, sequences)


def append_paced(channel: Channel, path: Path, life: str) -> None:
    """Load: appends of 1 to 4 new versions of its own items, so many a second, for ever."""
    stream = shardlog.open(path).stream("s")
    channel.send("open")
    number = 0
    while True:
        stream.append([item(f"{life}/{(number + index) % KEYS}", number) for index in range(1 + number % 4)])
        number += 1
        time.sleep(1 / APPENDS_PER_SECOND)


def reshard_paced(channel: Channel, path: Path, seed: int) -> None:
    """Splits and merges, so many a second, for ever."""
    choices = random.Random(seed)
    stream = shardlog.open(path).stream("s")
    channel.send("open")
    while True:
        reshard(stream, choices)
        time.sleep(1 / RESHARDS_PER_SECOND)


def reshard(stream: Stream, choices: random.Random) -> None:
    """Split a shard, or merge two neighbours."""
    found = [shard for shard in stream.describe().shards if shard.end_sequence is None]
    by_range = sorted(found, key=lambda shard: shard.hash_range)
    if len(by_range) == 1 or (len(by_range) < SHARDS_MAX and choices.random() < 0.5):
        chosen = choices.choice(by_range)
        stream.split_shard(chosen.shard_id, sum(chosen.hash_range) // 2)
    else:
        left = choices.randrange(len(by_range) - 1)
        stream.merge_shards(by_range[left].shard_id, by_range[left + 1].shard_id)


class Crowd:
    """The processes of a test, by name. Who is killed may be started again, under its name, in a new life."""

    def __init__(self, children: Children, path: Path, lease: timedelta) -> None:
        self.path = path
        self.journal_path = path.with_name("journal")
        self.journal = Journal(self.journal_path)
        self._children = children
        self._lease = lease
        self._running: dict[str, tuple[str, Child]] = {}
        self._lives = 0
        self.frozen: dict[str, float] = {}
        """Who is frozen, and when it is due to be continued, by the monotonic clock."""

    def start_worker(self, name: str) -> None:
        """Start a worker."""
        life = self._new_life(name)
        self._start(name, life, consume, self.path, self.journal_path, name, life, self._lease)

    def start_writer(self, name: str) -> None:
        """Start a writer."""
        life = self._new_life(name)
        self._start(name, life, append_paced, self.path, life)

    def start_resharder(self, name: str, seed: int) -> None:
        """Start who splits and merges."""
        self._start(name, self._new_life(name), reshard_paced, self.path, seed)

    def kill(self, name: str) -> None:
        """SIGKILL."""
        life, child = self._running.pop(name)
        child.kill()
        self.journal.note("killed", life)

    def freeze(self, name: str, duration: timedelta) -> None:
        """SIGSTOP; due to be continued after so long."""
        life, child = self._running[name]
        os.kill(child.pid, signal.SIGSTOP)
        self.wait_stopped(name)
        self.journal.note("frozen", life)
        self.frozen[name] = time.monotonic() + duration.total_seconds()

    def wait_stopped(self, name: str) -> None:
        """Wait until a process stands still."""
        stat = Path(f"/proc/{self._running[name][1].pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.frozen.pop(name, None)
        os.kill(self._running[name][1].pid, signal.SIGCONT)

    def thaw_who_is_due(self) -> None:
        """SIGCONT for all that were frozen long enough."""
        for name in [name for name, due in self.frozen.items() if time.monotonic() >= due]:
            self.thaw(name)

    def take(self, name: str, child: Child) -> None:
        """A process that was started elsewhere; its life has its name."""
        self._running[name] = name, child

    def wait_at_work(self, name: str) -> None:
        """Wait until a worker handles its first batch."""
        assert self._running[name][1].receive() == "at work"

    def end(self, name: str) -> None:
        """SIGTERM: a worker ends by itself, and cleanly."""
        child = self._running.pop(name)[1]
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait() == 0

    def _new_life(self, name: str) -> str:
        self._lives += 1
        return f"{name}#{self._lives}"

    def _start(self, name: str, life: str, function: Callable[..., object], *arguments: object) -> None:
        child = self._children.start(function, *arguments)
        assert child.receive() == "open"
        self._running[name] = life, child

"""A worker: takes its share of a group's leases, reads for them, and gives batches to the program.

A thread cycles (`coordinator`); the program's own thread reads and delivers (`intake`), so nothing is read while the
program is busy. What was delivered and not checkpointed comes again: to the next call of `batches`, or to the worker
that has the lease next.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, TypeVar, get_args

from shardlog.clock import MICROSECOND
from shardlog.consumer.assignment import Me
from shardlog.consumer.bell import Bell, called_at_sigterm
from shardlog.consumer.coordinator import Coordinator, Held
from shardlog.consumer.intake import Intake
from shardlog.consumer.leases import LeaseTable
from shardlog.consumer.source import Source
from shardlog.errors import Closed, InvalidArgument, LeaseLost, ShardlogError
from shardlog.files.protocol import LockFile
from shardlog.format.record import Record
from shardlog.model import StreamDescription
from shardlog.stream.log_reader import OnDamage

RECORDS_MAX: Final = 10_000
CYCLE_MAX: Final = timedelta(seconds=1)
CYCLES_PER_LEASE: Final = 6
ATTEMPTS: Final = 10
BACK_OFF_FIRST: Final = timedelta(milliseconds=100)
BACK_OFF_MAX: Final = timedelta(seconds=30)

Result = TypeVar("Result")

_log = logging.getLogger("shardlog")


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one shard, in order."""

    shard_id: str
    records: list[Record]
    _held: Held
    _checkpoint: Callable[[Held, int], None]

    @property
    def is_lost(self) -> bool:
        """Whether the lease is known to be another worker's by now."""
        return self._held.is_lost

    def checkpoint(self, sequence: int | None = None) -> None:
        """Everything up to a record of this batch (None: to its last) was handled, and does not come again.

        Durable when it returns; a checkpoint never goes back. Raises LeaseLost where another worker has the shard now,
        InvalidArgument for a number that is not of this batch.
        """
        first, last = self.records[0].sequence, self.records[-1].sequence
        if sequence is None:
            sequence = last
        elif type(sequence) is not int or not first <= sequence <= last:
            raise InvalidArgument(f"sequence: expected one of this batch, {first} to {last}, found {sequence!r}")
        self._checkpoint(self._held, sequence)


Handler = Callable[[Batch], object]


class Worker:
    """One of a group's workers; made by `Group.worker`, a context manager. `stop()` may come from anywhere."""

    def __init__(
        self,
        source: Source,
        table: LeaseTable,
        name: str,
        lease_duration: timedelta,
        lock: LockFile,
        choice: random.Random,
    ) -> None:
        self.name = name
        self._source = source
        self._lease_us = lease_duration // MICROSECOND
        self._cycle_us = min(self._lease_us // CYCLES_PER_LEASE, CYCLE_MAX // MICROSECOND)
        self._table = table
        self._choice = choice
        self._lock = lock
        weakref.finalize(self, lock.close)  # nobody need enter it
        self._me = Me(name, choice.getrandbits(61) + 1)
        self._coordinator = Coordinator(source, table, self._me, self._lease_us, choice)
        self._bell = Bell()
        self._cycle_bell = Bell()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._consuming = threading.Lock()
        self._is_stopping = False
        self._is_closed = False
        self._process = os.getpid()
        self._failure: InvalidArgument | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._described: StreamDescription | None = None
        self._syncs_first = source.describe().durability == "os"
        self._shard_ends: dict[str, int] = {}

    def batches(
        self,
        max_records: int = 500,
        wait: timedelta = timedelta(seconds=1),
        until_drained: bool = False,
        *,
        on_damage: OnDamage = "raise",
    ) -> Iterator[Batch]:
        """Batches of 1 to `max_records` records of one shard each, until `stop()`.

        They also end when the group has handled all of a stream that was disabled, or deleted.
        `wait`: how long records are gathered for a batch at most. `until_drained`: end when everything that is there
        and not another worker's was delivered. What is not checkpointed comes again at the next call. Damage raises
        CorruptLog when all before it was delivered; with "gap" it is logged and skipped.

        Raises InvalidArgument where a live worker has the same name, or the group was deleted; Closed, StorageFull,
        StorageFailed.
        """
        return self._batches(self._intake(max_records, wait, on_damage), until_drained, _Over())

    def run(
        self,
        handler: Handler,
        *,
        max_records: int = 500,
        wait: timedelta = timedelta(seconds=1),
        until_drained: bool = False,
        attempts: int = ATTEMPTS,
        on_damage: OnDamage = "raise",
    ) -> None:
        """Give each batch to `handler` and checkpoint it, until `stop()` or SIGTERM.

        A batch whose handler raises is given to it again, after a pause that doubles; after so many attempts the
        handler's error is raised, and the batch stays with the group. Leases are given back on the way out. The other
        arguments are those of `batches`.
        """
        if type(attempts) is not int or attempts < 1:
            raise InvalidArgument(f"attempts: expected 1 or more, found {attempts!r}")
        with called_at_sigterm(self.stop), self:
            for batch in self.batches(max_records, wait, until_drained, on_damage=on_damage):
                try:
                    if self._handled(handler, batch, attempts):
                        batch.checkpoint()
                except LeaseLost as error:
                    _log.warning("worker %s: %s; whoever has it handles the batch again", self.name, error)

    async def batches_async(
        self,
        max_records: int = 500,
        wait: timedelta = timedelta(seconds=1),
        until_drained: bool = False,
        *,
        on_damage: OnDamage = "raise",
    ) -> AsyncIterator[Batch]:
        """`batches` for asyncio; reading and waiting take a thread of its own."""
        over = _Over()
        batches = self._batches(self._intake(max_records, wait, on_damage), until_drained, over)
        executor = ThreadPoolExecutor(1, f"shardlog-batches-{self.name}")
        try:
            while (batch := await _outcome(executor.submit(next, batches, None))) is not None:
                yield batch
        finally:
            over.is_over = True
            self._bell.ring()
            try:
                await _outcome(executor.submit(batches.close))  # behind what was cancelled
            finally:
                executor.shutdown(wait=False)

    def stop(self) -> None:
        """End `batches` and `run` after the batch in hand. From any thread, or a signal handler."""
        self._is_stopping = True
        self._bell.ring()

    def close(self) -> None:
        """Stop, and give all leases back. Twice is harmless."""
        if os.getpid() != self._process:
            return  # a forked child: the leases are its parent's, and locks may be held for ever
        with self._starting:
            if self._is_closed:
                return
            self._is_closed = True
            thread, self._thread = self._thread, None
        try:
            self.stop()
            self._cycle_bell.ring()
            if thread is not None:
                if self._unsubscribe is not None:
                    self._unsubscribe()
                thread.join()
                with suppress(Closed):
                    self._coordinator.leave()
        finally:
            self._lock.close()  # where it was interrupted, others see that it is gone

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        """Make the worker known, take what leases there are, and look after them in a thread. Once."""
        self._check_open()
        with self._starting:
            self._check_open()
            if self._thread is not None:
                return
            self._join()
            self._unsubscribe = self._source.subscribe(self._bell.ring)
            self._thread = threading.Thread(target=self._cycle, name=f"shardlog-worker-{self.name}", daemon=True)
            self._thread.start()

    def _join(self) -> None:
        self._lock.try_exclusive(self._me.instance)
        self._coordinator.start()
        self._coordinator.cycle()

    def _check_open(self) -> None:
        if self._is_closed or os.getpid() != self._process:
            raise Closed(f"worker {self.name}: it was closed, or inherited through a fork")

    def _cycle(self) -> None:
        while not self._is_closed:
            self._cycle_bell.wait(self._cycle_us)
            if self._is_closed:
                return
            before = self._coordinator.held
            try:
                self._coordinator.cycle()
            except Closed:
                self.stop()
                return
            except InvalidArgument as error:
                self._failure = error
                self._bell.ring()
            except ShardlogError as error:
                _log.error("worker %s: looking after its leases failed, and is tried again: %s", self.name, error)
            else:
                self._failure = None
            if self._coordinator.held != before or self._coordinator.is_finished:
                self._bell.ring()

    def _intake(self, max_records: int, wait: timedelta, on_damage: OnDamage) -> Intake:
        if type(max_records) is not int or not 1 <= max_records <= RECORDS_MAX:
            raise InvalidArgument(f"max_records: expected 1 to {RECORDS_MAX}, found {max_records!r}")
        if not isinstance(wait, timedelta) or wait < timedelta(0):
            raise InvalidArgument(f"wait: expected a timedelta, 0 or more, found {wait!r}")
        if on_damage not in get_args(OnDamage):
            raise InvalidArgument(f"on_damage: expected 'raise' or 'gap', found {on_damage!r}")
        return Intake(self._source, max_records, wait // MICROSECOND, on_damage)

    def _batches(self, intake: Intake, until_drained: bool, over: _Over) -> Generator[Batch, None, None]:
        self._start()
        if not self._consuming.acquire(blocking=False):
            raise InvalidArgument(f"worker {self.name}: its batches are being consumed already; take another worker")
        try:
            while not (self._is_stopping or over.is_over):
                batch = self._next(intake, until_drained)
                if batch is not None:
                    yield batch
                elif self._has_ended() or (until_drained and self._is_drained(intake)):
                    return
        finally:
            self._consuming.release()

    def _has_ended(self) -> bool:
        """Whether the group has handled all of a stream that was disabled, or deleted."""
        return self._coordinator.is_finished and self._source.describe().status == "DISABLED"

    def _next(self, intake: Intake, at_once: bool) -> Batch | None:
        """The next batch, or None after waiting for one (or, `at_once`, for another worker) for a while."""
        self._source.describe()  # raises Closed, where it was inherited through a fork as well
        if self._failure is not None:
            raise self._failure
        if not self._coordinator.is_fresh:
            self._coordinator.cycle()  # the process stood still: somebody else may have the leases
        intake.follow(self._coordinator.held.values())
        now_us = self._source.clock.awake_us()
        ready = intake.ready(now_us, at_once)
        if ready is None:
            intake.read(now_us)
            if self._finish_shards(intake):
                return None
            ready = intake.ready(now_us, at_once)
        if ready is not None:
            return Batch(ready[0].shard_id, ready[1], ready[0], self._checkpoint)
        if not (at_once and intake.is_idle):
            due_us = intake.next_due_us()
            rings = self._coordinator.is_quiet and not at_once
            longest_us = self._lease_us if rings and due_us is None else self._cycle_us
            self._bell.wait(longest_us if due_us is None else min(due_us - now_us, longest_us))
        return None

    def _finish_shards(self, intake: Intake) -> bool:
        """Finish the leases of shards that ended and of which all was handled; whether there were any."""
        drained = intake.drained(self._ends())
        for held in drained:
            self._coordinator.finish(held)
        return bool(drained)

    def _ends(self) -> dict[str, int]:
        """Where the closed shards end that this worker holds."""
        description = self._source.describe()
        if description is not self._described:
            self._described = description
            self._shard_ends = {
                shard.shard_id: shard.end_sequence for shard in description.shards if shard.end_sequence is not None
            }
        return self._shard_ends

    def _is_drained(self, intake: Intake) -> bool:
        """Whether nothing is left that this worker could get."""
        before = self._coordinator.held
        intake.follow(before.values())
        if not intake.is_idle:
            return False
        self._coordinator.cycle()
        if self._coordinator.held != before:  # a lease that was lost and taken again is another one
            return False
        if self._coordinator.has_free:
            self._bell.wait(self._cycle_us)  # somebody is about to take it, or to leave it to us
            return False
        return True

    def _checkpoint(self, held: Held, sequence: int) -> None:
        if self._syncs_first:
            self._source.sync()  # a checkpoint never lies beyond what is durable
        self._coordinator.checkpoint(held, sequence)

    def _handled(self, handler: Handler, batch: Batch, attempts: int) -> bool:
        pause_us = BACK_OFF_FIRST // MICROSECOND
        for attempt in range(1, attempts + 1):
            try:
                handler(batch)
                return True
            except Exception as error:
                if attempt == attempts:
                    raise
                _log.warning(
                    "worker %s: attempt %d of %d at records %d to %d of shard %s failed: %s: %s",
                    *(self.name, attempt, attempts, batch.records[0].sequence, batch.records[-1].sequence),
                    *(batch.shard_id, type(error).__name__, error),
                )
            self._pause(int(pause_us * self._choice.uniform(0.5, 1)))
            pause_us = min(2 * pause_us, BACK_OFF_MAX // MICROSECOND)
            if self._is_stopping or batch.is_lost:
                break
        return False

    def _pause(self, duration_us: int) -> None:
        clock = self._source.clock
        end_us = clock.awake_us() + duration_us
        while not self._is_stopping and (left_us := end_us - clock.awake_us()) > 0:
            self._bell.wait(left_us)


@dataclass(slots=True)
class _Over:
    """Set when the task that iterates was cancelled."""

    is_over: bool = False


async def _outcome(future: Future[Result]) -> Result:
    """What a thread makes of it; cancelled, the thread goes on by itself, and what it gives is nobody's."""
    waiting = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise

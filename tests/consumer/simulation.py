"""Several workers of one group in one thread, interleaved at every lease operation, on a clock that is moved by hand.

The workers are the real ones, without their threads; what those do is a step of the schedule. Before and after each
look at the rows and each transaction, and whenever a worker asks for the shards, the schedule may let others do
something first, or let time pass: that is a worker that stands still in the middle of a cycle. What is drawn depends on
the seed alone.

`Witness` knows what must hold and sees every transaction and every delivery; a schedule that breaks a promise ends with
`BrokenPromise`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from tests.consumer.witness import BrokenPromise, Witness
from tests.support.faults import open_with
from tests.support.history import PADDING, new_stream

from shardlog import Batch, Change, LeaseLost, ShardlogError, Store, Stream
from shardlog.api.groups import _consumers
from shardlog.consumer import Group, LeaseTable, Worker
from shardlog.consumer.assignment import View
from shardlog.consumer.bell import Bell
from shardlog.consumer.environment import Result, Rows
from shardlog.consumer.intake import Intake
from shardlog.files.posix import PosixFiles
from shardlog.format import names
from shardlog.testing.clock import ManualClock
from shardlog.testing.images import scratch_directory

LEASE: Final = timedelta(seconds=30)
RETENTION: Final = timedelta(hours=1)
PAUSE: Final = LEASE / 7
KEYS: Final = 12
WORKERS_MAX: Final = 5
NAMES: Final = "pqrstuvwxyz"
SHARDS_MAX: Final = 6
NESTING_MAX: Final = 2
SETTLING_ROUNDS_MAX: Final = 100


class InterleavedTable(LeaseTable):
    """A lease table that lets others go first, and shows each transaction to the witness."""

    def __init__(self, simulation: Simulation, actor: str) -> None:
        super().__init__(simulation.consumers, simulation.group.name)
        self._simulation = simulation
        self._actor = actor

    def view(self) -> Any:
        self._simulation.between(self._actor)
        view = super().view()
        self._simulation.between(self._actor)
        return view

    def _update(self, operation: Callable[[Rows], Result]) -> Result:
        self._simulation.between(self._actor)

        def seen(rows: Rows) -> Result:
            before = self._simulation.rows(rows)
            result = operation(rows)
            self._simulation.witness.transaction(self._actor, before, self._simulation.rows(rows))
            return result

        with self._simulation.in_transaction():
            result = super()._update(seen)
        self._simulation.between(self._actor)
        return result


class InterleavedSource:
    """The stream, as a worker sees it."""

    def __init__(self, simulation: Simulation, actor: str) -> None:
        self._simulation = simulation
        self._actor = actor

    def describe(self) -> Any:
        self._simulation.between(self._actor)
        return self._simulation.stream.describe()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._simulation.stream, name)


class SilentBell(Bell):
    """Waiting for records takes no time: the schedule's own passes when the schedule says so."""

    def wait(self, timeout_us: int) -> None:
        """Go on at once."""


@dataclass(eq=False)
class Actor:
    """A worker, and the batches that its program has in hand."""

    name: str
    worker: Worker
    intake: Intake
    in_hand: list[Batch] = field(default_factory=list)
    frozen_until_us: int = 0


class Simulation:
    """One schedule. `random` draws everything."""

    def __init__(self, seed: str, store: Store, clock: ManualClock) -> None:
        self.random = random.Random(seed)
        self.trace: list[str] = []
        self.clock = clock
        self.store = store
        self.stream: Stream = new_stream(
            store, shards=self.random.randint(1, 3), retention=RETENTION, partition_key="id", durability="os"
        )
        if self.random.random() < 0.3:
            self.stream.append(self._changes())
        self.group: Group = self.stream.group("g", start=self.random.choice(["TRIM_HORIZON", "LATEST"]))
        self.consumers = _consumers(self.stream._stream, read_only=False)
        self.witness = Witness(self.stream, self.group, LEASE, clock.awake_us)
        self.witness.appended()  # before it may expire
        self.actors: dict[str, Actor] = {}
        self.is_settling = False
        self._busy: list[str] = []
        self._kept: list[Actor] = []
        self._is_in_transaction = False

    def run(self, steps: int) -> None:
        """So many steps, then everybody settles, and everything is finished."""
        self._start_worker()
        for _ in range(steps):
            self.step()
        self.settle()
        self.finish()

    def step(self) -> None:
        """Something happens."""
        events = [self._work] * 16 + [self._append] * 6 + [self._pass_time] * 4 + [self._reshard] * 2
        events += [self._start_worker, self._stop_worker, self._kill_worker, self._freeze_worker]
        if self.random.random() < 0.1:
            events = [self._expire, self._reset]
        self.random.choice(events)()

    def between(self, actor: str) -> None:
        """A place where others may go first."""
        if self._is_in_transaction or self.is_settling or len(self._busy) > NESTING_MAX or actor not in self._busy:
            return
        while self.random.random() < 0.15:
            if self.random.random() < 0.3:
                self._cycle_beside(self.actors[actor])
            else:
                self.step()

    @contextmanager
    def in_transaction(self) -> Iterator[None]:
        """Nobody else can go first."""
        self._is_in_transaction = True
        try:
            yield
        finally:
            self._is_in_transaction = False

    def rows(self, rows: Rows) -> View:
        """The group's rows, in a transaction."""
        name = self.group.name
        group = rows.group(name)
        assert group is not None
        return View(group, rows.leases(name), rows.workers(name))

    def settle(self) -> None:
        """Time passes evenly and nobody dies: the loads come to differ by one at most, and everything is handled."""
        self.is_settling = True
        self._note("settle")
        if not self.actors:
            self._start_worker()
        for actor in self.actors.values():
            actor.frozen_until_us = 0
        self._append()
        for _ in range(SETTLING_ROUNDS_MAX):
            self._round()
            if self.witness.is_balanced(set(self.actors)) and self.witness.is_all_checkpointed():
                break
        else:
            raise BrokenPromise(f"not settled: {self.group.leases()}, {self.group.lag()}, {list(self.actors)}")
        for _ in range(20):
            self._round()
            if not self.witness.is_balanced(set(self.actors)):
                raise BrokenPromise(f"balanced, and then not any more: {self.group.leases()}")

    def finish(self) -> None:
        """When the stream takes no more records, every shard is finished, and no record was left out."""
        self._note("finish")
        self.store.disable_stream(self.stream.name)
        for _ in range(SETTLING_ROUNDS_MAX):
            if self.witness.is_finished():
                break
            self._round()
        else:
            raise BrokenPromise(f"not finished: {self.group.leases()}")
        self.witness.check_all_handled()

    def close(self) -> None:
        """Give up what is left of the workers."""
        for actor in [*self.actors.values(), *self._kept]:
            actor.worker._lock.close()

    def _round(self) -> None:
        for actor in list(self.actors.values()):
            self._cycle(actor)
            while self._deliver(actor):
                pass
            while actor.in_hand:
                self._checkpoint(actor, is_whole=True)
        self.clock.advance(PAUSE)

    def _work(self) -> None:
        actor = self._somebody()
        if actor is None:
            return
        choice = self.random.random()
        if choice < 0.4:
            self._cycle(actor)
        elif choice < 0.7 or not actor.in_hand:
            self._deliver(actor)
        else:
            self._checkpoint(actor, is_whole=self.random.random() < 0.7)

    def _somebody(self) -> Actor | None:
        now_us = self.clock.awake_us()
        able = [
            actor for actor in self.actors.values() if actor.name not in self._busy and actor.frozen_until_us <= now_us
        ]
        return self.random.choice(able) if able else None

    @contextmanager
    def _acting(self, actor: Actor, what: str) -> Iterator[None]:
        if not self.is_settling:
            self._note(f"{actor.name} {what}")
        self._busy.append(actor.name)
        try:
            yield
        finally:
            self._busy.pop()

    def _cycle(self, actor: Actor) -> None:
        with self._acting(actor, "cycles"):
            actor.worker._coordinator.cycle()

    def _cycle_beside(self, actor: Actor) -> None:
        """What a worker's thread does while its program is in the middle of something else."""
        if not actor.worker._coordinator._cycling.locked():
            self._cycle(actor)

    def _deliver(self, actor: Actor) -> bool:
        with self._acting(actor, "delivers"):
            batch = actor.worker._next(actor.intake, True)
            if batch is not None:
                self._note(f"  {batch.shard_id[-4:]} {[record.sequence for record in batch.records]}")
                self.witness.delivery(actor.name, batch)
                actor.in_hand.append(batch)
            return batch is not None

    def _checkpoint(self, actor: Actor, is_whole: bool) -> None:
        batch = actor.in_hand[0]
        last = batch.records[-1].sequence if is_whole else self.random.choice(batch.records).sequence
        if last == batch.records[-1].sequence:
            actor.in_hand.pop(0)
        with self._acting(actor, f"checkpoints {batch.shard_id[-4:]} {last}"):
            try:
                batch.checkpoint(last)
            except LeaseLost:
                self.witness.learned_loss(batch._held)
            if batch.is_lost and batch in actor.in_hand:
                actor.in_hand.remove(batch)

    def _start_worker(self) -> None:
        if len(self.actors) >= WORKERS_MAX:
            return
        taken = {*self.actors, *(actor.name for actor in self._kept if self.is_settling)}
        free = [name for name in NAMES if name not in taken]
        name = self.random.choice(free)
        lock = PosixFiles().open_lock(f"{self.stream._stream.path}/{names.CONSUMERS}/{names.LOCK}")
        table, source = InterleavedTable(self, name), InterleavedSource(self, name)
        worker = Worker(source, table, name, LEASE, lock, random.Random(self.random.random()))
        worker._bell = SilentBell()
        intake = worker._intake(self.random.choice([1, 2, 5]), timedelta(0), "raise")
        actor = Actor(name, worker, intake)
        self.witness.began(name, worker._me.instance)
        self.actors[name] = actor
        with self._acting(actor, "starts"):
            try:
                worker._join()
            except ShardlogError as error:  # one of the name was killed and its lock is held
                self._note(f"  {error}")
                del self.actors[name]
                lock.close()

    def _stop_worker(self) -> None:
        actor = self._somebody()
        if actor is None or len(self.actors) == 1:
            return
        with self._acting(actor, "stops"):
            actor.worker._coordinator.leave()
            actor.worker._lock.close()
        del self.actors[actor.name]

    def _kill_worker(self) -> None:
        able = [actor for actor in self.actors.values() if actor.name not in self._busy]
        if not able:
            return
        actor = self.random.choice(able)
        del self.actors[actor.name]
        if self.random.random() < 0.7:
            self._note(f"{actor.name} is killed")
            actor.worker._lock.close()
            self.witness.died(actor.worker._me.instance)
        else:
            self._note(f"{actor.name} is killed, its lock stays")
            self._kept.append(actor)

    def _freeze_worker(self) -> None:
        actor = self._somebody()
        if actor is not None:
            self._note(f"{actor.name} freezes")
            actor.frozen_until_us = self.clock.awake_us() + self.random.randint(1, 90) * 1_000_000

    def _pass_time(self) -> None:
        pause = self.random.choice([PAUSE, PAUSE, LEASE / 2, LEASE * 1.2])
        self._note(f"{pause.total_seconds():.1f} s pass")
        self.clock.advance(pause)

    def _changes(self) -> list[Change]:
        keys = self.random.choices(range(KEYS), k=self.random.randint(1, 6))
        return [Change.insert(keys={"id": key}, new={"id": key, "text": PADDING}) for key in keys]

    def _append(self) -> None:
        self._note(f"append {self.stream.append(self._changes()).sequences}")
        self.witness.appended()

    def _reshard(self) -> None:
        shards = [shard for shard in self.stream.describe().shards if shard.end_sequence is None]
        shards.sort(key=lambda shard: shard.hash_range)
        place = self.random.randrange(len(shards))
        shard = shards[place]
        if len(shards) < SHARDS_MAX and self.random.random() < 0.5:
            made = self.stream.split_shard(shard.shard_id, sum(shard.hash_range) // 2)
        elif place + 1 < len(shards) and self.random.random() < 0.7:
            made = [self.stream.merge_shards(shard.shard_id, shards[place + 1].shard_id)]
        else:
            made = [self.stream.roll_shard(shard.shard_id)]
        self._note(f"shards {[shard_id[-4:] for shard_id in made]} from {shard.shard_id[-4:]}")

    def _expire(self) -> None:
        self.clock.advance(RETENTION * self.random.choice([0.2, 1.1]))
        self.stream.expire(force=True)
        self._note(f"expired up to {self.stream.trim_horizon}")

    def _reset(self) -> None:
        to = self.random.choice(["TRIM_HORIZON", "LATEST", self.random.randint(1, self.stream.next_sequence)])
        self._note(f"reset to {to}")
        before = self.group._table.view()
        self.group.reset(to)
        after = self.group._table.view()
        self.witness.transaction("reset", before, after)

    def _note(self, what: str) -> None:
        self.trace.append("  " * len(self._busy) + what)


def run_schedule(seed: str, steps: int) -> Simulation:
    """One schedule, from a new stream to the end. Raises BrokenPromise, with what happened before."""
    logger = logging.getLogger("shardlog")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # records expire and names are taken: that is what this is about
    clock = ManualClock()
    try:
        with scratch_directory() as scratch, open_with(f"{scratch}/store", PosixFiles(), clock=clock) as store:
            simulation = Simulation(seed, store, clock)
            try:
                simulation.run(steps)
            except BaseException as error:
                error.add_note(f"schedule {seed!r}:\n" + "\n".join(simulation.trace[-120:]))
                raise
            finally:
                simulation.close()
            return simulation
    finally:
        logger.setLevel(level)

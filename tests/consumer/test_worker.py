"""Workers as a program uses them: batches, `run`, asyncio; how they end, and what they leave behind."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_fork import in_fork, outcome
from tests.support.background import LIMIT_SECONDS, Background, wait_until
from tests.support.children import Channel, Children
from tests.support.history import change, changes, new_stream, numbers

import shardlog
from shardlog import Batch, Closed, CorruptLog, Group, InvalidArgument, LeaseLost, Record, Store, Stream, Worker
from shardlog.consumer import LeaseTable
from shardlog.consumer.assignment import View
from shardlog.testing.clock import ManualClock

AT_ONCE = timedelta(0)
LEASE = timedelta(seconds=30)


def drained(worker: Worker, max_records: int = 500) -> list[Record]:
    """Everything that a worker gets, checkpointed."""
    found = []
    for batch in worker.batches(max_records, AT_ONCE, until_drained=True):
        found += batch.records
        batch.checkpoint()
    return found


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("end", ["disable", "delete"])
def test_a_stream_that_ended_ends_its_workers(store_path: Path, end: str) -> None:
    """Each of them, when all of it was handled; none waits for what cannot come."""
    with shardlog.open(store_path) as store:
        stream = new_stream(store, shards=2)
        group = stream.group("g")
        stream.append(changes(0, 20))
        handled: list[int] = []

        def consume(name: str) -> None:
            with suppress(Closed):  # deleted in this process, it is closed under its users
                group.worker(name).run(lambda batch: handled.extend(numbers(batch.records)), wait=AT_ONCE)

        running = [Background(consume, name) for name in ("one", "two")]
        wait_until(lambda: len(handled) >= 20)
        (store.disable_stream if end == "disable" else store.delete_stream)("s")
        for each in running:
            each.result()
        assert sorted(handled) == list(range(20))


@pytest.mark.parametrize("wrong", [0, -1, 10_001, True, 1.5, "5", None], ids=repr)
def test_max_records_is_checked_at_once(group: Group, wrong: Any) -> None:
    """By each of the three ways to consume; nothing was read yet."""
    with group.worker("w") as worker:
        with pytest.raises(InvalidArgument, match="max_records"):
            worker.batches(wrong)
        with pytest.raises(InvalidArgument, match="max_records"):
            asyncio.run(anext(worker.batches_async(wrong)))  # type: ignore[arg-type]  # it raises
    with pytest.raises(InvalidArgument, match="max_records"):
        group.worker("w").run(print, max_records=wrong)


@pytest.mark.parametrize(
    "wrong", [{"wait": 1}, {"wait": timedelta(seconds=-1)}, {"wait": None}, {"on_damage": "skip"}], ids=repr
)
def test_other_arguments_are_checked_at_once(group: Group, wrong: dict[str, Any]) -> None:
    """And named."""
    with group.worker("w") as worker:
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            worker.batches(**wrong)
        with pytest.raises(InvalidArgument, match=next(iter(wrong))):
            asyncio.run(anext(worker.batches_async(**wrong)))  # type: ignore[arg-type]  # it raises


@pytest.mark.parametrize("wrong", [0, -1, True, "3", None], ids=repr)
def test_a_handler_gets_each_batch_at_least_once(group: Group, stream: Stream, wrong: Any) -> None:
    """With no attempt at all, a batch was neither handled nor checkpointed, and nobody was told."""
    stream.append(changes(0, 1))
    with pytest.raises(InvalidArgument, match="attempts"):
        group.worker("w").run(print, attempts=wrong, until_drained=True)


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "é", None, 7], ids=repr)
def test_names_are_checked(stream: Stream, group: Group, name: Any) -> None:
    """Of workers and of groups."""
    with pytest.raises(InvalidArgument):
        group.worker(name)
    with pytest.raises(InvalidArgument):
        stream.group(name)


@pytest.mark.parametrize("duration", [timedelta(milliseconds=99), timedelta(days=2), 30, None], ids=repr)
def test_a_lease_duration_is_checked(group: Group, duration: Any) -> None:
    """It is a time that makes sense."""
    with pytest.raises(InvalidArgument, match="lease_duration"):
        group.worker("w", lease_duration=duration)


def test_everything_that_is_there_comes_once_and_in_order(group: Group, stream: Stream) -> None:
    """Batches of one shard each, none of them empty or too long; the next worker goes on behind them."""
    for first in range(0, 40, 5):
        stream.append(changes(first, 5))
    with group.worker("w") as worker:
        found: dict[str, list[int]] = {}
        for batch in worker.batches(7, AT_ONCE, until_drained=True):
            assert 1 <= len(batch.records) <= 7
            assert {record.shard_id for record in batch.records} == {batch.shard_id}
            found.setdefault(batch.shard_id, []).extend(record.sequence for record in batch.records)
            batch.checkpoint()
    assert all(sequences == sorted(set(sequences)) for sequences in found.values())
    assert sum(map(len, found.values())) == 40
    assert [lease.owner for lease in group.leases()] == [None, None]
    stream.append([change(100)])
    with group.worker("other") as worker:
        assert numbers(drained(worker)) == [100]


def test_what_was_not_checkpointed_comes_again(group: Group, stream: Stream) -> None:
    """To the next iteration of the same worker, and to the next worker; a part of a batch by itself."""
    stream.append([change(7) for _ in range(4)])
    with group.worker("w") as worker:
        first = next(iter(worker.batches(wait=AT_ONCE, until_drained=True)))
        again = next(iter(worker.batches(wait=AT_ONCE, until_drained=True)))
        assert [record.sequence for record in first.records] == [record.sequence for record in again.records]
        again.checkpoint(again.records[1].sequence)
        assert [len(batch.records) for batch in worker.batches(wait=AT_ONCE, until_drained=True)] == [2]
    with group.worker("other") as worker:
        assert len(drained(worker)) == 2


def test_a_checkpoint_names_a_record_of_its_batch(group: Group, stream: Stream) -> None:
    """And never goes back."""
    stream.append([change(7) for _ in range(4)])
    with group.worker("w") as worker:
        batch = next(iter(worker.batches(wait=AT_ONCE)))
        first, last = batch.records[0].sequence, batch.records[-1].sequence
        for wrong in (first - 1, last + 1, True, "1", 1.5):
            with pytest.raises(InvalidArgument):
                batch.checkpoint(wrong)  # type: ignore[arg-type]  # that is the point
        batch.checkpoint(last)
        batch.checkpoint(first)
        assert last in [lease.checkpoint for lease in group.leases()]


def test_records_are_gathered(group: Group, stream: Stream, clock: ManualClock) -> None:
    """Until the first of them has waited for `wait`; a full batch at once."""
    with group.worker("w") as worker:
        batches = worker.batches(3, timedelta(seconds=10))
        stream.append([change(7)])
        following = Background(next, batches)
        stream.append([change(7), change(7)])
        assert len(following.result().records) == 3
        stream.append([change(7)])
        following = Background(next, batches)
        stream.append([change(7)])
        wait_until(lambda: worker._bell is not None and following.is_running)
        clock.advance(timedelta(seconds=11))
        worker._bell.ring()
        assert 1 <= len(following.result().records) <= 2


def test_stop_ends_batches_from_another_thread(group: Group, stream: Stream) -> None:
    """While they wait, and after the batch in hand; then for good."""
    stream.append([change(1)])
    with group.worker("w") as worker:
        iteration = worker.batches(wait=AT_ONCE)
        next(iteration).checkpoint()
        waiting = Background(lambda: list(iteration))
        worker.stop()
        assert waiting.result() == []
        assert list(worker.batches()) == []


def test_batches_are_consumed_by_one(group: Group, stream: Stream) -> None:
    """A second iteration at the same time is refused; after the first it is welcome."""
    stream.append([change(1), change(2)])
    with group.worker("w") as worker:
        first = worker.batches(1, AT_ONCE)
        next(first)
        with pytest.raises(InvalidArgument, match="being consumed already"):
            next(worker.batches())
        first.close()  # type: ignore[attr-defined]  # a generator
        assert next(iter(worker.batches(1, AT_ONCE)))


def test_a_name_is_taken_once(group: Group) -> None:
    """By a live worker; it is free when that has left or was killed, and who was refused leaves nothing open."""
    with group.worker("w"):
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="runs already"):
                group.worker("w").__enter__()
        gc.collect()
        before = descriptors()
        for _ in range(5):
            with pytest.raises(InvalidArgument, match="runs already"):
                group.worker("w").__enter__()
        gc.collect()
        assert descriptors() == before
    with group.worker("w"):
        pass
    killed = group.worker("w")
    killed._join()
    killed._lock.close()
    with group.worker("w"):
        assert {lease.owner for lease in group.leases()} == {"w"}


def test_a_name_that_was_taken_meanwhile_is_given_up(group: Group, stream: Stream, clock: ManualClock) -> None:
    """A worker stood still, was taken for gone, and another one has its name: it ends, and the other one stays.

    They took the name, and all leases with it, from each other at every cycle.
    """
    stream.append(changes(0, 4))
    frozen = group.worker("w", lease_duration=LEASE)
    frozen._join()
    witness = group.worker("x", lease_duration=LEASE)
    witness._join()
    clock.advance(LEASE)
    witness._coordinator.cycle()
    successor = group.worker("w", lease_duration=LEASE)
    successor._join()
    held = frozen._coordinator.held
    with pytest.raises(InvalidArgument, match="runs already"):
        frozen._coordinator.cycle()
    assert frozen._coordinator.held == {}
    assert all(lease.is_lost for lease in held.values())
    successor._coordinator.cycle()
    assert len(successor._coordinator.held) + len(witness._coordinator.held) == 2
    for worker in (frozen, witness, successor):
        worker.close()


def test_who_stood_still_while_looking_saw_others_move_just_then(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a look is that after it: what was renewed during the look was taken for expired at the next."""
    group = new_stream(store, name="one").group("g")
    owner = group.worker("o", lease_duration=LEASE)
    owner._join()
    observer = group.worker("w", lease_duration=LEASE)
    observer._join()
    real = LeaseTable.view

    def slow_view(table: LeaseTable) -> View:
        monkeypatch.undo()
        clock.advance(LEASE)
        owner._coordinator.cycle()
        return real(table)

    monkeypatch.setattr(LeaseTable, "view", slow_view)
    observer._coordinator.cycle()
    observer._coordinator.cycle()
    owner._coordinator.cycle()
    assert (len(owner._coordinator.held), observer._coordinator.held) == (1, {})
    for worker in (owner, observer):
        worker.close()


def test_nothing_more_comes_of_a_lost_lease(group: Group, stream: Stream) -> None:
    """From the moment on that its worker is told; the next batches were delivered until the next cycle."""
    stream.append([change(7) for _ in range(6)])
    worker = group.worker("w")
    worker._join()
    intake = worker._intake(2, AT_ONCE, "raise")
    batch = worker._next(intake, True)
    assert batch is not None
    group.reset("TRIM_HORIZON")
    with pytest.raises(LeaseLost):
        batch.checkpoint()
    assert worker._next(intake, True) is None
    worker.close()


def test_a_closed_worker_takes_nothing_any_more(group: Group, stream: Stream) -> None:
    """What its program's thread is in the middle of does not bring the leases back that it gave up."""
    worker = group.worker("w")
    with worker:
        wait_until(lambda: {lease.owner for lease in group.leases()} == {"w"})
    worker._coordinator.cycle()
    assert {lease.owner for lease in group.leases()} == {None}
    with pytest.raises(Closed):
        next(worker.batches())
    with pytest.raises(Closed):
        worker.__enter__()
    worker.close()


def test_closing_gives_the_lock_up_whatever_happens(
    group: Group, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while it gives its leases back, a worker passes for dead, not for alive."""
    worker = group.worker("w")
    worker.__enter__()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LeaseTable, "leave", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.close()
    with group.worker("w") as other:
        assert {lease.owner for lease in group.leases()} == {"w"}
        assert len(other._coordinator.held) == 2


def test_workers_leave_nothing_open(group: Group, stream: Stream) -> None:
    """Neither locks nor what wakes them; also those that nobody entered."""
    with group.worker("w") as worker:
        drained(worker)
    gc.collect()
    before = descriptors()
    for _ in range(10):
        group.worker("never-entered")
        with group.worker("w") as worker:
            drained(worker)
    del worker
    assert descriptors() <= before


@pytest.mark.parametrize("is_waiting", [True, False])
def test_closing_the_store_ends_batches(group: Group, store: Store, stream: Stream, is_waiting: bool) -> None:
    """With Closed, or cleanly; also where there are records in memory that nobody got yet."""
    stream.append([change(7) for _ in range(4)])
    with group.worker("w") as worker:
        batches = worker.batches(2, AT_ONCE)
        next(batches).checkpoint()
        if is_waiting:
            next(batches).checkpoint()
            waiting = Background(lambda: next(batches, None))
        store.close()
        with suppress(Closed):
            assert (waiting.result() if is_waiting else next(batches, None)) is None


def test_a_deleted_group_ends_its_workers(group: Group, stream: Stream) -> None:
    """With InvalidArgument, though they wait; they delivered on, and an error was logged at every cycle."""
    with group.worker("w", lease_duration=timedelta(milliseconds=300)) as worker:
        waiting = Background(lambda: list(worker.batches()))
        group.delete()
        with pytest.raises(InvalidArgument, match="deleted"):
            waiting.result()


def test_run_handles_and_checkpoints(group: Group, stream: Stream) -> None:
    """Every batch; leases are given back on the way out."""
    stream.append(changes(0, 20))
    found: list[int] = []
    group.worker("w").run(lambda batch: found.extend(numbers(batch.records)), max_records=3, until_drained=True)
    assert sorted(found) == list(range(20))
    assert group.lag().records == 0
    assert {lease.owner for lease in group.leases()} == {None}


def test_run_tries_again_and_then_gives_up(
    group: Group, stream: Stream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After pauses that double, within half and the whole of them; the batch stays with the group."""
    stream.append([change(1)])
    pauses: list[int] = []
    monkeypatch.setattr(Worker, "_pause", lambda worker, duration_us: pauses.append(duration_us))
    tries: list[Batch] = []

    def fails(batch: Batch) -> None:
        tries.append(batch)
        if len(tries) <= 4:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        group.worker("w").run(fails, attempts=4, wait=AT_ONCE)
    assert len(tries) == 4
    assert group.lag().records == 1
    for number, pause_us in enumerate(pauses):
        assert 50_000 << number <= pause_us <= 100_000 << number
    assert caplog.text.count("attempt") == 3
    group.worker("w").run(fails, attempts=1, until_drained=True)
    assert group.lag().records == 0


def test_run_goes_on_after_a_lost_lease(group: Group, stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has it handles the batch again; here, itself."""
    stream.append([change(1)])
    handled: list[int] = []

    def handle(batch: Batch) -> None:
        handled.extend(numbers(batch.records))
        if len(handled) == 1:
            group.reset("TRIM_HORIZON")

    with caplog.at_level(logging.WARNING):
        worker = group.worker("w", lease_duration=timedelta(milliseconds=300))
        running = Background(lambda: worker.run(handle, wait=AT_ONCE))
        wait_until(lambda: group.lag().records == 0)
        worker.stop()
        running.result()
    assert handled == [1, 1]
    assert "handles the batch again" in caplog.text


def test_run_stops_at_damage_or_passes_over_it(store_path: Path) -> None:
    """As `batches` does: raised when all before it was handled, or, asked to, passed over."""
    with shardlog.open(store_path) as store:
        stream = new_stream(store)
        for number in range(60):
            stream.append([change(number)])
    damaged = min(store_path.glob("streams/*/*/log/*"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with shardlog.open(store_path) as store:
        group = store.stream("s").group("g")
        handled: list[int] = []
        with pytest.raises(CorruptLog):
            group.worker("w").run(lambda batch: handled.extend(numbers(batch.records)), until_drained=True)
        assert handled == list(range(len(handled)))
        group.worker("w").run(lambda batch: handled.extend(numbers(batch.records)), until_drained=True, on_damage="gap")
        assert handled[-1] == 59
        assert sorted(set(handled)) == handled


def test_run_ends_at_sigterm(group: Group, stream: Stream) -> None:
    """After the batch in hand, with its checkpoint; whoever caught the signal before catches it again."""
    stream.append([change(7) for _ in range(4)])
    mine = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        group.worker("w").run(lambda _: os.kill(os.getpid(), signal.SIGTERM), max_records=2, wait=AT_ONCE)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, mine)
    assert group.lag().records == 2
    assert {lease.owner for lease in group.leases()} == {None}


def test_sigterm_is_caught_until_the_leases_are_given_back(
    group: Group, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended the process where it came on the way out."""
    real = LeaseTable.leave

    def leave(table: LeaseTable, me: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        real(table, me)

    monkeypatch.setattr(LeaseTable, "leave", leave)
    group.worker("w").run(lambda _: None, until_drained=True)
    assert {lease.owner for lease in group.leases()} == {None}


def test_asyncio_gets_the_same(group: Group, stream: Stream) -> None:
    """Batches, in order; the loop runs on meanwhile."""
    stream.append(changes(0, 20))

    async def consume() -> list[int]:
        found: list[int] = []
        with group.worker("w") as worker:
            async for batch in worker.batches_async(3, AT_ONCE, until_drained=True):
                found += numbers(batch.records)
                batch.checkpoint()
        return found

    assert sorted(asyncio.run(consume())) == list(range(20))


def test_a_cancelled_task_leaves_what_it_had_to_the_next(group: Group, stream: Stream) -> None:
    """While it waits or holds a batch, even cancelled twice: at once the worker can be iterated again."""
    stream.append([change(7)])

    async def consume(worker: Worker, found: list[int], begun: asyncio.Event) -> None:
        async for batch in worker.batches_async(wait=AT_ONCE):
            found += numbers(batch.records)
            begun.set()

    async def cancel() -> list[int]:
        found: list[int] = []
        with group.worker("w") as worker:
            for _ in range(3):
                begun = asyncio.Event()
                task = asyncio.ensure_future(consume(worker, found, begun))
                await asyncio.wait_for(begun.wait(), LIMIT_SECONDS)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        return found

    assert asyncio.run(cancel()) == [7, 7, 7]


def test_many_tasks_wait_without_standing_in_each_others_way(stream: Stream) -> None:
    """More of them than asyncio has threads for everybody: those that waited kept the others from beginning."""
    groups = [stream.group(f"g{number}") for number in range(40)]

    async def consume(group: Group) -> int:
        with group.worker("w") as worker:
            async for batch in worker.batches_async(wait=AT_ONCE):
                return len(batch.records)
        return 0

    async def consume_all() -> list[int]:
        tasks = [asyncio.ensure_future(consume(group)) for group in groups]
        while any(not group.workers() for group in groups):
            await asyncio.sleep(0.001)
        await stream.append_async([change(7)])
        return await asyncio.wait_for(asyncio.gather(*tasks), LIMIT_SECONDS)

    assert asyncio.run(consume_all()) == [1] * 40


def test_threads_may_handle_batches_of_one_shard(group: Group, stream: Stream) -> None:
    """Each checkpoints its own; the latest counts, and the shard is finished after that."""
    stream.append([change(7) for _ in range(200)])
    for shard in stream.describe().shards:
        stream.roll_shard(shard.shard_id)
    with group.worker("w") as worker:
        checkpoints = [Background(batch.checkpoint) for batch in worker.batches(1, AT_ONCE, until_drained=True)]
        for checkpoint in checkpoints:
            checkpoint.result()
        drained(worker)
    assert group.lag().records == 0
    assert [lease.checkpoint for lease in group.leases()].count("SHARD_END") == 2


def test_leases_are_shared_and_handed_over(group: Group, stream: Stream) -> None:
    """A second worker gets half of them, when nothing is outstanding; each record is handled once."""
    stream.append(changes(0, 10))
    with group.worker("v", lease_duration=timedelta(milliseconds=300)) as first:
        found = numbers(drained(first))
        with group.worker("w", lease_duration=timedelta(milliseconds=300)) as second:
            wait_until(lambda: sorted(str(lease.owner) for lease in group.leases()) == ["v", "w"])
            stream.append(changes(10, 10))
            found += numbers(drained(first)) + numbers(drained(second))
    assert sorted(found) == list(range(20))


def _asks_in_the_fork(channel: Channel, path: Path) -> None:
    with shardlog.open(path) as store:
        group = store.stream("s").group("g")
        with group.worker("w") as worker:
            batches = worker.batches(2, AT_ONCE)
            batch = next(batches)

            def ask() -> None:
                signal.alarm(20)  # a lock that nobody will give up would end it
                channel.send(
                    {
                        outcome(lambda: next(batches)),
                        outcome(lambda: next(worker.batches())),
                        outcome(batch.checkpoint),
                        outcome(lambda: worker.run(print)),
                        outcome(group.leases),
                    }
                )
                worker.close()

            assert in_fork(ask) == 0
            batch.checkpoint()
            channel.send(len(next(batches).records))
            forked = os.fork()
            if forked == 0:
                channel.send("forked")
                channel.receive()
                os._exit(0)
            signal.pause()


def test_a_fork_has_no_worker_and_keeps_none_alive(store: Store, store_path: Path, children: Children) -> None:
    """All that the child inherited is closed, what is in memory as well; and when the parent is killed, it is gone.

    The child's copy of the worker's lock made it pass for alive: its name was taken as long as the child lived.
    """
    new_stream(store).append([change(7) for _ in range(4)])
    store.close()
    child = children.start(_asks_in_the_fork, store_path)
    assert child.receive() == {"Closed"}
    assert child.receive() == 2
    assert child.receive() == "forked"
    child.kill()
    with shardlog.open(store_path) as again, again.stream("s").group("g").worker("w") as worker:
        assert len(drained(worker)) == 2
    child.send("end")


def test_ctrl_c_in_the_middle_of_a_checkpoint(group: Group, stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the iteration; the leases are given back, and others commit."""
    stream.append([change(7)])
    real = LeaseTable._held

    def interrupt(*arguments: Any) -> Any:
        monkeypatch.setattr(LeaseTable, "_held", real)
        signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(LeaseTable, "_held", interrupt)
    with pytest.raises(KeyboardInterrupt):
        group.worker("w").run(lambda _: None, wait=AT_ONCE)
    assert group.lag().records == 1
    with group.worker("w") as worker:
        assert numbers(drained(worker)) == [7]

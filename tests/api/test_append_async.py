"""`append_async`: tasks that append at the same time share a sync; what fails or is cancelled concerns itself only."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.faults import FaultyFiles, open_with
from tests.support.history import change, new_stream, numbers, records_only

from shardlog import Change, InvalidArgument, StorageFailed, Store, Stream
from shardlog.files.protocol import Site
from shardlog.model import Appended

TASKS = [64, 1000]


@pytest.mark.parametrize("tasks", TASKS)
def test_many_tasks_share_a_few_syncs(store: Store, tasks: int) -> None:
    """All are durable when they return, each with numbers of its own; the syncs are far fewer than the tasks."""
    files = FaultyFiles()
    store.close()
    with open_with(store.path, files) as opened:
        stream = opened.create_stream("s")

        async def run() -> list[Appended]:
            return await asyncio.gather(*(stream.append_async([change(number)]) for number in range(tasks)))

        results = asyncio.run(run())
        syncs = sum(step.site is Site.COMMIT for step in files.steps)
        assert 1 <= syncs <= tasks / 16
        sequence_of = {record.keys["id"]: record.sequence for record in records_only(stream.read())}
        assert [result.sequences for result in results] == [[sequence_of[number]] for number in range(tasks)]


@pytest.mark.parametrize("tasks", TASKS)
def test_what_is_refused_concerns_its_task_only(stream: Stream, tasks: int) -> None:
    """One task in three appends something that cannot be: it gets InvalidArgument, the others get their numbers."""

    async def run() -> list[Appended | BaseException]:
        bad = Change.insert(keys={}, new={})
        appends = (stream.append_async([bad if number % 3 == 0 else change(number)]) for number in range(tasks))
        return await asyncio.gather(*appends, return_exceptions=True)

    for number, outcome in enumerate(asyncio.run(run())):
        assert isinstance(outcome, InvalidArgument if number % 3 == 0 else Appended)
    assert sorted(numbers(stream.read())) == [number for number in range(tasks) if number % 3]


@pytest.mark.parametrize("tasks", TASKS)
def test_cancelled_tasks_do_not_disturb_the_others(stream: Stream, tasks: int) -> None:
    """Half of the tasks are cancelled while they wait: the others return, and no append is there twice."""

    async def run() -> list[Appended | BaseException]:
        waiting = [asyncio.create_task(stream.append_async([change(number)])) for number in range(tasks)]
        await asyncio.sleep(0)  # each has handed over its append
        for task in waiting[::2]:
            task.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert (await stream.append_async([change(tasks)])).sequences
        return outcomes

    outcomes = asyncio.run(run())
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    found = numbers(stream.read())
    assert len(found) == len(set(found))
    assert set(found) >= {*range(1, tasks, 2), tasks}


def test_a_failed_sync_reaches_every_task_that_shared_it(store: Store) -> None:
    """None is told that it is durable; none waits for ever."""
    files = FaultyFiles()
    store.close()
    with open_with(store.path, files) as opened:
        stream = new_stream(opened)
        files.arm(lambda step: step.site is Site.COMMIT, _fails, times=1)

        async def run() -> list[Appended | BaseException]:
            appends = (stream.append_async([change(number)]) for number in range(64))
            return await asyncio.wait_for(asyncio.gather(*appends, return_exceptions=True), 30)

        outcomes = asyncio.run(run())
        assert all(isinstance(outcome, StorageFailed) for outcome in outcomes)
        assert numbers(stream.read()) == []


def _fails() -> None:
    raise StorageFailed("input/output error (made up)")

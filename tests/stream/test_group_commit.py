from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.background import Background, wait_until
from tests.support.faults import FaultyFiles, IndexFaults, Step, no_room, open_with
from tests.support.history import batch, change, changes, check_holds, new_stream, numbers, records_only

from shardlog import Appended, InvalidArgument, StorageFull, Store, Stream
from shardlog.files.protocol import Site


@pytest.fixture
def files() -> FaultyFiles:
    """The files of `store`."""
    return FaultyFiles()


@pytest.fixture
def store(store_path: Path, files: FaultyFiles) -> Iterator[Store]:
    """A store whose writes and syncs are counted."""
    with open_with(store_path, files) as store:
        yield store


def is_block(step: Step) -> bool:
    """Whether a step writes a commit."""
    return step.operation == "pwrite" and step.is_segment


def syncs(files: FaultyFiles) -> int:
    """How many commits were synced."""
    return sum(step.site is Site.COMMIT for step in files.steps)


def queue_length(stream: Stream) -> int:
    """How many appends wait for a leader."""
    return len(stream._stream.commits._gathering._pending)


class Plug:
    """An append that is held up in its write until it is released."""

    def __init__(self, stream: Stream, files: FaultyFiles) -> None:
        self._reached, self._release = threading.Event(), threading.Event()
        files.arm(is_block, self._hold_up)
        self.append: Background[Appended] = Background(stream.append, [change(-1)])
        assert self._reached.wait(20)

    def _hold_up(self) -> None:
        self._reached.set()
        assert self._release.wait(20)

    def release(self) -> None:
        self._release.set()
        self.append.result()


@pytest.mark.parametrize("threads", [2, 16])
def test_appends_that_wait_become_one_commit(store: Store, files: FaultyFiles, threads: int) -> None:
    """What gathers while one commit is written is the next: one block, one sync, in the order in which they came."""
    stream = new_stream(store, shards=3)
    plug = Plug(stream, files)
    waiting: list[Background[Appended]] = []
    for who in range(threads):
        waiting.append(Background(stream.append, batch("t", who, 2)))
        wait_until(lambda: queue_length(stream) == len(waiting))
    before = syncs(files), sum(map(is_block, files.steps))
    plug.release()
    results = [append.result() for append in waiting]
    assert (syncs(files), sum(map(is_block, files.steps))) == (before[0] + 2, before[1] + 1)
    used = [sequence for result in results for sequence in result.sequences]
    assert sorted(used) == list(range(2, 2 + 2 * threads))
    assert [max(result.sequences) for result in results] == sorted(max(result.sequences) for result in results)
    check_holds_without_plug(stream, {("t", who): result.sequences for who, result in enumerate(results)})


def check_holds_without_plug(stream: Stream, acknowledged: dict[tuple[str, int], list[int]]) -> None:
    """The stream holds the plug's record and these appends."""
    found = {record.sequence: record.keys["id"] for record in records_only(stream.read())}
    assert found.pop(1) == -1
    wanted = {
        sequence: f"{who}-{number}-{index}"
        for (who, number), sequences in acknowledged.items()
        for index, sequence in enumerate(sequences)
    }
    assert found == wanted


def test_threads_share_syncs(store: Store, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many threads with many appends need fewer commits than appends, and each has its outcome."""
    index = IndexFaults(monkeypatch)
    stream = new_stream(store, shards=2)

    def work(who: int) -> dict[tuple[str, int], list[int]]:
        return {(f"t{who}", n): stream.append(batch(f"t{who}", n, 1 + n % 3)).sequences for n in range(40)}

    workers = [Background(work, who) for who in range(12)]
    acknowledged = {append: found for worker in workers for append, found in worker.result().items()}
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    assert index.commits < 480 * 0.8
    assert syncs(files) == index.commits
    for who in range(12):
        order = [acknowledged[f"t{who}", n] for n in range(40)]
        assert order == sorted(order)


def test_tasks_share_syncs(store: Store, files: FaultyFiles) -> None:
    """Tasks that append at the same time are committed together."""
    stream = new_stream(store)

    async def run() -> list[Appended]:
        return list(await asyncio.gather(*(stream.append_async(batch("a", n, 1)) for n in range(100))))

    results = asyncio.run(run())
    assert syncs(files) <= 3
    check_holds(stream, {("a", n): result.sequences for n, result in enumerate(results)})


def test_a_commit_takes_at_most_64_mib(store: Store, files: FaultyFiles) -> None:
    """Appends that together are larger are committed one after the other."""
    stream = new_stream(store)
    plug = Plug(stream, files)
    blob = "x" * (12 << 20)
    waiting = []
    for first in (0, 10):
        waiting.append(Background(stream.append, [change(first + n, blob) for n in range(3)]))
        wait_until(lambda: queue_length(stream) == len(waiting))
    before = syncs(files)
    plug.release()
    assert [len(append.result().sequences) for append in waiting] == [3, 3]
    assert syncs(files) == before + 1 + 2
    assert numbers(stream.read()) == [-1, 0, 1, 2, 10, 11, 12]


def test_appends_of_one_commit_have_outcomes_of_their_own(store: Store, files: FaultyFiles) -> None:
    """A duplicate, an empty and a refused append among others: each gets its own answer."""
    stream = new_stream(store)
    stream.append([], producer="old", position=9)
    plug = Plug(stream, files)
    calls = [
        lambda: stream.append(changes(0, 2), producer="p", position=1),
        lambda: stream.append(changes(50, 2), producer="p", position=1),
        lambda: stream.append(changes(60, 2), producer="old", position=9),
        lambda: stream.append(changes(2, 2), producer="p", position=2),
        lambda: stream.append([], producer="q", position=1),
        lambda: stream.append([]),
        lambda: stream.append(changes(4, 2)),
    ]
    waiting = []
    for call in calls:
        waiting.append(Background(call))
        wait_until(lambda: queue_length(stream) == len(waiting))
    plug.release()
    results = [append.result() for append in waiting]
    assert [result.duplicate for result in results] == [False, True, True, False, False, False, False]
    assert [len(result.sequences) for result in results] == [2, 0, 0, 2, 0, 0, 2]
    assert numbers(stream.read()) == [-1, 0, 1, 2, 3, 4, 5]
    assert [stream.position(producer) for producer in ("p", "q", "old")] == [2, 1, 9]


def test_a_commit_that_fails_fails_for_all_of_its_appends(store: Store, files: FaultyFiles) -> None:
    """No room for the block of several appends: all raise StorageFull, nothing of any is there, and all can retry."""
    stream = new_stream(store)
    plug = Plug(stream, files)
    waiting = []
    for who in range(5):
        waiting.append(Background(stream.append, batch("t", who, 2)))
        wait_until(lambda: queue_length(stream) == len(waiting))
    files.arm(is_block, no_room)
    plug.release()
    for append in waiting:
        with pytest.raises(StorageFull):
            append.result()
    assert stream.next_sequence == 2
    assert stream.append(changes(0, 1)).sequences == [2]
    assert numbers(stream.read()) == [-1, 0]


def test_an_append_that_is_refused_disturbs_nobody(store: Store) -> None:
    """Threads with good and bad appends at once: the good ones are all there, the bad ones not at all."""
    stream = new_stream(store, shards=2)

    def work(who: int) -> dict[tuple[str, int], list[int]]:
        acknowledged = {}
        for n in range(20):
            good = batch(f"t{who}", n, 2)
            with pytest.raises(InvalidArgument):
                stream.append([*good, change(2**70)])
            acknowledged[f"t{who}", n] = stream.append(good).sequences
        return acknowledged

    workers = [Background(work, who) for who in range(6)]
    acknowledged = {append: found for worker in workers for append, found in worker.result().items()}
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    assert stream.next_sequence == 1 + 6 * 20 * 2


def test_nothing_is_visible_before_it_is_synced(store: Store, files: FaultyFiles) -> None:
    """While a commit is being synced, readers do not see it; when the append returns, they do."""
    stream = new_stream(store)
    stream.append(changes(0, 2))
    seen: list[tuple[list[int], int]] = []

    def look() -> None:
        seen.append((numbers(stream.read()), stream.next_sequence))

    files.arm(lambda step: step.site is Site.COMMIT, look)
    files.arm(lambda step: step.site is Site.COMMIT, look, "after")
    stream.append(changes(2, 2))
    assert seen == [([0, 1], 3)] * 2
    assert numbers(stream.read()) == [0, 1, 2, 3]

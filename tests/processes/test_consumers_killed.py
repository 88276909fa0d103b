"""Workers of several processes share a stream under load that splits and merges; they are killed, and frozen.

Every record is handled at least once, in order per shard and per key, and twice only what was in hand when its worker
was killed or lost its lease: at most one batch each.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from pathlib import Path

import pytest
from tests.processes.consuming import (
    Crowd,
    checkpoint_first,
    consume_on_command,
    item,
    make_stream,
    stop_inside_a_transaction,
)
from tests.processes.handled import Summary, check_handled
from tests.support.background import wait_until
from tests.support.children import Children
from tests.support.history import records_only
from tests.support.tally import Figure, Tally

import shardlog

WORKERS = [f"worker{number}" for number in range(8)]
WRITERS = ["writer0", "writer1"]
LEASE = timedelta(seconds=1.5)
LONG_LEASE = timedelta(minutes=10)


def check(crowd: Crowd, last: str) -> Summary:
    """A last worker handles what is left, and ends. The journal, held against what the stream holds then."""
    with shardlog.open(crowd.path) as store:
        stream = store.stream("s")
        group = stream.group("g")
        wait_until(lambda: group.lag().records == 0)
        crowd.end(last)
        return check_handled(crowd.journal.events(), records_only(stream.read()), stream.describe())


def wait_for_progress(crowd: Crowd, seconds: float) -> None:
    """Until so much time has passed, and records were handled after it began. Who was frozen is continued in time.

    Who is frozen inside a transaction blocks the others until then.
    """
    due = time.monotonic() + seconds
    size_bytes = crowd.journal.size_bytes

    def has_progressed() -> bool:
        crowd.thaw_who_is_due()
        return time.monotonic() >= due and crowd.journal.size_bytes > size_bytes + 2_000

    wait_until(has_progressed)


def run_and_kill(crowd: Crowd, choices: random.Random, turns: int, turn_seconds: float) -> None:
    """In each turn a worker is killed and replaced; in some a writer too, or who reshards, and a worker is frozen."""
    for name in WORKERS:
        crowd.start_worker(name)
    for name in WRITERS:
        crowd.start_writer(name)
    crowd.start_resharder("resharder", choices.randrange(1 << 32))
    for turn in range(turns):
        wait_for_progress(crowd, turn_seconds)
        victim = choices.choice(sorted(set(WORKERS) - crowd.frozen.keys()))
        crowd.kill(victim)
        crowd.start_worker(victim)
        if turn % 3 == 1:
            writer = choices.choice(WRITERS)
            crowd.kill(writer)
            crowd.start_writer(writer)
        if turn % 4 == 2:
            crowd.kill("resharder")
            crowd.start_resharder("resharder", choices.randrange(1 << 32))
        if turn % 5 == 0 and not crowd.frozen:
            crowd.freeze(choices.choice(sorted(set(WORKERS) - {victim})), 1.5 * LEASE)


def run_to_the_end(crowd: Crowd) -> Summary:
    """The load ends, everything is handled, the workers end cleanly."""
    for name in ["resharder", *WRITERS]:
        crowd.kill(name)
    with shardlog.open(crowd.path) as store:  # to the end: were it opened anew, recovery might take over a last append
        stream = store.stream("s")
        group = stream.group("g")

        def is_handled() -> bool:
            crowd.thaw_who_is_due()
            return group.lag().records == 0

        wait_until(is_handled, 60)
        for name in WORKERS:
            crowd.end(name)
        assert {lease.owner for lease in group.leases()} == {None}
        assert group.lag().records == 0
        assert any(len(shard.parent_ids) == 2 for shard in stream.describe().shards), "nothing was merged"
        return check_handled(crowd.journal.events(), records_only(stream.read()), stream.describe())


@pytest.mark.parametrize(
    ("turns", "turn_seconds"), [(8, 0.4), pytest.param(60, 1.0, marks=pytest.mark.torture)], ids=["short", "minute"]
)
def test_workers_are_killed_and_frozen_while_the_stream_splits_and_merges(
    store_path: Path, children: Children, seed: int, tally: Tally, turns: int, turn_seconds: float
) -> None:
    """At least once, in order per shard and per key, at most one batch again for each kill and each lost lease."""
    make_stream(store_path)
    crowd = Crowd(children, store_path, LEASE)
    run_and_kill(crowd, random.Random(seed), turns, turn_seconds)
    found = run_to_the_end(crowd)
    for event in crowd.journal.events():
        if event.what in ("killed", "frozen"):
            tally.add(Figure.CONSUMERS, event.what)
    assert found.records > 100 * turns * turn_seconds
    assert found.repeats > 0 or turns < 60, "no batch was ever in hand when its worker was killed"


def test_all_are_killed_and_go_on_at_once_where_they_were(store_path: Path, children: Children) -> None:
    """SIGKILL for all, again and again: they go on from their checkpoints, long before a lease expires."""
    make_stream(store_path)
    crowd = Crowd(children, store_path, LONG_LEASE)
    names = WORKERS[:3]
    for _ in range(2):
        for name in names:
            crowd.start_worker(name)
        crowd.start_writer("writer0")
        for name in names:
            crowd.wait_at_work(name)
        wait_for_progress(crowd, 0.2)
        for name in [*names, "writer0"]:
            crowd.kill(name)
    crowd.start_worker("other")  # nobody's name: it gets the leases of the dead all the same
    found = check(crowd, "other")
    assert found.repeats <= 2 * 6, "a batch that was in hand may come again in two"


def freeze_one(store_path: Path, children: Children, has_fences: bool) -> Crowd:
    """A worker handles a batch and is frozen; another takes over; it is continued and told to checkpoint."""
    make_stream(store_path, shards=1)
    with shardlog.open(store_path) as store:
        stream = store.stream("s")
        stream.append([item("a", version) for version in range(10)])
        crowd = Crowd(children, store_path, timedelta(seconds=0.5))
        frozen = children.start(
            consume_on_command, store_path, crowd.journal_path, "frozen", timedelta(seconds=0.5), has_fences
        )
        frozen.receive()
        crowd.take("frozen", frozen)
        crowd.freeze("frozen", LONG_LEASE)
        crowd.start_worker("other")
        crowd.wait_at_work("other")
        wait_until(lambda: crowd.journal.events()[-1].what == "checkpointed")
        crowd.thaw("frozen")
        frozen.send("checkpoint")
        assert frozen.wait() == 0
        stream.append([item("a", version) for version in range(10, 30)])
    return crowd


def test_a_worker_frozen_beyond_its_lease_does_no_harm(store_path: Path, children: Children) -> None:
    """Its checkpoint raises LeaseLost; the other worker's stays; nothing is skipped, and one batch came twice."""
    crowd = freeze_one(store_path, children, has_fences=True)
    assert [event.what for event in crowd.journal.events() if event.life == "frozen"] == ["handled", "frozen", "lost"]
    found = check(crowd, "other")
    assert (found.records, found.repeats, found.lost) == (30, 1, 1)


@pytest.mark.parametrize("then", ["is continued", "is killed"])
def test_a_worker_that_stops_inside_a_transaction_holds_up_the_others_only(
    store_path: Path, children: Children, then: str
) -> None:
    """Nobody else checkpoints until it is continued, or dead; then all go on at once, and nothing is skipped."""
    make_stream(store_path, shards=2)
    with shardlog.open(store_path) as store:
        store.stream("s").append([item(f"{number}", number) for number in range(60)])
    crowd = Crowd(children, store_path, LONG_LEASE)
    stopping = children.start(stop_inside_a_transaction, store_path, crowd.journal_path, "stopping", LONG_LEASE)
    crowd.take("stopping", stopping)
    assert stopping.receive() == "stops"
    crowd.wait_stopped("stopping")
    crowd.start_worker("other")
    assert [event.life for event in crowd.journal.events()] == ["stopping"]
    if then == "is killed":
        crowd.kill("stopping")
    else:
        crowd.thaw("stopping")
        assert stopping.wait() == 0
    found = check(crowd, "other")
    assert (found.records, found.repeats) == (60, int(then == "is killed"))


@pytest.mark.control("consumers")
def test_without_fences_a_frozen_worker_is_found_out(store_path: Path, children: Children) -> None:
    """Control: where a lost lease is not noticed, two workers checkpoint the same records, and the check says so."""
    crowd = freeze_one(store_path, children, has_fences=False)
    with pytest.raises(AssertionError, match=r"moved a checkpoint back|handled .* again"):
        check(crowd, "other")


@pytest.mark.control("consumers")
def test_checkpointing_before_handling_is_found_out(store_path: Path, children: Children) -> None:
    """Control: a program that checkpoints first and dies then has skipped records, and the check says so."""
    make_stream(store_path, shards=1)
    with shardlog.open(store_path) as store:
        for version in range(100):
            store.stream("s").append([item("a", version)])
    crowd = Crowd(children, store_path, LONG_LEASE)
    wrong = children.start(checkpoint_first, store_path, crowd.journal_path, "wrong")
    assert wrong.receive() == "dies"
    assert wrong.wait() == -9
    crowd.start_worker("other")
    with pytest.raises(AssertionError, match="before"):
        check(crowd, "other")

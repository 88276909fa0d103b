"""Processes that change a stream and are killed at one of the steps that takes: at all of them, one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.sharding.lineages import open_shards
from tests.support.children import Channel, Children
from tests.support.faults import Fault, FaultyFiles, IndexFaults, Step, When, kill, open_with

from shardlog import Stream
from shardlog.testing.clock import ManualClock

STEPS_MAX = 300


def split(stream: Stream) -> None:
    """Split the first of the open shards."""
    shard = open_shards(stream.describe())[0]
    stream.split_shard(shard.shard_id, sum(shard.hash_range) // 2)


def merge(stream: Stream) -> None:
    """Merge the first two."""
    left, right, *_ = open_shards(stream.describe())
    stream.merge_shards(left.shard_id, right.shard_id)


def roll(stream: Stream) -> None:
    """Roll the last one over."""
    stream.roll_shard(open_shards(stream.describe())[-1].shard_id)


def expire(stream: Stream) -> None:
    """Expire all that can be."""
    stream.expire(force=True)


ACTIONS: dict[str, Callable[[Stream], None]] = {"split": split, "merge": merge, "roll": roll, "expire": expire}


def clock_after(days: float) -> ManualClock:
    """A clock so many days after the beginning."""
    clock = ManualClock()
    clock.advance(timedelta(days=days))
    return clock


def act_until_killed(channel: Channel, path: str, action: str, when: When, number: int, days: float) -> None:
    """Do it so many days after the beginning; die of SIGKILL at the step of that number. Tells when it was done."""
    files = FaultyFiles()
    index = IndexFaults(pytest.MonkeyPatch())
    with open_with(path, files, clock=clock_after(days)) as store:
        stream = store.stream("s")
        passed: list[Step] = []

        def is_it(step: Step) -> bool:
            if not passed or passed[-1] is not step:
                passed.append(step)
            return len(passed) - 1 == number

        files.faults = index.faults = [Fault(is_it, kill, when)]
        ACTIONS[action](stream)
        files.faults = index.faults = []
        channel.send("done")


def kill_at_every_step(
    children: Children,
    template: Path,
    path: Path,
    action: str,
    when: When,
    check: Callable[[bool], None],
    days: float = 0,
) -> int:
    """Copy a store, kill who acts on the copy at the first step, check; then at the second, and so on; how often.

    `check` is told whether it was done before.
    """
    for number in range(STEPS_MAX):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        child = children.start(act_until_killed, str(path), action, when, number, days)
        is_done = child.rest() == ["done"]
        status = child.wait()
        assert status in (0, -9), f"step {number}"
        check(is_done)
        if status == 0:
            assert is_done
            return number
    raise AssertionError(f"more than {STEPS_MAX} steps")

"""A process is killed at every step of making a store, creating, disabling, deleting and recovering a stream."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.processes.victims import append_until_killed, die_at_step
from tests.support.children import Children
from tests.support.history import Append, batch, changes, check_holds, new_stream, numbers

import shardlog
from shardlog import Store, StreamExists, StreamNotFound

STEPS_MAX = 200


def at_each_step(
    children: Children, template: Path | None, store_path: Path, what: str, check: Callable[[Path], None]
) -> int:
    """Let a child die at each step of something, each time on a fresh copy; how many steps there were."""
    for skip in range(STEPS_MAX):
        path = store_path.with_name(f"{what}{skip}")
        if template is not None:
            shutil.copytree(template, path)
        child = children.start(die_at_step, path, what, skip)
        ended = child.rest()
        assert child.wait() == (0 if ended else -9)
        check(path)
        shutil.rmtree(path)
        if ended:
            return skip
    raise AssertionError(f"more than {STEPS_MAX} steps")


def leftovers(path: Path) -> list[Path]:
    """Names in a store that were never finished."""
    return [found for found in path.glob("streams/**/*") if found.name.endswith((".tmp", ".deleted"))]


def test_killed_while_making_a_store(store_path: Path, children: Children) -> None:
    """Whoever opens next finds a store, or makes one."""

    def check(path: Path) -> None:
        with shardlog.open(path) as store:
            assert store.streams() == []
            new_stream(store).append(changes(0, 1))
        with shardlog.open(path) as store:
            assert numbers(store.stream("s").read()) == [0]

    assert at_each_step(children, None, store_path, "make", check) >= 3


def test_killed_while_creating_a_stream(store: Store, store_path: Path, children: Children) -> None:
    """The stream is there, whole, or not at all; it can be used, or created, and nothing unfinished is left then."""
    store.close()

    def check(path: Path) -> None:
        with shardlog.open(path) as again:
            found = again.streams()
            if found:
                assert len(found[0].shards) == 2
                with pytest.raises(StreamExists):
                    new_stream(again)
            else:
                new_stream(again)
            again.stream("s").append(changes(0, 3))
            assert len(again.streams()) == 1
            assert leftovers(path) == []

    assert at_each_step(children, store_path, store_path, "create", check) >= 8


def test_killed_while_deleting_a_stream(store: Store, store_path: Path, children: Children) -> None:
    """There with all its records, or gone: it can be deleted and created anew, and nothing unfinished is left."""
    new_stream(store).append(changes(0, 100))
    new_stream(store, "other").append(changes(0, 1))
    store.close()

    def check(path: Path) -> None:
        with shardlog.open(path) as again:
            names = [found.name for found in again.streams()]
            assert names in (["other"], ["other", "s"])
            if "s" in names:
                assert numbers(again.stream("s").read()) == list(range(100))
                again.delete_stream("s")
            with pytest.raises(StreamNotFound):
                again.stream("s")
            new_stream(again).append(changes(7, 1))
            assert numbers(again.stream("s").read()) == [7]
            assert numbers(again.stream("other").read()) == [0]
            assert leftovers(path) == []

    assert at_each_step(children, store_path, store_path, "delete", check) >= 8


def test_killed_while_disabling_a_stream(store: Store, store_path: Path, children: Children) -> None:
    """It takes records, or it does not; its records are there either way."""
    new_stream(store, durability="os").append(changes(0, 10))
    store.close()
    statuses = []

    def check(path: Path) -> None:
        with shardlog.open(path) as again:
            stream = again.stream("s")
            statuses.append(stream.describe().status)
            assert numbers(stream.read()) == list(range(10))
            if statuses[-1] == "ENABLED":
                stream.append(changes(10, 1))
                again.disable_stream("s")
                assert numbers(stream.read()) == list(range(11))

    assert at_each_step(children, store_path, store_path, "disable", check) >= 4
    assert statuses == sorted(statuses, reverse=True)
    assert set(statuses) == {"ENABLED", "DISABLED"}


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_killed_while_recovering(store: Store, store_path: Path, children: Children, durability: str) -> None:
    """Recovery that is interrupted anywhere is done by the next to open, with the same result."""
    new_stream(store, durability=durability, shards=2)
    store.close()
    writer = children.start(append_until_killed, store_path, "w", "half of the write")
    acknowledged: dict[Append, list[int]] = dict(writer.rest())
    assert writer.wait() == -9
    (segment,) = store_path.glob("streams/s/*/log/*.seg")
    segment.with_name(f"{10**12:020d}-000000ff.seg.tmp").write_bytes(bytes(4096))
    next_sequences = set()

    def check(path: Path) -> None:
        with shardlog.open(path) as again:
            stream = again.stream("s")
            next_sequences.add(stream.next_sequence)
            check_holds(stream, acknowledged)
            assert [found.name for found in path.glob("streams/s/*/lost+found/*.torn")]
            result = stream.append(batch("after", 0, 3)).sequences
            assert leftovers(path) == []
        with shardlog.open(path) as again:
            check_holds(again.stream("s"), acknowledged | {("after", 0): result})

    assert at_each_step(children, store_path, store_path, "open", check) >= 5
    assert len(next_sequences) == 1

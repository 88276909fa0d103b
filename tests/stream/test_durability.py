"""What is synced when, at both levels, and what is left after a kill and after a power cut.

A power cut is made up: the store is copied while it is in use, and bytes that were not synced by then are cut off.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.children import Channel, Children
from tests.support.faults import FaultyFiles, Step, open_with
from tests.support.history import (
    Append,
    batch,
    change,
    changes,
    check_holds,
    new_stream,
    numbers,
    records_only,
    seen_in,
)

import shardlog
from shardlog import Store, Stream
from shardlog.files.protocol import Site
from shardlog.format.mark import decode_flag

JUMP = 1 << 24


@pytest.fixture
def files() -> FaultyFiles:
    """The files of `store`."""
    return FaultyFiles()


@pytest.fixture
def store(store_path: Path, files: FaultyFiles) -> Iterator[Store]:
    """A store whose writes and syncs are recorded."""
    with open_with(store_path, files) as store:
        yield store


def is_marked_unsynced(store_path: Path) -> bool:
    """Whether MARK says that appends may be unsynced."""
    (path,) = store_path.glob("streams/s/*/MARK")
    return decode_flag(path.read_bytes())


def names_of(steps: list[Step]) -> list[str]:
    """Steps in short: what was done to what."""
    found = []
    for step in steps:
        what = "new segment" if step.is_new_segment else "segment" if step.is_segment else Path(step.path).name
        found.append(f"{step.site or step.operation} {what}")
    return found


# What is synced when


def test_fsync_means_synced_before_it_is_acknowledged(store: Store, files: FaultyFiles) -> None:
    """Level "fsync": each append writes its block, syncs it, and only then says in MARK how far the log is synced."""
    stream = new_stream(store)
    for number in range(3):
        del files.steps[:]
        stream.append(changes(number, 1))
        assert names_of(files.steps) == ["pwrite segment", "commit segment", "pwrite MARK"]
        assert stream.statistics().durable_sequence == stream.next_sequence


def test_os_does_not_sync_appends(store: Store, files: FaultyFiles, store_path: Path) -> None:
    """Level "os": the first unsynced append sets a flag in MARK and syncs that, before anything else; no more syncs."""
    stream = new_stream(store, durability="os")
    assert not is_marked_unsynced(store_path)
    for number in range(5):
        del files.steps[:]
        stream.append(changes(number, 1))
        flag = ["pwrite MARK", "MARK: unsynced flag MARK"] if number == 0 else []
        assert names_of(files.steps) == [*flag, "pwrite segment", "pwrite MARK"]
        assert stream.statistics().durable_sequence == 1
    assert is_marked_unsynced(store_path)
    assert numbers(stream.read()) == [0, 1, 2, 3, 4]


def test_sync_makes_durable_what_was_appended(store: Store, files: FaultyFiles, store_path: Path) -> None:
    """One sync of the log, then MARK says so and its flag is cleared; again, with nothing new, it is for free."""
    stream = new_stream(store, durability="os")
    stream.append(changes(0, 3))
    del files.steps[:]
    stream.sync()
    assert names_of(files.steps)[0] == "level os: what was appended segment"
    assert not is_marked_unsynced(store_path)
    assert stream.statistics().durable_sequence == stream.next_sequence == 4
    del files.steps[:]
    stream.sync()
    assert files.steps == []
    stream.append(changes(3, 1))
    assert is_marked_unsynced(store_path)


def test_sync_of_a_synced_stream_is_for_free(stream: Stream, files: FaultyFiles) -> None:
    """Level "fsync" has nothing to sync."""
    stream.append(changes(0, 3))
    del files.steps[:]
    stream.sync()
    assert files.steps == []


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_roll_syncs_the_old_segment_before_the_new_one_has_its_name(
    store: Store, files: FaultyFiles, durability: str
) -> None:
    """At every level: the old segment is synced with its footer, then the new one gets its name, and that is synced."""
    stream = new_stream(store, durability=durability)
    number = 0
    del files.steps[:]
    while "rename segment" not in names_of(files.steps):
        del files.steps[:]
        stream.append([change(number)])
        number += 1
    steps = names_of(files.steps)
    order = [
        "create new segment",
        "new segment: its header new segment",
        "sealed segment segment",
        "rename segment",
        "new segment: its entry log",
    ]
    assert [step for step in steps if step in order] == order
    assert stream.statistics().durable_sequence >= stream.next_sequence - 1


def test_closing_syncs(store: Store, files: FaultyFiles, store_path: Path) -> None:
    """`close` makes durable what was appended, and clears the flag: the next open has no jump to make."""
    stream = new_stream(store, durability="os")
    stream.append(changes(0, 3))
    del files.steps[:]
    store.close()
    assert Site.LOG_SYNC in [step.site for step in files.steps]
    assert not is_marked_unsynced(store_path)
    with shardlog.open(store_path) as again:
        assert again.stream("s").append(changes(3, 1)).sequences == [4]


# After a kill


def _appends(channel: Channel, path: Path) -> None:
    stream = shardlog.open(path).stream("s")
    number = 0
    while True:
        channel.send((("k", number), stream.append(batch("k", number, 3)).sequences))
        number += 1


def killed_writer(children: Children, path: Path, appends: int) -> dict[Append, list[int]]:
    """What a writer acknowledged that was killed after so many appends, or some more."""
    child = children.start(_appends, path)
    messages = [child.receive() for _ in range(appends)]
    child.kill()
    return dict(messages + child.rest())


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("appends", [1, 7, 100])
def test_what_was_acknowledged_survives_a_kill(
    store: Store, store_path: Path, children: Children, durability: str, appends: int
) -> None:
    """After SIGKILL every acknowledged record is there at its number, at both levels, after every reopening."""
    new_stream(store, durability=durability, shards=2)
    store.close()
    acknowledged = killed_writer(children, store_path, appends)
    found = []
    for _ in range(3):
        with shardlog.open(store_path) as again:
            found.append(check_holds(again.stream("s"), acknowledged))
    assert found[0] == found[1] == found[2]
    assert len(found[0]) - len(acknowledged) in (0, 1)


def test_numbers_jump_after_a_kill_at_level_os(store: Store, store_path: Path, children: Children) -> None:
    """Numbers of what may be lost are not used again: they go on 2^24 later, once until the next kill."""
    new_stream(store, durability="os")
    store.close()
    acknowledged = killed_writer(children, store_path, 10)
    last = max(sequences[-1] for sequences in acknowledged.values())
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        jumped = stream.next_sequence
        assert jumped > last + JUMP
        assert stream.append(batch("after", 0, 2)).sequences[0] >= jumped
        check_holds(stream, acknowledged)
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        assert stream.next_sequence < jumped + JUMP
        found = check_holds(stream, acknowledged)
        assert stream.append(batch("after", 1, 2)).sequences[0] > found["after", 0][-1]


def test_opening_again_and_again_after_a_kill(store: Store, store_path: Path, children: Children) -> None:
    """Without an append in between, opening and closing changes neither the numbers nor the records."""
    new_stream(store, durability="os")
    store.close()
    acknowledged = killed_writer(children, store_path, 10)
    seen = set()
    for _ in range(3):
        with shardlog.open(store_path) as again:
            seen.add(again.stream("s").next_sequence)
            check_holds(again.stream("s"), acknowledged)
    assert len(seen) == 1


def test_numbers_do_not_jump_at_level_fsync(store: Store, store_path: Path, children: Children) -> None:
    """What is acknowledged is durable: the next number is the next."""
    new_stream(store)
    store.close()
    acknowledged = killed_writer(children, store_path, 10)
    with shardlog.open(store_path) as again:
        found = check_holds(again.stream("s"), acknowledged)
        assert again.stream("s").next_sequence == 1 + 3 * len(found)


def test_many_kills_in_a_row(store: Store, store_path: Path, children: Children, seed: int) -> None:
    """Kill, reopen, append, kill: no number is used twice, nothing acknowledged is lost."""
    choices = random.Random(seed)
    new_stream(store, durability="os", shards=2)
    store.close()
    seen: dict[int, str] = {}
    for _ in range(6):
        killed_writer(children, store_path, choices.randrange(1, 40))
        with shardlog.open(store_path) as again:
            stream = again.stream("s")
            found = seen_in(records_only(stream.read()))
            assert {sequence: found.get(sequence) for sequence in seen} == seen
            if choices.random() < 0.5:
                stream.append(changes(0, 2))
            seen = seen_in(records_only(stream.read()))


# After a power cut


def power_cut(store_path: Path, copy: Path, keep_from: int, keep: int, choices: random.Random) -> None:
    """A copy of a store of level "os" where the last segment has lost bytes behind `keep_from + keep`.

    Bytes that were not synced come in any state: there, zeros, or the file may end.
    """
    shutil.copytree(store_path, copy)
    path = sorted(copy.glob("streams/s/*/log/*.seg"))[-1]
    content = bytearray(path.read_bytes())
    cut = min(keep_from + keep, len(content))
    for sector in range(-(-cut // 512) * 512, len(content), 512):
        if choices.random() < 0.6:
            content[sector : sector + 512] = bytes(len(content[sector : sector + 512]))
    content[cut : -(-cut // 512) * 512] = bytes(-cut % 512)
    path.write_bytes(content)


def test_after_a_power_cut_a_prefix_is_left(store: Store, store_path: Path, tmp_path: Path, seed: int) -> None:
    """Level "os": what was synced is there, the rest is a prefix of what was appended, and no number is used again."""
    choices = random.Random(seed)
    stream = new_stream(store, durability="os", shards=2)
    for turn in range(12):
        for number in range(10 * turn, 10 * turn + choices.randrange(1, 6)):
            stream.append(batch("a", number, 2))
        stream.sync()
        synced = seen_in(records_only(stream.read()))
        offset = stream._stream.tail().offset
        segments = stream.statistics().segments
        for number in range(10 * turn + 5, 10 * turn + 10):
            stream.append(batch("a", number, 2))
        appended = seen_in(records_only(stream.read()))
        if stream.statistics().segments != segments:
            continue  # rolled, and so synced
        copy = tmp_path / f"copy{turn}"
        power_cut(store_path, copy, offset, choices.randrange(0, 4000), choices)
        with shardlog.open(copy) as again:
            left = again.stream("s")
            found = seen_in(records_only(left.read()))
            assert list(appended.items())[: len(found)] == list(found.items())
            assert synced.items() <= found.items()
            assert left.append(changes(0, 1)).sequences[0] > max(appended)
        with shardlog.open(copy) as again:
            assert list(seen_in(records_only(again.stream("s").read())).items())[:-1] == list(found.items())


def test_at_level_fsync_a_power_cut_takes_nothing(store: Store, store_path: Path, tmp_path: Path, seed: int) -> None:
    """Whatever becomes of bytes behind the last acknowledged append, everything acknowledged is there."""
    choices = random.Random(seed)
    stream = new_stream(store, shards=2)
    acknowledged: dict[Append, list[int]] = {}
    for turn in range(12):
        for number in range(10 * turn, 10 * turn + choices.randrange(1, 8)):
            acknowledged["a", number] = stream.append(batch("a", number, 2)).sequences
        copy = tmp_path / f"copy{turn}"
        shutil.copytree(store_path, copy)
        path = sorted(copy.glob("streams/s/*/log/*.seg"))[-1]
        end = stream._stream.tail().offset
        if end + 700 < path.stat().st_size:
            with path.open("r+b") as file:
                file.seek(end)
                file.write(choices.randbytes(choices.randrange(1, 700)))
        with shardlog.open(copy) as again:
            assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()
            last = max(sequences[-1] for sequences in acknowledged.values())
            assert again.stream("s").append(changes(0, 1)).sequences[0] > last

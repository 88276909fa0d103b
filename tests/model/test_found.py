"""What the machine found in the engine and only a power cut shows, each as the shortest story."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.model.drawn import item_of
from tests.model.rig import Rig
from tests.model.sights import change_of, sight_of
from tests.model.writing import SEGMENT_BYTES

from shardlog import StorageFailed, Stream


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A disk and a store on it."""
    rig = Rig(frozenset())
    rig.open()
    yield rig
    rig.destroy()


def lose_all_that_is_pending(rig: Rig) -> None:
    """A power cut after which nothing is on the disk but what was synced."""
    drawn = iter((1, 0, 0))
    rig.die()
    rig.cut_power(lambda _: next(drawn))
    rig.open()


def append(stream: Stream, number: int, count: int = 1) -> list[int]:
    """Append some items."""
    return stream.append([change_of(item_of(number + index, 0, 0, 30)) for index in range(count)]).sequences


def test_a_flag_that_was_never_synced_makes_no_numbers_jump_back(rig: Rig) -> None:
    """Level "os": the sync of the flag fails and the program dies; numbers jump; the power fails, and they stay so.

    The recovery believed a flag that was in the page cache only, and told readers the numbers that follow from it.
    After the power cut the flag was gone, and lower numbers were given.
    """
    stream = rig.store.create_stream("a", durability="os", segment_bytes=SEGMENT_BYTES)
    fault = rig.arm("unsynced", 1, None)
    with pytest.raises(StorageFailed):
        append(stream, 1)
    rig.disarm(fault)
    rig.die()
    rig.open()
    told = rig.store.stream("a").next_sequence
    lose_all_that_is_pending(rig)
    assert append(rig.store.stream("a"), 2)[0] >= told


@pytest.mark.parametrize("nth", [1, 2])
def test_a_skip_that_readers_were_told_outlives_the_power(rig: Rig, nth: int) -> None:
    """A sync of a commit fails, once or again for the flag; what the next number is said to be is never taken back."""
    stream = rig.store.create_stream("a", segment_bytes=SEGMENT_BYTES)
    append(stream, 1)
    faults = [rig.arm("unsynced", turn, None) for turn in range(1, nth + 1)]
    with pytest.raises(StorageFailed):
        append(stream, 2, 5)
    told = stream.next_sequence
    for fault in faults:
        rig.disarm(fault)
    with suppress(StorageFailed):
        sight_of(stream)
    lose_all_that_is_pending(rig)
    assert append(rig.store.stream("a"), 9)[0] >= told

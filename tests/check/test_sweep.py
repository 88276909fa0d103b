"""Damage everywhere: what is read is the truth, what is missing is told, and a repair leaves a sound store.

The short forms take every k-th byte and all bytes of structure; the long ones (`make torture`) take every byte and
every length. `damage.judge` says what must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.check.damage import (
    Case,
    Original,
    append_some,
    deletions,
    flips,
    judge,
    judge_repair,
    new_stream,
    original_of,
    rows_of,
    spoilt_stretches,
    strays,
    swaps,
    truncations,
)
from tests.check.sweeping import REPAIRS, Sweep, sweep_here, sweep_together
from tests.support.tally import Figure, Tally

from shardlog import Change, Gap, Store
from shardlog.format.commit import ENTRY_BYTES, HEADER_BYTES, MAGIC_BYTES, padded
from shardlog.format.segment import FIXED_HEADER_BYTES
from shardlog.testing.images import materialise

STEP = 151
FILES = ("segment 0", "segment 1", "segment 2", "MARK", "STORE")


@pytest.fixture(scope="session")
def nested(scratch: Path, tiny: Original) -> Original:
    """A store whose records hold segments, another store's and its own, as bytes."""

    def fill(store: Store) -> None:
        stream = new_stream(store)
        append_some(stream, 5)
        (segment,) = Path(store.path).glob("streams/*/*/log/*.seg")
        for content in (segment.read_bytes(), tiny.image[tiny.segments[0]]):
            assert content is not None
            content = content[4000 : 4000 + (3 << 10)]
            stream.append([Change.insert(keys={"id": "segment"}, new={"id": "segment", "bytes": content})])
        append_some(stream, 5)

    return original_of(scratch / "nested", fill)


NewSweep = Callable[..., int]


@pytest.fixture
def sweep(tally: Tally) -> NewSweep:
    """Judges all cases, and the repair of every so many; how many there were. The first loss ends it."""
    return partial(counted, tally, sweep_here)


@pytest.fixture
def long_sweep(tally: Tally) -> NewSweep:
    """The same on all processors."""
    return partial(counted, tally, sweep_together)


def counted(
    tally: Tally, judge_all: Sweep, original: Original, cases: Iterable[Case], place: Path, repair_every: int = 1
) -> int:
    """Judge cases, and count."""
    tally.add(Figure.LOSSES, "damage")  # until the end is reached
    counts = judge_all(original, cases, place, repair_every)
    tally.add(Figure.LOSSES, "damage", -1)
    tally.add_all(Figure.DAMAGE, counts)
    return counts.total() - counts[REPAIRS]


def file_of(original: Original, name: str) -> str:
    """The path of one of FILES."""
    kind, _, number = name.partition(" ")
    return original.segments[int(number)] if kind == "segment" else original.files(kind)[0]


def structure(original: Original, path: str) -> Iterator[int]:
    """Offsets of all bytes of a segment that are not bodies, nor zeros: headers, directories, footer, trailer."""
    content = original.image[path]
    assert content is not None
    yield from range(FIXED_HEADER_BYTES)
    offset = int.from_bytes(content[12:16], "little")
    while content[offset : offset + 4] == MAGIC_BYTES:
        length, batch_count = (int.from_bytes(content[offset + at : offset + at + 4], "little") for at in (8, 12))
        yield from range(offset, offset + HEADER_BYTES + batch_count * ENTRY_BYTES)
        if content[offset + 4] == 2:
            yield from range(offset + HEADER_BYTES, len(content))
            return
        offset += padded(HEADER_BYTES + length)


# Short forms


@pytest.mark.parametrize("name", FILES)
def test_every_so_many_bits(small: Original, place: Path, name: str, seed: int, sweep: NewSweep) -> None:
    """Flipped bits in every file of a store of three segments."""
    path = file_of(small, name)
    size = len(small.image[path] or b"")
    assert sweep(small, flips(small, path, range(seed % STEP, size, STEP)), place, 5) >= size // STEP


def test_every_byte_of_structure(tiny: Original, place: Path, sweep: NewSweep) -> None:
    """Flipped bits in every header and directory of a segment."""
    offsets = list(structure(tiny, tiny.segments[0]))
    assert len(offsets) > 600
    cases = (case for offset in offsets for case in flips(tiny, tiny.segments[0], range(offset, offset + 1)))
    assert sweep(tiny, cases, place, 40) == len(offsets)


def test_the_end_of_a_sealed_segment(small: Original, place: Path, sweep: NewSweep) -> None:
    """Flipped bits in every byte of footer and trailer."""
    path = small.segments[0]
    content = small.image[path]
    assert content is not None
    footer = content.rindex(MAGIC_BYTES)
    assert sweep(small, flips(small, path, range(footer, len(content))), place, 40) == len(content) - footer


@pytest.mark.parametrize("name", FILES)
def test_so_many_lengths(small: Original, place: Path, name: str, seed: int, sweep: NewSweep) -> None:
    """Files that end early."""
    path = file_of(small, name)
    step = 5 * STEP
    sweep(small, truncations(small, path, range(seed % step, len(small.image[path] or b""), step)), place)


@pytest.mark.whole
def test_files_that_are_gone(small: Original, tiny: Original, place: Path, sweep: NewSweep) -> None:
    """Each file of a store, removed."""
    assert sweep(small, deletions(small), place) == 8
    assert sweep(tiny, deletions(tiny), place) == 6


@pytest.mark.whole
def test_segments_under_other_names(small: Original, tiny: Original, place: Path, sweep: NewSweep) -> None:
    """Swapped, doubled, in each other's place: renaming them back loses nothing that is there."""
    assert sweep(small, swaps(small), place) == 15
    assert sweep(tiny, swaps(tiny), place) == 2


@pytest.mark.parametrize("name", FILES)
def test_stretches_of_garbage(small: Original, place: Path, name: str, seed: int, sweep: NewSweep) -> None:
    """Sectors and single bytes that hold garbage, zeros or other parts of the file."""
    sweep(small, spoilt_stretches(small, file_of(small, name), seed, 15), place)


@pytest.mark.whole
@pytest.mark.parametrize("name", FILES[:3])
def test_blocks_that_strayed(small: Original, place: Path, name: str, sweep: NewSweep) -> None:
    """A stretch of a segment that a disk wrote in the wrong place: sound blocks, of the right segment, in wrong order.

    Some hid the blocks that were in their place; some made the log seem to end where MARK says, with fewer records;
    and of some the check saw less than a reader, so that the repair took records away.
    """
    assert sweep(small, strays(small, file_of(small, name)), place) > 10


def test_segments_stored_as_data(nested: Original, place: Path, seed: int, sweep: NewSweep) -> None:
    """Bytes of a segment within a record never pass for commits, whatever happens to the bytes around them."""
    (path,) = nested.segments
    sweep(nested, flips(nested, path, range(seed % 61, 16384, 61)), place, 7)
    sweep(nested, spoilt_stretches(nested, path, seed, 30), place)


@pytest.mark.control("damage")
def test_the_judge_can_fail(small: Original, place: Path) -> None:
    """A control: a changed record under right checksums, and a reader that is told nothing, are not let through."""
    other = original_of(place.parent / "other", lambda store: append_some(new_stream(store, shards=2), 70, 80))
    with pytest.raises(AssertionError, match="nobody appended"):
        judge(small, Case("another store's records", other.image), place)
    fewer = original_of(place.parent / "fewer", lambda store: append_some(new_stream(store, shards=2), 60, 90))
    with pytest.raises(AssertionError, match="finds nothing"):
        judge(small, Case("fewer records", fewer.image), place)


def test_readers_go_on_behind_damage(small: Original, place: Path) -> None:
    """One damaged commit in the middle costs its own records, before and after a repair."""
    path = small.segments[1]
    (case,) = flips(small, path, range(6000, 6001))
    judge_repair(small, case, place, judge(small, case, place))
    materialise(case.image, str(place))
    rows, error = rows_of(place)
    assert error is None
    gaps = [row for row in rows if isinstance(row, Gap)]
    assert len(gaps) == 1
    assert len(rows) - 1 == len(small.rows) - (gaps[0].next - gaps[0].first)


# Long forms


@pytest.mark.torture
@pytest.mark.parametrize("name", FILES)
def test_every_bit_position(small: Original, place: Path, name: str, long_sweep: NewSweep) -> None:
    """A flipped bit in every byte of every file; the repair of every eleventh."""
    path = file_of(small, name)
    size = len(small.image[path] or b"")
    assert long_sweep(small, flips(small, path, range(size)), place, 11) == size


@pytest.mark.torture
def test_every_byte_of_the_only_segment(tiny: Original, nested: Original, place: Path, long_sweep: NewSweep) -> None:
    """The same for a stream of one segment, and for one that holds segments as data, each with its repair."""
    for original in (tiny, nested):
        assert long_sweep(original, flips(original, original.segments[0], range(16384)), place, 5) == 16384


@pytest.mark.torture
@pytest.mark.parametrize("name", FILES)
def test_every_length(small: Original, place: Path, name: str, long_sweep: NewSweep) -> None:
    """Every file cut at every length."""
    path = file_of(small, name)
    size = len(small.image[path] or b"")
    assert long_sweep(small, truncations(small, path, range(size)), place, 11) == size


@pytest.mark.torture
@pytest.mark.parametrize("name", FILES)
def test_many_stretches_of_garbage(small: Original, place: Path, name: str, seed: int, long_sweep: NewSweep) -> None:
    """The same as the short form, many times."""
    assert long_sweep(small, spoilt_stretches(small, file_of(small, name), seed, 2000), place, 3) == 2000

"""The index's rows, its transactions, and what it does when there is no room."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardlog.errors import Closed, StorageFailed, StorageFull
from shardlog.format.segment import SparsePosition
from shardlog.index import environment
from shardlog.index.environment import Index, IndexContent
from shardlog.index.tail import Tail
from shardlog.index.transaction import SegmentName

TAIL = Tail._make(range(len(Tail._fields)))
SEGMENTS = [SegmentName(1, 1), SegmentName(100, 2), SegmentName(2**40, 0xFFFFFFFF)]
POSITIONS = [SparsePosition(2**40, 4096, 5, 90), SparsePosition(2**40 + 300, 2**33, -5, 2**40)]
CONTENT = IndexContent(
    tail=TAIL,
    state=b"state",
    segments=SEGMENTS,
    positions=POSITIONS,
    producers=[("p", 7), ("p2", 2**63 - 1), ("é" * 128, 0)],
    counts={0: (3, 300), 4095: (2**63, 2**63)},
)
EMPTY = IndexContent(TAIL, b"state", [], [], [], {})

exploring = settings(
    max_examples=25, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The index's directory."""
    path = tmp_path / "index"
    path.mkdir()
    return str(path)


@pytest.fixture
def index(path: str) -> Iterator[Index]:
    """An index with something of everything."""
    index = Index.make(path, CONTENT)
    yield index
    index.close()


def test_what_was_put_is_there(index: Index, path: str) -> None:
    """All kinds of rows, also after closing and opening again."""
    for _ in range(2):
        assert index.tail() == TAIL
        assert index.state() == (b"state", TAIL.state_version)
        assert index.segments() == SEGMENTS
        assert index.positions() == POSITIONS
        assert [index.producer_position(name) for name in ("p", "p2", "é" * 128, "q", "")] == [
            7,
            2**63 - 1,
            0,
            None,
            None,
        ]
        assert index.counts() == {0: (3, 300), 4095: (2**63, 2**63)}
        with index.write() as transaction:
            assert (transaction.tail(), transaction.state()) == (TAIL, b"state")
            assert transaction.positions() == POSITIONS
            assert sorted(transaction.producers()) == sorted(CONTENT.producers)
            assert transaction.producer_position("p2") == 2**63 - 1
            assert transaction.counts() == index.counts()
        index.close()
        index = Index(path)
    index.close()


def test_making_it_anew_forgets_everything(index: Index, path: str) -> None:
    """Whatever was in the directory, garbage in the place of LMDB's files included."""
    index.close()
    Path(path, "data.mdb").write_bytes(b"\xff" * 10_000)
    Path(path, "lock.mdb").write_bytes(b"\xff" * 100)
    Path(path, "leftover").touch()
    made = Index.make(path, EMPTY)
    assert (made.segments(), made.positions(), made.counts(), made.producer_position("p")) == ([], [], {}, None)
    made.close()
    assert sorted(os.listdir(path)) == ["data.mdb", "lock.mdb"]


def test_the_file_is_of_lmdb_0_9(index: Index, path: str) -> None:
    """The binding brings a later LMDB with another file format, which an environment variable would choose."""
    index.close()
    meta = Path(path, "data.mdb").read_bytes()[16:24]
    assert (int.from_bytes(meta[:4], "little"), int.from_bytes(meta[4:], "little")) == (0xBEEFC0DE, 1)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (0, None), (1, 0), (2, 0), (99, 0), (100, 1), (101, 1), (2**40 - 1, 1), (2**40, 2), (2**64 - 1, 2),
    ],
)  # fmt: skip
def test_the_segment_of_a_number(index: Index, sequence: int, expected: int | None) -> None:
    """The last one that starts at or before it."""
    assert index.segment_at(sequence) == (None if expected is None else SEGMENTS[expected])


@pytest.mark.parametrize(("first", "expected"), [(0, 0), (1, 1), (50, 1), (100, 2), (2**40, None), (2**63, None)])
def test_the_segment_after_another(index: Index, first: int, expected: int | None) -> None:
    """The next one, though the one itself may be gone; none after the last."""
    assert index.segment_after(first) == (None if expected is None else SEGMENTS[expected])


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [(0, None), (2**40 - 1, None), (2**40, 0), (2**40 + 299, 0), (2**40 + 300, 1), (2**64 - 1, 1)],
)
def test_the_block_of_a_number(index: Index, sequence: int, expected: int | None) -> None:
    """The last indexed one that starts at or before it."""
    assert index.position_at(sequence) == (None if expected is None else POSITIONS[expected])


@given(
    firsts=st.sets(st.integers(min_value=0, max_value=50), max_size=8), sequence=st.integers(min_value=0, max_value=60)
)
@exploring
def test_rows_are_found_among_any_others(path: str, firsts: set[int], sequence: int) -> None:
    """As in a sorted list, whatever rows of other kinds lie around them, none included."""
    ordered = sorted(firsts)
    segments = [SegmentName(first, first) for first in ordered]
    positions = [SparsePosition(first, first, first, first) for first in ordered]
    for content in (EMPTY._replace(segments=segments), EMPTY._replace(positions=positions)):
        index = Index.make(path, content)
        at_or_before = [first for first in ordered if first <= sequence]
        after = [first for first in ordered if first > sequence]
        is_segments = bool(content.segments)
        expected = at_or_before[-1] if at_or_before else None
        segment, position = index.segment_at(sequence), index.position_at(sequence)
        assert (segment.first_sequence if segment else None) == (expected if is_segments else None)
        assert (position.first_sequence if position else None) == (expected if content.positions else None)
        successor = index.segment_after(sequence)
        assert (successor.first_sequence if successor else None) == (after[0] if is_segments and after else None)
        index.close()


def test_rows_are_deleted(index: Index) -> None:
    """All blocks, segments before a number, counts of shards that are gone; nothing else."""
    with index.write() as transaction:
        transaction.delete_segments_before(100)
        transaction.delete_counts_but({4095})
        transaction.commit()
    assert (index.positions(), index.segments(), list(index.counts())) == (POSITIONS, SEGMENTS[1:], [4095])
    with index.write() as transaction:
        transaction.delete_positions()
        transaction.delete_positions()
        transaction.commit()
    assert (index.positions(), index.segments(), index.producer_position("p")) == ([], SEGMENTS[1:], 7)


def test_many_blocks_are_forgotten(index: Index) -> None:
    """Of a large segment, over many pages."""
    with index.write() as transaction:
        transaction.put_positions(SparsePosition(first, first, first, first) for first in range(5000))
        transaction.commit()
    assert len(index.positions()) == 5002
    with index.write() as transaction:
        transaction.delete_positions()
        assert transaction.positions() == []
        assert transaction.producer_position("p") == 7
        transaction.commit()
    assert index.positions() == []


def test_counts_add_up(index: Index) -> None:
    """Shards that were there and shards that are new."""
    with index.write() as transaction:
        transaction.add_counts({0: (1, 10), 7: (2, 20)})
        transaction.add_counts({7: (3, 30)})
        transaction.add_counts({})
        transaction.commit()
    assert index.counts() == {0: (4, 310), 7: (5, 50), 4095: (2**63, 2**63)}


def test_nothing_shows_before_the_commit(index: Index) -> None:
    """And nothing at all of what is not committed."""
    with index.write() as transaction:
        transaction.put_tail(TAIL._replace(offset=99))
        assert transaction.tail().offset == 99
        assert index.tail() == TAIL
    assert index.tail() == TAIL
    with suppress(KeyError), index.write() as transaction:
        transaction.put_tail(TAIL._replace(offset=99))
        raise KeyError
    assert index.tail() == TAIL
    with index.write() as transaction:
        transaction.put_tail(TAIL._replace(offset=99))
        transaction.commit()
        assert index.tail().offset == 99
    assert index.tail().offset == 99


def test_whether_a_transaction_was_committed(index: Index) -> None:
    """What an interrupted writer asks, wherever it was interrupted."""
    with index.write() as transaction:
        assert not transaction.was_committed()
        transaction.commit()
        assert transaction.was_committed()
    assert transaction.was_committed()
    with index.write() as transaction:
        transaction.abort()
        assert not transaction.was_committed()
    with index.write() as transaction:
        pass
    assert not transaction.was_committed()


@pytest.fixture
def small(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index of a few pages."""
    monkeypatch.setattr(environment, "MAP_BYTES", 128 << 10)
    index = Index.make(path, CONTENT)
    yield index
    index.close()


def _fill(transaction: Any) -> None:
    for number in range(100_000):
        transaction.put_producers([(f"producer {number}" + "x" * 200, number)])


def test_a_full_map_is_storage_full(small: Index) -> None:
    """Nothing of the transaction is there, reading goes on, and so does writing what fits."""
    with pytest.raises(StorageFull, match="MiB are full"), small.write() as transaction:
        _fill(transaction)
    assert small.tail() == TAIL
    assert small.producer_position("producer 0" + "x" * 200) is None
    with small.write() as transaction:
        transaction.put_tail(TAIL._replace(offset=3))
        transaction.commit()
    assert small.tail().offset == 3


def test_the_map_does_not_fill_by_writing_the_same_rows(small: Index) -> None:
    """Pages that nobody reads any more are used again: ten thousand publications fit into 32 pages."""
    for number in range(10_000):
        with small.write() as transaction:
            transaction.put_tail(TAIL._replace(offset=number))
            transaction.add_counts({0: (1, 1)})
            transaction.commit()
        small.tail()
    assert small.counts()[0] == (10_003, 10_300)


@pytest.mark.parametrize(
    ("kind", "code", "free", "expected"),
    [
        (lmdb.Error, errno.EIO, 1 << 40, StorageFailed),
        (lmdb.Error, errno.EIO, 1000, StorageFull),
        (lmdb.Error, errno.ENOSPC, 1 << 40, StorageFull),
        (lmdb.MapFullError, -30792, 1 << 40, StorageFull),
        (lmdb.CorruptedError, -30796, 1 << 40, StorageFailed),
    ],
)
def test_lmdb_s_errors_become_ours(
    index: Index,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[lmdb.Error],
    code: int,
    free: int,
    expected: type[Exception],
    path: str,
) -> None:
    """LMDB reports a short write on a full disk as EIO: the file system is asked before it is believed."""

    class Status:
        f_bavail, f_frsize = free, 1

    monkeypatch.setattr(os, "statvfs", lambda path: Status)
    error = kind("mdb_txn_commit")
    error.code = code  # type: ignore[attr-defined]  # as the binding sets it
    with pytest.raises(expected, match=path), index.write():
        raise error


def test_the_binding_tells_codes(path: str) -> None:
    """What the test above makes up is there in earnest."""
    environment = lmdb.open(path, map_size=64 << 10, sync=False, lib_version=0)
    with pytest.raises(lmdb.MapFullError) as full, environment.begin(write=True) as transaction:
        transaction.put(b"more than there is", bytes(1 << 20))
    assert isinstance(full.value.code, int)
    environment.close()


def test_a_directory_that_is_missing(path: str) -> None:
    """Is not found: nothing is made where a stream is not."""
    with pytest.raises(FileNotFoundError):
        Index.make(path + "-missing", EMPTY)


def test_a_file_that_is_none_of_lmdb_s(path: str) -> None:
    """Opening garbage is StorageFailed: opening for good makes the index anew."""
    Path(path, "data.mdb").write_bytes(b"\xff" * 10_000)
    with pytest.raises(StorageFailed):
        Index(path)


def test_rows_that_are_missing(path: str) -> None:
    """An index without a tail says what to do, instead of failing somewhere else."""
    index = Index(path)
    with pytest.raises(StorageFailed, match="lacks its tail"):
        index.tail()
    with pytest.raises(StorageFailed, match="lacks its tail"), index.write() as transaction:
        transaction.state()
    assert (index.segments(), index.segment_at(5), index.segment_after(5), index.position_at(5)) == (
        [],
        None,
        None,
        None,
    )
    index.close()


def test_a_closed_index_is_closed(index: Index) -> None:
    """Twice is harmless; every use is Closed."""
    index.close()
    index.close()
    for attempt in (
        index.tail, index.state, index.segments, index.positions, index.counts, index.check_readers, index.write,
        lambda: index.segment_at(1), lambda: index.segment_after(1), lambda: index.position_at(1),
        lambda: index.producer_position("p"),
    ):  # fmt: skip
        with pytest.raises(Closed, match="closed"):
            attempt()


def test_a_copy_holds_what_is_published(index: Index, tmp_path: Path) -> None:
    """All rows, in a directory of its own; the index goes on."""
    target = tmp_path / "copy"
    target.mkdir()
    index.copy_to(str(target))
    with index.write() as transaction:
        transaction.put_tail(TAIL._replace(offset=5))
        transaction.commit()
    copy = Index(str(target))
    assert (copy.tail(), copy.segments(), copy.counts()) == (TAIL, SEGMENTS, index.counts())
    copy.close()


@given(steps=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), max_size=30), data=st.data())
@exploring
def test_the_last_block_before_a_time(path: str, steps: list[tuple[int, int]], data: st.DataObject) -> None:
    """Found by halving: the same as by looking at all, whatever the gaps between numbers and times."""
    rows, sequence, moment = [], 100, 0
    for numbers, microseconds in steps:
        rows.append(SparsePosition(sequence, sequence, moment, 0))
        sequence, moment = sequence + numbers, moment + microseconds
    index = Index.make(path, EMPTY._replace(positions=rows))
    try:
        wanted = data.draw(st.integers(-1, moment + 1))
        older = [row for row in rows if row.timestamp_us < wanted]
        assert index.position_before_time(100, sequence, wanted) == (older[-1] if older else None)
    finally:
        index.close()

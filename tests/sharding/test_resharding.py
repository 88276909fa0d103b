"""Shards that are split, merged and rolled over by hand: what they become, and what readers of them find."""

from __future__ import annotations

import random
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from tests.sharding.lineages import check_routed, drain, open_shards, read_parents_first
from tests.support.history import SEGMENT_BYTES, change, changes, new_stream, numbers, records_only

import shardlog
from shardlog import (
    Change,
    InvalidArgument,
    ReadOnly,
    Record,
    ShardClosed,
    ShardNotFound,
    Store,
    Stream,
    StreamDisabled,
)
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Site
from shardlog.log.mark_file import create_mark
from shardlog.model import HASH_RANGE_END
from shardlog.stream.sampling import hash_of
from shardlog.testing.clock import ManualClock

MIDDLE = HASH_RANGE_END // 2
UNKNOWN = "shardId-00000001700000000000-000000ff"


def hash_of_record(record: Record) -> int:
    """Where a record of a stream without a partition key belongs."""
    return hash_of(record.keys)


def only_shard(stream: Stream) -> str:
    """The id of a stream's only open shard."""
    (shard,) = open_shards(stream.describe())
    return shard.shard_id


def test_a_split_closes_the_parent_and_opens_two_children(stream: Stream) -> None:
    """At a hash: ranges, parents and sequence numbers fit together, in the description and to the record."""
    stream.append(changes(0, 20))
    parent = only_shard(stream)
    ids = stream.split_shard(parent, MIDDLE // 2)
    after = stream.append(changes(20, 20)).sequences
    old, left, right = stream.describe().shards
    assert ids == [left.shard_id, right.shard_id]
    assert old.shard_id == parent
    assert old.parent_ids == ()
    assert (old.hash_range, left.hash_range, right.hash_range) == (
        (0, HASH_RANGE_END),
        (0, MIDDLE // 2),
        (MIDDLE // 2, HASH_RANGE_END),
    )
    assert left.parent_ids == right.parent_ids == (parent,)
    assert (old.first_sequence, old.end_sequence) == (1, 21)
    assert (left.first_sequence, left.end_sequence) == (right.first_sequence, right.end_sequence) == (22, None)
    assert min(after) >= 22
    check_routed(stream.describe(), records_only(stream.read()), hash_of_record)


def test_a_merge_closes_two_neighbours_and_opens_one_child(store: Store) -> None:
    """In either order; the child has both for parents and their ranges together."""
    stream = new_stream(store, shards=3)
    stream.append(changes(0, 30))
    a, b, c = open_shards(stream.describe())
    merged = stream.merge_shards(b.shard_id, a.shard_id)
    stream.append(changes(30, 30))
    child, still = open_shards(stream.describe())
    assert child.shard_id == merged
    assert still == c
    assert child.parent_ids == (a.shard_id, b.shard_id)
    assert child.hash_range == (0, c.hash_range[0])
    check_routed(stream.describe(), records_only(stream.read()), hash_of_record)


def test_a_roll_over_opens_one_child_of_the_same_range(stream: Stream) -> None:
    """As DynamoDB does every four hours."""
    first = only_shard(stream)
    second = stream.roll_shard(first)
    third = stream.roll_shard(second)
    assert [shard.parent_ids for shard in stream.describe().shards] == [(), (first,), (second,)]
    assert {shard.hash_range for shard in stream.describe().shards} == {(0, HASH_RANGE_END)}
    assert only_shard(stream) == third


def test_a_split_without_a_hash_halves_what_was_written(stream: Stream, seed: int) -> None:
    """The middle of the range where nothing was."""
    left, right = stream.split_shard(only_shard(stream))
    assert [shard.hash_range[1] for shard in open_shards(stream.describe())] == [MIDDLE, HASH_RANGE_END]
    stream.merge_shards(left, right)
    generator = random.Random(seed)
    crowd = [number for number in range(2000) if hash_of({"id": number}) < HASH_RANGE_END // 8][:100]
    written = crowd * 5 + generator.sample(range(10_000), 100)
    stream.append([change(number, "") for number in written])
    stream.split_shard(only_shard(stream))
    bound = open_shards(stream.describe())[0].hash_range[1]
    below = sum(hash_of({"id": number}) < bound for number in written)
    assert 0.3 < below / len(written) < 0.7
    assert bound < HASH_RANGE_END // 8


def test_what_is_refused_changes_nothing(store: Store) -> None:
    """Unknown and closed shards, hashes outside, shards that do not touch: the description stays as it was."""
    stream = new_stream(store, shards=3)
    a, b, c = (shard.shard_id for shard in open_shards(stream.describe()))
    closed = a
    a = stream.roll_shard(a)
    before, next_sequence = stream.describe(), stream.next_sequence
    with pytest.raises(ShardClosed):
        stream.split_shard(closed, 1)
    with pytest.raises(ShardClosed):
        stream.split_shard(closed)
    with pytest.raises(ShardClosed):
        stream.merge_shards(closed, b)
    with pytest.raises(ShardClosed):
        stream.roll_shard(closed)
    for unknown in (UNKNOWN, "", "shardId", a.upper()):
        with pytest.raises(ShardNotFound):
            stream.split_shard(unknown)
        with pytest.raises(ShardNotFound):
            stream.merge_shards(a, unknown)
        with pytest.raises(ShardNotFound):
            stream.roll_shard(unknown)
    for at in (0, -1, HASH_RANGE_END, MIDDLE):
        with pytest.raises(InvalidArgument):
            stream.split_shard(a, at)
    for pair in ((a, c), (c, a), (b, b)):
        with pytest.raises(InvalidArgument):
            stream.merge_shards(*pair)
    assert stream.describe() == before
    assert stream.next_sequence == next_sequence


def test_a_disabled_stream_and_a_reader_do_not_reshard(store: Store, stream: Stream) -> None:
    """Disabling ended every shard; a store that is open to read changes nothing."""
    stream.append(changes(0, 3))
    shard_id = only_shard(stream)
    with shardlog.open(store.path, read_only=True) as reader:
        looking = reader.stream("s")
        for function in (looking.split_shard, looking.roll_shard):
            with pytest.raises(ReadOnly):
                function(shard_id)
        with pytest.raises(ReadOnly):
            looking.merge_shards(shard_id, shard_id)
    store.disable_stream("s")
    for function in (stream.split_shard, stream.roll_shard):
        with pytest.raises((ShardClosed, StreamDisabled)):
            function(shard_id)
    assert all(shard.end_sequence is not None for shard in stream.describe().shards)


def test_shards_are_listed_in_the_order_of_their_ids(store_path: Path) -> None:
    """Who was listed stays before who comes later, also when the clock is set back: readers page by the last id."""
    clock = ManualClock()
    with shardlog.open(store_path, clock=clock) as store:
        stream = new_stream(store, shards=2)
        seen: list[str] = []
        for days in (1, -400, 3, -1, 0):
            clock.advance(timedelta(days=days))
            stream.split_shard(open_shards(stream.describe())[0].shard_id)
            listed = [shard.shard_id for shard in stream.describe().shards]
            assert listed == sorted(listed)
            assert listed[: len(seen)] == seen
            seen = listed


def test_a_closed_shard_ends_when_it_is_drained(store: Store) -> None:
    """Until then there is a next iterator and no children; the last page has neither, and says which shards follow."""
    stream = new_stream(store)
    stream.append(changes(0, 25))
    parent = only_shard(stream)
    open_page = stream.get_records(stream.iterator(parent, "TRIM_HORIZON"))
    assert len(open_page.records) == 25
    assert open_page.next_iterator is not None
    children = stream.split_shard(parent, MIDDLE)
    stream.append(changes(25, 25))
    for limit in (1, 7, 24, 25, 1000):
        records, found = drain(stream, parent, limit)
        assert numbers(records) == list(range(25))
        assert found == tuple(children)
    last = stream.get_records(open_page.next_iterator)
    assert (last.records, last.next_iterator, last.child_shard_ids) == ([], None, tuple(children))
    assert last.behind == timedelta(0)


def test_both_parents_of_a_merge_lead_to_its_child(store: Store) -> None:
    """And a roll-over to its only child; a shard that was never used ends at once."""
    stream = new_stream(store, shards=2)
    a, b = (shard.shard_id for shard in open_shards(stream.describe()))
    child = stream.merge_shards(a, b)
    grandchild = stream.roll_shard(child)
    stream.append(changes(0, 3))
    assert drain(stream, a) == drain(stream, b) == ([], (child,))
    assert drain(stream, child) == ([], (grandchild,))
    page = stream.get_records(stream.iterator(grandchild, "TRIM_HORIZON"))
    assert len(page.records) == 3
    assert page.next_iterator is not None


def test_a_disabled_stream_ends_without_children(store: Store, stream: Stream) -> None:
    """Readers of its last shards come to an end."""
    stream.append(changes(0, 5))
    store.disable_stream("s")
    (shard,) = stream.describe().shards
    records, children = drain(stream, shard.shard_id)
    assert numbers(records) == list(range(5))
    assert children == ()


def test_the_first_sequence_number_of_a_shard_reads_all_it_has(store: Store) -> None:
    """Of every shard, whatever its first record's number is; also of one that has none yet."""
    stream = new_stream(store, shards=2)
    for turn in range(6):
        stream.append(changes(10 * turn, 10))
        shards = open_shards(stream.describe())
        if turn % 2:
            stream.merge_shards(shards[0].shard_id, shards[1].shard_id)
        else:
            stream.split_shard(shards[0].shard_id)
    found = []
    for shard in stream.describe().shards:
        iterator = stream.iterator(shard.shard_id, "AT_SEQUENCE_NUMBER", sequence=shard.first_sequence)
        found += stream.get_records(iterator).records
    assert sorted(numbers(found)) == list(range(60))


def test_positions_in_a_closed_shard(stream: Stream) -> None:
    """LATEST and a later time are at its end; AT and AFTER its last record; outside of it there is nothing."""
    stream.append(changes(0, 10))
    parent = only_shard(stream)
    children = tuple(stream.split_shard(parent, MIDDLE))
    stream.append(changes(10, 10))
    old = stream.describe().shards[0]
    assert old.end_sequence is not None
    at_end = [
        stream.iterator(parent, "LATEST"),
        stream.iterator(parent, "AFTER_SEQUENCE_NUMBER", sequence=10),
        stream.iterator(parent, "AT_SEQUENCE_NUMBER", sequence=old.end_sequence),
        stream.iterator(parent, "AFTER_SEQUENCE_NUMBER", sequence=old.end_sequence),
        stream.iterator(
            parent, "AT_TIMESTAMP", timestamp=max(record.created_at for record in records_only(stream.read()))
        ),
    ]
    for iterator in at_end:
        page = stream.get_records(iterator)
        assert (page.records, page.next_iterator, page.child_shard_ids) == ([], None, children)
    last = stream.get_records(stream.iterator(parent, "AT_SEQUENCE_NUMBER", sequence=10))
    assert numbers(last.records) == [9]
    assert last.next_iterator is None
    for sequence in (0, old.end_sequence + 1, 10**6):
        with pytest.raises(InvalidArgument):
            stream.iterator(parent, "AT_SEQUENCE_NUMBER", sequence=sequence)
    for kind in ("LATEST", "TRIM_HORIZON"):
        with pytest.raises(ShardNotFound):
            stream.iterator(UNKNOWN, kind)


def test_latest_of_an_open_shard_goes_on_through_its_end(stream: Stream) -> None:
    """What comes between the iterator and the split is read; then it ends."""
    stream.append(changes(0, 5))
    parent = only_shard(stream)
    iterator = stream.iterator(parent, "LATEST")
    stream.append(changes(5, 5))
    children = stream.split_shard(parent)
    stream.append(changes(10, 5))
    page = stream.get_records(iterator)
    assert numbers(page.records) == list(range(5, 10))
    assert page.next_iterator is None
    assert page.child_shard_ids == tuple(children)


def test_reading_one_shard_stops_at_its_end(store: Store) -> None:
    """`read` of one shard, following or not, ends with it; of the whole stream it goes through splits unnoticed."""
    stream = new_stream(store)
    stream.append(changes(0, 10))
    parent = only_shard(stream)
    everything = stream.read(stop=22, follow=True)
    assert numbers([next(everything)]) == [0]
    left, right = stream.split_shard(parent, MIDDLE)
    assert max(stream.append(changes(10, 10)).sequences) == 21
    assert numbers(stream.read(shard_id=parent, follow=True, timeout=20)) == list(range(10))
    assert sorted(numbers(records_only(stream.read(shard_id=left)) + records_only(stream.read(shard_id=right)))) == (
        list(range(10, 20))
    )
    rest = records_only(everything)
    assert [record.sequence for record in rest] == sorted(record.sequence for record in rest)
    assert sorted(numbers(rest)) == list(range(1, 20))


@pytest.fixture
def grown(store: Store, seed: int) -> Stream:
    """A disabled stream after many splits, merges and roll-overs over many segments; items have versions in `text`."""
    generator = random.Random(seed)
    stream = new_stream(store, shards=3)
    for turn in range(40):
        stream.append(
            [
                Change.insert(keys={"id": item}, new={"id": item, "turn": turn})
                for item in generator.sample(range(60), 30)
            ]
        )
        shards = open_shards(stream.describe())
        index = generator.randrange(len(shards))
        what = generator.choice(["split", "split", "merge", "roll"])
        if what == "merge" and index:
            stream.merge_shards(shards[index - 1].shard_id, shards[index].shard_id)
        elif what == "roll":
            stream.roll_shard(shards[index].shard_id)
        else:
            stream.split_shard(shards[index].shard_id)
    store.disable_stream("s")
    return stream


def turns_by_item(records: list[Record]) -> dict[int, list[int]]:
    """The versions of each item, in the order read."""
    found: dict[int, list[int]] = {}
    for record in records:
        assert record.new_image is not None
        found.setdefault(record.keys["id"], []).append(record.new_image["turn"])
    return found


@pytest.mark.parametrize("limit", [3, 1000])
def test_parents_first_keeps_the_order_of_every_item(grown: Stream, limit: int) -> None:
    """As a consumer reads that takes a child when its parents are done; and the total order has the same records."""
    total = records_only(grown.read())
    assert len(total) == 40 * 30
    assert [record.sequence for record in total] == sorted({record.sequence for record in total})
    check_routed(grown.describe(), total, hash_of_record)
    consumed = read_parents_first(grown, limit)
    assert sorted(consumed, key=lambda record: record.sequence) == total
    by_item = turns_by_item(consumed)
    assert by_item == turns_by_item(total)
    assert all(turns == sorted(turns) for turns in by_item.values())


def test_the_lineage_is_there_after_opening_again(grown: Stream, store: Store) -> None:
    """To write, to read alone, and from a copy of the directory without its index and MARK."""
    described, records = grown.describe(), records_only(grown.read())
    store.close()
    for read_only in (False, True):
        with shardlog.open(store.path, read_only=read_only) as again:
            assert again.stream("s").describe() == described
            assert records_only(again.stream("s").read()) == records
    (directory,) = Path(store.path).glob("streams/s/*")
    (directory / "MARK").unlink()
    shutil.rmtree(directory / "index")
    with shardlog.open(store.path) as again:
        assert again.stream("s").describe() == described
        assert records_only(again.stream("s").read()) == records


@pytest.fixture
def busy(store: Store, seed: int) -> Stream:
    """A stream of segments of 4 MiB, the last of them with checkpoints, reshards and producers all over."""
    generator = random.Random(seed)
    stream = store.create_stream("busy", segment_bytes=4 << 20, durability="os", shards=2)
    for turn in range(160):
        stream.append(changes(turn * 200, 200), producer=f"producer-{turn % 5}", position=turn)
        if turn % 8 == 7:
            shards = open_shards(stream.describe())
            stream.split_shard(generator.choice(shards).shard_id)
        if turn % 16 == 15:
            left, right, *_ = open_shards(stream.describe())
            stream.merge_shards(left.shard_id, right.shard_id)
    stream.sync()
    return stream


def test_recovery_from_a_checkpoint_is_recovery_from_the_header(busy: Stream, store: Store, tmp_path: Path) -> None:
    """The same state, counts per shard and producers' positions: MARK only says where to begin."""
    stream = busy._stream
    assert stream.tail().checkpoint_offset > 1 << 20
    wanted = (
        busy.describe(),
        stream.index.counts(),
        [busy.position(f"producer-{number}") for number in range(5)],
        stream.index.positions(),
        busy.next_sequence,
    )
    for name, loses_mark in (("with", False), ("without", True)):
        copy = tmp_path / name
        shutil.copytree(store.path, copy)
        (directory,) = copy.glob("streams/busy/*")
        if loses_mark:
            (directory / "MARK").unlink()
            create_mark(PosixFiles(), str(directory / "MARK"), Site.STREAM_MARK)
        with shardlog.open(copy) as again:
            recovered = again.stream("busy")
            index = recovered._stream.index
            assert (
                recovered.describe(),
                index.counts(),
                [recovered.position(f"producer-{number}") for number in range(5)],
                index.positions(),
                recovered.next_sequence,
            ) == wanted
            assert records_only(recovered.read()) == records_only(busy.read())


def test_a_small_segment_may_be_all_header(store: Store) -> None:
    """More than a hundred closed shards make a snapshot longer than a segment: it rolls, recovers and reads as ever."""
    stream = new_stream(store, retention=None)
    for number in range(150):
        if number % 10 == 0:
            stream.append([change(number, "")])
        stream.roll_shard(only_shard(stream))
    described = stream.describe()
    assert len(described.shards) == 151
    assert max(path.stat().st_size for path in Path(store.path).glob("streams/s/*/log/*")) > SEGMENT_BYTES
    store.close()
    with shardlog.open(store.path) as again:
        assert again.stream("s").describe() == described
        assert numbers(again.stream("s").read()) == list(range(0, 150, 10))

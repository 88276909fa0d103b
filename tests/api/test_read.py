from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from tests.support.history import change, changes, new_stream, numbers, records_only, seen_in

import shardlog
from shardlog import CorruptLog, Gap, InvalidArgument, Record, ShardNotFound, Store, Stream, TrimmedData
from shardlog.testing.clock import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


async def gathered(stream: Stream, *arguments: Any, **options: Any) -> list[Record | Gap]:
    """What `read_async` yields."""
    return [record async for record in stream.read_async(*arguments, **options)]


def read(stream: Stream, *arguments: Any, **options: Any) -> list[Record | Gap]:
    """What `read` yields, which `read_async` must yield as well."""
    found = list(stream.read(*arguments, **options))
    assert asyncio.run(gathered(stream, *arguments, **options)) == found
    return found


def segment_paths(store_path: Path) -> list[Path]:
    """All segments of the stream."""
    return sorted(store_path.glob("streams/s/*/log/*.seg"))


@pytest.fixture
def timed(store_path: Path) -> Any:
    """A stream of three shards over some segments, with an append every second, in a store of its own clock."""
    clock = ManualClock(NOON)
    with shardlog.open(store_path, clock=clock) as store:
        stream = new_stream(store, shards=3)
        for first in range(0, 300, 5):
            stream.append(changes(first, 5), producer="p", position=first)
            clock.advance(SECOND)
        assert stream.statistics().segments > 3
        yield stream


# Positions


def test_every_start_and_stop(timed: Stream, seed: int) -> None:
    """`start` is inclusive and `stop` exclusive, over all shards and for each, at every number and between."""
    choices = random.Random(seed)
    everything = records_only(timed.read())
    last = timed.next_sequence
    places = [*range(6), *(choices.randrange(last) for _ in range(60)), last - 1, last, last + 1, last + 10**6]
    shards = [None, *(shard.shard_id for shard in timed.describe().shards)]
    for start in places:
        stop, shard = choices.choice([None, *places]), choices.choice(shards)
        wanted = [
            record
            for record in everything
            if start <= record.sequence < (2**64 if stop is None else stop) and shard in (None, record.shard_id)
        ]
        assert list(timed.read(start, stop=stop, shard_id=shard)) == wanted


def test_named_positions(timed: Stream) -> None:
    """TRIM_HORIZON is the beginning, LATEST the end; both serve as start and as stop."""
    everything = list(timed.read())
    assert read(timed, "TRIM_HORIZON") == everything
    assert read(timed, stop="LATEST") == everything
    assert read(timed, "LATEST") == read(timed, stop="TRIM_HORIZON") == []
    middle = everything[100]
    assert isinstance(middle, Record)
    assert read(timed, middle.sequence, stop="LATEST") == everything[100:]


def test_positions_are_settled_by_the_call(stream: Stream) -> None:
    """LATEST is the end when `read` (or `read_async`) was called, not when the first record is asked for."""
    stream.append(changes(0, 2))
    to_here, from_here = stream.read(stop="LATEST"), stream.read("LATEST")

    async def run() -> tuple[list[Record | Gap], list[Record | Gap]]:
        later_to, later_from = stream.read_async(stop="LATEST"), stream.read_async("LATEST")
        await stream.append_async(changes(2, 2))
        return [record async for record in later_to], [record async for record in later_from]

    also_to, also_from = asyncio.run(run())
    assert numbers(to_here) == numbers(also_to) == [0, 1]
    assert numbers(from_here) == numbers(also_from) == [2, 3]


def test_times_are_append_times(timed: Stream) -> None:
    """A time is the first record appended then or later; before all and after all are the beginning and the end."""
    everything = records_only(timed.read())
    for seconds in (-3600, -1, 0, 0.5, 1, 17, 17.000001, 30, 59, 59.5, 60, 3600):
        moment = NOON + timedelta(seconds=seconds)
        wanted = [record for record in everything if record.created_at >= moment]
        assert read(timed, moment) == wanted
        assert read(timed, stop=moment) == everything[: len(everything) - len(wanted)]
    eastern = (NOON + 17 * SECOND).astimezone(timezone(timedelta(hours=9)))
    assert read(timed, eastern) == read(timed, NOON + 17 * SECOND)


def test_append_time_never_goes_back(store_path: Path) -> None:
    """When the clock is set back, records keep the time of the one before until the clock has caught up."""
    clock = ManualClock(NOON)
    with shardlog.open(store_path, clock=clock) as store:
        stream = new_stream(store)
        for number, seconds in enumerate([0, 10, -3600, 3600, 1]):
            clock.advance(timedelta(seconds=seconds))
            stream.append([change(number)])
        clock.advance(timedelta(days=-1))
    with shardlog.open(store_path, clock=clock) as store:
        stream = store.stream("s")
        stream.append([change(5)])
        times = [(record.created_at - NOON).total_seconds() for record in records_only(stream.read())]
    assert times == [0, 10, 10, 10, 11, 11]


@pytest.mark.parametrize("bad", ["latest", "", None, -1, 1.0, True, "17", NOON.replace(tzinfo=None), b"LATEST", [1]])
def test_other_positions_are_refused(stream: Stream, bad: Any) -> None:
    """Anything else is InvalidArgument, when the call is made."""
    with pytest.raises(InvalidArgument, match="start"):
        stream.read(bad)
    if bad is not None:
        with pytest.raises(InvalidArgument, match="stop"):
            stream.read(stop=bad)


@pytest.mark.parametrize(
    "options",
    [{"on_damage": "skip"}, {"on_damage": None}, {"timeout": -1}, {"timeout": "1"}, {"timeout": float("nan")}],
)
def test_other_options_are_refused(stream: Stream, options: dict[str, Any]) -> None:
    """`on_damage` is "raise" or "gap", `timeout` None or seconds."""
    with pytest.raises(InvalidArgument):
        stream.read(follow=True, **options)


def test_a_shard_that_is_not_there(timed: Stream, store: Store) -> None:
    """ShardNotFound for ids of no shard and of another stream's."""
    other = new_stream(store, "other", shards=5).describe().shards[4].shard_id
    for shard_id in ("", "x", other, timed.describe().shards[0].shard_id.upper()):
        with pytest.raises(ShardNotFound):
            timed.read(shard_id=shard_id)


def test_shards_together_are_the_stream(timed: Stream) -> None:
    """Every record is in exactly one shard's reading, in the same order as in the stream's."""
    everything = records_only(timed.read())
    of_shards = []
    for shard in timed.describe().shards:
        found = records_only(read(timed, shard_id=shard.shard_id))
        assert {record.shard_id for record in found} == {shard.shard_id}
        of_shards += found
    assert sorted(of_shards, key=lambda record: record.sequence) == everything


def test_a_reader_ends_where_the_stream_ended(stream: Stream) -> None:
    """Without `follow`, what is appended while reading need not be seen, and reading ends."""
    stream.append(changes(0, 5))
    seen = 0
    for record in stream.read():
        assert isinstance(record, Record)
        stream.append(changes(record.keys["id"] + 100, 3))
        seen += 1
        assert seen <= 8
    assert seen >= 5


def test_many_readers_at_once(timed: Stream) -> None:
    """Readers do not share a place: interleaved, each sees everything."""
    readers = [timed.read() for _ in range(5)] + [timed.read(100) for _ in range(5)]
    found: list[list[Record]] = [[] for _ in readers]
    while readers:
        for index, reader in reversed(list(enumerate(readers))):
            record = next(reader, None)
            if record is None:
                del readers[index]
            else:
                assert isinstance(record, Record)
                found[index].append(record)
    everything = records_only(timed.read())
    assert (
        sorted(map(len, found), reverse=True)
        == [len(everything)] * 5 + [sum(record.sequence >= 100 for record in everything)] * 5
    )


def test_a_reader_survives_rolls_and_recreation_of_the_index(store: Store, store_path: Path) -> None:
    """What a reader began before many rolls, it ends after them, without loss."""
    stream = new_stream(store)
    stream.append(changes(0, 10))
    reader = stream.read(follow=True, timeout=0)
    found = [next(reader) for _ in range(3)]
    for first in range(10, 1000, 10):
        stream.append(changes(first, 10))
    assert numbers([*found, *reader]) == list(range(1000))


# Before the horizon


def test_numbers_before_the_horizon_are_trimmed(store_path: Path) -> None:
    """What has expired is TrimmedData, at once and in the middle of reading; the rest is served from its start."""
    clock = ManualClock(NOON)
    with shardlog.open(store_path, clock=clock) as store:
        stream = new_stream(store, retention=timedelta(hours=1))
        for first in range(0, 300, 10):
            stream.append(changes(first, 10))
            clock.advance(timedelta(minutes=3))
        everything = records_only(stream.read())
        (shard,) = stream.describe().shards
        early = stream.iterator(shard.shard_id, "AT_SEQUENCE_NUMBER", sequence=5)
        late_reader, reader = stream.read(), stream.read()
        next(reader)
        stream.expire(force=True)
        horizon = stream.trim_horizon
        assert 1 < horizon < 250
        with pytest.raises(TrimmedData):
            next(late_reader)
    for read_only in (True, False):
        with shardlog.open(store_path, clock=clock, read_only=read_only) as again:
            stream = again.stream("s")
            assert stream.trim_horizon == horizon
            left = [record for record in everything if record.sequence >= horizon]
            assert list(stream.read()) == list(stream.read(horizon)) == list(stream.read(NOON)) == left
            for sequence in (0, 1, horizon - 1):
                with pytest.raises(TrimmedData, match=str(horizon)):
                    stream.read(sequence)
            for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
                with pytest.raises(TrimmedData):
                    stream.iterator(shard.shard_id, kind, sequence=horizon - 2)
            with pytest.raises(TrimmedData):
                stream.get_records(early)
            page = stream.get_records(stream.iterator(shard.shard_id, "TRIM_HORIZON"))
            assert page.records == left


# Damage


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture(scope="module")
def sealed_template(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[int, str], Path]:
    """A closed store with a stream of many segments, to be copied, and what it holds."""
    path = tmp_path_factory.mktemp("sealed") / "store"
    with shardlog.open(path) as store:
        stream = new_stream(store, shards=2)
        for first in range(0, 600, 6):
            stream.append(changes(first, 6))
        return seen_in(records_only(stream.read())), path


@pytest.fixture
def sealed(sealed_template: tuple[dict[int, str], Path], store_path: Path) -> tuple[dict[int, str], Path]:
    """A closed stream of many segments: what it holds, and one of its sealed segments."""
    held, path = sealed_template
    shutil.copytree(path, store_path)
    return held, segment_paths(store_path)[2]


BLOCK = b"SLOG"
PLACES: dict[str, Callable[[bytes], int]] = {
    "magic": lambda content: content.index(BLOCK, 6000),
    "length": lambda content: content.index(BLOCK, 6000) + 8,
    "first sequence": lambda content: content.index(BLOCK, 6000) + 24,
    "previous crc": lambda content: content.index(BLOCK, 6000) + 56,
    "header crc": lambda content: content.index(BLOCK, 6000) + 60,
    "directory": lambda content: content.index(BLOCK, 6000) + 64,
    "body": lambda content: content.index(BLOCK, 6000) + 130,
    "first block": lambda content: 4096 + 70,
    "last body": lambda content: content.rindex(BLOCK, 0, content.rindex(BLOCK)) + 120,
}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_damage_is_told_exactly(
    sealed: tuple[dict[int, str], Path], store_path: Path, place: str, read_only: bool
) -> None:
    """One flipped bit in a sealed segment: an error (or a Gap) with the range, and every other record as it was.

    The error names the segment and the offset; reading goes on behind `error.sequences[1]`.
    """
    held, path = sealed
    flip(path, PLACES[place](path.read_bytes()), bit=3)
    with shardlog.open(store_path, read_only=read_only) as again:
        stream = again.stream("s")
        found = list(stream.read(on_damage="gap"))
        assert asyncio.run(gathered(stream, on_damage="gap")) == found
        (gap,) = [item for item in found if isinstance(item, Gap)]
        records = [item for item in found if isinstance(item, Record)]
        lost = held.keys() - seen_in(records).keys()
        assert seen_in(records) == {sequence: held[sequence] for sequence in held.keys() - lost}
        assert 1 <= len(lost) <= 6
        assert lost == set(range(gap.first, gap.next)) & held.keys()
        assert gap.next - gap.first == len(lost)
        position = found.index(gap)
        assert all(item.sequence < gap.first for item in found[:position] if isinstance(item, Record))
        assert all(item.sequence >= gap.next for item in found[position + 1 :] if isinstance(item, Record))
        assert gap.segment is not None
        assert path.name in gap.segment
        assert gap.reason

        reader = stream.read()
        before = []
        with pytest.raises(CorruptLog) as caught:
            before.extend(reader)
        assert caught.value.sequences == (gap.first, gap.next)
        assert caught.value.segment is not None
        assert path.name in caught.value.segment
        assert caught.value.offset == gap.offset
        assert path.name in str(caught.value)
        assert [*before, *stream.read(gap.next)] == records
        with pytest.raises(CorruptLog):
            asyncio.run(gathered(stream))


@pytest.mark.parametrize("place", ["magic", "body"])
def test_damage_in_pages(sealed: tuple[dict[int, str], Path], store_path: Path, place: str) -> None:
    """`get_records` gives what is before the damage, then CorruptLog, and goes on behind it."""
    held, path = sealed
    flip(path, PLACES[place](path.read_bytes()))
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        found: dict[int, str] = {}
        lost: set[int] = set()
        for shard in stream.describe().shards:
            iterator: str | None = stream.iterator(shard.shard_id, "TRIM_HORIZON")
            errors = 0
            while iterator is not None:
                try:
                    page = stream.get_records(iterator, 40)
                except CorruptLog as error:
                    broken = error.sequences or (0, 0)
                    lost |= set(range(*broken))
                    errors += 1
                    assert errors == 1
                    iterator = stream.iterator(shard.shard_id, "AT_SEQUENCE_NUMBER", sequence=broken[1])
                    continue
                found |= seen_in(page.records)
                iterator = page.next_iterator if page.records or page.behind else None
        assert found == {sequence: held[sequence] for sequence in held.keys() - lost}
        assert 1 <= len(lost) <= 6


def test_damage_to_one_shards_batch_harms_that_shard_alone(
    sealed: tuple[dict[int, str], Path], store_path: Path
) -> None:
    """A reader of the other shard sees all of its records, and no gap."""
    held, path = sealed
    flip(path, PLACES["body"](path.read_bytes()))
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        gaps, records = [], []
        for shard in stream.describe().shards:
            for item in stream.read(shard_id=shard.shard_id, on_damage="gap"):
                (records if isinstance(item, Record) else gaps).append((shard.shard_id, item))
        assert len(gaps) == 1
        assert len({record.sequence for _, record in records if isinstance(record, Record)}) < len(held)
        whole = next(shard.shard_id for shard in stream.describe().shards if shard.shard_id != gaps[0][0])
        everywhere = {item.sequence for item in stream.read(on_damage="gap") if isinstance(item, Record)}
        assert {
            record.sequence for shard, record in records if shard == whole and isinstance(record, Record)
        } <= everywhere


@pytest.mark.parametrize("which", [0, 2])
def test_a_segment_that_is_missing_is_a_gap(sealed: tuple[dict[int, str], Path], store_path: Path, which: int) -> None:
    """A sealed segment's file that is gone, also the first: its numbers are one gap, everything else is there."""
    held, _ = sealed
    first, after = (int(segment.name.split("-")[0]) for segment in segment_paths(store_path)[which : which + 2])
    lost = range(first, after)
    segment_paths(store_path)[which].unlink()
    with shardlog.open(store_path) as again:
        found = list(again.stream("s").read(on_damage="gap"))
        (gap,) = [item for item in found if isinstance(item, Gap)]
        assert (gap.first, gap.next) == (lost.start, lost.stop)
        assert seen_in(item for item in found if isinstance(item, Record)) == {
            sequence: text for sequence, text in held.items() if sequence not in lost
        }


def test_a_damaged_segment_header_costs_no_record(sealed: tuple[dict[int, str], Path], store_path: Path) -> None:
    """The blocks of a sealed segment are found and verified without its header."""
    held, path = sealed
    flip(path, 40)
    with shardlog.open(store_path) as again:
        found = list(again.stream("s").read(on_damage="gap"))
        assert seen_in(item for item in found if isinstance(item, Record)) == held


@pytest.mark.parametrize("where", ["trailer", "footer"])
def test_a_damaged_footer_costs_no_record(sealed: tuple[dict[int, str], Path], store_path: Path, where: str) -> None:
    """What a footer says is told by the blocks before it: nothing is lost, by any start."""
    held, path = sealed
    content = path.read_bytes()
    flip(path, len(content) - 20 if where == "trailer" else content.rindex(BLOCK) + 70)
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        assert seen_in(records_only(stream.read())) == held
        for start in range(1, max(held), 37):
            assert seen_in(records_only(stream.read(start))).keys() == {number for number in held if number >= start}

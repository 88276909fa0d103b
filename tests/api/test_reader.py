"""What consumers are built on: reading on, positions, and being told of appends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.background import wait_until
from tests.support.history import changes, new_stream, numbers

from shardlog import Closed, Gap, InvalidArgument, Store, Stream
from shardlog.stream.log_reader import LogReader, RecordBatch


def read_on(reader: LogReader) -> list[int]:
    """The items of all that is published and was not read yet."""
    found: list[int] = []
    for batch in reader.published():
        assert isinstance(batch, RecordBatch), batch
        assert {record.shard_id for record in batch.records} == {batch.shard_id}
        assert batch.body_bytes > 0
        found += numbers(batch.records)
    return found


def test_a_reader_goes_on_where_it_was(stream: Stream) -> None:
    """Each time it is asked: what is new, once; its position is behind all of it."""
    reader = stream.reader(1)
    assert read_on(reader) == []
    for first in range(0, 60, 20):
        stream.append(changes(first, 20))
        assert read_on(reader) == list(range(first, first + 20))
        assert reader.position == stream.next_sequence
        assert read_on(reader) == []


def test_a_reader_begins_in_the_middle_of_a_batch(stream: Stream) -> None:
    """Records before its start are left out."""
    sequences = stream.append(changes(0, 10)).sequences
    for number, sequence in enumerate(sequences):
        assert read_on(stream.reader(sequence)) == list(range(number, 10))


def test_a_reader_gives_what_was_selected(store: Store) -> None:
    """Some shards only, others from then on; an unknown one has none."""
    stream = new_stream(store, shards=3)
    ids = [shard.shard_id for shard in stream.describe().shards]
    stream.append(changes(0, 30))
    of_shard = {shard_id: numbers(stream.read(shard_id=shard_id)) for shard_id in ids}
    for shard_id in ids:
        assert read_on(stream.reader(1, [shard_id])) == of_shard[shard_id]
    reader = stream.reader(1, ["shardId-of-nobody"])
    assert read_on(reader) == []
    reader.select(ids[:2])
    stream.append(changes(30, 30))
    wanted = {number for shard_id in ids[:2] for number in numbers(stream.read(shard_id=shard_id)) if number >= 30}
    assert set(read_on(reader)) == wanted


def test_a_reader_of_a_closed_stream_raises_closed(stream: Stream) -> None:
    """Also in the middle."""
    stream.append(changes(0, 5))
    stream.append(changes(5, 5))
    reader = stream.reader(1)
    published = reader.published()
    assert not isinstance(next(published), Gap)
    stream.close()
    with pytest.raises(Closed):
        list(published)
    with pytest.raises(Closed):
        list(reader.published())


def test_a_readers_arguments_are_checked(stream: Stream) -> None:
    """What to do about damage is one of two words."""
    with pytest.raises(InvalidArgument, match="on_damage"):
        stream.reader(1, on_damage="skip")  # type: ignore[arg-type]  # that is the point


def test_positions_are_settled_to_numbers(stream: Stream) -> None:
    """The first readable, the next, a number itself, the first record at a time or later."""
    sequences = stream.append(changes(0, 5)).sequences
    assert stream.sequence_of("TRIM_HORIZON") == stream.trim_horizon
    assert stream.sequence_of("LATEST") == stream.next_sequence
    assert stream.sequence_of(sequences[2]) == sequences[2]
    assert stream.sequence_of(0) == 1
    assert stream.sequence_of(datetime.now(UTC) + timedelta(hours=1)) == stream.next_sequence
    assert stream.sequence_of(datetime.now(UTC) - timedelta(hours=1)) <= sequences[0]


@pytest.mark.parametrize("wrong", ["EARLIEST", -1, True, 1.5, None, datetime(2026, 1, 1)], ids=repr)
def test_what_is_no_position_is_refused(stream: Stream, wrong: Any) -> None:
    """Naive datetimes as well."""
    with pytest.raises(InvalidArgument, match="position"):
        stream.sequence_of(wrong)


def test_subscribers_are_told_of_appends(store: Store, stream: Stream) -> None:
    """And of the end; not any more when they have unsubscribed."""
    told, told_others = [], []
    end = stream.subscribe(lambda: told.append(1))
    end_of_other = stream.subscribe(lambda: told_others.append(1))
    before = len(told)
    stream.append(changes(0, 1))
    wait_until(lambda: len(told) > before and told_others)
    end_of_other()
    before, before_others = len(told), len(told_others)
    stream.append(changes(1, 1))
    wait_until(lambda: len(told) > before)
    assert len(told_others) <= before_others + 1, "one may have been on its way"
    before = len(told)
    store.close()
    assert len(told) > before
    end()

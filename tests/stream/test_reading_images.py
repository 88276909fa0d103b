"""Who looks at images gets the next batches decoded together; what is read is the same either way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import shardlog
from shardlog import Change, CorruptLog, Record, Stream
from shardlog.format import record as record_module
from shardlog.stream import log_reader

_BATCHES = 6


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """Batches of three records."""
    with shardlog.open(tmp_path / "store") as store:
        made = store.create_stream("s", durability="os")
        for batch in range(_BATCHES):
            made.append([_change(batch * 3 + number) for number in range(3)])
        yield made


def _change(number: int) -> Change:
    return Change.insert(keys={"id": number}, new={"id": number, "batch": number // 3})


def _records(stream: Stream) -> list[Record]:
    return [record for record in stream.read() if isinstance(record, Record)]


def test_it_begins_with_the_batch_after_the_first_look(stream: Stream) -> None:
    """The first batch is decoded record by record; nobody had looked."""
    decoded = []
    for record in stream.read():
        assert isinstance(record, Record)
        decoded.append(record.is_decoded)
        assert record.new_image == {"id": record.sequence - 1, "batch": (record.sequence - 1) // 3}
    assert decoded == [False] * 3 + [True] * (3 * _BATCHES - 3)


def test_who_does_not_look_has_nothing_decoded(stream: Stream) -> None:
    """Replay costs no more than it must."""
    assert not any(record.is_decoded for record in stream.read() if isinstance(record, Record))


def test_who_stops_looking_is_spared_again(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many batches that were decoded together one is not, and shows it."""
    monkeypatch.setattr(log_reader, "DECODED_BATCHES_MAX", 2)
    seen = []
    for record in stream.read():
        assert isinstance(record, Record)
        seen.append(record.is_decoded)
        if record.sequence <= 3:
            _ = record.keys
    assert seen == [False] * 3 + [True] * 6 + [False] * (3 * _BATCHES - 9)


def test_records_are_the_same_either_way(stream: Stream) -> None:
    """All that can be asked of them, whether decoded together or one by one; also as parts of a batch."""
    together = []
    for record in stream.read():
        assert isinstance(record, Record)
        _ = record.keys
        together.append(record)
    alone = _records(stream)
    assert together == alone
    assert len(set(together) | set(alone)) == len(alone)
    for one, other in zip(together, alone, strict=True):
        for name in ("sequence", "event", "shard_id", "created_at", "event_id", "keys", "new_image", "old_image"):
            assert getattr(one, name) == getattr(other, name)
        assert one.size_bytes == other.size_bytes
    assert [record.sequence for record in stream.read(2, stop=5) if isinstance(record, Record)] == [2, 3, 4]


def test_a_row_that_does_not_decode_harms_no_other(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its batch is given undecoded then, as to one who never looked: only who looks at it meets the error."""

    def refuse(_body: bytes) -> list[Record]:
        raise ValueError("of a later release")

    monkeypatch.setattr(record_module, "_decode_rows", refuse)
    seen = []
    for record in stream.read():
        assert isinstance(record, Record)
        seen.append(record.new_image)
    assert seen == [record.new_image for record in _records(stream)]
    page = stream.iterator(stream.describe().shards[0].shard_id, "TRIM_HORIZON")
    with pytest.raises(CorruptLog, match="of a later release"):
        stream.get_records(page)

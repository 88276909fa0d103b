"""The check of what workers handled finds each thing that must not be: journals made up for a real stream."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.processes.handled import Event, Journal, What, check_handled
from tests.support.history import changes, new_stream, records_only

from shardlog import Record, Store, StreamDescription


@pytest.fixture
def stream_of_three(store: Store) -> tuple[list[Record], StreamDescription]:
    """A parent of ten records, and its two children of ten in all."""
    stream = new_stream(store)
    stream.append(changes(0, 10))
    stream.split_shard(stream.describe().shards[0].shard_id, 1 << 127)
    stream.append(changes(0, 10))
    return records_only(stream.read()), stream.describe()


def handle(records: list[Record], outcome: What | None = "checkpointed", life: str = "a") -> list[Event]:
    """A batch of one shard, handled, and what became of it."""
    sequences = tuple(record.sequence for record in records)
    (shard_id,) = {record.shard_id for record in records}
    return [Event(what, life, shard_id, sequences) for what in ("handled", outcome) if what is not None]


def test_all_in_order_is_right(stream_of_three: tuple[list[Record], StreamDescription]) -> None:
    """Each shard's records in order, by several workers; what was lost or in hand at a kill comes again."""
    records, description = stream_of_three
    parent, left, right = (_of(records, shard.shard_id) for shard in description.shards)
    events = [
        *handle(parent[:4], "killed", "a"),
        *handle(parent[:2], "checkpointed", "b"),
        *handle(parent[2:6], None, "c"),
        *handle(parent[2:], "checkpointed", "b"),
        Event("lost", "c", parent[0].shard_id),
        *handle(right, "checkpointed", "c"),
        *handle(left, "checkpointed", "b"),
    ]
    found = check_handled(events, records, description)
    assert (found.records, found.batches, found.repeats, found.lost) == (20, 6, 3, 1)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("skipped", "before"),
        ("the last is missing", "were not handled"),
        ("again", "again"),
        ("out of order", "before"),
        ("child first", "before"),
        ("checkpoint back", "moved a checkpoint back"),
        ("two in hand", "without an outcome"),
        ("never ended", "have no end"),
        ("wrong shard", "is not in"),
    ],
)
def test_what_must_not_be_is_found(
    stream_of_three: tuple[list[Record], StreamDescription], what: str, message: str
) -> None:
    """Whatever breaks a promise fails the check, and the message says which record."""
    records, description = stream_of_three
    parent, left, right = (_of(records, shard.shard_id) for shard in description.shards)
    rest = [*handle(left), *handle(right)]
    wrong = {
        "skipped": [*handle(parent[:3]), *handle(parent[4:]), *rest],
        "the last is missing": [*handle(parent), *handle(left), *handle(right[:-1])],
        "again": [*handle(parent), *handle(parent[5:], "lost"), *handle(parent[5:], "killed", "b"), *rest],
        "out of order": [*handle(parent[5:], "lost"), *handle(parent), *rest],
        "child first": [*handle(left), *handle(parent), *handle(right)],
        "checkpoint back": [*handle(parent), *handle(parent[:5], life="b"), *rest],
        "two in hand": [*handle(parent[:5], None), *handle(parent[5:]), *rest],
        "never ended": [*handle(parent[:5], None, "b"), *handle(parent), *rest],
        "wrong shard": [*handle(parent), Event("handled", "b", left[0].shard_id, (right[0].sequence,)), *rest],
    }
    ends = [] if what == "never ended" else [Event("killed", life) for life in "ab"]
    with pytest.raises(AssertionError, match=message):
        check_handled([*wrong[what], *ends], records, description)


def test_a_journal_keeps_the_order_of_its_writers(tmp_path: Path) -> None:
    """Lines of several writers of one file are read back whole, in the order in which they were written."""
    first, second = Journal(tmp_path / "journal"), Journal(tmp_path / "journal")
    for number in range(20):
        (first, second)[number % 2].note("handled", f"life{number}", "shard", range(number))
    assert first.events() == [Event("handled", f"life{n}", "shard", tuple(range(n))) for n in range(20)]
    assert second.size_bytes == (tmp_path / "journal").stat().st_size


def _of(records: list[Record], shard_id: str) -> list[Record]:
    return [record for record in records if record.shard_id == shard_id]

"""Appends that can be told apart, and the check that a stream holds what it must after processes were killed.

An append is a batch of records that name it: (who, number). `acknowledged` maps it to the sequence numbers that its
append returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from shardlog import Change, Gap, Record, Store, Stream

Append = tuple[str, int]

PADDING: Final = "x" * 60
SEGMENT_BYTES: Final = 16 << 10  # the least: rolls are common


def new_stream(store: Store, name: str = "s", **options: Any) -> Stream:
    """A new stream of small segments."""
    return store.create_stream(name, segment_bytes=SEGMENT_BYTES, **options)


def change(number: int, text: str = PADDING) -> Change:
    """An insert of item `number`."""
    return Change.insert(keys={"id": number}, new={"id": number, "text": text})


def changes(first: int, count: int) -> list[Change]:
    """Inserts of items `first`, `first + 1`, and so on."""
    return [change(number) for number in range(first, first + count)]


def numbers(records: Iterable[Record | Gap]) -> list[int]:
    """The items of records made by `change`, in order."""
    return [record.keys["id"] for record in records_only(records)]


def records_only(found: Iterable[Record | Gap]) -> list[Record]:
    """All of them, none of which may be a gap."""
    records = []
    for record in found:
        assert isinstance(record, Record), record
        records.append(record)
    return records


def batch(who: str, number: int, size: int, text: str = PADDING) -> list[Change]:
    """The changes of append `number` of `who`. Their items fall into different shards."""
    return [
        Change.insert(
            keys={"id": f"{who}-{number}-{index}"},
            new={"id": f"{who}-{number}-{index}", "who": who, "append": number, "of": size, "text": text},
        )
        for index in range(size)
    ]


def appends_of(found: Iterable[Record | Gap]) -> dict[Append, list[int]]:
    """Sequence numbers per append, by index within it; each append must be there whole and once."""
    rows: dict[Append, dict[int, int]] = {}
    sizes: dict[Append, int] = {}
    for record in records_only(found):
        image = record.new_image
        assert image is not None
        append = image["who"], image["append"]
        index = int(image["id"].rsplit("-", 1)[1])
        assert index not in rows.setdefault(append, {}), f"{image['id']} is there twice"
        rows[append][index] = record.sequence
        sizes[append] = image["of"]
    for append, row in rows.items():
        assert sorted(row) == list(range(sizes[append])), f"append {append} is there in part: {sorted(row)}"
    return {append: [row[index] for index in sorted(row)] for append, row in rows.items()}


def check_holds(stream: Stream, acknowledged: Mapping[Append, list[int]]) -> dict[Append, list[int]]:
    """Every acknowledged append is there once, at its numbers; every other one whole or not at all; in total order."""
    records = records_only(stream.read())
    sequences = [record.sequence for record in records]
    assert sequences == sorted(set(sequences))
    found = appends_of(records)
    for append, wanted in acknowledged.items():
        assert found.get(append) == wanted, f"append {append} was acknowledged as {wanted}, found {found.get(append)}"
    return found


def seen_in(records: Iterable[Record]) -> dict[int, str]:
    """What each sequence number stands for."""
    return {record.sequence: record.keys["id"] for record in records}

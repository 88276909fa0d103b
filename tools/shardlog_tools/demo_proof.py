"""What the demo proves about a stream after the kill.

Pure functions over records, acknowledgements and the seed. `compare` holds every record against the change that must
have been written there, made again from the seed: an acknowledged record has to be there under its own number with its
own content. An append that was under way at the kill may be there, whole, or not at all; anything else that is found
counts as wrong. `replay` rebuilds the items, as a consumer would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from shardlog import Change
from shardlog.format.record import Record
from shardlog_tools.demo_changes import appends, thread_of

Items = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Comparison:
    """Acknowledged records found as they were written, and everything that is not as it must be.

    `append_counts` is how many appends of each thread are in the log, acknowledged or not.
    """

    records: int
    found: int
    missing: int
    wrong: int
    in_flight_whole: int
    append_counts: dict[int, int]


def compare(records: Iterable[Record], acknowledged: dict[int, list[list[int]]], seed: int) -> Comparison:
    """Hold a stream against the acknowledged appends: for each thread, the sequence numbers of each append."""
    places = {
        sequence: (thread, number, index)
        for thread, numbered in acknowledged.items()
        for number, sequences in enumerate(numbered)
        for index, sequence in enumerate(sequences)
    }
    expected = {thread: _Expected(seed, thread) for thread in acknowledged}
    unacknowledged: dict[int, list[Record]] = defaultdict(list)
    count = found = wrong = 0
    for record in records:
        count += 1
        place = places.pop(record.sequence, None)
        if place is None:
            unacknowledged[thread_of(record.keys)].append(record)
            continue
        thread, number, index = place
        if _is(record, expected[thread].append(number)[index]):
            found += 1
        else:
            wrong += 1
    append_counts = {thread: len(numbered) for thread, numbered in acknowledged.items()}
    whole = 0
    for thread, leftover in unacknowledged.items():
        number = append_counts.get(thread, 0)
        if _are_whole(leftover, next(islice(appends(seed, thread), number, None))):
            whole += 1
            append_counts[thread] = number + 1
        else:
            wrong += len(leftover)
    return Comparison(count, found, len(places), wrong, whole, append_counts)


def replay(records: Iterable[Record]) -> tuple[Items, int]:
    """The items that a stream leads to, and how many old images were not the item as it was before."""
    items: Items = {}
    mismatches = 0
    for record in records:
        sku = record.keys["sku"]
        mismatches += items.get(sku) != record.old_image
        new = record.new_image
        if new is None:
            items.pop(sku, None)
        else:
            items[sku] = new
    return items, mismatches


def items_after(append_counts: dict[int, int], seed: int) -> Items:
    """The items after so many appends of each thread, without any log."""
    items: Items = {}
    for thread, append_count in append_counts.items():
        for changes in islice(appends(seed, thread), append_count):
            for change in changes:
                if change.new is None:
                    del items[change.keys["sku"]]
                else:
                    items[change.keys["sku"]] = change.new
    return items


class _Expected:
    """One thread's appends, made again one after the other: records come in the order of their thread's appends."""

    def __init__(self, seed: int, thread: int) -> None:
        self._appends: Iterator[list[Change]] = appends(seed, thread)
        self._number = -1
        self._changes: list[Change] = []

    def append(self, number: int) -> list[Change]:
        """The thread's append of that number, from 0. Numbers must not go back: where they do, the order is wrong."""
        if number < self._number:
            return [Change.insert(keys={})] * len(self._changes)
        while self._number < number:
            self._changes = next(self._appends)
            self._number += 1
        return self._changes


def _is(record: Record, change: Change) -> bool:
    return (record.event, record.keys, record.new_image, record.old_image) == (
        change.event,
        change.keys,
        change.new,
        change.old,
    )


def _are_whole(records: list[Record], changes: list[Change]) -> bool:
    """Whether the records are these changes. An append's order holds within a shard, and so for each item."""
    if len(records) != len(changes):
        return False
    by_item: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        by_item[change.keys["sku"]].append(change)
    return all(by_item[record.keys["sku"]] and _is(record, by_item[record.keys["sku"]].pop(0)) for record in records)

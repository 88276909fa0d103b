"""What workers of several processes handled, in the order in which they did, and the check that it is as promised.

All processes write to one journal: a file opened to append, one line and one write(2) for each event, so its order is
that of the events, and what was written survives the writer's SIGKILL. Each life of a worker has a name of its own. It
notes each batch when it handles it, and then what became of its checkpoint, so that a life has at most one batch
without an outcome: its last.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from shardlog import Record, StreamDescription

What = Literal["handled", "checkpointed", "lost", "killed", "frozen"]
FINISHED: Final = "checkpointed"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a life of a worker did, or that was done to it. `sequences`: those of the batch."""

    what: What
    life: str
    shard_id: str = ""
    sequences: tuple[int, ...] = ()


class Journal:
    """The file. Any number of processes may have it open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def note(self, what: What, life: str, shard_id: str = "", sequences: Iterable[int] = ()) -> None:
        """Write an event."""
        os.write(self._descriptor, json.dumps([what, life, shard_id, list(sequences)]).encode() + b"\n")

    @property
    def size_bytes(self) -> int:
        """How long it is: it grows with every event."""
        return os.stat(self._path).st_size

    def events(self) -> list[Event]:
        """All events so far, in order."""
        lines = self._path.read_text().splitlines()
        return [Event(what, life, shard_id, tuple(sequences)) for what, life, shard_id, sequences in map(_line, lines)]


def _line(line: str) -> list[Any]:
    found: list[Any] = json.loads(line)
    return found


@dataclass(frozen=True, slots=True)
class Summary:
    """How many records and batches were handled, and how many of the batches in part for a second time."""

    records: int
    batches: int
    repeats: int
    lost: int
    killed: int


def check_handled(events: Sequence[Event], records: Sequence[Record], description: StreamDescription) -> Summary:
    """Every record was handled; in order per shard, per key and from parents to children; twice only where it may.

    Handled again may only be what was in hand when its worker was killed or lost its lease, or what such a worker
    handles that does not know yet; a checkpoint covers each record once, and goes on where the last one ended.
    """
    outcomes = _outcomes(events)
    before = _what_comes_before(records, description)
    shard_of = {record.sequence: record.shard_id for record in records}
    handled: dict[int, list[int]] = {}
    repeats = 0
    for place, event in enumerate(events):
        if event.what != "handled":
            continue
        assert event.sequences, f"{event.life} handled a batch of nothing"
        for sequence in event.sequences:
            assert shard_of.get(sequence) == event.shard_id, (
                f"{sequence} is not in shard {event.shard_id}: {event.life}"
            )
            missing = [earlier for earlier in before[sequence] if earlier not in handled]
            assert not missing, f"{event.life} handled {sequence} before {missing}"
            earlier = handled.setdefault(sequence, [])
            if outcomes[place] != "lost":
                finished = [other for other in earlier if outcomes[other] == FINISHED]
                assert not finished, f"{event.life} handled {sequence} again, which {events[finished[0]].life} had done"
            earlier.append(place)
        repeats += any(len(handled[sequence]) > 1 for sequence in event.sequences)
    unhandled = shard_of.keys() - handled.keys()
    assert not unhandled, f"{len(unhandled)} records were not handled: {sorted(unhandled)[:10]}"
    counts = {what: sum(outcome == what for outcome in outcomes.values()) for what in (FINISHED, "lost", "killed")}
    return Summary(len(handled), len(outcomes), repeats, counts["lost"], sum(e.what == "killed" for e in events))


def _outcomes(events: Sequence[Event]) -> dict[int, What]:
    """What became of each batch, by its place: the next event of the same life says so."""
    outcomes: dict[int, What] = {}
    in_hand: dict[str, int] = {}
    checkpoints: dict[str, int] = {}
    for place, event in enumerate(events):
        if event.what == "frozen":
            continue
        known = in_hand.pop(event.life, None)
        if event.what == "handled":
            assert known is None, f"{event.life} left a batch without an outcome and took another"
            in_hand[event.life] = place
        elif known is not None:
            outcomes[known] = event.what
        if event.what == FINISHED:
            last = event.sequences[-1]
            assert last > checkpoints.get(event.shard_id, 0), f"{event.life} moved a checkpoint back, to {last}"
            checkpoints[event.shard_id] = last
    assert not in_hand, f"the lives of {sorted(in_hand)} have no end"
    return outcomes


def _what_comes_before(records: Iterable[Record], description: StreamDescription) -> Mapping[int, list[int]]:
    """For each record, those that must have been handled: the last ones of its shard, or the parents', and its key."""
    parents = {shard.shard_id: shard.parent_ids for shard in description.shards}
    last_of_shard: dict[str, int] = {}
    last_of_key: dict[str, int] = {}
    before: dict[int, list[int]] = {}
    for record in records:
        key = json.dumps(record.keys)
        found = {last_of_shard[shard_id] for shard_id in _nearest(record.shard_id, parents, last_of_shard)}
        if key in last_of_key:
            found.add(last_of_key[key])
        before[record.sequence] = sorted(found)
        last_of_shard[record.shard_id] = last_of_key[key] = record.sequence
    return before


def _nearest(shard_id: str, parents: Mapping[str, Sequence[str]], has_records: Container[str]) -> set[str]:
    """The shard, or where it has no records yet its parents, or theirs: the nearest with records on each line."""
    found: set[str] = set()
    seen: set[str] = set()
    left = [shard_id]
    while left:
        one = left.pop()
        if one in seen:
            continue
        seen.add(one)
        if one in has_records:
            found.add(one)
        else:
            left += parents.get(one, ())
    return found

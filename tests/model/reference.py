"""What a stream must hold, as lists and dicts. Plain Python: nothing of the engine is imported here.

A `StoreModel` (`store_model`) has one `StreamModel` per incarnation of a stream. Operations that returned are taken at
once (`took_…`); what became of one that was interrupted, or of everything after a crash, is settled by the next sight
of the stream: `settle` says whether that sight keeps the promises, and takes it from then on. Where it does not,
`Broken` says what was promised and what was seen.

What a sight must keep: every acknowledged append is there, whole, in its place, with its data; after a power cut at
level "os" the unsynced ones are a prefix. An append that was under way is there whole or not at all, and after all
others. A change of the stream happened or did not. No sequence number is ever given again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from tests.model.plain import (
    Appending,
    Change,
    Configuring,
    Disabling,
    Item,
    Options,
    Resharding,
    Row,
    Shard,
    Sight,
    State,
    Trimming,
    check_partition,
    expect,
    is_within,
)


@dataclass
class Appended:
    """An append that is there. `rows` are those that no damage took. `is_synced`: it outlives a power cut."""

    rows: list[Row]
    producer: tuple[str, int] | None
    is_synced: bool


@dataclass
class StreamModel:
    """One stream. `highest` is the highest sequence number that anybody was told of, in whatever way."""

    name: str
    label: str
    options: Options
    state: State
    appends: list[Appended] = field(default_factory=list)
    highest: int = 0
    last_at_us: int = 0
    gaps: list[tuple[int, int]] = field(default_factory=list)
    unseen: Appending | None = None
    """An append of unknown outcome that did not show: a power cut may bring it back, while it would be the last one."""
    found_positions: dict[str, int] = field(default_factory=dict)
    """Positions that do not follow from the appends: those that were there after a repair."""

    @property
    def key(self) -> tuple[str, str]:
        """Name and label."""
        return self.name, self.label

    @property
    def is_enabled(self) -> bool:
        """Whether it takes records."""
        return self.state.status == "ENABLED"

    def rows(self) -> list[Row]:
        """All that reading must give, in order."""
        return [row for append in self.appends for row in append.rows if row.sequence >= self.state.horizon]

    def positions(self) -> dict[str, int]:
        """The producers' positions."""
        found = dict(self.found_positions)
        found.update(append.producer for append in self.appends if append.producer)
        return found

    def shard_of(self, key: str) -> str:
        """The id of the open shard that a partition key belongs to."""
        digest = int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest(), "big")
        found = [shard.shard_id for shard in self.state.open_shards if shard.hash_first <= digest < shard.hash_next]
        expect(len(found) == 1, f"{self.name}: hash {digest:x} belongs to {found}")
        return found[0]

    def kept(self, item: Item) -> Item:
        """What the view type keeps of an item."""
        carries_new = self.options.view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
        carries_old = self.options.view_type in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")
        return Item(item.event, item.keys, item.new if carries_new else None, item.old if carries_old else None)

    def is_duplicate(self, producer: tuple[str, int] | None) -> bool:
        """Whether an append by this producer at this position was made already."""
        return producer is not None and producer[1] <= self.positions().get(producer[0], -1)

    def time_of(self, now_us: int) -> int:
        """The time of an append: it never goes back."""
        return max(now_us, self.last_at_us)

    # What returned

    def took_append(self, appending: Appending, sequences: Sequence[int]) -> None:
        """It was acknowledged with these sequence numbers, in the order given."""
        expect(len(sequences) == len(appending.items), f"{len(appending.items)} records got the numbers {sequences}")
        at_us = self.time_of(appending.at_us)
        rows = [
            Row(sequence, self.shard_of(item.keys["id"]), self.kept(item), at_us)
            for sequence, item in zip(sequences, appending.items, strict=True)
        ]
        expect(len(set(sequences)) == len(sequences), f"a number was given twice: {sequences}")
        for one, other in pairwise(sorted(rows, key=lambda row: row.shard_id)):
            in_order = one.shard_id != other.shard_id or one.sequence < other.sequence
            expect(in_order, f"records of {one.shard_id} changed their order: {sequences}")
        self._add(rows, appending.producer)

    def took_change(self, change: Change, seen: State) -> None:
        """It returned, and this is what the stream looks like since."""
        expect(
            any(state == seen for state in self._outcomes(change, seen)),
            f"{self.name}: {change} made of\n{self.state}\nthis:\n{seen}",
        )
        is_committed = seen != self.state  # an expiry that finds nothing to do writes nothing
        self._enter(seen)
        if is_committed:
            self.took_sync()

    def took_sync(self) -> None:
        """What was appended outlives a power cut from now on."""
        for append in self.appends:
            append.is_synced = True

    def told(self, next_sequence: int) -> None:
        """Somebody was told what number comes next: lower ones are never given again."""
        self.highest = max(self.highest, next_sequence - 1)

    # What was seen

    def check(self, sight: Sight) -> None:
        """Nothing is under way, and nothing was lost: the sight is exactly what the model has."""
        self.settle(sight, None)

    def settle(self, sight: Sight, pending: Change | None, *, after_power_cut: bool = False) -> None:
        """Hold a sight against the promises, with something under way or not, and take it."""
        states = [self.state, *(() if pending is None else self._outcomes(pending, sight.state))]
        expect(
            sight.state in states, f"{self.name}: it was\n{self.state}\nunder way: {pending}\nnow it is\n{sight.state}"
        )
        told = [gap for gap in sight.gaps if not any(first <= gap[0] and gap[1] <= end for first, end in self.gaps)]
        expect(not told, f"{self.name}: gaps that no repair told of: {told}")
        expect(sight.state.horizon <= sight.next_sequence, f"{self.name}: the horizon lies behind the end: {sight}")
        if sight.state != self.state:
            self._enter(sight.state)
            self.took_sync()  # one log: what is before a durable commit is durable
        self._settle_rows(sight, pending if isinstance(pending, Appending) else None, after_power_cut)
        expect(
            sight.positions == self.positions(),
            f"{self.name}: positions should be {self.positions()}, they are {sight.positions}",
        )
        self.told(sight.next_sequence)

    def forget(self, sight: Sight, lost: list[tuple[int, int]]) -> None:
        """After a repair: what lies in a gap may be lost; so may what was lately changed, if the check tells a range.

        A change has a number and no record, so no reader meets it.
        """
        check_partition(sight.state)
        known = self.positions()
        for name, position in sight.positions.items():
            expect(position <= known.get(name, -1), f"{self.name}: position {position} of {name}, it was {known}")
        expect(sight.state.horizon <= self.state.horizon, f"{self.name}: a repair moved the horizon: {sight.state}")
        is_whole = not sight.gaps and not self.gaps and not lost
        expect(not is_whole or (sight.state, sight.positions) == (self.state, known), f"{self.name}: it became {sight}")
        seen = {row.sequence for row in sight.rows}
        for append in self.appends:
            append.rows = [
                row for row in append.rows if row.sequence in seen or not is_within(row.sequence, sight.gaps)
            ]
            append.producer = None
            append.is_synced = True
        self.gaps += sight.gaps
        self.found_positions = dict(sight.positions)
        self._enter(sight.state)
        self.settle(sight, None)

    def _settle_rows(self, sight: Sight, pending: Appending | None, after_power_cut: bool) -> None:
        for one, other in pairwise(sight.rows):
            expect(one.sequence < other.sequence, f"{self.name}: {other.sequence} comes after {one.sequence}")
        seen = {row.sequence: row for row in sight.rows}
        survivors: list[Appended] = []
        lost: Appended | None = None
        for append in self.appends:
            if self._is_there(append, seen, sight, is_behind=lost is not None):
                expect(lost is None, f"{self.name}: {lost} is gone, and a later append is there: {append}")
                survivors.append(append)
                continue
            may_go = after_power_cut and not append.is_synced
            expect(may_go, f"{self.name}: acknowledged, and not there: {append}")
            lost = append
        self.appends = survivors
        known = {row.sequence for append in survivors for row in append.rows}
        more = [row for row in sight.rows if row.sequence not in known]
        unseen = self.unseen if after_power_cut else None
        if unseen is not None and self._came_through(unseen, more, sight) and _ids(more) == _ids(unseen.items):
            pending = unseen
        if pending is not None and self._came_through(pending, more, sight):
            expect(lost is None, f"{self.name}: {lost} is gone, and a later append is there: {pending}")
            highest = self.highest
            if pending is unseen:
                self.highest = min([highest, *(row.sequence - 1 for row in more)])  # they were skipped for its sake
            self._settle_pending(pending, more)
            self.highest = max(highest, self.highest)
        else:
            expect(not more, f"{self.name}: nobody appended {more}")
            self.unseen = pending or self.unseen

    def _is_there(self, append: Appended, seen: dict[int, Row], sight: Sight, *, is_behind: bool) -> bool:
        """Whether an append is there whole; one without rows tells by its position."""
        wanted = [row for row in append.rows if row.sequence >= self.state.horizon]
        if not wanted:
            if append.rows or append.producer is None or append.is_synced:
                return append.is_synced or not is_behind
            name, position = append.producer
            return not is_behind and sight.positions.get(name, -1) >= position
        there = [row for row in wanted if row.sequence in seen]
        expect(len(there) in (0, len(wanted)), f"{self.name}: of an append there is only a part: {there} of {wanted}")
        for row in there:
            expect(row == seen[row.sequence], f"{self.name}: appended was\n{row}\nread was\n{seen[row.sequence]}")
        return bool(there)

    def _came_through(self, pending: Appending, more: list[Row], sight: Sight) -> bool:
        if pending.items or pending.producer is None:
            return bool(more)
        return sight.positions.get(pending.producer[0]) == pending.producer[1]

    def _settle_pending(self, pending: Appending, more: list[Row]) -> None:
        """Rows that were not there before are the whole of the pending append."""
        at_us = self.time_of(pending.at_us)
        wanted: dict[str, list[Item]] = {}
        for item in pending.items:
            wanted.setdefault(self.shard_of(item.keys["id"]), []).append(self.kept(item))
        found: dict[str, list[Item]] = {}
        for row in more:
            found.setdefault(row.shard_id, []).append(row.item)
            expect(row.at_us == at_us, f"{self.name}: {row} was appended at {at_us}")
        expect(found == wanted, f"{self.name}: an append was under way of\n{wanted}\nthere is\n{found}")
        expect(not self.is_duplicate(pending.producer), f"{self.name}: {pending} was appended again")
        self._add(more, pending.producer)

    def _add(self, rows: list[Row], producer: tuple[str, int] | None) -> None:
        for row in rows:
            expect(row.sequence > self.highest, f"{self.name}: number {row.sequence} again, {self.highest} was told")
        rows = sorted(rows)
        self.unseen = None
        if rows:
            self.highest = rows[-1].sequence
        if rows or producer:
            self.last_at_us = max([self.last_at_us, *(row.at_us for row in rows)])
            self.appends.append(Appended(rows, producer, self.options.durability == "fsync"))

    def _enter(self, state: State) -> None:
        self.state = state
        self.unseen = None
        ends = [shard.end or 0 for shard in state.shards.values()]
        self.highest = max([self.highest, *ends])

    # What a change may make of a state: numbers and ids are learned from the sight, all else is expected

    def _outcomes(self, change: Change, seen: State) -> Iterator[State]:
        match change:
            case Resharding():
                yield from self._resharded(change, seen)
            case Configuring(retention_us):
                yield replace(self.state, retention_us=retention_us)
            case Trimming(now_us):
                yield from self._trimmed(now_us, seen)
            case Disabling():
                ended = [seen.shards[one.shard_id] for one in self.state.open_shards if one.shard_id in seen.shards]
                ends = {shard.end for shard in ended}
                if len(ends) == 1 and (end := ends.pop()) is not None and end > self.highest:
                    yield replace(self.state, status="DISABLED", shards=_ended(self.state.shards, end))

    def _resharded(self, change: Resharding, seen: State) -> Iterator[State]:
        children = sorted(
            (shard for shard_id, shard in seen.shards.items() if shard_id not in self.state.shards),
            key=lambda shard: shard.hash_first,
        )
        parents = [seen.shards.get(parent) for parent in change.parents]
        ends = {parent.end for parent in parents if parent is not None}
        end = ends.pop() if len(ends) == 1 else None
        if end is None or end <= self.highest or not children:
            return
        ranges = tuple((child.hash_first, child.hash_next) for child in children)
        if change.ranges is None:
            first, last = ranges[0][0], ranges[-1][1]
            wanted = ((first, ranges[0][1]), (ranges[0][1], last))
            old = self.state.shards[change.parents[0]]
            if (first, last) != (old.hash_first, old.hash_next) or not first < ranges[0][1] < last:
                return
        else:
            wanted = change.ranges
        fits = ranges == wanted and all(
            set(child.parents) == set(change.parents) and child.first > end and child.end is None for child in children
        )
        if fits and all(child.shard_id > parent for child in children for parent in self.state.shards):
            kept = _ended(self.state.shards, end, change.parents)
            yield replace(self.state, shards={**kept, **{child.shard_id: child for child in children}})

    def _trimmed(self, now_us: int, seen: State) -> Iterator[State]:
        horizon, retention_us = seen.horizon, self.state.retention_us
        if horizon == self.state.horizon:
            yield self.state
        if horizon <= self.state.horizon or retention_us is None:
            return
        young = [row for row in self.rows() if row.sequence < horizon and row.at_us > now_us - retention_us]
        expect(not young, f"{self.name}: expired too early, by {now_us - retention_us}: {young}")
        shards = {name: one for name, one in self.state.shards.items() if one.end is None or one.end > horizon}
        yield replace(self.state, horizon=horizon, shards=shards)


def _ids(found: Iterable[Row] | Iterable[Item]) -> set[str]:
    """The ids that tell items from each other."""
    return {(one.item if isinstance(one, Row) else one).keys["id"] for one in found}


def _ended(shards: dict[str, Shard], end: int, which: Iterable[str] | None = None) -> dict[str, Shard]:
    """Shards of which the open ones, or some of them, end at a number."""
    chosen = {name for name, shard in shards.items() if shard.end is None} if which is None else set(which)
    return {name: shard._replace(end=end) if name in chosen else shard for name, shard in shards.items()}

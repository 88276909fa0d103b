"""Rules that read: from any position to any other, with iterators that are kept over reopenings, from copies."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.model.base import NO_SITES, Base, Key, chosen
from tests.model.plain import Row, expect
from tests.model.reference import StreamModel
from tests.model.sights import row_of, sight_of
from tests.model.writing import has_streams

import shardlog
from shardlog import CorruptLog, InvalidArgument, IteratorExpired, ReadOnly, Record, ShardlogError, TrimmedData
from shardlog.clock import MICROSECOND, datetime_of
from shardlog.files.protocol import Site

KINDS: Final = ("TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP")
ITERATOR_LIFE_US: Final = timedelta(minutes=15) // MICROSECOND
ITERATORS_MAX: Final = 6
END: Final = 1 << 64


@dataclass(frozen=True)
class Held:
    """An iterator. Its position lies in `[low, first]`: no record of the shard lies between. None: the horizon."""

    token: str
    stream: Key
    shard_id: str
    low: int | None
    first: int | None
    issued_us: int


class Reading(Base):
    """Records are read in every way."""

    def __init__(self, counts: Counter[str] | None = None, skipped: frozenset[Site] = NO_SITES) -> None:
        super().__init__(counts, skipped)
        self._held: list[Held] = []

    @precondition(has_streams)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """From a position to another, all shards or one: exactly the records between."""
        model = self.chosen_stream(data)
        start, first = self._position(data, model)
        stop, end = self._position(data, model) if data.draw(st.booleans()) else (None, END)
        shards = sorted(model.state.shards)
        shard_id = chosen(data, shards) if shards and data.draw(st.booleans()) else None
        stream = self.opened(model)
        if first < model.state.horizon:
            with pytest.raises(TrimmedData):
                stream.read(start, stop=stop, shard_id=shard_id)
            return
        found = [row_of(record) for record in stream.read(start, stop=stop, shard_id=shard_id, on_damage="gap")
                 if isinstance(record, Record)]  # fmt: skip
        wanted = [row for row in model.rows() if first <= row.sequence < end and shard_id in (None, row.shard_id)]
        expect(found == wanted, f"{model.name} from {start} to {stop} of {shard_id}: {found}, expected {wanted}")

    @precondition(has_streams)
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def take_iterator(self, data: st.DataObject, kind: str) -> None:
        """An iterator at any position of a shard."""
        model = self.chosen_stream(data)
        if not model.state.shards:
            return
        shard = model.state.shards[chosen(data, sorted(model.state.shards))]
        stream, state = self.opened(model), model.state
        low: int | None = model.highest + 1
        sequence, moment = None, None
        if kind == "TRIM_HORIZON":
            low = None
        elif kind == "AT_TIMESTAMP":
            moment = self._moment(data, model)
        elif kind != "LATEST":
            end = model.highest + 1 if shard.end is None else shard.end
            sequence = data.draw(st.integers(max(0, shard.first - 1), end + 1))
            low = sequence + (kind == "AFTER_SEQUENCE_NUMBER")
            if not shard.first <= sequence <= end:
                with pytest.raises(InvalidArgument):
                    stream.iterator(shard.shard_id, kind, sequence=sequence)
                return
            if sequence < state.horizon:
                with pytest.raises(TrimmedData):
                    stream.iterator(shard.shard_id, kind, sequence=sequence)
                return
        token = stream.iterator(shard.shard_id, kind, sequence=sequence, timestamp=moment)
        first = low
        if moment is not None:
            first = self._first_at(model, moment)
            low = max([state.horizon, *(row.sequence + 1 for row in model.rows() if row.sequence < first)])
        self._held = self._held[-ITERATORS_MAX:]
        self._held.append(Held(token, model.key, shard.shard_id, low, first, self.rig.clock.wall_us()))

    @precondition(lambda self: has_streams(self) and self._held)
    @rule(data=st.data(), limit=st.integers(1, 12))
    def take_page(self, data: st.DataObject, limit: int) -> None:
        """The records at an iterator, whatever happened since it was made."""
        held = self._held.pop(data.draw(st.integers(0, len(self._held) - 1)))
        model = self.model.streams.get(held.stream)
        if model is None:
            return
        required, allowed = self._refusals(model, held)
        try:
            page = self.opened(model).get_records(held.token, limit)
        except CorruptLog:
            expect(bool(model.gaps), f"{held}: CorruptLog, and nothing was damaged")
            return
        except (IteratorExpired, TrimmedData) as error:
            expect(type(error) in allowed, f"{held}: {type(error).__name__}: {error}")
            return
        expect(not required, f"{held}: expected one of {required}, got {page}")
        rows = self._rows_at(model, held)
        found = [row_of(record) for record in page.records]
        wanted = rows[: len(found)] if model.gaps else rows[:limit]
        expect(found == wanted, f"{held}: got\n{found}\nexpected\n{wanted}")
        shard = model.state.shards[held.shard_id]
        if page.next_iterator is None:
            expect(shard.end is not None and found == rows, f"{held}: it ends, but {shard}, {rows[len(found) :]}")
            children = {one.shard_id for one in model.state.shards.values() if held.shard_id in one.parents}
            expect(set(page.child_shard_ids) == children, f"{held}: children {page.child_shard_ids} of {children}")
            return
        expect(bool(found) or shard.end is None or bool(model.gaps), f"{held}: drained, and it does not end")
        expect(page.behind >= timedelta(0), f"{held}: {page.behind} behind")
        self._held.append(self._next(model, held, page.next_iterator, rows, len(found)))

    @precondition(lambda self: self.is_open or self.rig.has_store)
    @rule()
    def look_from_another_store(self) -> None:
        """Who opens the store to read, beside a writer or alone, sees the same, and can change nothing."""
        with self.rig.open_to_read() as store:
            expect(sorted(store.names()) == sorted(self.model.streams), f"a reader sees {store.names()}")
            for model in self.model.streams.values():
                stream = store.stream(model.name, model.label)
                model.check(sight_of(stream))
                with pytest.raises(ReadOnly):
                    stream.append([])

    @precondition(has_streams)
    @rule(data=st.data(), links=st.booleans())
    def snapshot(self, data: st.DataObject, links: bool) -> None:
        """A copy is a store of its own, sound, with the same records; it is there whole or not at all."""
        model = self.chosen_stream(data)
        copy = f"{self.rig.scratch}/copy"
        done, _ = self.attempt(data, lambda: self.opened(model).snapshot(copy, links=links), None)
        try:
            expect(os.path.exists(copy) or not done, f"{copy} was made, and is not there")
            if os.path.exists(copy):
                self._check_copy(model, copy)
        finally:
            shutil.rmtree(copy, ignore_errors=True)

    def _check_copy(self, model: StreamModel, copy: str) -> None:
        report = shardlog.fsck(copy, deep=True)
        expect(report.clean, f"a copy is damaged: {list(map(str, report.findings))}")
        with self.rig.open_to_read(copy) as store:
            deepcopy(model).check(sight_of(store.stream(model.name, model.label)))
        self.counts["copies"] += 1

    @precondition(lambda self: self.rig.has_store)
    @rule(deep=st.booleans())
    def check_whole_store(self, deep: bool) -> None:
        """Nothing is damaged, and the check finds nothing wrong, whether the store is open or not."""
        report = shardlog.fsck(self.rig.path, deep=deep)
        expect(report.clean, f"nothing is damaged, and the check finds {list(map(str, report.findings))}")

    def _refusals(self, model: StreamModel, held: Held) -> tuple[set[type[ShardlogError]], set[type[ShardlogError]]]:
        """The errors of which one has to come, and those that may."""
        required: set[type[ShardlogError]] = set()
        allowed: set[type[ShardlogError]] = set()
        if self.rig.clock.wall_us() - held.issued_us > ITERATOR_LIFE_US:
            required.add(IteratorExpired)
        shard = model.state.shards.get(held.shard_id)
        if shard is None:
            required.add(TrimmedData)
        elif held.first is not None and held.low is not None and shard.first < model.state.horizon:
            if held.first < model.state.horizon:
                required.add(TrimmedData)
            if held.low < model.state.horizon:
                allowed.add(TrimmedData)
        return required, required | allowed

    @staticmethod
    def _rows_at(model: StreamModel, held: Held) -> list[Row]:
        first = 0 if held.first is None else held.first
        return [row for row in model.rows() if row.shard_id == held.shard_id and row.sequence >= first]

    def _next(self, model: StreamModel, held: Held, token: str, rows: list[Row], taken: int) -> Held:
        low = rows[taken - 1].sequence + 1 if taken else held.low or model.state.horizon
        first = rows[taken].sequence if taken < len(rows) else model.highest + 1
        return replace(held, token=token, low=low, first=max(low, first), issued_us=self.rig.clock.wall_us())

    def _position(self, data: st.DataObject, model: StreamModel) -> tuple[int | str | datetime, int]:
        """A position as `read` takes it, and the sequence number that it stands for."""
        match data.draw(st.integers(0, 3)):
            case 0:
                return "TRIM_HORIZON", model.state.horizon
            case 1:
                return "LATEST", model.highest + 1
            case 2:
                moment = self._moment(data, model)
                return moment, max(self._first_at(model, moment), model.state.horizon)
            case _:
                around = sorted({0, model.state.horizon - 1, *(row.sequence for row in model.rows()), model.highest})
                sequence = max(0, chosen(data, around) + data.draw(st.integers(0, 1)))
                return sequence, max(1, sequence)

    def _moment(self, data: st.DataObject, model: StreamModel) -> datetime:
        times = sorted({row.at_us for row in model.rows()} | {self.rig.clock.wall_us()})
        return datetime_of(chosen(data, times) + data.draw(st.integers(-1, 1)))

    @staticmethod
    def _first_at(model: StreamModel, moment: datetime) -> int:
        return next((row.sequence for row in model.rows() if datetime_of(row.at_us) >= moment), model.highest + 1)

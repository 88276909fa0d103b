"""Rules that make and end streams, append to them, and sync them."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from tests.model.base import NO_SITES, Base, chosen
from tests.model.drawn import REFUSED, appends, item_of, producers
from tests.model.plain import Appending, Creating, Deleting, Disabling, Options, expect
from tests.model.reference import StreamModel
from tests.model.sights import change_of, microseconds, sight_of, state_of

from shardlog import Appended, Change, InvalidArgument, StreamDisabled, StreamExists, StreamNotFound
from shardlog.files.protocol import Site

NAMES: Final = ("a", "b")
SEGMENT_BYTES: Final = 16 << 10
VIEWS: Final = ("NEW_AND_OLD_IMAGES", "NEW_IMAGE", "OLD_IMAGE", "KEYS_ONLY")
RETENTIONS: Final = (timedelta(hours=24), timedelta(hours=1), None)
STREAMS_MAX: Final = 4
MILLISECOND: Final = timedelta(milliseconds=1)


def has_streams(machine: Base) -> bool:
    """Whether there is a stream, in an open store."""
    return machine.is_open and bool(machine.model.streams)


class Writing(Base):
    """Streams come and go, and take records."""

    def __init__(self, counts: Counter[str] | None = None, skipped: frozenset[Site] = NO_SITES) -> None:
        super().__init__(counts, skipped)
        self._items = 0

    @initialize(data=st.data(), durability=st.sampled_from(("fsync", "os")))
    def begin(self, data: st.DataObject, durability: str) -> None:
        """Nothing can be tried on a store without streams."""
        self.create(data, NAMES[0], durability)

    @precondition(lambda self: self.is_open and len(self.model.streams) < STREAMS_MAX)
    @rule(data=st.data(), name=st.sampled_from(NAMES), durability=st.sampled_from(("fsync", "os")))
    def create(self, data: st.DataObject, name: str, durability: str) -> None:
        """A stream is created where there is none of the name, or a disabled one; then it is a new one, and empty."""
        retention = chosen(data, RETENTIONS)
        options = Options(
            chosen(data, VIEWS) if data.draw(st.integers(0, 3)) == 3 else VIEWS[0],
            durability,
            data.draw(st.integers(1, 4)),
            microseconds(retention),
        )
        creating = Creating(name, options)

        def operate() -> str:
            return self.rig.store.create_stream(
                name,
                view_type=options.view_type,
                key_names=["id"],
                partition_key="id",
                shards=options.shards,
                retention=retention,
                durability=durability,
                segment_bytes=SEGMENT_BYTES,
            ).label

        newest = self.model.newest(name)
        if newest is not None and newest.is_enabled:
            with pytest.raises(StreamExists):
                operate()
            return
        self.rig.clock.advance(MILLISECOND)  # a label is the time of the creation, and labels of deleted streams return
        done, label = self.attempt(data, operate, creating)
        if done:
            assert label is not None
            self.model.took_create(creating, label, sight_of(self.rig.store.stream(name, label)))

    @precondition(has_streams)
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def disable(self, data: st.DataObject, name: str) -> None:
        """The newest of a name takes no more records, once."""
        model = self.model.newest(name)
        if model is None or not model.is_enabled:
            with pytest.raises(StreamNotFound if model is None else StreamDisabled):
                self.rig.store.disable_stream(name)
            return
        done, _ = self.attempt(data, lambda: self.rig.store.disable_stream(name), Disabling(), (name, model.label))
        if done:
            model.took_change(Disabling(), state_of(self.opened(model)))

    @precondition(has_streams)
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def delete(self, data: st.DataObject, name: str) -> None:
        """All streams of a name are gone."""
        if self.model.newest(name) is None:
            with pytest.raises(StreamNotFound):
                self.rig.store.delete_stream(name)
            return
        done, _ = self.attempt(data, lambda: self.rig.store.delete_stream(name), Deleting(name))
        if done:
            self.model.took_delete(Deleting(name))

    @precondition(has_streams)
    @rule(data=st.data(), shapes=appends, producer=producers, repeats=st.sampled_from((1, 1, 1, 12)))
    def append(
        self,
        data: st.DataObject,
        shapes: list[tuple[int, int, int]],
        producer: tuple[str, int] | None,
        repeats: int,
    ) -> None:
        """An append is whole or not there; a producer's position at or below its last one appends nothing."""
        model = self.chosen_stream(data)
        for _ in range(repeats if producer is None else 1):
            items = tuple(self._item(*shape) for shape in shapes)
            if not self._append(data, model, items, producer):
                return

    @precondition(has_streams)
    @rule(data=st.data(), size=st.sampled_from((480, 3000)), count=st.integers(1, 12))
    def fill(self, data: st.DataObject, size: int, count: int) -> None:
        """Segments fill and roll; several appends, each of a record or two."""
        model = self.chosen_stream(data)
        for turn in range(count):
            items = tuple(self._item(0, 0, size) for _ in range(1 + turn % 2))
            if not self._append(data, model, items, None):
                return

    @precondition(has_streams)
    @rule(data=st.data(), position=st.integers(0, 6))
    def append_again(self, data: st.DataObject, position: int) -> None:
        """A producer that does not know how far it came."""
        self._append(data, self.chosen_stream(data), (self._item(1, 0, 30),), ("p", position))

    def _append(
        self, data: st.DataObject, model: StreamModel, items: tuple[Any, ...], producer: tuple[str, int] | None
    ) -> bool:
        appending = Appending(items, self.rig.clock.wall_us(), producer)

        def operate() -> Appended:
            name, position = producer or (None, None)
            return self.opened(model).append([change_of(item) for item in items], producer=name, position=position)

        if not model.is_enabled:
            with pytest.raises(StreamDisabled):
                operate()
            return False
        done, result = self.attempt(data, operate, None if model.is_duplicate(producer) else appending, model.key)
        if not done:
            return False
        assert result is not None
        is_duplicate = model.is_duplicate(producer)
        expect(result.duplicate is is_duplicate, f"{appending}: {result}, positions {model.positions()}")
        if is_duplicate:
            expect(result.sequences == [], f"a duplicate got numbers: {result}")
        else:
            model.took_append(appending, result.sequences)
        self.counts["appends"] += 1
        return True

    @precondition(has_streams)
    @rule(data=st.data(), bad=st.sampled_from(REFUSED), place=st.integers(0, 2))
    def append_what_is_refused(
        self, data: st.DataObject, bad: tuple[dict[str, Any], dict[str, Any] | None], place: int
    ) -> None:
        """One bad record among good ones: nothing is appended."""
        model = self.chosen_stream(data)
        stream = self.opened(model)
        carries_new = model.options.view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
        good = [change_of(self._item(0, 0, 30)) for _ in range(2)]
        keys, new = bad if carries_new else REFUSED[place % 2]
        with pytest.raises((InvalidArgument, StreamDisabled)):
            stream.append([*good[:place], Change.insert(keys, new), *good[place:]])
        with pytest.raises((InvalidArgument, StreamDisabled)):
            stream.append(good, producer="p")
        with pytest.raises((InvalidArgument, StreamDisabled)):
            stream.append(good, producer="p", position=-1)

    @precondition(has_streams)
    @rule(data=st.data())
    def sync(self, data: st.DataObject) -> None:
        """What was appended at level "os" is durable."""
        model = self.chosen_stream(data)
        done, _ = self.attempt(data, lambda: self.opened(model).sync(), None)
        if done:
            model.took_sync()

    def _item(self, event: int, extra: int, size: int) -> Any:
        self._items += 1
        return item_of(self._items, event, extra, size)

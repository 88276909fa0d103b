"""Rules that split, merge and roll shards, change the retention, let time pass, and expire records."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.model.base import Base, chosen
from tests.model.plain import Configuring, Resharding, Shard, Trimming, check_partition, expect
from tests.model.reference import StreamModel
from tests.model.sights import microseconds, state_of
from tests.model.writing import RETENTIONS, has_streams

from shardlog import InvalidArgument, ShardClosed, ShardNotFound

PARTS: Final = 16
"""A shard is split at one of so many places."""
STEPS: Final = (timedelta(milliseconds=1), timedelta(minutes=10), timedelta(hours=1), timedelta(hours=30))


class Sharding(Base):
    """Shards change, and records expire."""

    @precondition(has_streams)
    @rule(data=st.data(), part=st.integers(0, PARTS))
    def split(self, data: st.DataObject, part: int) -> None:
        """Two children have the range of the parent; what is appended from then on goes to them."""
        model, shard = self._chosen_shard(data)
        if shard is None:
            return
        width = shard.hash_next - shard.hash_first
        at = None if part == PARTS else shard.hash_first + width * part // PARTS
        ranges = None if at is None else ((shard.hash_first, at), (at, shard.hash_next))
        change = Resharding((shard.shard_id,), ranges)
        stream = self.opened(model)
        if shard.end is not None:
            with pytest.raises((ShardClosed, InvalidArgument)):
                stream.split_shard(shard.shard_id, at)
            return
        if at == shard.hash_first:
            with pytest.raises(InvalidArgument):
                stream.split_shard(shard.shard_id, at)
            return
        try:
            done, children = self.attempt(data, lambda: stream.split_shard(shard.shard_id, at), change, model.key)
        except InvalidArgument:
            expect(at is None, f"{shard} can be split at {at}")  # too little went there to tell a half
            return
        if done:
            self._took(model, change, children or [])

    @precondition(has_streams)
    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        """One child has the range of two neighbours; others cannot be merged."""
        model = self.chosen_stream(data)
        shards = sorted(model.state.shards.values())
        if not shards:
            return
        one, other = chosen(data, shards), chosen(data, shards)
        if data.draw(st.booleans()):
            neighbours = [shard for shard in shards if shard.end is None and shard.hash_first == one.hash_next]
            other = neighbours[0] if neighbours else other
        stream = self.opened(model)
        low, high = sorted((one, other), key=lambda shard: shard.hash_first)
        if one.end is not None or other.end is not None or low.hash_next != high.hash_first:
            with pytest.raises((ShardClosed, InvalidArgument)):
                stream.merge_shards(one.shard_id, other.shard_id)
            return
        change = Resharding((low.shard_id, high.shard_id), ((low.hash_first, high.hash_next),))
        done, child = self.attempt(data, lambda: stream.merge_shards(one.shard_id, other.shard_id), change, model.key)
        if done:
            self._took(model, change, [child or ""])

    @precondition(has_streams)
    @rule(data=st.data())
    def roll_over(self, data: st.DataObject) -> None:
        """One child has the range of its parent."""
        model, shard = self._chosen_shard(data)
        if shard is None:
            return
        stream = self.opened(model)
        if shard.end is not None:
            with pytest.raises(ShardClosed):
                stream.roll_shard(shard.shard_id)
            return
        with pytest.raises(ShardNotFound):
            stream.roll_shard(shard.shard_id[:-8] + "ffffffff")
        change = Resharding((shard.shard_id,), ((shard.hash_first, shard.hash_next),))
        done, child = self.attempt(data, lambda: stream.roll_shard(shard.shard_id), change, model.key)
        if done:
            self._took(model, change, [child or ""])

    @precondition(has_streams)
    @rule(data=st.data())
    def set_retention(self, data: st.DataObject) -> None:
        """How long records are kept may change at any time."""
        model = self.chosen_stream(data)
        retention = chosen(data, RETENTIONS)
        change = Configuring(microseconds(retention))
        done, _ = self.attempt(data, lambda: self.opened(model).set_retention(retention), change, model.key)
        if done:
            model.took_change(change, state_of(self.opened(model)))

    @rule(step=st.sampled_from(STEPS))
    def let_time_pass(self, step: timedelta) -> None:
        """Whatever the time, nothing changes by itself."""
        self.rig.clock.advance(step)

    @precondition(has_streams)
    @rule(data=st.data(), force=st.booleans())
    def expire(self, data: st.DataObject, force: bool) -> None:
        """Only what is older than the retention goes."""
        self.rig.clock.advance(chosen(data, STEPS))
        model = self.chosen_stream(data)
        change = Trimming(self.rig.clock.wall_us())
        before = model.state.horizon
        done, trimmed = self.attempt(data, lambda: self.opened(model).expire(force=force), change, model.key)
        if not done:
            return
        assert trimmed is not None
        seen = state_of(self.opened(model))
        model.took_change(change, seen)
        expect((trimmed.horizon_before, trimmed.horizon_after) == (before, seen.horizon), f"{trimmed}: {seen}")
        self.counts["expired"] += seen.horizon > before

    @precondition(has_streams)
    @rule(data=st.data())
    def expire_everything(self, data: st.DataObject) -> None:
        """Where nothing was done for as long as records are kept, all of them go."""
        model = self.chosen_stream(data)
        retention_us = model.state.retention_us
        if retention_us is None:
            return
        self.rig.clock.advance(timedelta(microseconds=retention_us))
        stream = self.opened(model)
        trimmed = stream.expire(force=True)
        model.took_change(Trimming(self.rig.clock.wall_us()), state_of(stream))
        expect(not model.rows(), f"older than {retention_us}, and still there: {model.rows()[:3]}; {trimmed}")

    def _chosen_shard(self, data: st.DataObject) -> tuple[StreamModel, Shard | None]:
        """Mostly an open one."""
        model = self.chosen_stream(data)
        shards = model.state.open_shards
        if not shards or data.draw(st.integers(0, 7)) == 7:
            shards = sorted(model.state.shards.values())
        return model, chosen(data, shards) if shards else None

    def _took(self, model: StreamModel, change: Resharding, children: list[str]) -> None:
        before = set(model.state.shards)
        seen = state_of(self.opened(model))
        model.took_change(change, seen)
        check_partition(seen)
        made = sorted(set(seen.shards) - before, key=lambda shard_id: seen.shards[shard_id].hash_first)
        expect(made == children, f"made were {made}, told {children}")
        self.counts["changes of shards"] += 1

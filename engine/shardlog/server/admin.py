"""Calls under `/_shardlog/`, for tests: let time pass, roll shards over, split them, expire records.

POST with a JSON object; answered with one. Who may call is not decided here.

| call | members | answer |
|---|---|---|
| clock | `AdvanceSeconds`?, up to the year 2200 | `OffsetSeconds`, `Now` |
| roll | `StreamArn`, `ShardId`? (all open ones) | `ShardIds`: the children |
| split | `StreamArn`, `ShardId`? (the first open one) | `ShardIds`: the children |
| merge | `StreamArn`, `ShardIds`: two | `ShardIds`: the child |
| expire | `StreamArn`? (all) | `Expired`: streams whose horizon moved; `Removed`: streams that are gone |
| time-to-live | | `Deleted`: how many expired items |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from shardlog.api import Stream
from shardlog.clock import datetime_of
from shardlog.errors import ShardlogError
from shardlog.model import ShardDescription
from shardlog.server.catalogue import Catalogue
from shardlog.server.clock import OffsetClock
from shardlog.server.faults import unknown_operation, validation
from shardlog.server.identifiers import parse_arn

Members = dict[str, Any]


class Admin:
    """The calls over one server's catalogue and clock. `delete_expired`: sweeps tables' items; None: no tables."""

    def __init__(
        self, catalogue: Catalogue, clock: OffsetClock, delete_expired: Callable[[], int] | None = None
    ) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._delete_expired = delete_expired
        self._calls: dict[str, Callable[[Mapping[str, Any]], Members]] = {
            "clock": self._move_clock,
            "roll": self._roll,
            "split": self._split,
            "merge": self._merge,
            "expire": self._expire,
            "time-to-live": self._sweep,
        }

    def call(self, name: str, members: Mapping[str, Any]) -> Members:
        """Do it. Raises a Fault."""
        function = self._calls.get(name)
        if function is None:
            raise unknown_operation(f"expected one of {', '.join(self._calls)}, found {name!r:.60}")
        try:
            return function(members)
        except ShardlogError as error:
            raise validation(f"{type(error).__name__}: {error}") from None

    def _move_clock(self, members: Mapping[str, Any]) -> Members:
        seconds = members.get("AdvanceSeconds", 0)
        if type(seconds) not in (int, float) or not 0 <= seconds <= 1e10:
            raise validation(f"AdvanceSeconds: expected a number of seconds from 0 on, found {seconds!r:.60}")
        self._clock.advance(timedelta(seconds=seconds))
        return {
            "OffsetSeconds": self._clock.offset.total_seconds(),
            "Now": datetime_of(self._clock.wall_us()).isoformat(),
        }

    def _roll(self, members: Mapping[str, Any]) -> Members:
        stream = self._stream(members)
        chosen = members.get("ShardId")
        shard_ids = [shard.shard_id for shard in _open_shards(stream)] if chosen is None else [_text(chosen, "ShardId")]
        return {"ShardIds": [stream.roll_shard(shard_id) for shard_id in shard_ids]}

    def _split(self, members: Mapping[str, Any]) -> Members:
        stream = self._stream(members)
        chosen = members.get("ShardId")
        shards = [shard for shard in _open_shards(stream) if chosen in (None, shard.shard_id)]
        if not shards:
            raise validation(f"ShardId: expected an open shard, found {chosen!r:.80}")
        first, end = shards[0].hash_range
        return {"ShardIds": stream.split_shard(shards[0].shard_id, at=(first + end) // 2)}

    def _merge(self, members: Mapping[str, Any]) -> Members:
        shard_ids = members.get("ShardIds")
        if not isinstance(shard_ids, list) or len(shard_ids) != 2:
            raise validation(f"ShardIds: expected two, found {shard_ids!r:.80}")
        left, right = (_text(shard_id, "ShardIds") for shard_id in shard_ids)
        return {"ShardIds": [self._stream(members).merge_shards(left, right)]}

    def _expire(self, members: Mapping[str, Any]) -> Members:
        streams = self._catalogue.streams() if members.get("StreamArn") is None else [self._stream(members)]
        expired = []
        for stream in streams:
            trimmed = stream.expire(force=True)
            if trimmed.horizon_after > trimmed.horizon_before:
                expired.append(stream.describe().arn)
        return {"Expired": expired, "Removed": self._catalogue.remove_expired()}

    def _sweep(self, _members: Mapping[str, Any]) -> Members:
        return {"Deleted": 0 if self._delete_expired is None else self._delete_expired()}

    def _stream(self, members: Mapping[str, Any]) -> Stream:
        return self._catalogue.find(parse_arn(_text(members.get("StreamArn"), "StreamArn")))


def _open_shards(stream: Stream) -> list[ShardDescription]:
    return [shard for shard in stream.describe().shards if shard.end_sequence is None]


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise validation(f"{name}: expected a string, found {value!r:.60}")
    return value

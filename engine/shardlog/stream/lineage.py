"""How a stream's state changes: shards that split, merge and roll over, options that change, records that expire.

Every change is a control record: a `plan_…` function makes it from the present state and refuses what is not allowed,
`fold` is what it does. The three operations on shards are one kind of record, that closes some open shards and opens
their children on the same hash range, so open shards always partition the whole of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from shardlog.errors import CorruptLog, InvalidArgument, ShardClosed, UnsupportedVersion
from shardlog.format import control
from shardlog.format.control import Control
from shardlog.model import HASH_RANGE_END
from shardlog.options import SHARDS_MAX, StreamOptions
from shardlog.stream.state import HASH_BYTES, KnownGap, Shard, StreamState, decode_changeable, encode_changeable


def plan_split(state: StreamState, shard_id: str, at: int, now_ms: int) -> Control:
    """Split an open shard at a hash, the first of the second child.

    Raises ShardNotFound, ShardClosed, InvalidArgument.
    """
    shard = _open_shard(state, shard_id)
    if type(at) is not int or not shard.hash_first < at < shard.hash_next:
        raise InvalidArgument(
            f"at: expected a hash inside shard {shard_id}, from {shard.hash_first + 1} to {shard.hash_next - 1}, "
            f"found {at!r}"
        )
    if len(state.open_shards) >= SHARDS_MAX:
        raise InvalidArgument(f"shard {shard_id}: expected at most {SHARDS_MAX} open shards, found as many already")
    return _record([shard], [(shard.hash_first, at), (at, shard.hash_next)], now_ms)


def plan_merge(state: StreamState, left_id: str, right_id: str, now_ms: int) -> Control:
    """Merge two open neighbours, in either order. Raises ShardNotFound, ShardClosed, InvalidArgument."""
    left, right = sorted(
        (_open_shard(state, left_id), _open_shard(state, right_id)), key=lambda shard: shard.hash_first
    )
    if left.hash_next != right.hash_first:
        raise InvalidArgument(f"merge: expected neighbours, found {left_id} and {right_id}, whose ranges do not meet")
    return _record([left, right], [(left.hash_first, right.hash_next)], now_ms)


def plan_roll_over(state: StreamState, shard_id: str, now_ms: int) -> Control:
    """Replace an open shard by one child of the same range. Raises ShardNotFound, ShardClosed."""
    shard = _open_shard(state, shard_id)
    return _record([shard], [(shard.hash_first, shard.hash_next)], now_ms)


def children_of(state: StreamState, shard: Shard) -> list[Shard]:
    """The shards that a shard was replaced by."""
    return [child for child in state.shards if shard.shard_id in child.parent_ids]


def plan_configure(options: StreamOptions) -> Control:
    """Replace a stream's changeable options by these."""
    return {"kind": control.CONFIGURE, **encode_changeable(options)}


def fold(state: StreamState, controls: Iterable[tuple[int, Control]]) -> StreamState:
    """The state after control records, each with its sequence number. Positions and checkpoints change nothing here."""
    for sequence, record in controls:
        kind = record["kind"]
        if kind == control.RESHARD:
            state = _reshard(state, record, sequence)
        elif kind == control.TRIM:
            state = _trim(state, record["horizon"])
        elif kind == control.CONFIGURE:
            options = replace(state.options, **decode_changeable(record))
            state = replace(state, options=options, version=state.version + 1)
        elif kind == control.CLOSE:
            state = _close(state, sequence)
        elif kind == control.GAP:
            gap = KnownGap(record["first"], record["next"], record["segment_id"], record["reason"])
            state = replace(state, gaps=(*state.gaps, gap), version=state.version + 1)
        elif kind not in (control.POSITION, control.CHECKPOINT):
            raise UnsupportedVersion(f"control record {sequence} is of kind {kind!r}, which this release does not know")
    return state


def _reshard(state: StreamState, record: Control, sequence: int) -> StreamState:
    """The state after a reshard record with this sequence number: it belongs to neither parents nor children."""
    parents = [state.by_number.get(number) for number in record["parents"]]
    if any(parent is None or parent.end_sequence is not None for parent in parents):
        raise CorruptLog(f"control record {sequence} closes shards {record['parents']}, which are not all open")
    parent_ids = tuple(parent.shard_id for parent in parents if parent)
    # Ids sort by creation: a clock that was set back must not put children before their parents.
    created_ms = max([record["created_ms"], *(shard.created_ms for shard in state.shards)])
    children = tuple(
        Shard(
            state.next_shard + index,
            created_ms,
            parent_ids,
            int.from_bytes(first, "big"),
            int.from_bytes(last, "big") + 1,
            sequence + 1,
            None,
        )
        for index, (first, last) in enumerate(record["children"])
    )
    closed = tuple(
        replace(shard, end_sequence=sequence) if shard.number in record["parents"] else shard for shard in state.shards
    )
    return replace(
        state, shards=closed + children, next_shard=state.next_shard + len(children), version=state.version + 1
    )


def _close(state: StreamState, sequence: int) -> StreamState:
    """The state after a close record: all open shards end there."""
    shards = tuple(
        replace(shard, end_sequence=sequence) if shard.end_sequence is None else shard for shard in state.shards
    )
    return replace(state, shards=shards, version=state.version + 1, closed=True)


def _trim(state: StreamState, horizon: int) -> StreamState:
    """The state after the horizon moved: shards whose last record has expired are forgotten, and gaps behind it."""
    shards = tuple(shard for shard in state.shards if shard.end_sequence is None or shard.end_sequence > horizon)
    gaps = tuple(gap for gap in state.gaps if max(gap.next, gap.first + 1) > horizon)
    return replace(state, shards=shards, trim_horizon=horizon, gaps=gaps, version=state.version + 1)


def _open_shard(state: StreamState, shard_id: str) -> Shard:
    shard = state.shard(shard_id)
    if shard.end_sequence is not None:
        raise ShardClosed(f"shard {shard_id}: expected an open one, found one that ended at {shard.end_sequence}")
    return shard


def _record(parents: list[Shard], ranges: list[tuple[int, int]], now_ms: int) -> Control:
    assert all(0 <= first < end <= HASH_RANGE_END for first, end in ranges)
    return {
        "kind": control.RESHARD,
        "parents": [parent.number for parent in parents],
        "children": [
            [first.to_bytes(HASH_BYTES, "big"), (end - 1).to_bytes(HASH_BYTES, "big")] for first, end in ranges
        ],
        "created_ms": now_ms,
    }

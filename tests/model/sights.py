"""The engine's values as the model's plain ones: what a stream looks like to whoever uses its public names."""

from __future__ import annotations

from datetime import timedelta

from tests.model.plain import Item, Row, Shard, Sight, State

from shardlog import Change, Gap, Record, Store, Stream
from shardlog.clock import MICROSECOND, wall_us_of

PRODUCERS = ("p", "q")


def microseconds(duration: timedelta | None) -> int | None:
    """A duration in microseconds."""
    return None if duration is None else duration // MICROSECOND


def change_of(item: Item) -> Change:
    """What is appended for an item."""
    return Change(item.event, item.keys, item.new, item.old)  # type: ignore[arg-type]


def row_of(record: Record) -> Row:
    """A record that was read."""
    item = Item(record.event, record.keys, record.new_image, record.old_image)
    return Row(record.sequence, record.shard_id, item, wall_us_of(record.created_at))


def state_of(stream: Stream) -> State:
    """What a stream is, but for its records."""
    description = stream.describe()
    shards = [
        Shard(one.shard_id, one.parent_ids, *one.hash_range, one.first_sequence, one.end_sequence)
        for one in description.shards
    ]
    return State(
        description.status,
        microseconds(description.retention),
        stream.trim_horizon,
        {shard.shard_id: shard for shard in shards},
    )


def sight_of(stream: Stream) -> Sight:
    """A whole stream."""
    rows: list[Row] = []
    gaps: list[tuple[int, int]] = []
    for found in stream.read(on_damage="gap"):
        if isinstance(found, Gap):
            gaps.append((found.first, found.next))
        else:
            rows.append(row_of(found))
    positions = {name: position for name in PRODUCERS if (position := stream.position(name)) is not None}
    return Sight(state_of(stream), rows, gaps, positions, stream.next_sequence)


def sights_of(store: Store) -> dict[tuple[str, str], Sight]:
    """All streams of a store, by name and label."""
    return {(name, label): sight_of(store.stream(name, label)) for name, label in store.names()}

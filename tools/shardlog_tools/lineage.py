"""A stream's lineage with its figures, as one value: what the tree, the picture and the JSON are made from. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Final, Literal

import shardlog
from shardlog.model import (
    ShardDescription,
    ShardStatistics,
    ShardThroughput,
    Statistics,
    StreamDescription,
    Throughput,
)
from shardlog_tools.descriptions import number_of, shard_as_json

Origin = Literal["start", "split", "merge", "roll-over", "unknown"]

_SHORTEST_MEASURED: Final = timedelta(milliseconds=10)


@dataclass(frozen=True)
class Node:
    """One shard. `origin` is how it came to be; where all its parents have expired that is not known any more.

    `average` is what it took over its readable life, `recent` over the last minute; None where that is not known.
    """

    shard: ShardDescription
    statistics: ShardStatistics
    origin: Origin
    child_ids: tuple[str, ...]
    average: ShardThroughput | None
    recent: ShardThroughput | None

    @property
    def number(self) -> str:
        """Its short name."""
        return number_of(self.shard.shard_id)

    @property
    def is_open(self) -> bool:
        """Whether it takes records."""
        return self.shard.end_sequence is None


@dataclass(frozen=True)
class Lineage:
    """A stream's shards, in lexical order of id. `ends_at`: the last thing that happened, or a little later."""

    name: str
    nodes: tuple[Node, ...]
    records: int
    trim_horizon: int
    next_sequence: int
    horizon_time: datetime | None
    ends_at: datetime

    @cached_property
    def by_id(self) -> dict[str, Node]:
        """The shards by id."""
        return {node.shard.shard_id: node for node in self.nodes}

    @property
    def open_count(self) -> int:
        """How many shards are open."""
        return sum(node.is_open for node in self.nodes)

    @property
    def is_trimmed(self) -> bool:
        """Whether records have expired."""
        return self.trim_horizon > 1


@dataclass(frozen=True)
class Place:
    """Where a tree has a shard: for each fork above it, whether it is on the last branch.

    `is_branch`: it is a branch of the last fork itself, else an only child, right below its parent.
    """

    node: Node
    branches: tuple[bool, ...]
    is_branch: bool


def read_lineage(stream: shardlog.Stream) -> Lineage:
    """The lineage of a stream."""
    return lineage_of(*read_figures(stream))


def read_figures(stream: shardlog.Stream) -> tuple[StreamDescription, Statistics, Throughput]:
    """What a stream says of itself. Others may change it meanwhile, so it is asked again until the parts agree."""
    while True:
        description = stream.describe()
        figures = description, stream.statistics(), stream.throughput()
        if stream.describe() == description:
            return figures


def lineage_of(description: StreamDescription, statistics: Statistics, throughput: Throughput) -> Lineage:
    """The lineage of what a stream says of itself."""
    figures = {found.shard_id: found for found in statistics.shards}
    shards = {shard.shard_id: shard for shard in description.shards}
    children: dict[str, list[ShardDescription]] = defaultdict(list)
    for shard in description.shards:
        for parent_id in shard.parent_ids:
            children[parent_id].append(shard)
    ends_at = max(
        moment
        for found in statistics.shards
        for moment in (found.opened_at, found.closed_at, statistics.last_time)
        if moment is not None
    )
    readable_from = statistics.first_time if statistics.trim_horizon > 1 else None
    return Lineage(
        description.name,
        tuple(
            Node(
                shard,
                figures[shard.shard_id],
                _origin(shard, shards),
                tuple(child.shard_id for child in sorted(children[shard.shard_id], key=lambda child: child.hash_range)),
                _average(figures[shard.shard_id], readable_from, ends_at),
                throughput.shards.get(shard.shard_id),
            )
            for shard in description.shards
        ),
        statistics.records,
        statistics.trim_horizon,
        statistics.next_sequence,
        readable_from,
        ends_at,
    )


def lineage_as_json(lineage: Lineage) -> dict[str, Any]:
    """The lineage; rates are records and bytes per second, times ISO 8601."""
    return {
        "name": lineage.name,
        "records": lineage.records,
        "trim_horizon": lineage.trim_horizon,
        "next_sequence": lineage.next_sequence,
        "shards": [
            shard_as_json(node.shard) | {"children": list(node.child_ids)} | figures_as_json(node)
            for node in lineage.nodes
        ],
    }


def figures_as_json(node: Node) -> dict[str, Any]:
    """A shard's figures: what is readable, when it opened and closed, and what it took."""
    found = node.statistics
    return {
        "records": found.records,
        "bytes": found.bytes,
        "opened_at": found.opened_at.isoformat(),
        "closed_at": found.closed_at.isoformat() if found.closed_at is not None else None,
        "average": _rate_as_json(node.average),
        "last_minute": _rate_as_json(node.recent),
    }


def drawing_order(lineage: Lineage) -> Iterator[Place]:
    """Shards from the oldest to their descendants: each once, below all of its parents."""
    waits_for = {
        node.shard.shard_id: sum(parent in lineage.by_id for parent in node.shard.parent_ids) for node in lineage.nodes
    }
    roots = [node for node in lineage.nodes if waits_for[node.shard.shard_id] == 0]
    pending = [Place(node, (), False) for node in sorted(roots, key=lambda node: node.shard.hash_range, reverse=True)]
    while pending:
        place = pending.pop()
        yield place
        ready = []
        for child_id in place.node.child_ids:
            waits_for[child_id] -= 1
            if waits_for[child_id] == 0:
                ready.append(lineage.by_id[child_id])
        if len(ready) == 1:
            pending.append(Place(ready[0], place.branches, False))
        else:
            last = len(ready) - 1
            pending += [
                Place(child, (*place.branches, index == last), True)
                for index, child in reversed(list(enumerate(ready)))
            ]


def _average(found: ShardStatistics, readable_from: datetime | None, ends_at: datetime) -> ShardThroughput | None:
    start = found.opened_at if readable_from is None else max(found.opened_at, readable_from)
    lived = (found.closed_at or ends_at) - start
    if lived < _SHORTEST_MEASURED:
        return None
    seconds = lived.total_seconds()
    return ShardThroughput(found.records / seconds, found.bytes / seconds)


def _origin(shard: ShardDescription, shards: Mapping[str, ShardDescription]) -> Origin:
    if not shard.parent_ids:
        return "start"
    if len(shard.parent_ids) > 1:
        return "merge"
    parent = shards.get(shard.parent_ids[0])
    if parent is None:
        return "unknown"
    return "roll-over" if parent.hash_range == shard.hash_range else "split"


def _rate_as_json(rate: ShardThroughput | None) -> dict[str, float] | None:
    if rate is None:
        return None
    return {
        "records_per_second": round(rate.records_per_second, 3),
        "bytes_per_second": round(rate.bytes_per_second, 3),
    }

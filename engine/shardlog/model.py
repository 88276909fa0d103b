"""The values that callers hand in and get back, without any I/O.

Owns changes, results and descriptions. The record as it is read back lives in `format.record`, because it decodes
itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from shardlog.errors import InvalidArgument
from shardlog.options import Durability, ShardingPolicy, ViewType

Event = Literal["INSERT", "MODIFY", "REMOVE"]
Image = dict[str, Any]

INSERT: Final = 1
MODIFY: Final = 2
REMOVE: Final = 3
EVENT_NAMES: Final[dict[int, Event]] = {INSERT: "INSERT", MODIFY: "MODIFY", REMOVE: "REMOVE"}
EVENT_CODES: Final[dict[str, int]] = {name: code for code, name in EVENT_NAMES.items()}

IDENTITY: Final = "identity"
"""The optional field of a record that names the service which made the change."""

HASH_RANGE_END: Final = 1 << 128


class Change:
    """One change of one item, to be appended: made by `insert`, `modify` or `remove`.

    An image holds the whole item, its keys included. A stream stores what its view type carries and ignores the rest,
    so an image may be left out (None) only where the view type does not carry it; `append` checks that.
    """

    # The row as it will be encoded, so that appending a thousand changes makes no lists.
    __slots__ = ("row",)

    def __init__(
        self, event: Event, keys: Image, new: Image | None, old: Image | None, identity: str | None = None
    ) -> None:
        code = EVENT_CODES.get(event)
        if code is None:
            raise InvalidArgument(f"event: expected INSERT, MODIFY or REMOVE, found {event!r}")
        if code == INSERT and old is not None:
            raise InvalidArgument("old: an INSERT has no old image")
        if code == REMOVE and new is not None:
            raise InvalidArgument("new: a REMOVE has no new image")
        self.row: list[Any] = [code, keys, new, old]
        if identity is not None:
            if type(identity) is not str or not identity:
                raise InvalidArgument(f"identity: expected None or a non-empty string, found {identity!r:.60}")
            self.row.append({IDENTITY: identity})

    @classmethod
    def insert(cls, keys: Image, new: Image | None = None) -> Change:
        """An item came into being."""
        return cls("INSERT", keys, new, None)

    @classmethod
    def modify(cls, keys: Image, old: Image | None = None, new: Image | None = None) -> Change:
        """An item changed."""
        return cls("MODIFY", keys, new, old)

    @classmethod
    def remove(cls, keys: Image, old: Image | None = None, identity: str | None = None) -> Change:
        """An item was removed. `identity`: the service that did it, where it was not the application."""
        return cls("REMOVE", keys, None, old, identity)

    @property
    def event(self) -> Event:
        """INSERT, MODIFY or REMOVE."""
        return EVENT_NAMES[self.row[0]]

    @property
    def keys(self) -> Image:
        """The item's key attributes."""
        return self.row[1]  # type: ignore[no-any-return]

    @property
    def new(self) -> Image | None:
        """The item after the change."""
        return self.row[2]  # type: ignore[no-any-return]

    @property
    def old(self) -> Image | None:
        """The item before the change."""
        return self.row[3]  # type: ignore[no-any-return]

    @property
    def identity(self) -> str | None:
        """The service that made the change; None: the application."""
        return self.row[4][IDENTITY] if len(self.row) > 4 else None

    def __eq__(self, other: object) -> bool:
        return self.row == other.row if isinstance(other, Change) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it holds dicts

    def __repr__(self) -> str:
        return f"Change({self.event!r}, keys={self.keys!r}, new={self.new!r}, old={self.old!r})"


@dataclass(frozen=True, slots=True)
class Appended:
    """What `append` returns: the sequence numbers in the order given, or none and `duplicate`."""

    sequences: list[int]
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequence numbers `[first, next)` that cannot be read, and why. `segment` and `offset` say where it starts."""

    first: int
    next: int
    reason: str
    segment: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class ShardDescription:
    """One shard. `hash_range` is half-open in [0, 2**128); `end_sequence` is exclusive, None while it is open."""

    shard_id: str
    parent_ids: tuple[str, ...]
    hash_range: tuple[int, int]
    first_sequence: int
    end_sequence: int | None


@dataclass(frozen=True, slots=True)
class StreamDescription:
    """A stream and its shards, in lexical order of shard id. `retention` None: for ever.

    `table_arn`: the DynamoDB table whose changes it holds; its images then are DynamoDB-typed values.
    """

    name: str
    label: str
    arn: str
    status: Literal["ENABLED", "DISABLED"]
    view_type: ViewType
    key_names: tuple[str, ...] | None
    partition_key: str | None
    durability: Durability
    retention: timedelta | None
    retention_bytes: int | None
    sharding: ShardingPolicy | None
    hold: tuple[str, ...]
    hold_bytes_max: int | None
    table_arn: str | None
    created_at: datetime
    shards: tuple[ShardDescription, ...]


@dataclass(frozen=True, slots=True)
class ShardThroughput:
    """What a shard takes, on average over the time that was measured."""

    records_per_second: float
    bytes_per_second: float


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key that dominates its shard: the value that routes, and its share of the records seen."""

    shard_id: str
    key: object
    share: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """What the open shards took lately, by shard id, and keys that dominate one. `since`: when measuring begins.

    A shard that opened later is measured from then on, and left out while that is no time at all.
    """

    since: datetime
    shards: dict[str, ShardThroughput]
    hot_keys: tuple[HotKey, ...]


@dataclass(frozen=True, slots=True)
class ShardStatistics:
    """Figures of a shard: records readable now, and bytes of the batches that hold them. `closed_at` None: open."""

    shard_id: str
    records: int
    bytes: int
    opened_at: datetime
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of a stream, and of its shards in lexical order of shard id.

    `bytes` is the space its segments take on disk; times are of the records readable now.
    """

    records: int
    segments: int
    bytes: int
    trim_horizon: int
    next_sequence: int
    durable_sequence: int
    first_time: datetime | None
    last_time: datetime | None
    shards: tuple[ShardStatistics, ...]


@dataclass(frozen=True, slots=True)
class Backlog:
    """Records of a shard from a position on, and when the first of them was appended (None: there is none)."""

    records: int
    since: datetime | None

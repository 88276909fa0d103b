"""Names, limits and options, checked.

Owns the rules for what a caller may ask for when a stream is created, and the limits of one append. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, get_args

from shardlog.errors import InvalidArgument

ViewType = Literal["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES"]
Durability = Literal["fsync", "os"]

RECORD_BYTES_MAX = 16 << 20
APPEND_BYTES_MAX = 64 << 20
RECORDS_PER_PAGE_MAX = 1000
PAGE_BYTES_MAX = 1_000_000
SHARDS_MAX = 4096
KEY_NAMES_MAX = 16
PRODUCER_NAME_BYTES_MAX = 256
PRODUCERS_MAX = 10_000
POSITION_MAX = 2**63 - 1

SEGMENT_BYTES_DEFAULT = 64 << 20
SEGMENT_BYTES_MIN = 16 << 10
SEGMENT_BYTES_MAX = 1 << 30
SEGMENT_AGE_MAX = timedelta(hours=6)
SEGMENTS_PER_RETENTION = 8
RETENTION_MIN = timedelta(seconds=1)

_STREAM_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}", re.ASCII)
_TABLE_ARN = re.compile(r"arn:[a-z0-9-]{1,32}:dynamodb:[a-z0-9-]{1,64}:\d{12}:table/[A-Za-z0-9_.-]{1,255}", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardingPolicy:
    """When shards change by themselves.

    A shard that takes more than `records_per_second` or `bytes_per_second` (None: no such limit) over a whole `window`
    is split: at the weighted median of what was written, or, with `halving`, in the middle of its range. Two neighbours
    that together take less than `merge_below` (a fraction of the targets) over a whole window are merged; 0: never.
    Between two changes `cooldown` passes. Shards older than `roll_every` are replaced by one child; None: never.
    """

    records_per_second: float | None = 1000.0
    bytes_per_second: float | None = 1_000_000.0
    window: timedelta = timedelta(seconds=60)
    cooldown: timedelta = timedelta(seconds=60)
    max_shards: int = 256
    min_shards: int = 1
    merge_below: float = 0.25
    roll_every: timedelta | None = None
    halving: bool = False

    def __post_init__(self) -> None:
        for name in ("records_per_second", "bytes_per_second"):
            target = getattr(self, name)
            if target is not None and not (isinstance(target, int | float) and target > 0):
                raise InvalidArgument(f"{name}: expected None or a positive number, found {target!r}")
        for name in ("window", "cooldown", "roll_every"):
            duration = getattr(self, name)
            if not (duration is None and name == "roll_every") and not (
                isinstance(duration, timedelta) and duration > timedelta(0)
            ):
                raise InvalidArgument(f"{name}: expected a positive timedelta, found {duration!r}")
        if not (type(self.max_shards) is int and type(self.min_shards) is int):
            raise InvalidArgument(f"shards: expected integers, found {self.min_shards!r} and {self.max_shards!r}")
        if not 1 <= self.min_shards <= self.max_shards <= SHARDS_MAX:
            raise InvalidArgument(
                f"shards: expected 1 <= min_shards <= max_shards <= {SHARDS_MAX}, "
                f"found {self.min_shards} and {self.max_shards}"
            )
        if not (isinstance(self.merge_below, int | float) and 0 <= self.merge_below < 1):
            raise InvalidArgument(f"merge_below: expected a fraction of 0 to 1 (exclusive), found {self.merge_below!r}")

    @classmethod
    def dynamodb(cls) -> ShardingPolicy:
        """As DynamoDB's partitions: 1,000 writes/s and 1 MB/s each, shards rolled over every 4 hours."""
        return cls(records_per_second=1000, bytes_per_second=1_000_000, roll_every=timedelta(hours=4))

    @classmethod
    def kinesis_on_demand(cls) -> ShardingPolicy:
        """As Kinesis on demand: a shard that takes more than 500 KB/s is halved within 15 minutes."""
        return cls(
            records_per_second=None,
            bytes_per_second=500_000,
            window=timedelta(minutes=5),
            cooldown=timedelta(minutes=5),
            halving=True,
        )

    def as_fields(self) -> dict[str, Any]:
        """Its fields as plain values, durations in seconds."""
        return {
            field.name: value.total_seconds() if isinstance(value := getattr(self, field.name), timedelta) else value
            for field in fields(self)
        }

    @classmethod
    def of_fields(cls, values: dict[str, Any]) -> ShardingPolicy:
        """The policy of such fields."""
        durations = {
            name: None if values[name] is None else timedelta(seconds=values[name])
            for name in ("window", "cooldown", "roll_every")
        }
        return cls(**{**values, **durations})


@dataclass(frozen=True)
class StreamOptions:
    """What is settled when a stream is created. `retention` and `segment_age` None: for ever."""

    view_type: ViewType
    key_names: tuple[str, ...] | None
    partition_key: str | None
    durability: Durability
    segment_bytes: int
    retention: timedelta | None
    retention_bytes: int | None
    sharding: ShardingPolicy | None
    hold: tuple[str, ...] = ()
    """Groups whose records do not expire before they were checkpointed."""
    hold_bytes_max: int | None = None
    """The log may grow to so many bytes for them; None: without end."""
    table_arn: str | None = None
    """The DynamoDB table whose changes these are; then images are DynamoDB-typed values."""

    @property
    def carries_new(self) -> bool:
        """Whether records hold the new image."""
        return self.view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")

    @property
    def carries_old(self) -> bool:
        """Whether records hold the old image."""
        return self.view_type in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")

    @cached_property
    def segment_age(self) -> timedelta:
        """Age at which a segment rolls, so that records of an idle stream can expire segment by segment."""
        if self.retention is None:
            return SEGMENT_AGE_MAX
        return min(SEGMENT_AGE_MAX, self.retention / SEGMENTS_PER_RETENTION)

    @cached_property
    def segment_age_us(self) -> int:
        """The same in microseconds."""
        return self.segment_age // timedelta(microseconds=1)


def stream_options(
    *,
    view_type: str,
    key_names: Sequence[str] | None,
    partition_key: str | None,
    durability: str,
    segment_bytes: int,
    retention: timedelta | None,
    retention_bytes: int | None,
    sharding: ShardingPolicy | None,
    table_arn: str | None = None,
) -> StreamOptions:
    """Checked options; raises InvalidArgument that names the option."""
    if view_type not in get_args(ViewType):
        raise InvalidArgument(f"view_type: expected one of {', '.join(get_args(ViewType))}, found {view_type!r}")
    if durability not in get_args(Durability):
        raise InvalidArgument(f"durability: expected 'fsync' or 'os', found {durability!r}")
    if type(segment_bytes) is not int or not SEGMENT_BYTES_MIN <= segment_bytes <= SEGMENT_BYTES_MAX:
        raise InvalidArgument(
            f"segment_bytes: expected {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}, found {segment_bytes!r}"
        )
    names = _checked_key_names(key_names)
    if partition_key is not None and type(partition_key) is not str:
        raise InvalidArgument(f"partition_key: expected the name of a key attribute, found {partition_key!r}")
    if names is not None and partition_key is not None and partition_key not in names:
        raise InvalidArgument(f"partition_key: expected one of the key names {list(names)}, found {partition_key!r}")
    return StreamOptions(
        view_type=view_type,  # type: ignore[arg-type]  # checked against the literal's own values
        key_names=names,
        partition_key=partition_key,
        durability=durability,  # type: ignore[arg-type]  # likewise
        segment_bytes=segment_bytes,
        retention=checked_retention(retention),
        retention_bytes=checked_retention_bytes(retention_bytes),
        sharding=checked_sharding(sharding),
        table_arn=checked_table_arn(table_arn),
    )


def checked_table_arn(table_arn: str | None) -> str | None:
    """The ARN itself; raises InvalidArgument unless it is None or the ARN of a DynamoDB table."""
    if table_arn is not None and not (type(table_arn) is str and _TABLE_ARN.fullmatch(table_arn)):
        raise InvalidArgument(
            f"table_arn: expected None or arn:aws:dynamodb:<region>:<12 digits>:table/<name>, found {table_arn!r:.300}"
        )
    return table_arn


def _checked_key_names(key_names: Sequence[str] | None) -> tuple[str, ...] | None:
    if key_names is None:
        return None
    if isinstance(key_names, str):
        raise InvalidArgument(f"key_names: expected a sequence of names, found the string {key_names!r}")
    names = tuple(key_names)
    if not 1 <= len(names) <= KEY_NAMES_MAX or len(set(names)) != len(names):
        raise InvalidArgument(f"key_names: expected 1 to {KEY_NAMES_MAX} different names, found {list(names)!r}")
    for name in names:
        if type(name) is not str or not name:
            raise InvalidArgument(f"key_names: expected names that are non-empty strings, found {name!r}")
    return names


def checked_retention(retention: timedelta | None) -> timedelta | None:
    """The retention itself; raises InvalidArgument unless it is None or at least a second."""
    if retention is None:
        return None
    if not isinstance(retention, timedelta) or retention < RETENTION_MIN:
        raise InvalidArgument(f"retention: expected None or a timedelta of at least 1 s, found {retention!r}")
    return retention


def checked_retention_bytes(retention_bytes: int | None) -> int | None:
    """The cap itself; raises InvalidArgument unless it is None or a positive number of bytes."""
    if retention_bytes is not None and (type(retention_bytes) is not int or retention_bytes < 1):
        raise InvalidArgument(f"retention_bytes: expected None or a positive integer, found {retention_bytes!r}")
    return retention_bytes


def checked_hold(hold: Sequence[str], hold_bytes_max: int | None) -> tuple[str, ...]:
    """The names of the groups; raises InvalidArgument unless they are names, and the limit None or positive."""
    if isinstance(hold, str) or not all(isinstance(name, str) for name in hold):
        raise InvalidArgument(f"hold: expected a sequence of groups' names, found {hold!r}")
    if hold_bytes_max is not None and (type(hold_bytes_max) is not int or hold_bytes_max < 1):
        raise InvalidArgument(f"hold_bytes_max: expected None or a positive integer, found {hold_bytes_max!r}")
    if hold_bytes_max is not None and not hold:
        raise InvalidArgument("hold_bytes_max: it limits what `hold` keeps; expected groups to hold for")
    return tuple(hold)


def checked_sharding(sharding: ShardingPolicy | None) -> ShardingPolicy | None:
    """The policy itself; raises InvalidArgument unless it is None or a ShardingPolicy."""
    if sharding is not None and not isinstance(sharding, ShardingPolicy):
        raise InvalidArgument(f"sharding: expected None or a ShardingPolicy, found {sharding!r}")
    return sharding


def checked_stream_name(name: str) -> str:
    """The name itself; raises InvalidArgument unless it may name a stream."""
    if type(name) is not str or not _STREAM_NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidArgument(f"stream name: expected 1 to 255 of A-Z a-z 0-9 _ . -, found {name!r}")
    return name


def checked_shard_count(shards: int) -> int:
    """The count itself; raises InvalidArgument unless a stream may start with so many shards."""
    if type(shards) is not int or not 1 <= shards <= SHARDS_MAX:
        raise InvalidArgument(f"shards: expected 1 to {SHARDS_MAX}, found {shards!r}")
    return shards


def checked_producer(producer: str | None, position: int | None) -> tuple[str, int] | None:
    """Producer and position together, or None; raises InvalidArgument where one is missing or out of range."""
    if producer is None and position is None:
        return None
    if producer is None or position is None:
        raise InvalidArgument(f"producer and position go together, found producer={producer!r}, position={position!r}")
    checked_producer_name(producer)
    if type(position) is not int or not 0 <= position <= POSITION_MAX:
        raise InvalidArgument(f"position: expected an integer of 0 to 2^63-1, found {position!r}")
    return producer, position


def checked_producer_name(producer: str) -> str:
    """The name itself; raises InvalidArgument unless it may name a producer."""
    try:
        length = len(producer.encode()) if type(producer) is str else 0
    except UnicodeEncodeError:
        length = 0
    if not 1 <= length <= PRODUCER_NAME_BYTES_MAX:
        raise InvalidArgument(
            f"producer: expected a string of 1 to {PRODUCER_NAME_BYTES_MAX} UTF-8 bytes, found {producer!r}"
        )
    return producer


def parse_duration(text: str) -> timedelta | None:
    """A duration as written on a command line: `90s`, `24h`, `7d`, `1h30m`; `forever` is None.

    Units: ms, s, m, h, d, w. Raises InvalidArgument.
    """
    if text == "forever":
        return None
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f"duration: expected such as 90s, 24h, 7d, 1h30m or forever, found {text!r}")
    try:
        return timedelta(seconds=sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise InvalidArgument(f"duration: {text!r} is longer than can be told; say forever") from None

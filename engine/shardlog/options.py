"""Names, limits and options, checked.

Owns the rules for what a caller may ask for when a stream is created, and the limits of one append. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

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
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What is settled when a stream is created. `retention` and `segment_age` None: for ever."""

    view_type: ViewType
    key_names: tuple[str, ...] | None
    partition_key: str | None
    retention: timedelta | None
    durability: Durability
    segment_bytes: int

    @property
    def carries_new(self) -> bool:
        """Whether records hold the new image."""
        return self.view_type in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")

    @property
    def carries_old(self) -> bool:
        """Whether records hold the old image."""
        return self.view_type in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")

    @property
    def segment_age(self) -> timedelta:
        """Age at which a segment rolls, so that records of an idle stream can expire segment by segment."""
        if self.retention is None:
            return SEGMENT_AGE_MAX
        return min(SEGMENT_AGE_MAX, self.retention / SEGMENTS_PER_RETENTION)


def stream_options(
    *,
    view_type: str,
    key_names: Sequence[str] | None,
    partition_key: str | None,
    retention: timedelta | None,
    durability: str,
    segment_bytes: int,
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
        retention=checked_retention(retention),
        durability=durability,  # type: ignore[arg-type]  # likewise
        segment_bytes=segment_bytes,
    )


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

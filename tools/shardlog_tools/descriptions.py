"""Descriptions of streams as JSON and as words: what several commands print."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from shardlog import Finding, ShardingPolicy
from shardlog.model import HASH_RANGE_END, ShardDescription, StreamDescription

_HASH_DIGITS: Final = 32
_UNITS: Final = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
)


def stream_as_json(description: StreamDescription) -> dict[str, Any]:
    """A stream's description. Retention is in seconds, null for ever."""
    retention = description.retention
    return {
        "name": description.name,
        "label": description.label,
        "arn": description.arn,
        "table_arn": description.table_arn,
        "status": description.status,
        "view_type": description.view_type,
        "key_names": list(description.key_names) if description.key_names is not None else None,
        "partition_key": description.partition_key,
        "durability": description.durability,
        "retention_seconds": retention.total_seconds() if retention is not None else None,
        "retention_bytes": description.retention_bytes,
        "hold": list(description.hold),
        "hold_bytes_max": description.hold_bytes_max,
        "sharding": description.sharding.as_fields() if description.sharding is not None else None,
        "created_at": description.created_at.isoformat(),
        "shards": [shard_as_json(shard) for shard in description.shards],
    }


def shard_as_json(shard: ShardDescription) -> dict[str, Any]:
    """A shard's description."""
    # Ends of a hash range go to 2^128, which most readers of JSON round: decimal strings, as in Kinesis.
    return {
        "shard": shard.shard_id,
        "parents": list(shard.parent_ids),
        "hash_range": [str(end) for end in shard.hash_range],
        "first_sequence": shard.first_sequence,
        "end_sequence": shard.end_sequence,
    }


def finding_as_json(finding: Finding) -> dict[str, Any]:
    """What a check found."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "path": finding.path,
        "offset": finding.offset,
        "sequences": list(finding.sequences) if finding.sequences is not None else None,
        "message": finding.message,
    }


def duration_words(duration: timedelta | None) -> str:
    """A duration as `--retention` takes it: 24h, 7d, 90s, forever."""
    if duration is None:
        return "forever"
    if duration == timedelta(hours=24):
        return "24h"
    for unit, length in _UNITS:
        if duration % length == timedelta(0):
            return f"{duration // length}{unit}"
    return f"{duration.total_seconds():g}s"


def retention_words(description: StreamDescription) -> str:
    """For how long, and up to how much, a stream keeps its records."""
    words = duration_words(description.retention)
    if description.retention_bytes is not None:
        words += f", at most {bytes_words(description.retention_bytes)}"
    if description.hold:
        words += f", held for {', '.join(description.hold)}"
    if description.hold_bytes_max is not None:
        words += f" up to {bytes_words(description.hold_bytes_max)}"
    return words


def policy_words(policy: ShardingPolicy | None) -> str:
    """When a stream's shards change by themselves."""
    if policy is None:
        return "by hand only"
    targets = []
    if policy.records_per_second is not None:
        targets.append(f"{policy.records_per_second:,.10g} records/s")
    if policy.bytes_per_second is not None:
        targets.append(f"{policy.bytes_per_second:,.10g} bytes/s")
    window = duration_words(policy.window)
    words = [f"split above {' or '.join(targets)} over {window}" if targets else "no split"]
    if policy.halving:
        words.append("in the middle")
    words.append(f"merge below {policy.merge_below:.0%}" if policy.merge_below else "no merge")
    words.append(f"{duration_words(policy.cooldown)} apart, {policy.min_shards} to {policy.max_shards} shards")
    if policy.roll_every is not None:
        words.append(f"roll over every {duration_words(policy.roll_every)}")
    return ", ".join(words)


def number_of(shard_id: str) -> str:
    """A shard's number, the end of its id: hexadecimal, without zeros in front."""
    return shard_id.rpartition("-")[2].lstrip("0") or "0"


def hash_words(value: int, digits: int = _HASH_DIGITS) -> str:
    """A bound of a hash range by the first of its 32 hexadecimal digits; 2^128 has one digit more."""
    return "1" + "0" * digits if value == HASH_RANGE_END else f"{value:0{_HASH_DIGITS}x}"[:digits]


def hash_digits(shards: Iterable[ShardDescription]) -> int:
    """How many digits tell the bounds of some shards apart: at least four."""
    bounds = sorted({bound for shard in shards for bound in shard.hash_range})
    for digits in range(4, _HASH_DIGITS):
        if len({hash_words(bound, digits) for bound in bounds}) == len(bounds):
            return digits
    return _HASH_DIGITS


def rate_words(records_per_second: float) -> str:
    """Records per second: three digits where they are few."""
    return f"{records_per_second:,.0f}/s" if records_per_second >= 10 else f"{records_per_second:.2g}/s"


def count_words(count: int, noun: str) -> str:
    """A number of things: 1 shard, 2 shards."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def bytes_words(count: float) -> str:
    """A number of bytes for people: 512 B, 3.4 MiB."""
    size = count
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of cells as lines with aligned columns; cells that hold a number are set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cell(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cell(cell: str, width: int) -> str:
    return cell.rjust(width) if cell.replace(",", "").isdigit() else cell.ljust(width)

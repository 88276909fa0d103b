"""Descriptions of streams as JSON and as words: what `create` and `stat` both print."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from shardlog.model import ShardDescription, StreamDescription

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
        "status": description.status,
        "view_type": description.view_type,
        "key_names": list(description.key_names) if description.key_names is not None else None,
        "partition_key": description.partition_key,
        "durability": description.durability,
        "retention_seconds": retention.total_seconds() if retention is not None else None,
        "created_at": description.created_at.isoformat(),
        "shards": [_shard_as_json(shard) for shard in description.shards],
    }


def _shard_as_json(shard: ShardDescription) -> dict[str, Any]:
    # Ends of a hash range go to 2^128, which most readers of JSON round: decimal strings, as in Kinesis.
    return {
        "shard": shard.shard_id,
        "parents": list(shard.parent_ids),
        "hash_range": [str(end) for end in shard.hash_range],
        "first_sequence": shard.first_sequence,
        "end_sequence": shard.end_sequence,
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


def bytes_words(count: int) -> str:
    """A number of bytes for people: 512 B, 3.4 MiB."""
    size = float(count)
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

"""`shardlog stat`: what a store holds, stream by stream.

Owns the figures' presentation. They are taken stream by stream while others may append, so they need not belong to
one moment. A stream that cannot be opened is listed with its error, and the exit status is 1.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import Any

import shardlog
from shardlog import ShardlogError
from shardlog.format.checksum import IMPLEMENTATION
from shardlog.model import Statistics, StreamDescription
from shardlog_tools.arguments import Subparsers, add_store_argument
from shardlog_tools.descriptions import bytes_words, duration_words, stream_as_json, table
from shardlog_tools.output import DONE, FAILED, Output

_HEADINGS = (
    "STREAM",
    "LABEL",
    "STATUS",
    "SHARDS",
    "RECORDS",
    "HORIZON",
    "NEXT",
    "SEGMENTS",
    "ON DISK",
    "DURABILITY",
    "RETENTION",
)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "stat",
        help="show what a store or a stream holds",
        description="Show the streams of a store, or one stream in detail.",
    )
    add_store_argument(parser)
    parser.add_argument("stream", metavar="STREAM", nargs="?", help="the stream's name (default: all streams)")
    parser.add_argument("--label", help="an older stream of this name (default: the newest)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Show the figures; returns the exit status."""
    with shardlog.open(args.store, create=False, read_only=True) as store:
        if args.stream is not None:
            stream = store.stream(args.stream, args.label)
            _show_stream(args.store, stream.describe(), stream.statistics(), output)
            return DONE
        return _show_store(args.store, store, output)


def _show_store(path: str, store: shardlog.Store, output: Output) -> int:
    figures: list[tuple[StreamDescription, Statistics]] = []
    failures: list[tuple[str, str, ShardlogError]] = []
    for name, label in store.names():
        try:
            stream = store.stream(name, label)
            figures.append((stream.describe(), stream.statistics()))
        except ShardlogError as error:
            failures.append((name, label, error))
    if output.as_json:
        output.object(
            {
                "store": path,
                "checksum": IMPLEMENTATION,
                "streams": [_as_json(description, statistics) for description, statistics in figures]
                + [{"name": name, "label": label, "error": str(failure)} for name, label, failure in failures],
            }
        )
    else:
        if figures:
            for line in table([_HEADINGS, *(_row(description, statistics) for description, statistics in figures)]):
                output.line(line)
        elif not failures:
            output.line("no streams")
        output.line(f"checksums: CRC-32C by {IMPLEMENTATION}")
    for name, label, failure in failures:
        output.say(f"shardlog: {name} {label}: {failure}")
    return FAILED if failures else DONE


def _show_stream(path: str, description: StreamDescription, statistics: Statistics, output: Output) -> None:
    if output.as_json:
        output.object({"store": path, "checksum": IMPLEMENTATION, **_as_json(description, statistics)})
        return
    figures = (
        ("stream", description.name),
        ("label", description.label),
        ("arn", description.arn),
        ("status", description.status),
        ("view type", description.view_type),
        ("keys", ", ".join(description.key_names) if description.key_names else "not checked"),
        ("partition key", description.partition_key or "all keys together"),
        ("durability", description.durability),
        ("retention", duration_words(description.retention)),
        ("records", f"{statistics.records:,}"),
        ("from", _time_words(statistics.first_time)),
        ("to", _time_words(statistics.last_time)),
        ("trim horizon", f"{statistics.trim_horizon:,}"),
        ("next sequence", f"{statistics.next_sequence:,}"),
        ("durable below", f"{statistics.durable_sequence:,}"),
        ("segments", f"{statistics.segments:,}"),
        ("on disk", bytes_words(statistics.bytes)),
        ("checksums", f"CRC-32C by {IMPLEMENTATION}"),
    )
    for name, figure in figures:
        output.line(f"{name + ':':15}{figure}")
    for shard in description.shards:
        end = "open" if shard.end_sequence is None else f"closed at {shard.end_sequence}"
        output.line(f"{'shard:':15}{shard.shard_id}  from {shard.first_sequence}  {end}")


def _as_json(description: StreamDescription, statistics: Statistics) -> dict[str, Any]:
    return stream_as_json(description) | {
        "records": statistics.records,
        "segments": statistics.segments,
        "bytes": statistics.bytes,
        "trim_horizon": statistics.trim_horizon,
        "next_sequence": statistics.next_sequence,
        "durable_sequence": statistics.durable_sequence,
        "first_time": statistics.first_time.isoformat() if statistics.first_time else None,
        "last_time": statistics.last_time.isoformat() if statistics.last_time else None,
    }


def _row(description: StreamDescription, statistics: Statistics) -> tuple[str, ...]:
    return (
        description.name,
        description.label,
        description.status,
        f"{sum(shard.end_sequence is None for shard in description.shards)}",
        f"{statistics.records:,}",
        f"{statistics.trim_horizon:,}",
        f"{statistics.next_sequence:,}",
        f"{statistics.segments:,}",
        bytes_words(statistics.bytes),
        description.durability,
        duration_words(description.retention),
    )


def _time_words(moment: datetime | None) -> str:
    return moment.isoformat(" ", "milliseconds") if moment else "-"

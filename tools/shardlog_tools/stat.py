"""`shardlog stat`: what a store holds, stream by stream.

Owns the figures' presentation. They are taken stream by stream while others may append, so they need not belong to
one moment. A stream that cannot be opened is listed with its error, and the exit status is 1. Throughput is read back
from the log, whoever wrote it, and for one stream only, as are its groups: that takes longer than the other figures.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import shardlog
from shardlog import ShardlogError
from shardlog.format.checksum import IMPLEMENTATION
from shardlog.model import HotKey, Statistics, StreamDescription, Throughput
from shardlog_tools.arguments import Subparsers, add_store_argument
from shardlog_tools.descriptions import (
    bytes_words,
    count_words,
    duration_words,
    number_of,
    policy_words,
    rate_words,
    retention_words,
    stream_as_json,
    table,
)
from shardlog_tools.group_figures import GroupFigures, figures_of, group_as_json, summary_words
from shardlog_tools.json_values import to_json
from shardlog_tools.lineage import Lineage, figures_as_json, lineage_of, read_figures
from shardlog_tools.output import DONE, FAILED, Output

_KEY_CHARACTERS_MAX: Final = 60

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
            return _show_stream(args.store, stream, output)
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


def _show_stream(path: str, stream: shardlog.Stream, output: Output) -> int:
    description, statistics, throughput = read_figures(stream)
    groups, failure = _groups(stream)
    lineage = lineage_of(description, statistics, throughput)
    if output.as_json:
        found = _as_json(description, statistics)
        for shard, node in zip(found["shards"], lineage.nodes, strict=True):
            shard |= figures_as_json(node)
        hot_keys = [
            {"shard": hot.shard_id, "key": json.loads(to_json(hot.key)), "share": round(hot.share, 4)}
            for hot in throughput.hot_keys
        ]
        found |= {"hot_keys": hot_keys, "groups": list(map(group_as_json, groups))}
        output.object({"store": path, "checksum": IMPLEMENTATION, **found})
        return _status(stream, failure, output)
    figures = (
        ("stream", description.name),
        ("label", description.label),
        ("arn", description.arn),
        ("status", description.status),
        ("view type", description.view_type),
        ("keys", ", ".join(description.key_names) if description.key_names else "not checked"),
        ("partition key", description.partition_key or "all keys together"),
        ("durability", description.durability),
        ("retention", retention_words(description)),
        ("sharding", policy_words(description.sharding)),
        ("records", f"{statistics.records:,}"),
        ("from", _time_words(statistics.first_time)),
        ("to", _time_words(statistics.last_time)),
        ("trim horizon", f"{statistics.trim_horizon:,}{_age_words(statistics.first_time)}"),
        ("next sequence", f"{statistics.next_sequence:,}"),
        ("durable below", f"{statistics.durable_sequence:,}"),
        ("segments", f"{statistics.segments:,}"),
        ("on disk", bytes_words(statistics.bytes)),
        ("checksums", f"CRC-32C by {IMPLEMENTATION}"),
        ("throughput", _throughput_words(throughput)),
        *(("hot key", _hot_key_words(hot)) for hot in throughput.hot_keys),
        *(("group", summary_words(group)) for group in groups),
    )
    for name, figure in figures:
        output.line(f"{name + ':':15}{figure}")
    _show_shards(lineage, output)
    return _status(stream, failure, output)


def _groups(stream: shardlog.Stream) -> tuple[list[GroupFigures], ShardlogError | None]:
    """Its groups, or why they cannot be told: damaged checkpoints are no reason to hide the rest."""
    try:
        return [figures_of(stream.group(name)) for name in stream.groups()], None
    except ShardlogError as error:
        return [], error


def _status(stream: shardlog.Stream, failure: ShardlogError | None, output: Output) -> int:
    if failure is None:
        return DONE
    output.say(f"shardlog: {stream.name}: its groups: {failure}")
    return FAILED


def _show_shards(lineage: Lineage, output: Output) -> None:
    rows: list[tuple[str, ...]] = [
        (
            node.shard.shard_id,
            f"from {node.shard.first_sequence:,}",
            count_words(node.statistics.records, "record"),
            bytes_words(node.statistics.bytes),
            rate_words(node.recent.records_per_second) if node.recent is not None else "-",
            f"{bytes_words(node.recent.bytes_per_second)}/s" if node.recent is not None else "-",
        )
        for node in lineage.nodes
        if node.is_open
    ]
    for line in table(rows) if rows else ():
        output.line(f"{'shard:':15}{line}")
    closed = len(lineage.nodes) - len(rows)
    if closed:
        output.line(f"{'closed shards:':15}{closed:,}; `shardlog shards` draws them")


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


def _throughput_words(throughput: Throughput) -> str:
    rates = throughput.shards.values()
    records, size = sum(rate.records_per_second for rate in rates), sum(rate.bytes_per_second for rate in rates)
    measured = (datetime.now(UTC) - throughput.since).total_seconds()
    return f"{rate_words(records)}, {bytes_words(size)}/s, over the last {measured:,.3g} s"


def _hot_key_words(hot: HotKey) -> str:
    key = to_json(hot.key)
    if len(key) > _KEY_CHARACTERS_MAX:
        key = key[: _KEY_CHARACTERS_MAX - 3] + "..."
    return f"{key} takes {hot.share:.0%} of shard {number_of(hot.shard_id)}"


def _age_words(first_time: datetime | None) -> str:
    if first_time is None:
        return ""
    age = timedelta(seconds=max(0, round((datetime.now(UTC) - first_time).total_seconds())))
    return f", the oldest record is {age} old"


def _time_words(moment: datetime | None) -> str:
    return moment.isoformat(" ", "milliseconds") if moment else "-"

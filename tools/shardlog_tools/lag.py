"""`shardlog lag`: how far behind a group is, shard by shard, once or again and again."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import shardlog
from shardlog import Group, Lag, Lease
from shardlog_tools.arguments import Subparsers, add_stream_arguments, positive_duration
from shardlog_tools.descriptions import number_of, table
from shardlog_tools.group_figures import age_words, existing_group, lag_words
from shardlog_tools.output import DONE, Output

_HEADINGS: Final = ("SHARD", "WORKER", "CHECKPOINT", "BEHIND", "OLDEST")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "lag",
        help="show how far behind a group is",
        description="Show how many records a group has not checkpointed, and how old the oldest of them is: in all, "
        "and for each shard that it has not finished. With --follow: again and again, a line (or a JSON object) each "
        "time, until interrupted.",
    )
    add_stream_arguments(parser)
    parser.add_argument("--group", required=True, metavar="GROUP", help="the group's name")
    parser.add_argument("--follow", action="store_true", help="go on until interrupted")
    parser.add_argument(
        "--interval",
        type=positive_duration,
        default="2s",
        metavar="TIME",
        help="with --follow: how often, such as 500ms, 10s (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Show the lag; returns the exit status."""
    # What is open to read while nobody writes stays as it was: who follows has to open it to write.
    with shardlog.open(args.store, create=False, read_only=not args.follow) as store:
        group = existing_group(store.stream(args.stream), args.group)
        if args.follow:
            _follow(group, _ticks(args.interval.total_seconds()), output)
        elif output.as_json:
            output.object(_as_json(group))
        else:
            _show(group, output)
    return DONE


def _ticks(interval_seconds: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Without end, at least so long apart."""
    while True:
        yield
        sleep(interval_seconds)


def _follow(group: Group, ticks: Iterator[None], output: Output) -> None:
    for _ in ticks:
        if output.as_json:
            output.object({"time": datetime.now(UTC).isoformat(), **_as_json(group)})
        else:
            output.line(f"{datetime.now().astimezone():%H:%M:%S}  {_line_words(group.lag())}")
        output.write_out()


def _line_words(lag: Lag) -> str:
    behind = {shard_id: shard for shard_id, shard in lag.shards.items() if shard.records}
    if len(behind) < 2:
        return lag_words(lag)
    most = max(behind, key=lambda shard_id: behind[shard_id].records)
    return f"{lag_words(lag)}; {len(behind):,} shards, most in {number_of(most)}: {behind[most].records:,}"


def _show(group: Group, output: Output) -> None:
    lag, leases = group.lag(), _leases(group)
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for shard_id, shard in lag.shards.items():
        lease = leases.get(shard_id)
        rows.append(
            (
                shard_id,
                (lease and lease.owner) or "-",
                f"{lease.checkpoint:,}" if lease is not None and isinstance(lease.checkpoint, int) else "-",
                f"{shard.records:,}",
                age_words(shard.age) if shard.records else "-",
            )
        )
    rows.append(("in all", "", "", f"{lag.records:,}", age_words(lag.age) if lag.records else "-"))
    for line in table(rows):
        output.line(line)


def _as_json(group: Group) -> dict[str, Any]:
    lag, leases = group.lag(), _leases(group)
    shards = []
    for shard_id, shard in lag.shards.items():
        lease = leases.get(shard_id)
        shards.append(
            {
                "shard": shard_id,
                "records": shard.records,
                "age_seconds": shard.age.total_seconds(),
                "owner": lease.owner if lease is not None else None,
                "checkpoint": lease.checkpoint if lease is not None else None,
            }
        )
    return {"group": group.name, "records": lag.records, "age_seconds": lag.age.total_seconds(), "shards": shards}


def _leases(group: Group) -> dict[str, Lease]:
    return {lease.shard_id: lease for lease in group.leases()}

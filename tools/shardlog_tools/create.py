"""`shardlog create`: make a stream, and the store where there is none."""

from __future__ import annotations

import argparse
from typing import get_args

import shardlog
from shardlog.options import SHARDS_MAX, Durability, ViewType
from shardlog_tools.arguments import Subparsers, add_stream_arguments, duration, integer_between, size
from shardlog_tools.descriptions import count_words, policy_words, retention_words, stream_as_json
from shardlog_tools.output import DONE, Output
from shardlog_tools.sharding_arguments import PRESETS, add_policy_options, policy_of


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "create",
        help="make a stream",
        description="Make a stream, and the store where there is none.",
    )
    add_stream_arguments(parser)
    parser.add_argument(
        "--view-type",
        choices=get_args(ViewType),
        default="NEW_AND_OLD_IMAGES",
        help="what records carry (default: %(default)s)",
    )
    parser.add_argument(
        "--shards", type=integer_between(1, SHARDS_MAX), default=1, metavar="N", help="open shards (default: 1)"
    )
    parser.add_argument(
        "--retention",
        type=duration,
        default="24h",
        metavar="TIME",
        help="how long records stay readable: 90s, 24h, 7d, forever (default: %(default)s)",
    )
    parser.add_argument(
        "--retention-bytes", type=size, metavar="N", help="keep at most so many bytes of log, such as 10GiB"
    )
    parser.add_argument(
        "--partition-key",
        metavar="NAME",
        help="the key attribute whose hash chooses the shard (default: all keys together)",
    )
    parser.add_argument(
        "--key",
        action="append",
        dest="key_names",
        metavar="NAME",
        help="a key attribute, once for each: every record must have exactly these (default: not checked)",
    )
    parser.add_argument(
        "--table-arn",
        metavar="ARN",
        help="the DynamoDB table whose changes the stream holds; its images then are DynamoDB-typed values",
    )
    parser.add_argument(
        "--durability",
        choices=get_args(Durability),
        default="fsync",
        help="what an acknowledged append survives: fsync: power loss; os: the process dying (default: %(default)s)",
    )
    parser.add_argument(
        "--sharding",
        choices=PRESETS,
        help="when shards change by themselves: a preset, to which the options below make changes (default: by hand)",
    )
    add_policy_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Make the stream; returns the exit status."""
    sharding = policy_of(args.sharding, args)
    with shardlog.open(args.store) as store:
        stream = store.create_stream(
            args.stream,
            view_type=args.view_type,
            key_names=args.key_names,
            partition_key=args.partition_key,
            shards=args.shards,
            retention=args.retention,
            retention_bytes=args.retention_bytes,
            durability=args.durability,
            sharding=sharding,
            table_arn=args.table_arn,
        )
        description = stream.describe()
    if output.as_json:
        output.object(stream_as_json(description))
        return DONE
    shards = count_words(len(description.shards), "shard")
    output.say(
        f"created stream {description.name} in {args.store}: {description.view_type}, {shards}, "
        f"durability {description.durability}, retention {retention_words(description)}"
        + (f"; shards {policy_words(sharding)}" if sharding else "")
    )
    return DONE

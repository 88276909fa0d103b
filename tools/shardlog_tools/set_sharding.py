"""`shardlog set-sharding`: change when a stream's shards change by themselves."""

from __future__ import annotations

import argparse

import shardlog
from shardlog_tools.arguments import Subparsers, add_stream_arguments
from shardlog_tools.descriptions import policy_words, stream_as_json
from shardlog_tools.output import DONE, Output
from shardlog_tools.sharding_arguments import PRESETS, add_policy_options, policy_of


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "set-sharding",
        help="change when shards change by themselves",
        description="Change when shards split, merge and roll over by themselves, while somebody appends or does "
        "maintenance.",
    )
    add_stream_arguments(parser)
    parser.add_argument(
        "policy", choices=PRESETS, help="a preset, to which the options below make changes; none: by hand only"
    )
    add_policy_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Change the policy; returns the exit status."""
    policy = policy_of(args.policy, args)
    with shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        stream.set_sharding(policy)
        description = stream.describe()
    if output.as_json:
        output.object(stream_as_json(description))
    else:
        output.say(f"shards of {args.stream}: {policy_words(description.sharding)}")
    return DONE

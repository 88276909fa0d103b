"""`shardlog split`, `merge` and `roll`: shards changed by hand.

Owns the arguments, the hash that `--at` names, and the words about what happened. The ids of the new shards are the
data; each command is one commit of the engine's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Final

import shardlog
from shardlog.model import ShardDescription
from shardlog_tools.arguments import Subparsers, add_shard_argument, add_stream_arguments
from shardlog_tools.descriptions import hash_digits, hash_words, number_of, shard_as_json
from shardlog_tools.output import DONE, Output
from shardlog_tools.shard_names import find_shard

_DECIMAL: Final = re.compile(r"\d{1,39}", re.ASCII)
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]{32}", re.ASCII)
_PERCENT: Final = re.compile(r"(\d{1,2}(?:\.\d{1,6})?)%", re.ASCII)

HashWithin = Callable[[tuple[int, int]], int]


def add_parser(subparsers: Subparsers) -> None:
    """Declare the arguments of the three commands."""
    split = subparsers.add_parser(
        "split",
        help="split a shard in two",
        description="Split an open shard in two. Prints the ids of the two that replace it.",
    )
    add_stream_arguments(split)
    add_shard_argument(split)
    split.add_argument(
        "--at",
        type=hash_within,
        metavar="HASH",
        help="where the second one begins: a decimal number, 0x and 32 digits, or a part of the shard's range such as "
        "50%% (default: where half of what it took lately went)",
    )
    split.set_defaults(run=run_split)
    merge = subparsers.add_parser(
        "merge",
        help="merge two neighbouring shards",
        description="Merge two open shards whose hash ranges meet. Prints the id of the one that replaces them.",
    )
    add_stream_arguments(merge)
    add_shard_argument(merge, "left")
    add_shard_argument(merge, "right")
    merge.set_defaults(run=run_merge)
    roll = subparsers.add_parser(
        "roll",
        help="replace a shard by one of the same range",
        description="Replace an open shard by one of the same hash range. Prints its id.",
    )
    add_stream_arguments(roll)
    add_shard_argument(roll)
    roll.set_defaults(run=run_roll)


def hash_within(text: str) -> HashWithin:
    """A type for argparse: what gives a hash, for the range of the shard that it splits."""
    if _DECIMAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        at = int(text, 0) if text.startswith("0x") else int(text)
        return lambda _: at
    percent = _PERCENT.fullmatch(text)
    if percent is None:
        raise argparse.ArgumentTypeError(
            f"expected a decimal number, 0x and 32 hexadecimal digits, or a part such as 50%, found {text!r}"
        )
    millionths = round(float(percent[1]) * 10_000)
    return lambda hash_range: hash_range[0] + (hash_range[1] - hash_range[0]) * millionths // 1_000_000


def run_split(args: argparse.Namespace, output: Output) -> int:
    """Split the shard; returns the exit status."""
    with shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        shard = find_shard(stream.describe(), args.shard)
        opened = stream.split_shard(shard.shard_id, None if args.at is None else args.at(shard.hash_range))
        return _report("split", [shard], opened, stream, output)


def run_merge(args: argparse.Namespace, output: Output) -> int:
    """Merge the shards; returns the exit status."""
    with shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        description = stream.describe()
        shards = [find_shard(description, args.left), find_shard(description, args.right)]
        opened = stream.merge_shards(shards[0].shard_id, shards[1].shard_id)
        return _report("merged", shards, [opened], stream, output)


def run_roll(args: argparse.Namespace, output: Output) -> int:
    """Roll the shard over; returns the exit status."""
    with shardlog.open(args.store, create=False) as store:
        stream = store.stream(args.stream)
        shard = find_shard(stream.describe(), args.shard)
        opened = stream.roll_shard(shard.shard_id)
        return _report("rolled over", [shard], [opened], stream, output)


def _report(
    verb: str, closed: Sequence[ShardDescription], opened_ids: Sequence[str], stream: shardlog.Stream, output: Output
) -> int:
    shards = {shard.shard_id: shard for shard in stream.describe().shards}
    opened = [shards[shard_id] for shard_id in opened_ids]
    if output.as_json:
        output.object(
            {
                "closed": [shard_as_json(shards[shard.shard_id]) for shard in closed],
                "opened": [shard_as_json(shard) for shard in opened],
            }
        )
        return DONE
    for shard_id in opened_ids:
        output.line(shard_id)
    digits = hash_digits([*closed, *opened])
    output.say(
        f"{verb} {' and '.join(number_of(shard.shard_id) for shard in closed)} of {stream.name} into "
        + " and ".join(f"{number_of(shard.shard_id)} ({_range_words(shard, digits)})" for shard in opened)
    )
    return DONE


def _range_words(shard: ShardDescription, digits: int) -> str:
    first, end = shard.hash_range
    return f"hashes {hash_words(first, digits)} to {hash_words(end, digits)}"

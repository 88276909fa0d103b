"""The sharding policy on a command line: a preset, and options that change it, for `create` and `set-sharding`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from shardlog import InvalidArgument, ShardingPolicy
from shardlog.options import SHARDS_MAX, parse_duration
from shardlog_tools.arguments import integer_between
from shardlog_tools.output import USED_WRONGLY, CommandFailed

_PRESETS: Final[dict[str, Callable[[], ShardingPolicy] | None]] = {
    "dynamodb": ShardingPolicy.dynamodb,
    "kinesis-on-demand": ShardingPolicy.kinesis_on_demand,
    "none": None,
}
PRESETS: Final = tuple(_PRESETS)
_FIELDS: Final = tuple(ShardingPolicy().as_fields())
_NONE: Final = "none"


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """The options that change a preset."""
    group = parser.add_argument_group("sharding", "What of the preset is different.")
    for name, what in (("records", "records"), ("bytes", "bytes")):
        group.add_argument(
            f"--{name}-per-second", type=_target, metavar="N", help=f"split a shard that takes more {what}; or: none"
        )
    group.add_argument("--window", type=_positive_duration, metavar="TIME", help="over how long the load is measured")
    group.add_argument("--cooldown", type=_positive_duration, metavar="TIME", help="time between two changes")
    for name in ("min", "max"):
        group.add_argument(f"--{name}-shards", type=integer_between(1, SHARDS_MAX), metavar="N", help="open shards")
    group.add_argument(
        "--merge-below", type=_fraction, metavar="PART", help="merge neighbours below this part of a target; 0: never"
    )
    group.add_argument("--roll-every", type=_roll_every, metavar="TIME", help="roll shards over at this age; or: none")
    group.add_argument(
        "--halving",
        action=argparse.BooleanOptionalAction,
        help="split in the middle of the range, not of what was written",
    )


def policy_of(preset: str | None, args: argparse.Namespace) -> ShardingPolicy | None:
    """The policy that the arguments ask for. Raises CommandFailed for options that have no policy to change."""
    changed: dict[str, Any] = {name: getattr(args, name) for name in _FIELDS if getattr(args, name) is not None}
    make = _PRESETS[preset or _NONE]
    if make is None:
        if changed:
            option = "--" + next(iter(changed)).replace("_", "-")
            raise CommandFailed(f"{option}: expected a sharding policy that it changes, found none", USED_WRONGLY)
        return None
    given: dict[str, Any] = {name: None if value == _NONE else value for name, value in changed.items()}
    try:
        return replace(make(), **given)
    except InvalidArgument as error:
        raise CommandFailed(str(error), USED_WRONGLY) from error


def _target(text: str) -> float | str:
    return text if text == _NONE else _number(text, 0.0, 1e15)


def _fraction(text: str) -> float:
    return _number(text, -1e-9, 1.0)


def _number(text: str, above: float, below: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not above < value < below:
        raise argparse.ArgumentTypeError(f"expected a number above {above:g} and below {below:g}, found {text!r}")
    return value


def _roll_every(text: str) -> timedelta | str:
    return text if text == _NONE else _positive_duration(text)


def _positive_duration(text: str) -> timedelta:
    try:
        duration = parse_duration(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not duration:
        raise argparse.ArgumentTypeError(f"duration: expected a positive one, found {text!r}")
    return duration

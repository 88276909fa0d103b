"""Arguments that several commands take, and the checks that argparse makes on them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from shardlog import InvalidArgument
from shardlog.options import parse_duration

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = argparse.Action  # the class that argparse really returns is private to it, and not generic

_SIZE: Final = re.compile(r"(\d{1,18})(?:(K|M|G|T)(i?)B|B?)", re.ASCII)
_SIZE_STEPS: Final = ("", "K", "M", "G", "T")


def add_store_argument(parser: argparse.ArgumentParser) -> None:
    """STORE."""
    parser.add_argument("store", metavar="STORE", help="the store's directory")


def add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    """STORE STREAM."""
    add_store_argument(parser)
    parser.add_argument("stream", metavar="STREAM", help="the stream's name")


def add_shard_argument(parser: argparse.ArgumentParser, name: str = "shard") -> None:
    """SHARD."""
    parser.add_argument(
        name,
        metavar=name.upper(),
        help="the shard's id, or enough of its beginning or end; its number alone will do, as `shards` shows it",
    )


def integer_between(lowest: int, highest: int) -> Callable[[str], int]:
    """A type for argparse: an integer of `lowest` to `highest`, both included."""

    def integer(text: str) -> int:
        if not (text.isascii() and text.isdigit() and lowest <= int(text[:20]) <= highest):
            raise argparse.ArgumentTypeError(f"expected an integer of {lowest} to {highest}, found {text!r}")
        return int(text)

    return integer


def duration(text: str) -> timedelta | None:
    """A type for argparse: such as 90s, 24h, 7d, forever."""
    try:
        return parse_duration(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive_duration(text: str) -> timedelta:
    """A type for argparse: a duration above 0, such as 500ms or 10s, that has an end."""
    found = duration(text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected a duration above 0 such as 500ms or 10s, found {text!r}")
    return found


def size(text: str) -> int | None:
    """A type for argparse: a positive number of bytes such as 1000, 512MiB or 10GB; `none` is None."""
    if text == "none":
        return None
    match = _SIZE.fullmatch(text)
    count = 0 if match is None else int(match[1]) * (1024 if match[3] else 1000) ** _SIZE_STEPS.index(match[2] or "")
    if not 0 < count < 2**63:
        raise argparse.ArgumentTypeError(f"expected a number of bytes such as 1000, 512MiB or none, found {text!r}")
    return count


def seconds(text: str) -> float:
    """A type for argparse: a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, found {text!r}")
    return value

"""Arguments that several commands take, and the checks that argparse makes on them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from shardlog import InvalidArgument
from shardlog.options import parse_duration

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]
else:
    Subparsers = argparse.Action  # the class that argparse really returns is private to it, and not generic


def add_store_argument(parser: argparse.ArgumentParser) -> None:
    """STORE."""
    parser.add_argument("store", metavar="STORE", help="the store's directory")


def add_stream_arguments(parser: argparse.ArgumentParser) -> None:
    """STORE STREAM."""
    add_store_argument(parser)
    parser.add_argument("stream", metavar="STREAM", help="the stream's name")


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


def seconds(text: str) -> float:
    """A type for argparse: a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, found {text!r}")
    return value

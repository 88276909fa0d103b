r"""How the API names things as text: stream ARNs, sequence numbers, shard iterators. Pure.

| thing | text |
|---|---|
| sequence number | `1` and twenty digits, padded with zeros; compared as integers |
| stream | `arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>` |
| shard iterator | `<stream arn>\|1\|<the engine's token>` |

Text from a client that is not of this shape is a ValidationException; whether the thing exists is asked elsewhere.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from shardlog.server.faults import Fault, invalid_iterator, invalid_sequence, validation

SEQUENCE_BASE: Final = 10**20
"""Makes every sequence number 21 digits long, the least that the API allows."""

_SEQUENCE: Final = re.compile(r"\d{21,40}", re.ASCII)
_ARN: Final = re.compile(
    r"(arn:[a-z0-9-]+:dynamodb:([a-z0-9-]+):(\d{12}):table/([A-Za-z0-9_.-]{1,255}))"
    r"/stream/(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})",
    re.ASCII,
)
_ITERATOR: Final = re.compile(r"([^|]+)\|\d\|([A-Za-z0-9_=-]+)", re.ASCII)


class StreamArn(NamedTuple):
    """A stream's ARN and its parts."""

    text: str
    table_arn: str
    region: str
    account: str
    table: str
    label: str


def sequence_text(sequence: int) -> str:
    """A sequence number as the API writes it."""
    return str(SEQUENCE_BASE + sequence)


def parse_sequence(text: str) -> int:
    """The sequence number of a text. Below 0 or far above: a number that no record has. Raises a Fault."""
    if not _SEQUENCE.fullmatch(text):
        raise invalid_sequence(text)
    return int(text) - SEQUENCE_BASE


def parse_arn(text: str) -> StreamArn:
    """The parts of a stream's ARN. Raises a Fault."""
    match = _ARN.fullmatch(text)
    if match is None:
        raise validation(f"Invalid StreamArn: {text}")
    return StreamArn(text, *match.groups())


def iterator_text(arn: str, token: str) -> str:
    """A shard iterator as the API writes it."""
    return f"{arn}|1|{token}"


def parse_iterator(text: str) -> tuple[StreamArn, str]:
    """The stream and the engine's token of a shard iterator. Raises a Fault."""
    match = _ITERATOR.fullmatch(text)
    if match is None:
        raise invalid_iterator()
    try:
        return parse_arn(match[1]), match[2]
    except Fault:
        raise invalid_iterator() from None

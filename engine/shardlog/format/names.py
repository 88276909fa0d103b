"""All names: files and directories of a store, shard ids, sequence numbers as text, ARNs.

    STORE  LOCK  streams/<name>/<label>/
        LOCK  MARK  log/<first_sequence:020d>-<segment_id:08x>.seg  index/  consumers/  lost+found/

A name that ends in TEMPORARY was never finished and may be removed by whoever holds the lock.
"""

from __future__ import annotations

import re
from datetime import datetime

from shardlog.clock import datetime_of

STORE = "STORE"
LOCK = "LOCK"
STREAMS = "streams"
LOG = "log"
INDEX = "index"
CONSUMERS = "consumers"
MARK = "MARK"
LOST_AND_FOUND = "lost+found"
TEMPORARY = ".tmp"
DELETED = ".deleted"

_SEGMENT = re.compile(r"(\d{20})-([0-9a-f]{8})\.seg", re.ASCII)
_LABEL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", re.ASCII)


def segment_name(first_sequence: int, segment_id: int) -> str:
    """The file name of a segment; names sort by first sequence number."""
    return f"{first_sequence:020d}-{segment_id:08x}.seg"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """First sequence number and segment id, or None where the name is not a segment's."""
    match = _SEGMENT.fullmatch(name)
    return (int(match[1]), int(match[2], 16)) if match else None


def stream_label(created_us: int) -> str:
    """A stream's label: its creation time, ISO-8601 with milliseconds and no zone, as in a stream ARN."""
    return datetime_of(created_us).replace(tzinfo=None).isoformat(timespec="milliseconds")


def is_label(name: str) -> bool:
    """Whether a directory name is a label."""
    return _LABEL.fullmatch(name) is not None


def created_at_of(label: str) -> datetime:
    """The creation time that a label tells."""
    return datetime.fromisoformat(label + "+00:00")


def stream_arn(name: str, label: str, table_arn: str | None = None) -> str:
    """The stream's ARN: under its table, or with a region and account of nobody's."""
    return f"{table_arn or f'arn:aws:dynamodb:local:000000000000:table/{name}'}/stream/{label}"


def shard_id(created_ms: int, number: int) -> str:
    """A shard's public id; ids sort by creation."""
    return f"shardId-{created_ms:020d}-{number:08x}"

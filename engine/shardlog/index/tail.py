"""The tail row: where the log ends, for every process that has the stream open.

Committing it to the index is what publishes records. Pure: values and their bytes.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

ROLLING: Final = 1
"""A writer began to roll to segment `rolling_id`; nobody appends to the active segment any more."""
MUST_ROLL: Final = 2
"""The bytes after `offset` cannot be trusted (failed sync, torn tail): seal here and go on in a new segment."""
CLOSED: Final = 4
"""The stream takes no more records."""


class Tail(NamedTuple):
    """Where the log ends. Sequence numbers and offsets are exclusive ends."""

    flags: int
    segment_id: int
    offset: int
    """Where the next block goes."""
    limit: int
    """Blocks of this segment end at or before it; the rest of the file is for the footer."""
    next_sequence: int
    durable_sequence: int
    """Everything below was synced."""
    records: int
    """Change records appended since the stream was created."""
    commits: int
    """Grows with every publication; MARK's slots are ordered by it."""
    last_crc: int
    timestamp_us: int
    """Append time of the last commit."""
    segment_first: int
    segment_created_us: int
    checkpoint_offset: int
    """Where the last block with a checkpoint starts; 0: this segment has none."""
    indexed_offset: int
    """Where the last block with a position row starts; 0: this segment has none."""
    state_version: int
    rolling_id: int
    """The greatest segment id ever used or begun."""
    trim_horizon: int
    """First readable sequence number."""


_TAIL = struct.Struct("<IIQQQQQQIqQqQQQIQ")


def encode_tail(tail: Tail) -> bytes:
    """The row's bytes."""
    return _TAIL.pack(*tail)


def decode_tail(content: bytes) -> Tail:
    """The row of its bytes."""
    return Tail._make(_TAIL.unpack(content))

"""Stepping through the blocks of a segment and verifying all of each, at a few calls in C per commit.

`BlockScan` judges as `log.walk` does (header checksum, chain, order, padding, every body) and adds what only a check
asks: whether counts and times continue those of the commits before. Its fast form takes a sound commit in one pass over
a buffer; at whatever is not plainly sound it stops, and `log.walk`'s own steps, which are the definition, say what that
is. A test holds the two against each other.

What is kept in memory is one piece of a segment, or one commit where that is larger.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from shardlog.check.deep import DeepCheck
from shardlog.check.subject import Subject
from shardlog.errors import CorruptLog
from shardlog.files.protocol import File
from shardlog.format.checksum import crc32c
from shardlog.format.commit import (
    ALIGNMENT,
    COMMIT,
    CONTROL_SHARD,
    ENTRY_BYTES,
    FOOTER,
    HEADER_BYTES,
    MAGIC,
    VERSION,
    Batch,
    CommitHeader,
)
from shardlog.format.control import Control, decode_controls
from shardlog.format.segment import SparsePosition
from shardlog.log.recovery import INDEX_STRIDE_BYTES
from shardlog.log.walk import Block, Span, Steps, find_block

PIECE_BYTES: Final = 1 << 20

# As `format.commit`, with type, flags and version in one field: sound ones have one value.
_HEADER = struct.Struct("<IIIIIIQQQqII")
_ENTRY = struct.Struct("<IIII")
_PLAIN: Final = COMMIT | VERSION << 16
_CRC_OFFSET: Final = HEADER_BYTES - 4

Controls = Callable[[list[tuple[int, Control]], "BlockScan", CommitHeader | None], None]


class BlockScan:
    """Scans the blocks of `[span.start, span.end)` of one segment and keeps the sum of what it saw.

    `open_shards` are the numbers of the shards that may have batches now; `take_controls` is handed every control batch
    and may replace it. Findings go to the subject.
    """

    def __init__(self, subject: Subject, file: File, path: str, segment_id: int, span: Span) -> None:
        self.offset = span.start
        self.next_sequence = span.next_sequence
        self.last_crc = span.previous_crc
        self.records: int | None = None
        self.timestamp_us: int | None = None
        self.counts: dict[int, tuple[int, int]] = {}
        self.positions: list[SparsePosition] = []
        self.open_shards: frozenset[int] | None = None
        self.is_damaged = False
        self.is_sealed = False
        """It came to a footer."""
        self.commits = 0
        self.take_controls: Callable[[list[tuple[int, Control]]], None] | None = None
        self.deep: DeepCheck | None = None
        self._subject = subject
        self._file = file
        self._path = path
        self._segment_id = segment_id
        self._span = span
        self._indexed_offset = 0

    def run(self) -> None:
        """Step to the end of the span, or to a footer."""
        end = self._span.end
        while self.offset < end and not self.is_sealed:
            if self.last_crc is not None and self.deep is None and self.records is not None:
                buffer = self._file.pread(min(PIECE_BYTES, end - self.offset), self.offset)
                before = self.offset
                while self._take_plainly(buffer, self.offset - before):
                    pass
                if self.offset - before > PIECE_BYTES // 2:
                    continue  # what is left of the piece was cut off, as like as not
                if self.offset >= end:
                    return
            self._take_by_definition()

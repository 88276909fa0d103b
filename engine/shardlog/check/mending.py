"""Putting a segment header right that differs from what was written in one bit, or in its padding alone.

Such a header tells where the bit is: CRC-32C corrects one. That it is the header of the segment that the file's name
says is the second witness. Nothing else is ever corrected: of records a wrong guess would be a lie.
"""

from __future__ import annotations

import struct
from typing import Final

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.protocol import File
from shardlog.format.bitflip import flipped_bit
from shardlog.format.checksum import crc32c
from shardlog.format.segment import (
    FIXED_HEADER_BYTES,
    HEADER_STEP,
    SNAPSHOT_BYTES_MAX,
    SegmentHeader,
    decode_header,
    encode_header,
)

_CRC = struct.Struct("<I")
_LEADING_BITS: Final = 8 * 20
"""Magic, version and lengths: while one of these is wrong, the checksum cannot be found."""


def mended_header(file: File, first_sequence: int, segment_id: int) -> SegmentHeader | None:
    """The header as it was written; None where one bit does not explain what is there."""
    start = file.pread(HEADER_STEP, 0)
    if len(start) < FIXED_HEADER_BYTES:
        return None
    content = bytearray(start)
    found = _checked(file, content)
    if found is None:
        for bit in range(_LEADING_BITS):
            content[bit // 8] ^= 1 << bit % 8
            found = _checked(file, content)
            if found is not None:
                break
            content[bit // 8] ^= 1 << bit % 8
    if found is None:
        found = _corrected(file, content)
    if found is None or (found.first_sequence, found.segment_id) != (first_sequence, segment_id):
        return None
    return found


def _checked(file: File, start: bytearray) -> SegmentHeader | None:
    """The header whose first bytes are `start`, its padding taken for zeros, if it checks out so."""
    content = _whole(file, start)
    return None if content is None else _decoded(content)


def _corrected(file: File, start: bytearray) -> SegmentHeader | None:
    """The header with the one bit flipped back that its checksum tells."""
    content = _whole(file, start)
    if content is None:
        return None
    end = FIXED_HEADER_BYTES + _snapshot_bytes(start)
    difference = crc32c(bytes(content[:end])) ^ _CRC.unpack_from(content, end)[0]
    if difference.bit_count() == 1:  # the checksum itself
        _CRC.pack_into(content, end, crc32c(bytes(content[:end])))
        return _decoded(content)
    distance = flipped_bit(end, difference)
    if distance is None:
        return None
    # Within a byte the checksum takes the least significant bit first: that one is the farthest from the end.
    content[end - 1 - distance // 8] ^= 1 << (7 - distance % 8)
    return _decoded(content)


def _whole(file: File, start: bytearray) -> bytearray | None:
    """The header that starts so, to the end of its checksum, the rest of its padding zero."""
    snapshot_bytes = _snapshot_bytes(start)
    if snapshot_bytes > SNAPSHOT_BYTES_MAX:
        return None
    end = FIXED_HEADER_BYTES + snapshot_bytes + _CRC.size
    content = start + file.pread(end - len(start), len(start)) if end > len(start) else start[:end]
    if len(content) < end:
        return None
    return bytearray(content[:end].ljust(-(-end // HEADER_STEP) * HEADER_STEP, b"\0"))


def _snapshot_bytes(start: bytearray) -> int:
    return int.from_bytes(start[16:20], "little")


def _decoded(content: bytearray) -> SegmentHeader | None:
    try:
        header = decode_header(bytes(content))
    except (CorruptLog, UnsupportedVersion):
        return None
    return header if encode_header(header)[0] == bytes(content) else None

"""Blocks that one flipped bit keeps from checking out: a torn write does not look like that.

CRC-32C tells where the bit is, in a header with its directory as well as in a body. Where a whole sector is missing,
that explains it better.
"""

from __future__ import annotations

from typing import Final

from shardlog.errors import CorruptLog
from shardlog.files.protocol import File
from shardlog.format.bitflip import flipped_bit, mended_header, with_bit_flipped
from shardlog.format.checksum import crc32c
from shardlog.format.commit import (
    ENTRY_BYTES,
    FOOTER,
    HEADER_BYTES,
    CommitHeader,
    decode_directory,
    decode_header,
    padded,
)

_SECTOR_BYTES: Final = 512
_SEARCH_BYTES_MAX: Final = 1 << 20
_CRC_OFFSET: Final = HEADER_BYTES - 4


def mended_block(file: File, offset: int, size: int, seed: int) -> bytes | None:
    """What starts at `offset` of a segment of `size` bytes, as it was before one bit flipped.

    None where one bit does not explain it. Of a footer, or of what is longer than a MiB, only header and directory.
    """
    # All there is, not only what the batch count asks for: that may be what was flipped.
    buffer = file.pread(min(size - offset, HEADER_BYTES + padded(_SEARCH_BYTES_MAX)), offset)
    if len(buffer) < HEADER_BYTES:
        return None
    header = _header(buffer, offset, seed)
    if header is not None:
        return _with_bodies_mended(header, buffer[: header.end - offset])
    first = mended_header(buffer, seed)
    return _with_directory_mended(buffer, seed) if first is None else first + buffer[HEADER_BYTES:]


def _header(buffer: bytes, offset: int, seed: int) -> CommitHeader | None:
    try:
        return decode_header(buffer, 0, offset, seed)
    except CorruptLog:
        return None


def _with_directory_mended(buffer: bytes, seed: int) -> bytes | None:
    batch_count = int.from_bytes(buffer[12:16], "little")
    end = HEADER_BYTES + batch_count * ENTRY_BYTES
    directory = buffer[HEADER_BYTES:end]
    crc = crc32c(directory, crc32c(buffer[:_CRC_OFFSET], seed))
    stored = int.from_bytes(buffer[_CRC_OFFSET:HEADER_BYTES], "little")
    distance = flipped_bit(len(directory), crc ^ stored) if directory else None
    if distance is None:
        return None
    return buffer[:HEADER_BYTES] + with_bit_flipped(directory, distance) + buffer[end:]


def _with_bodies_mended(header: CommitHeader, content: bytes) -> bytes | None:
    if header.type == FOOTER or header.length > _SEARCH_BYTES_MAX:
        return None  # a footer has no directory, and holds nothing that the blocks before it do not
    if _misses_a_sector(header, content):
        return None
    wrong = []
    for batch in decode_directory(content, 0, header):
        body = content[batch.body_offset : batch.body_offset + batch.body_bytes]
        difference = crc32c(body) ^ batch.body_crc
        if difference:
            wrong.append((batch, difference))
    end = HEADER_BYTES + header.length
    padding = content[end:]
    if not wrong:
        flipped = sum(byte.bit_count() for byte in padding)
        return content[:end] + bytes(len(padding)) if flipped == 1 else None
    if len(wrong) > 1 or any(padding):
        return None
    batch, difference = wrong[0]
    distance = flipped_bit(batch.body_bytes, difference)
    if distance is None:
        return None
    place = batch.body_offset + batch.body_bytes - 1 - distance // 8
    sector = place - (header.offset + place) % _SECTOR_BYTES
    # Torn where only the last byte is missing, and that has one bit: the same, for a part of a sector.
    if not any(content[max(0, sector) : sector + _SECTOR_BYTES]):
        return None
    body_end = batch.body_offset + batch.body_bytes
    mended = with_bit_flipped(content[batch.body_offset : body_end], distance)
    return content[: batch.body_offset] + mended + content[body_end:]


def _misses_a_sector(header: CommitHeader, content: bytes) -> bool:
    return any(
        not any(content[sector : sector + _SECTOR_BYTES])
        for sector in range(-header.offset % _SECTOR_BYTES, len(content) - _SECTOR_BYTES + 1, _SECTOR_BYTES)
    )

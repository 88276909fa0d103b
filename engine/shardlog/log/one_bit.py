"""Whether one flipped bit explains why a block does not check out: a torn write does not look like that.

CRC-32C tells where the bit is, for a header with its directory as well as for a body. Where a whole sector is missing,
that explains it better.
"""

from __future__ import annotations

from typing import Final

from shardlog.errors import CorruptLog
from shardlog.files.protocol import File
from shardlog.format.bitflip import flipped_bit, header_differs_by_one_bit
from shardlog.format.checksum import crc32c
from shardlog.format.commit import (
    ENTRY_BYTES,
    FOOTER,
    HEADER_BYTES,
    CommitHeader,
    decode_directory,
    decode_header,
)

_SECTOR_BYTES: Final = 512
_SEARCH_BYTES_MAX: Final = 1 << 20


def one_bit_explains(file: File, offset: int, size: int, seed: int) -> bool:
    """Whether what starts at `offset` of a segment of `size` bytes is a block but for one bit."""
    start = file.pread(HEADER_BYTES, offset)
    if len(start) < HEADER_BYTES:
        return False
    batch_count = int.from_bytes(start[12:16], "little")
    header = _header(file, offset, size, seed, batch_count)
    if header is not None:
        return _in_bodies(file, header)
    # All there is, not only what the batch count asks for: that may be what was flipped.
    buffer = file.pread(min(size - offset, _SEARCH_BYTES_MAX), offset)
    if header_differs_by_one_bit(buffer, seed):
        return True
    directory = buffer[HEADER_BYTES : HEADER_BYTES + batch_count * ENTRY_BYTES]
    crc = crc32c(directory, crc32c(buffer[: HEADER_BYTES - 4], seed))
    stored = int.from_bytes(buffer[HEADER_BYTES - 4 : HEADER_BYTES], "little")
    return bool(directory) and flipped_bit(len(directory), crc ^ stored) is not None


def _header(file: File, offset: int, size: int, seed: int, batch_count: int) -> CommitHeader | None:
    length = HEADER_BYTES + batch_count * ENTRY_BYTES
    if length > size - offset:
        return None
    try:
        return decode_header(file.pread(length, offset), 0, offset, seed)
    except CorruptLog:
        return None


def _in_bodies(file: File, header: CommitHeader) -> bool:
    if header.type == FOOTER or header.length > _SEARCH_BYTES_MAX:
        return False  # a footer has no directory, and holds nothing that the blocks before it do not
    content = file.pread(header.end - header.offset, header.offset)
    if _misses_a_sector(header, content):
        return False
    wrong = []
    for batch in decode_directory(content, 0, header):
        body = content[batch.body_offset : batch.body_offset + batch.body_bytes]
        difference = crc32c(body) ^ batch.body_crc
        if difference:
            wrong.append((batch, difference))
    padding = content[HEADER_BYTES + header.length :]
    if not wrong:
        return sum(byte.bit_count() for byte in padding) == 1
    if len(wrong) > 1 or any(padding):
        return False
    batch, difference = wrong[0]
    distance = flipped_bit(batch.body_bytes, difference)
    if distance is None:
        return False
    place = batch.body_offset + batch.body_bytes - 1 - distance // 8
    sector = place - (header.offset + place) % _SECTOR_BYTES
    # Torn where only the last byte is missing, and that has one bit: the same, for a part of a sector.
    return any(content[max(0, sector) : sector + _SECTOR_BYTES])


def _misses_a_sector(header: CommitHeader, content: bytes) -> bool:
    return any(
        not any(content[sector : sector + _SECTOR_BYTES])
        for sector in range(-header.offset % _SECTOR_BYTES, len(content) - _SECTOR_BYTES + 1, _SECTOR_BYTES)
    )

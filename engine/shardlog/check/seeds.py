"""The seed of a segment's header checksums, found from its blocks alone: for logs that lost every segment header.

The seed is a checksum of stream uuid and segment id, which only headers tell. But a checksum is linear in its seed:
given the bytes and the checksum of one block's header, the seed is the solution of 32 equations over bits. That the
block is one is told by the checksums of its batches, which have no seed.
"""

from __future__ import annotations

from typing import Final

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.protocol import File
from shardlog.format.checksum import crc32c
from shardlog.format.commit import (
    ALIGNMENT,
    COMMIT,
    ENTRY_BYTES,
    HEADER_BYTES,
    LENGTH_MAX,
    MAGIC_BYTES,
    body_of,
    decode_directory,
    decode_header,
    padded,
)

_PIECE_BYTES: Final = 1 << 20
_BITS: Final = 32


def seed_of_blocks(file: File) -> int | None:
    """The seed of the first blocks in a file that prove it; None where there are none."""
    size, offset = file.data_end(), 0
    while offset < size and (piece := file.pread(_PIECE_BYTES, offset)):
        position = piece.find(MAGIC_BYTES)
        while position >= 0:
            if (offset + position) % ALIGNMENT == 0:
                seed = _proven_seed(file, offset + position, size)
                if seed is not None:
                    return seed
            position = piece.find(MAGIC_BYTES, position + 1)
        offset += len(piece)
    return None


def _proven_seed(file: File, offset: int, size: int) -> int | None:
    """The seed of the block at an offset, if that is a block of batches whose checksums are right."""
    start = file.pread(HEADER_BYTES, offset)
    length, batch_count = int.from_bytes(start[8:12], "little"), int.from_bytes(start[12:16], "little")
    block_bytes = padded(HEADER_BYTES + length)
    if len(start) < HEADER_BYTES or start[4] != COMMIT or not batch_count or length > LENGTH_MAX:
        return None
    if batch_count * ENTRY_BYTES > length or offset + block_bytes > size:
        return None
    block = file.pread(block_bytes, offset)
    directory = block[HEADER_BYTES : HEADER_BYTES + batch_count * ENTRY_BYTES]
    seed = solved_seed(block[: HEADER_BYTES - 4] + directory, int.from_bytes(start[-4:], "little"))
    if seed is None:
        return None
    try:
        header = decode_header(block, 0, offset, seed)
        batches = decode_directory(block, 0, header) if header else []
        for batch in batches:
            body_of(block, 0, batch)
    except (CorruptLog, UnsupportedVersion):
        return None
    return seed if any(batch.body_bytes for batch in batches) else None


def solved_seed(content: bytes, crc: int) -> int | None:
    """The seed with which `content` has the checksum `crc`."""
    wanted = crc ^ crc32c(content, 0)
    # Rows of the system: what each bit of the seed does to the checksum, and which bit that is.
    rows = [(crc32c(content, 1 << bit) ^ crc32c(content, 0), 1 << bit) for bit in range(_BITS)]
    seed = 0
    for bit in range(_BITS):
        pivot = next((row for row in rows if row[0] >> bit & 1), None)
        if pivot is None:
            if wanted >> bit & 1:
                return None
            continue
        rows.remove(pivot)
        rows = [(row[0] ^ pivot[0], row[1] ^ pivot[1]) if row[0] >> bit & 1 else row for row in rows]
        if wanted >> bit & 1:
            wanted, seed = wanted ^ pivot[0], seed ^ pivot[1]
    return seed if wanted == 0 else None

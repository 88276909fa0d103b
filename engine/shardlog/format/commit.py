"""The commit: one block of batches that is whole or did not happen.

Little-endian, 8-byte aligned; zeros pad a block to the next multiple of 8.

| bytes | field | meaning |
|-------|-------|---------|
| 0 | magic u32 | never zero, so that preallocated zeros read as "nothing here" |
| 4 | type u8 | 1 commit, 2 footer |
| 5 | flags u8 | codec and encryption bits; zero in version 1 |
| 6 | version u16 | |
| 8 | length u32 | bytes after this header, without the padding |
| 12 | batch count u32 | entries in the directory |
| 16 | record count u32 | |
| 20 | reserved u32 | zero |
| 24 | first sequence u64 | batch i starts at it plus the record counts of the batches before |
| 32 | durable sequence u64 | everything below was synced when this was written: a promise |
| 40 | records before u64 | change records of the stream before this commit |
| 48 | timestamp i64 | append time, microseconds since 1970; never goes back |
| 56 | previous crc u32 | header crc of the block before (the segment header's, for the first) |
| 60 | header crc u32 | CRC-32C of bytes 0 to 60 and the directory, seeded with stream and segment |
| 64 | directory | batch count entries of 16 bytes |
| | bodies | one after the other |

Directory entry: shard u32 (CONTROL_SHARD: control records), record count u32, body length u32, body crc u32.

The seed keeps bytes of a segment that are stored as user data from passing for a commit. Magic, version, length, batch
count, entry size and header crc stay as they are in every version: a header whose crc is right and whose version is
another is *unsupported*; any other mismatch is *corrupt*. A footer has the same header, no directory, and its own body
(`format.segment`) under a checksum in that body.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.options import APPEND_BYTES_MAX

VERSION: Final = 1
MAGIC: Final = 0x474F4C53  # "SLOG"
MAGIC_BYTES: Final = b"SLOG"
COMMIT: Final = 1
FOOTER: Final = 2
CONTROL_SHARD: Final = 0xFFFFFFFF
ALIGNMENT: Final = 8

HEADER_BYTES: Final = 64
ENTRY_BYTES: Final = 16
# What a group commit may take, and room for the control records that go with it.
LENGTH_MAX: Final = APPEND_BYTES_MAX + (16 << 20)

_HEADER = struct.Struct("<IBBHIIIIQQQqII")
_CRC = struct.Struct("<I")
_IS_LITTLE: Final = sys.byteorder == "little"
_MANY_BATCHES: Final = 8
"""From so many on, a directory is searched in C: for fewer that takes longer than stepping through them."""
_CRC_OFFSET: Final = HEADER_BYTES - _CRC.size
_ENTRY = struct.Struct("<IIII")
_SEED = struct.Struct("<16sI")


# Structs are made in C, and every reader makes some per block.
class Batch(msgspec.Struct, frozen=True, gc=False):
    """One entry of a directory and where its body lies, relative to the start of the block."""

    shard: int
    records: int
    body_bytes: int
    body_crc: int
    body_offset: int
    first_sequence: int


class CommitHeader(msgspec.Struct, gc=False):
    """A decoded header. `offset` is where the block starts in its segment, `end` where its padding ends."""

    offset: int
    type: int
    length: int
    batch_count: int
    record_count: int
    first_sequence: int
    durable_sequence: int
    records_before: int
    timestamp_us: int
    previous_crc: int
    crc: int
    next_sequence: int
    end: int


def seed_of(stream_uuid: bytes, segment_id: int) -> int:
    """The seed of the header checksums of a segment."""
    return crc32c(_SEED.pack(stream_uuid, segment_id))


def padded(length: int) -> int:
    """`length` rounded up to the alignment."""
    return -(-length // ALIGNMENT) * ALIGNMENT


def encode_entry(shard: int, records: int, body: bytes) -> bytes:
    """A directory entry for a body."""
    return _ENTRY.pack(shard, records, len(body), crc32c(body))


def encode_block(
    entries: Sequence[bytes],
    bodies: Sequence[bytes],
    *,
    seed: int,
    record_count: int,
    first_sequence: int,
    durable_sequence: int,
    records_before: int,
    timestamp_us: int,
    previous_crc: int,
    block_type: int = COMMIT,
) -> tuple[bytes, int]:
    """The bytes of a block, padding included, and its header crc."""
    directory = b"".join(entries)
    length = len(directory) + sum(map(len, bodies))
    header = _HEADER.pack(
        MAGIC,
        block_type,
        0,
        VERSION,
        length,
        len(entries),
        record_count,
        0,
        first_sequence,
        durable_sequence,
        records_before,
        timestamp_us,
        previous_crc,
        0,
    )[:_CRC_OFFSET]
    crc = crc32c(directory, crc32c(header, seed))
    padding = bytes(-(HEADER_BYTES + length) % ALIGNMENT)
    return b"".join((header, _CRC.pack(crc), directory, *bodies, padding)), crc


def decode_header(buffer: bytes, position: int, offset: int, seed: int) -> CommitHeader | None:
    """The header at `position` of `buffer`, its checksum verified; `offset` is that place in the segment.

    None where `buffer` ends before the header and its directory do. Raises CorruptLog or UnsupportedVersion.
    """
    end = position + HEADER_BYTES
    if end > len(buffer):
        return None
    (
        magic,
        block_type,
        flags,
        version,
        length,
        batch_count,
        record_count,
        reserved,
        first_sequence,
        durable_sequence,
        records_before,
        timestamp_us,
        previous_crc,
        crc,
    ) = _HEADER.unpack_from(buffer, position)
    if magic != MAGIC:
        raise CorruptLog(f"expected the magic {MAGIC:#x} of a commit, found {magic:#x}")
    directory_bytes = batch_count * ENTRY_BYTES
    if length > LENGTH_MAX or directory_bytes > length:
        raise CorruptLog(f"expected a length of {directory_bytes} to {LENGTH_MAX} bytes, found {length}")
    if end + directory_bytes > len(buffer):
        return None
    found = crc32c(buffer[end : end + directory_bytes], crc32c(buffer[position : position + _CRC_OFFSET], seed))
    if found != crc:
        raise CorruptLog(f"expected the header checksum {crc:#010x}, found {found:#010x}")
    if version != VERSION:
        raise UnsupportedVersion(f"this is a commit of format version {version}; this release knows {VERSION}")
    if flags or reserved or block_type not in (COMMIT, FOOTER):
        raise CorruptLog(f"expected a commit or footer without flags, found type {block_type}, flags {flags:#x}")
    return CommitHeader(
        offset,
        block_type,
        length,
        batch_count,
        record_count,
        first_sequence,
        durable_sequence,
        records_before,
        timestamp_us,
        previous_crc,
        crc,
        first_sequence + record_count,
        offset + padded(HEADER_BYTES + length),
    )


def decode_directory(
    buffer: bytes, position: int, header: CommitHeader, shards: Collection[int] | None = None
) -> list[Batch]:
    """The batches of a block whose header at `position` was verified, in order: all, or those of some shards.

    Raises CorruptLog where the directory does not fit the header.
    """
    start = position + HEADER_BYTES
    directory = buffer[start : start + header.batch_count * ENTRY_BYTES]
    if shards is not None and len(shards) == 1 and header.batch_count >= _MANY_BATCHES and _IS_LITTLE:
        return _batches_of(directory, header, *shards)
    body_offset = HEADER_BYTES + header.batch_count * ENTRY_BYTES
    sequence = header.first_sequence
    batches = []
    for shard, records, body_bytes, body_crc in _ENTRY.iter_unpack(directory):
        if shards is None or shard in shards:
            batches.append(Batch(shard, records, body_bytes, body_crc, body_offset, sequence))
        body_offset += body_bytes
        sequence += records
    _check_directory(header, body_offset - HEADER_BYTES, sequence - header.first_sequence)
    return batches


def _batches_of(directory: bytes, header: CommitHeader, wanted: int) -> list[Batch]:
    """The batches of one shard, found in C: a reader of one of 64 shards passes over the rest."""
    columns = array("I", directory)
    shards, records, body_bytes = columns[0::4], columns[1::4], columns[2::4]
    _check_directory(header, header.batch_count * ENTRY_BYTES + sum(body_bytes), sum(records))
    batches = []
    index = -1
    for _ in range(shards.count(wanted)):
        index = shards.index(wanted, index + 1)
        batches.append(
            Batch(
                wanted,
                records[index],
                body_bytes[index],
                columns[4 * index + 3],
                HEADER_BYTES + header.batch_count * ENTRY_BYTES + sum(body_bytes[:index]),
                header.first_sequence + sum(records[:index]),
            )
        )
    return batches


def _check_directory(header: CommitHeader, length: int, records: int) -> None:
    if length != header.length or records != header.record_count:
        raise CorruptLog(
            f"expected a directory of {header.record_count} records that fills {header.length} bytes, found "
            f"{records} records and {length} bytes"
        )


def body_of(buffer: bytes, position: int, batch: Batch) -> bytes:
    """The body of a batch of the block at `position`, its checksum verified. Raises CorruptLog."""
    start = position + batch.body_offset
    body = buffer[start : start + batch.body_bytes]
    found = crc32c(body)
    if found != batch.body_crc:
        raise CorruptLog(f"expected the batch checksum {batch.body_crc:#010x}, found {found:#010x}")
    return body

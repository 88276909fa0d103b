"""The segment: a file that starts with a header, holds blocks, and when sealed ends with a footer and a trailer.

Header, little-endian, padded with zeros to a multiple of 4 KiB:

| bytes | field | meaning |
|-------|-------|---------|
| 0 | magic 8s | |
| 8 | version u16 | |
| 10 | checksum algorithm u8 | 1: CRC-32C |
| 11 | reserved u8 | zero |
| 12 | header bytes u32 | with the padding: where the first block starts |
| 16 | snapshot bytes u32 | |
| 20 | segment id u32 | never reused within a stream |
| 24 | first sequence u64 | |
| 32 | created i64 | raw wall clock, microseconds since 1970 |
| 40 | store uuid 16s | |
| 56 | stream uuid 16s | |
| 72 | records before u64 | change records of the stream before this segment |
| 80 | timestamp before i64 | append time of the last commit before this segment; 0: there is none |
| 88 | predecessor next sequence u64 | the number after its last record |
| 96 | predecessor end u64 | offset where its blocks end, the footer not included: this *ends* that segment |
| 104 | predecessor id u32 | 0: there is none |
| 108 | predecessor crc u32 | header crc of its last block |
| 112 | snapshot | MessagePack: the stream's state when the segment began |
| | crc u32 | CRC-32C of everything before |

The snapshot is there so that the expiry of older segments loses nothing.

Footer: a block of type 2 (`format.commit`) whose body is MessagePack, followed by its CRC-32C, and then, as the last 32
bytes of the file, the trailer: magic 8s, footer offset u64, segment id u32, version u16, reserved u16, crc u32 of
these, and 4 zero bytes. What a footer says is derived from the blocks before it; a damaged one costs speed, no data.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, overload

import msgpack

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c

VERSION: Final = 1
MAGIC: Final = b"shardlog"
TRAILER_MAGIC: Final = b"shardend"
CHECKSUM_CRC32C: Final = 1
HEADER_STEP: Final = 4096
SNAPSHOT_BYTES_MAX: Final = 16 << 20

_HEADER = struct.Struct("<8sHBBIIIQq16s16sQqQQII")
_TRAILER = struct.Struct("<8sQIHHII")
_CRC = struct.Struct("<I")
FIXED_HEADER_BYTES: Final = _HEADER.size
TRAILER_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Predecessor:
    """Where the segment before ended. `segment_id` 0: there was none."""

    segment_id: int
    end: int
    next_sequence: int
    last_crc: int


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """A segment's header. `crc` is its checksum, which the first block continues."""

    segment_id: int
    first_sequence: int
    created_us: int
    store_uuid: bytes
    stream_uuid: bytes
    records_before: int
    timestamp_before_us: int
    predecessor: Predecessor
    snapshot: bytes
    crc: int = 0

    @property
    def header_bytes(self) -> int:
        """Offset of the first block."""
        return -(-(_HEADER.size + len(self.snapshot) + _CRC.size) // HEADER_STEP) * HEADER_STEP


@dataclass(frozen=True, slots=True)
class SparsePosition:
    """Where a block starts, and how many records the stream had before it."""

    first_sequence: int
    offset: int
    timestamp_us: int
    records_before: int


class PositionTable(Sequence[SparsePosition]):
    """Positions in order, as columns: many footers are kept, and a lookup needs one column and one row."""

    __slots__ = ("_columns",)

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        """Of rows in the order of SparsePosition's fields. Raises TypeError, ValueError, OverflowError."""
        sequences, offsets, timestamps_us, records_before = zip(*rows, strict=True) if rows else ((),) * 4
        self._columns = (
            array("Q", sequences),
            array("Q", offsets),
            array("q", timestamps_us),
            array("Q", records_before),
        )

    @overload
    def __getitem__(self, index: int) -> SparsePosition: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[SparsePosition]: ...

    def __getitem__(self, index: int | slice) -> SparsePosition | Sequence[SparsePosition]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return SparsePosition(*(column[index] for column in self._columns))

    def __len__(self) -> int:
        return len(self._columns[0])

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it equals lists, which have none


@dataclass(frozen=True, slots=True)
class Footer:
    """What the blocks of a sealed segment hold, so that readers need not step through them."""

    positions: Sequence[SparsePosition]
    shard_records: dict[int, int]
    first_timestamp_us: int | None
    last_timestamp_us: int | None


def encode_header(header: SegmentHeader) -> tuple[bytes, int]:
    """The header's bytes, padding included, and its crc."""
    if len(header.snapshot) > SNAPSHOT_BYTES_MAX:
        raise ValueError(f"a state snapshot of {len(header.snapshot)} bytes is over {SNAPSHOT_BYTES_MAX}")
    before = header.predecessor
    fixed = _HEADER.pack(
        MAGIC,
        VERSION,
        CHECKSUM_CRC32C,
        0,
        header.header_bytes,
        len(header.snapshot),
        header.segment_id,
        header.first_sequence,
        header.created_us,
        header.store_uuid,
        header.stream_uuid,
        header.records_before,
        header.timestamp_before_us,
        before.next_sequence,
        before.end,
        before.segment_id,
        before.last_crc,
    )
    crc = crc32c(header.snapshot, crc32c(fixed))
    return (fixed + header.snapshot + _CRC.pack(crc)).ljust(header.header_bytes, b"\0"), crc


def header_length(start: bytes) -> int:
    """How many bytes the header takes whose first bytes are given (at least FIXED_HEADER_BYTES of them).

    Raises CorruptLog where these are no segment header's.
    """
    if len(start) < _HEADER.size or start[: len(MAGIC)] != MAGIC:
        raise CorruptLog(f"expected the magic {MAGIC!r} of a segment header, found {start[: len(MAGIC)]!r}")
    header_bytes, snapshot_bytes = struct.unpack_from("<II", start, 12)
    smallest = _HEADER.size + snapshot_bytes + _CRC.size
    if snapshot_bytes > SNAPSHOT_BYTES_MAX or header_bytes != -(-smallest // HEADER_STEP) * HEADER_STEP:
        raise CorruptLog(
            f"expected a segment header of whole {HEADER_STEP}-byte steps around its snapshot, found "
            f"{header_bytes} bytes around {snapshot_bytes}"
        )
    return int(header_bytes)


def decode_header(content: bytes) -> SegmentHeader:
    """The segment header that starts `content`. Raises CorruptLog or UnsupportedVersion."""
    header_bytes = header_length(content)
    if len(content) < header_bytes:
        raise CorruptLog(f"expected a segment header of {header_bytes} bytes, found {len(content)}")
    (
        _magic,
        version,
        algorithm,
        reserved,
        _header_bytes,
        snapshot_bytes,
        segment_id,
        first_sequence,
        created_us,
        store_uuid,
        stream_uuid,
        records_before,
        timestamp_before_us,
        before_next,
        before_end,
        before_id,
        before_crc,
    ) = _HEADER.unpack_from(content)
    end = _HEADER.size + snapshot_bytes
    (crc,) = _CRC.unpack_from(content, end)
    found = crc32c(content[:end])
    if found != crc:
        raise CorruptLog(f"expected the segment header checksum {crc:#010x}, found {found:#010x}")
    if version != VERSION or algorithm != CHECKSUM_CRC32C:
        raise UnsupportedVersion(
            f"this is a segment of format version {version}, checksum algorithm {algorithm}; this release knows "
            f"{VERSION} and {CHECKSUM_CRC32C}"
        )
    if reserved or any(content[end + _CRC.size : header_bytes]):
        raise CorruptLog("expected zeros in the padding of the segment header")
    return SegmentHeader(
        segment_id,
        first_sequence,
        created_us,
        store_uuid,
        stream_uuid,
        records_before,
        timestamp_before_us,
        Predecessor(before_id, before_end, before_next, before_crc),
        content[_HEADER.size : end],
        crc,
    )


def encode_footer(footer: Footer) -> bytes:
    """The body of a footer block, its checksum included."""
    body: bytes = msgpack.packb(
        {
            "positions": [
                (row.first_sequence, row.offset, row.timestamp_us, row.records_before) for row in footer.positions
            ],
            "shard_records": footer.shard_records,
            "first_timestamp_us": footer.first_timestamp_us,
            "last_timestamp_us": footer.last_timestamp_us,
        }
    )
    return body + _CRC.pack(crc32c(body))


def decode_footer(content: bytes) -> Footer:
    """A footer from its body. Raises CorruptLog."""
    body, crc = content[: -_CRC.size], content[-_CRC.size :]
    if len(content) < _CRC.size or _CRC.pack(crc32c(body)) != crc:
        raise CorruptLog("the checksum of the footer's body does not match")
    try:
        fields: dict[str, Any] = msgpack.unpackb(body, strict_map_key=False)
        return Footer(
            PositionTable(fields["positions"]),
            fields["shard_records"],
            fields["first_timestamp_us"],
            fields["last_timestamp_us"],
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptLog(f"the footer does not hold what it should: {error!r}") from error


def encode_trailer(footer_offset: int, segment_id: int) -> bytes:
    """The last bytes of a sealed segment."""
    fields = _TRAILER.pack(TRAILER_MAGIC, footer_offset, segment_id, VERSION, 0, 0, 0)[:24]
    return fields + _CRC.pack(crc32c(fields)) + bytes(4)


def decode_trailer(content: bytes, segment_id: int) -> int:
    """The offset of the footer, from the last bytes of segment `segment_id`. Raises CorruptLog."""
    if len(content) != TRAILER_BYTES:
        raise CorruptLog(f"expected a trailer of {TRAILER_BYTES} bytes, found {len(content)}")
    magic, footer_offset, found_id, version, reserved, crc, zero = _TRAILER.unpack(content)
    if magic != TRAILER_MAGIC or crc != crc32c(content[:24]) or reserved or zero or found_id != segment_id:
        raise CorruptLog("the last bytes of the segment are not its trailer")
    if version != VERSION:
        raise UnsupportedVersion(f"this is a trailer of format version {version}; this release knows {VERSION}")
    return int(footer_offset)

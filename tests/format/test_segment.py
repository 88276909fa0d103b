"""The segment's header, footer and trailer."""

from __future__ import annotations

import struct
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.format.segment import (
    FIXED_HEADER_BYTES,
    HEADER_STEP,
    SNAPSHOT_BYTES_MAX,
    TRAILER_BYTES,
    Footer,
    Predecessor,
    SegmentHeader,
    SparsePosition,
    decode_footer,
    decode_header,
    decode_trailer,
    encode_footer,
    encode_header,
    encode_trailer,
    header_length,
)

HEADER = SegmentHeader(
    segment_id=3,
    first_sequence=1001,
    created_us=1_767_225_600_000_000,
    store_uuid=b"store-uuid-store",
    stream_uuid=b"stream-uuid-stre",
    records_before=990,
    timestamp_before_us=1_767_225_599_000_000,
    predecessor=Predecessor(2, 8192, 1001, 0xDEADBEEF),
    snapshot=b"a snapshot",
)
CONTENT, CRC = encode_header(HEADER)
MEANING_END = FIXED_HEADER_BYTES + len(HEADER.snapshot) + 4
BITS = (1, 2, 4, 8, 16, 32, 64, 128, 255)

u32 = st.integers(min_value=0, max_value=2**32 - 1)
u64 = st.integers(min_value=0, max_value=2**64 - 1)
i64 = st.integers(min_value=-(2**63), max_value=2**63 - 1)
uuids = st.binary(min_size=16, max_size=16)
headers = st.builds(
    SegmentHeader,
    segment_id=u32,
    first_sequence=u64,
    created_us=i64,
    store_uuid=uuids,
    stream_uuid=uuids,
    records_before=u64,
    timestamp_before_us=i64,
    predecessor=st.builds(Predecessor, u32, u64, u64, u32),
    snapshot=st.one_of(st.binary(max_size=100), st.integers(min_value=3900, max_value=9000).map(bytes)),
)


@given(header=headers, behind=st.binary(max_size=50))
@thorough
def test_a_header_comes_back(header: SegmentHeader, behind: bytes) -> None:
    """All of its fields, whatever follows it in the file."""
    content, crc = encode_header(header)
    assert len(content) == header.header_bytes == header_length(content[:FIXED_HEADER_BYTES])
    assert len(content) % HEADER_STEP == 0
    assert decode_header(content + behind) == replace(header, crc=crc)


@pytest.mark.parametrize("snapshot_bytes", [HEADER_STEP - 117, HEADER_STEP - 116, HEADER_STEP - 115])
def test_a_header_takes_whole_steps(snapshot_bytes: int) -> None:
    """The checksum is part of what has to fit: 112 bytes, the snapshot, 4."""
    content, _ = encode_header(replace(HEADER, snapshot=bytes(snapshot_bytes)))
    assert len(content) == HEADER_STEP * (1 + (snapshot_bytes > HEADER_STEP - 116))


def test_a_header_that_is_cut_is_corrupt() -> None:
    """At every length; never another header."""
    for length in range(len(CONTENT)):
        with pytest.raises(CorruptLog):
            decode_header(CONTENT[:length])


def test_no_changed_byte_of_a_header_goes_unnoticed() -> None:
    """Every bit of every byte that means something, and every byte of the padding."""
    for at in range(len(CONTENT)):
        for change in BITS if at < MEANING_END else (0xFF,):
            changed = bytearray(CONTENT)
            changed[at] ^= change
            with pytest.raises(CorruptLog):
                decode_header(bytes(changed))


def _resealed(at: int, value: bytes) -> bytes:
    changed = CONTENT[:at] + value + CONTENT[at + len(value) :]
    end = MEANING_END - 4
    return changed[:end] + struct.pack("<I", crc32c(changed[:end])) + changed[MEANING_END:]


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_a_header_of_a_later_version_is_unsupported(version: int) -> None:
    """Its checksum is right: it is not corrupt."""
    with pytest.raises(UnsupportedVersion, match=f"version {version}.*knows 1"):
        decode_header(_resealed(8, struct.pack("<H", version)))


def test_another_checksum_algorithm_is_unsupported() -> None:
    """The field is there so that a later release can change it."""
    with pytest.raises(UnsupportedVersion, match="algorithm 2"):
        decode_header(_resealed(10, b"\2"))


def test_what_is_reserved_in_a_header_is_zero() -> None:
    """A reserved byte is checked although the checksum is right."""
    with pytest.raises(CorruptLog, match="zeros"):
        decode_header(_resealed(11, b"\1"))


@pytest.mark.parametrize(
    ("header_bytes", "snapshot_bytes"),
    [(2**32 - 4096, 10), (4096, SNAPSHOT_BYTES_MAX + 1), (4096, 2**32 - 1), (0, 0), (4097, 10), (8192, 10)],
)
def test_the_lengths_of_a_header_are_checked_first(header_bytes: int, snapshot_bytes: int) -> None:
    """A reader asks how long a header is before it reads it: the answer is sane, or CorruptLog."""
    start = CONTENT[:12] + struct.pack("<II", header_bytes, snapshot_bytes) + CONTENT[20:FIXED_HEADER_BYTES]
    with pytest.raises(CorruptLog, match="4096-byte steps"):
        header_length(start)


@pytest.mark.parametrize("content", [b"", b"shardlog", bytes(4096), b"\xff" * 4096, b"SHARDLOG" + bytes(4088)])
def test_what_is_no_header_is_corrupt(content: bytes) -> None:
    """Too short, zeros, another file."""
    with pytest.raises(CorruptLog, match="magic"):
        header_length(content)
    with pytest.raises(CorruptLog):
        decode_header(content)


FOOTER = Footer(
    [SparsePosition(1001, 4096, 1_767_225_600_000_000, 990), SparsePosition(1500, 70_000, 1_767_225_600_500_000, 1489)],
    {0: 300, 4095: 211},
    1_767_225_600_000_000,
    1_767_225_601_000_000,
)


@given(
    positions=st.lists(st.builds(SparsePosition, u64, u64, i64, u64), max_size=5),
    shard_records=st.dictionaries(u32, u64, max_size=5),
    first=st.one_of(st.none(), i64),
    last=st.one_of(st.none(), i64),
)
@thorough
def test_a_footer_comes_back(
    positions: list[SparsePosition], shard_records: dict[int, int], first: int | None, last: int | None
) -> None:
    """Positions, counts and times."""
    footer = Footer(positions, shard_records, first, last)
    assert decode_footer(encode_footer(footer)) == footer


def test_a_footer_that_is_cut_or_changed_is_corrupt() -> None:
    """At every length, with anything behind it, and with every bit of every byte flipped."""
    content = encode_footer(FOOTER)
    for length in range(len(content)):
        with pytest.raises(CorruptLog):
            decode_footer(content[:length])
    with pytest.raises(CorruptLog):
        decode_footer(content + b"\0")
    for at in range(len(content)):
        for change in BITS:
            changed = bytearray(content)
            changed[at] ^= change
            with pytest.raises(CorruptLog):
                decode_footer(bytes(changed))


@pytest.mark.parametrize(
    "fields",
    [
        [],
        {},
        None,
        {"positions": [(1, 2, 3)], "shard_records": {}, "first_timestamp_us": 1, "last_timestamp_us": 1},
        {"positions": 7, "shard_records": {}, "first_timestamp_us": 1, "last_timestamp_us": 1},
        {"positions": [], "first_timestamp_us": 1, "last_timestamp_us": 1},
    ],
    ids=str,
)
def test_a_footer_with_other_content_is_corrupt(fields: object) -> None:
    """The checksum is right, what it covers is not a footer."""
    body: bytes = msgpack.packb(fields)
    with pytest.raises(CorruptLog, match="does not hold"):
        decode_footer(body + struct.pack("<I", crc32c(body)))


@given(offset=u64, segment_id=u32)
@thorough
def test_a_trailer_comes_back(offset: int, segment_id: int) -> None:
    """It says where the footer starts."""
    content = encode_trailer(offset, segment_id)
    assert len(content) == TRAILER_BYTES
    assert decode_trailer(content, segment_id) == offset


def test_a_trailer_that_is_cut_or_changed_is_corrupt() -> None:
    """At every length, with every other value of every byte, and where it is another segment's."""
    content = encode_trailer(8192, 3)
    for length in range(TRAILER_BYTES):
        with pytest.raises(CorruptLog):
            decode_trailer(content[:length], 3)
    with pytest.raises(CorruptLog):
        decode_trailer(content + b"\0", 3)
    with pytest.raises(CorruptLog):
        decode_trailer(content, 4)
    for at in range(TRAILER_BYTES):
        for change in range(1, 256):
            changed = bytearray(content)
            changed[at] ^= change
            with pytest.raises(CorruptLog):
                decode_trailer(bytes(changed), 3)


def test_a_trailer_of_a_later_version_is_unsupported() -> None:
    """Its checksum is right: it is not corrupt."""
    content = encode_trailer(8192, 3)
    later = content[:20] + struct.pack("<H", 2) + content[22:24]
    with pytest.raises(UnsupportedVersion, match="version 2; this release knows 1"):
        decode_trailer(later + struct.pack("<I", crc32c(later)) + bytes(4), 3)

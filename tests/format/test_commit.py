"""The commit block: bytes to values and back, and that nothing which is not one is taken for one."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.format.commit import (
    ALIGNMENT,
    COMMIT,
    CONTROL_SHARD,
    ENTRY_BYTES,
    FOOTER,
    HEADER_BYTES,
    LENGTH_MAX,
    body_of,
    decode_directory,
    decode_header,
    encode_block,
    encode_entry,
    padded,
    seed_of,
)

SEED = seed_of(b"0123456789abcdef", 7)
OFFSET = 4096
CRC_AT = HEADER_BYTES - 4


def _block(
    batches: list[tuple[int, int, bytes]], *, seed: int = SEED, block_type: int = COMMIT, previous: int = 3
) -> bytes:
    content, _ = encode_block(
        [encode_entry(shard, records, body) for shard, records, body in batches],
        [body for _, _, body in batches],
        seed=seed,
        record_count=sum(records for _, records, _ in batches),
        first_sequence=41,
        durable_sequence=41,
        records_before=40,
        timestamp_us=1_767_225_600_000_000,
        previous_crc=previous,
        block_type=block_type,
    )
    return content


BATCHES = [(0, 2, b"first shard"), (9, 1, b"ninth"), (CONTROL_SHARD, 1, b"control")]
BLOCK = _block(BATCHES)
DIRECTORY_END = HEADER_BYTES + len(BATCHES) * ENTRY_BYTES


def _resealed(content: bytes, *, at: int, value: bytes, entries: int = len(BATCHES)) -> bytes:
    """The block with some bytes changed and a header checksum that is right for them."""
    changed = content[:at] + value + content[at + len(value) :]
    directory = changed[HEADER_BYTES : HEADER_BYTES + entries * ENTRY_BYTES]
    crc = crc32c(directory, crc32c(changed[:CRC_AT], SEED))
    return changed[:CRC_AT] + struct.pack("<I", crc) + changed[HEADER_BYTES:]


batch_lists = st.lists(
    st.tuples(
        st.one_of(st.integers(min_value=0, max_value=2**32 - 2), st.just(CONTROL_SHARD)),
        st.integers(min_value=1, max_value=2**20),
        st.binary(max_size=60),
    ),
    min_size=1,
    max_size=6,
)
unsigned = st.integers(min_value=0, max_value=2**63)


@given(
    batches=batch_lists,
    first=unsigned,
    durable=unsigned,
    before=unsigned,
    timestamp=st.integers(min_value=-(2**63), max_value=2**63 - 1),
    previous=st.integers(min_value=0, max_value=2**32 - 1),
    offset=st.integers(min_value=0, max_value=2**40).map(lambda number: number * ALIGNMENT),
    front=st.binary(max_size=20),
    behind=st.binary(max_size=20),
)
@thorough
def test_a_block_comes_back(
    batches: list[tuple[int, int, bytes]],
    first: int,
    durable: int,
    before: int,
    timestamp: int,
    previous: int,
    offset: int,
    front: bytes,
    behind: bytes,
) -> None:
    """Header, directory and bodies, wherever the block lies in a buffer and in a segment, whatever follows it."""
    records = sum(count for _, count, _ in batches)
    content, crc = encode_block(
        [encode_entry(*batch) for batch in batches],
        [body for _, _, body in batches],
        seed=SEED,
        record_count=records,
        first_sequence=first,
        durable_sequence=durable,
        records_before=before,
        timestamp_us=timestamp,
        previous_crc=previous,
    )
    assert len(content) % ALIGNMENT == 0
    buffer, position = front + content + behind, len(front)
    header = decode_header(buffer, position, offset, SEED)
    assert header is not None
    assert (header.offset, header.end, header.type, header.crc) == (offset, offset + len(content), COMMIT, crc)
    assert (header.first_sequence, header.next_sequence, header.record_count) == (first, first + records, records)
    assert (header.durable_sequence, header.records_before, header.timestamp_us) == (durable, before, timestamp)
    assert (header.previous_crc, header.batch_count) == (previous, len(batches))
    directory = decode_directory(buffer, position, header)
    assert [(batch.shard, batch.records) for batch in directory] == [(shard, count) for shard, count, _ in batches]
    assert [body_of(buffer, position, batch) for batch in directory] == [body for _, _, body in batches]
    for wanted in ({shard} for shard in (7, *(batch.shard for batch in directory))):
        found = decode_directory(buffer, position, header, wanted)
        assert found == [batch for batch in directory if batch.shard in wanted]
        assert found == decode_directory(buffer, position, header, wanted | {1 << 31})
    sequence = first
    for batch in directory:
        assert batch.first_sequence == sequence
        sequence += batch.records


def test_a_footer_has_the_same_header() -> None:
    """Type 2, no directory, its own body."""
    content, _ = encode_block(
        [], [b"footer"], seed=SEED, record_count=0, first_sequence=9, durable_sequence=9, records_before=8,
        timestamp_us=1, previous_crc=2, block_type=FOOTER,
    )  # fmt: skip
    header = decode_header(content, 0, OFFSET, SEED)
    assert header is not None
    assert (header.type, header.batch_count, header.length, header.next_sequence) == (FOOTER, 0, 6, 9)
    assert decode_header(content[:HEADER_BYTES], 0, OFFSET, SEED) == header


def test_byte_by_byte() -> None:
    """Until header and directory are there: nothing yet, not an error. From then on: the same header."""
    whole = decode_header(BLOCK, 0, OFFSET, SEED)
    for length in range(len(BLOCK) + 1):
        expected = whole if length >= DIRECTORY_END else None
        assert decode_header(BLOCK[:length], 0, OFFSET, SEED) == expected
    assert decode_header(BLOCK + b"\xff" * 99, 0, OFFSET, SEED) == whole


def test_a_body_that_is_cut_is_noticed() -> None:
    """A batch whose bytes are not all there raises CorruptLog; those before it are read."""
    header = decode_header(BLOCK, 0, OFFSET, SEED)
    assert header is not None
    directory = decode_directory(BLOCK, 0, header)
    for length in range(DIRECTORY_END, HEADER_BYTES + header.length):
        for batch, (_, _, body) in zip(directory, BATCHES, strict=True):
            if batch.body_offset + batch.body_bytes <= length:
                assert body_of(BLOCK[:length], 0, batch) == body
            else:
                with pytest.raises(CorruptLog, match="batch checksum"):
                    body_of(BLOCK[:length], 0, batch)


def _read_all(content: bytes) -> list[bytes] | None:
    """All bodies of a block, or None where it is not there yet."""
    header = decode_header(content, 0, OFFSET, SEED)
    if header is None:
        return None
    if any(content[HEADER_BYTES + header.length : header.end - OFFSET]):
        raise CorruptLog("padding")
    return [body_of(content, 0, batch) for batch in decode_directory(content, 0, header)]


def test_no_changed_byte_goes_unnoticed() -> None:
    """Every other value of every byte, of header, directory, bodies and padding: an error, never other data."""
    for at in range(len(BLOCK)):
        for change in range(1, 256):
            changed = bytearray(BLOCK)
            changed[at] ^= change
            with suppress(CorruptLog):
                assert _read_all(bytes(changed)) is None


@pytest.mark.parametrize("version", [0, 2, 65535])
def test_a_later_version_is_unsupported_not_corrupt(version: int) -> None:
    """A header whose checksum is right says that a newer release wrote it."""
    later = _resealed(BLOCK, at=6, value=struct.pack("<H", version))
    with pytest.raises(UnsupportedVersion, match=f"version {version}; this release knows 1"):
        decode_header(later, 0, OFFSET, SEED)


def test_a_later_version_may_use_flags_and_reserved_fields() -> None:
    """Version is judged before anything that a later version may have filled."""
    later = _resealed(BLOCK, at=4, value=bytes([9, 0xFF, 2, 0]))
    with pytest.raises(UnsupportedVersion):
        decode_header(later, 0, OFFSET, SEED)


@pytest.mark.parametrize(
    ("at", "value", "match"),
    [(4, b"\0", "type 0"), (4, b"\3", "type 3"), (5, b"\1", "flags 0x1"), (20, b"\1", "without flags")],
    ids=["type 0", "type 3", "flags", "reserved"],
)
def test_what_version_1_leaves_zero_is_checked(at: int, value: bytes, match: str) -> None:
    """An unknown type, a flag or a reserved bit is not passed over, though the checksum is right."""
    with pytest.raises(CorruptLog, match=match):
        decode_header(_resealed(BLOCK, at=at, value=value), 0, OFFSET, SEED)


@pytest.mark.parametrize("content", [bytes(4096), b"\xff" * 4096, b"SLOG" + bytes(4092)])
def test_zeros_and_garbage_are_no_commit(content: bytes) -> None:
    """Preallocated zeros read as "nothing here"."""
    with pytest.raises(CorruptLog):
        decode_header(content, 0, OFFSET, SEED)


@pytest.mark.parametrize(("at", "value"), [(8, LENGTH_MAX + 1), (8, 2**32 - 1), (12, 2**32 - 1), (12, 2**28)])
def test_a_length_from_outside_is_checked_first(at: int, value: int) -> None:
    """A length or a count beyond the limit is corrupt; nobody goes and reads so much."""
    changed = BLOCK[:at] + struct.pack("<I", value) + BLOCK[at + 4 :]
    with pytest.raises(CorruptLog, match="length"):
        decode_header(changed, 0, OFFSET, SEED)


@pytest.mark.parametrize(("uuid", "segment"), [(b"0123456789abcdef", 8), (b"0123456789abcdeg", 7)])
def test_a_block_of_another_segment_or_stream_is_none_of_ours(uuid: bytes, segment: int) -> None:
    """Bytes of a segment that a user stores as data, or that a disk hands out again, never pass for a commit."""
    with pytest.raises(CorruptLog, match="header checksum"):
        decode_header(_block(BATCHES, seed=seed_of(uuid, segment)), 0, OFFSET, SEED)


@pytest.mark.parametrize("at", [HEADER_BYTES + 4, HEADER_BYTES + 8], ids=["records", "bytes"])
def test_a_directory_that_does_not_add_up_is_corrupt(at: int) -> None:
    """Record counts and lengths of the batches are those of the header, though every checksum is right."""
    wrong = _resealed(BLOCK, at=at, value=struct.pack("<I", 1))
    header = decode_header(wrong, 0, OFFSET, SEED)
    assert header is not None
    with pytest.raises(CorruptLog, match="directory"):
        decode_directory(wrong, 0, header)


def test_padding() -> None:
    """Blocks start at multiples of 8."""
    assert [padded(length) for length in (0, 1, 7, 8, 9, 4096)] == [0, 8, 8, 8, 16, 4096]

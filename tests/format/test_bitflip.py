"""One flipped bit is found by its effect on the checksum, and two are not taken for one."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.format.drawn import thorough
from tests.format.test_commit import BLOCK, SEED

from shardlog.format.bitflip import flipped_bit, mended_header
from shardlog.format.checksum import crc32c
from shardlog.format.commit import HEADER_BYTES, encode_block, encode_entry

lengths = st.one_of(st.integers(min_value=1, max_value=64), st.integers(min_value=1, max_value=1 << 14))


def _with_bit(content: bytes, bit: int) -> bytes:
    """The bytes with one bit flipped, counted from the last one: of a byte, the least significant comes first."""
    place = 8 * len(content) - 1 - bit
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@given(length=lengths, where=st.floats(min_value=0, max_value=1, exclude_max=True), seed=st.randoms())
@thorough
def test_the_flipped_bit_is_found(length: int, where: float, seed: random.Random) -> None:
    """Exactly that one, in any length up to the largest that is searched, whatever the bytes are."""
    content = seed.randbytes(length)
    bit = int(where * 8 * length)
    assert flipped_bit(length, crc32c(content) ^ crc32c(_with_bit(content, bit))) == bit


def test_the_largest_length_that_is_searched(seed: int) -> None:
    """A megabyte: the search stays a matter of milliseconds."""
    content = random.Random(seed).randbytes(1 << 20)
    for bit in (0, 8 * len(content) - 1, random.Random(seed + 1).randrange(8 * len(content))):
        assert flipped_bit(len(content), crc32c(content) ^ crc32c(_with_bit(content, bit))) == bit


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 13])
def test_every_bit_of_a_short_text_is_found(length: int) -> None:
    """No edge is missed: neither the first bit nor the last."""
    content = bytes(range(length))
    for bit in range(8 * length):
        assert flipped_bit(length, crc32c(content) ^ crc32c(_with_bit(content, bit))) == bit


@given(length=lengths, seed=st.randoms(use_true_random=False))
@thorough
def test_two_flipped_bits_are_not_taken_for_one(length: int, seed: random.Random) -> None:
    """CRC-32C tells an even number of flipped bits from an odd one."""
    one, other = seed.randrange(8 * length), seed.randrange(8 * length)
    assume(one != other)
    content = bytes(length)
    assert flipped_bit(length, crc32c(content) ^ crc32c(_with_bit(_with_bit(content, one), other))) is None


@pytest.mark.parametrize("length", [0, 1, 100])
def test_no_difference_is_no_flip(length: int) -> None:
    """Bytes that check out have no flipped bit."""
    assert flipped_bit(length, 0) is None


def test_every_bit_of_a_header_is_found() -> None:
    """Magic, type, version, lengths, counts, numbers, checksum: whichever of the 512 bits it was."""
    for bit in range(8 * HEADER_BYTES):
        changed = bytearray(BLOCK)
        changed[bit // 8] ^= 1 << bit % 8
        assert mended_header(bytes(changed), SEED) == BLOCK[:HEADER_BYTES], f"bit {bit}"


@given(one=st.integers(min_value=0, max_value=511), other=st.integers(min_value=0, max_value=511))
@settings(thorough, max_examples=50)
def test_two_bits_of_a_header_are_not_one(one: int, other: int) -> None:
    """A torn header is not taken for one with a flipped bit."""
    assume(one != other)
    changed = bytearray(BLOCK)
    for bit in (one, other):
        changed[bit // 8] ^= 1 << bit % 8
    assert mended_header(bytes(changed), SEED) is None


@pytest.mark.parametrize("content", [bytes(4096), b"\xff" * 4096, b"SLOG" * 1024, bytes(HEADER_BYTES)])
def test_what_never_was_a_header_is_not_explained(content: bytes) -> None:
    """Zeros and garbage are no commit with one flipped bit."""
    assert mended_header(content, SEED) is None


def test_a_large_directory_does_not_make_the_search_slow() -> None:
    """A commit of many batches: each bit is tried on the header alone, not on a copy of everything behind it."""
    body = b"x"
    content, _ = encode_block(
        [encode_entry(0, 1, body)] * 10_000, [body] * 10_000, seed=SEED, record_count=10_000, first_sequence=1,
        durable_sequence=1, records_before=0, timestamp_us=1, previous_crc=0,
    )  # fmt: skip
    changed = bytearray(content)
    changed[40] ^= 4
    assert mended_header(bytes(changed), SEED) == content[:HEADER_BYTES]

"""MARK's slots and flag: the newest sound one holds, and damage costs a witness, never a wrong one."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.errors import UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.format.mark import (
    BLOCK_BYTES,
    FLAG_OFFSET,
    MARK_BYTES,
    Mark,
    decode_flag,
    decode_mark,
    encode_flag,
    encode_slot,
    slot_offset,
)

OLDER = Mark(6, 3, 8192, 1001, 0xDEADBEEF)
NEWER = Mark(7, 3, 8320, 1002, 0xFEEDBEEF, 4096)

u32 = st.integers(min_value=0, max_value=2**32 - 1)
u64 = st.integers(min_value=0, max_value=2**64 - 1)
marks = st.builds(Mark, u64, u32, u64, u64, u32, u64)


def _file(*marks: Mark, unsynced: bool = False) -> bytes:
    content = bytearray(MARK_BYTES)
    for mark in marks:
        slot = encode_slot(mark)
        content[slot_offset(mark) : slot_offset(mark) + len(slot)] = slot
    flag = encode_flag(unsynced)
    content[FLAG_OFFSET : FLAG_OFFSET + len(flag)] = flag
    return bytes(content)


@given(mark=marks)
@thorough
def test_a_mark_comes_back(mark: Mark) -> None:
    """All of its fields; the other slot is empty."""
    assert decode_mark(_file(mark)) == mark


@given(one=marks, other=marks)
@thorough
def test_the_greater_count_holds(one: Mark, other: Mark) -> None:
    """Written in turn, in whatever order the two reach the file."""
    one, other = replace(one, commits=one.commits // 2 * 2), replace(other, commits=other.commits | 1)
    assert decode_mark(_file(one, other)) == decode_mark(_file(other, one)) == max(one, other, key=lambda m: m.commits)


def test_slots_lie_apart() -> None:
    """A torn write harms one 4 KiB block: neighbours in count are never in the same one."""
    assert slot_offset(OLDER) == 0
    assert slot_offset(NEWER) == BLOCK_BYTES == 4096
    assert FLAG_OFFSET == 2 * BLOCK_BYTES
    assert len(encode_slot(NEWER)) <= 512
    assert len(encode_flag(True)) <= 512


@pytest.mark.parametrize("unsynced", [True, False])
def test_the_flag_comes_back(unsynced: bool) -> None:
    """Whatever the slots hold."""
    assert decode_flag(_file(unsynced=unsynced)) is unsynced
    assert decode_flag(_file(OLDER, NEWER, unsynced=unsynced)) is unsynced


@pytest.mark.parametrize("content", [b"", bytes(MARK_BYTES), b"\xff" * MARK_BYTES, b"MARK" * 3072], ids=len)
def test_what_is_no_mark_says_nothing(content: bytes) -> None:
    """Missing, empty or garbage: no position is known, and appends may be unsynced."""
    assert decode_mark(content) is None
    assert decode_flag(content) is True


def test_no_changed_byte_gives_another_position() -> None:
    """Every other value of every byte of a slot: the older slot holds instead."""
    content = _file(OLDER, NEWER)
    for at in range(BLOCK_BYTES, BLOCK_BYTES + len(encode_slot(NEWER))):
        for change in range(1, 256):
            changed = bytearray(content)
            changed[at] ^= change
            assert decode_mark(bytes(changed)) == OLDER
    assert decode_mark(_file(NEWER)[:BLOCK_BYTES] + bytes(BLOCK_BYTES)) is None


def test_no_changed_byte_clears_the_flag() -> None:
    """Every other value of every byte of a flag: it counts as set."""
    content = _file(OLDER, unsynced=False)
    for at in range(FLAG_OFFSET, FLAG_OFFSET + len(encode_flag(False))):
        for change in range(1, 256):
            changed = bytearray(content)
            changed[at] ^= change
            assert decode_flag(bytes(changed)) is True


def test_a_mark_that_is_cut() -> None:
    """At every length: what is whole holds, what is not says nothing."""
    content = _file(OLDER, NEWER, unsynced=False)
    slot_bytes, flag_bytes = len(encode_slot(NEWER)), len(encode_flag(False))
    for length in range(MARK_BYTES + 1):
        expected = None if length < slot_bytes else OLDER if length < BLOCK_BYTES + slot_bytes else NEWER
        assert decode_mark(content[:length]) == expected
        assert decode_flag(content[:length]) is (length < FLAG_OFFSET + flag_bytes)


def _later(content: bytes) -> bytes:
    """A slot or flag of version 2 whose checksum is right."""
    fields = content[:4] + struct.pack("<H", 2) + content[6:-4]
    return fields + struct.pack("<I", crc32c(fields))


def test_a_mark_of_a_later_version_is_unsupported() -> None:
    """It is a witness of durable data: to pass over it could let recovery take corruption for a torn tail."""
    later = bytes(BLOCK_BYTES) + _later(encode_slot(NEWER))
    with pytest.raises(UnsupportedVersion, match="version 2; this release knows 1"):
        decode_mark(_file(OLDER)[:BLOCK_BYTES] + later[BLOCK_BYTES:])


def test_a_flag_of_a_later_version_is_unsupported() -> None:
    """It may say more than yes or no."""
    with pytest.raises(UnsupportedVersion, match="version 2; this release knows 1"):
        decode_flag(bytes(FLAG_OFFSET) + _later(encode_flag(False)))


def test_what_is_reserved_in_a_slot_is_zero() -> None:
    """A slot with anything there is passed over, though its checksum is right."""
    fields = bytearray(encode_slot(NEWER)[:-4])
    fields[6] = 1
    assert decode_mark(bytes(BLOCK_BYTES) + bytes(fields) + struct.pack("<I", crc32c(bytes(fields)))) is None

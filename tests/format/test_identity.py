"""The STORE file: whose store this is, in a format that a person can read."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.format.identity import (
    STORE_BYTES_MAX,
    STORE_FORMAT,
    agrees_with_checksum,
    decode_identity,
    encode_identity,
)

UUID = bytes(range(16))
CONTENT = encode_identity(UUID)


@given(store_uuid=st.binary(min_size=16, max_size=16))
@thorough
def test_an_identity_comes_back(store_uuid: bytes) -> None:
    """One line of JSON, small enough for one read."""
    content = encode_identity(store_uuid)
    assert decode_identity(content) == store_uuid
    assert agrees_with_checksum(content)
    assert content.endswith(b"\n")
    assert content.count(b"\n") == 1
    assert len(content) <= STORE_BYTES_MAX
    assert json.loads(content)["format"] == STORE_FORMAT == 1


def test_no_changed_byte_gives_another_identity() -> None:
    """Every bit of every byte: refused, and not in agreement with the checksum."""
    for at in range(len(CONTENT)):
        for change in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            changed = bytearray(CONTENT)
            changed[at] ^= change
            with suppress(CorruptLog, UnsupportedVersion):
                assert decode_identity(bytes(changed)) is None
            assert not agrees_with_checksum(bytes(changed))


def test_an_identity_that_is_cut_or_goes_on_is_corrupt() -> None:
    """At every length, and with anything behind it."""
    for wrong in [CONTENT[:length] for length in range(len(CONTENT))] + [
        CONTENT + b"\n",
        CONTENT + b"{}",
        b" " + CONTENT,
    ]:
        with pytest.raises(CorruptLog):
            decode_identity(wrong)
        assert not agrees_with_checksum(wrong)


@pytest.mark.parametrize(
    "content", [b"[]", b"7", b"null", b"{}", b'{"format": 1}', b"\xff", b"[" * 100_000, bytes(4096)]
)
def test_what_is_no_identity_is_corrupt(content: bytes) -> None:
    """Other JSON, no JSON, JSON that is nested beyond reason."""
    with pytest.raises(CorruptLog, match="identity"):
        decode_identity(content)
    assert not agrees_with_checksum(content)


@pytest.mark.parametrize("store_format", [0, 2, "2", None, [1]])
def test_an_identity_of_a_later_version_is_unsupported(store_format: object) -> None:
    """Its checksum is right, whatever other fields it has: a newer release made this store."""
    fields = {"format": store_format, "uuid": UUID.hex(), "tier": "cold"}
    line = json.dumps(fields).encode() + b"\n"
    content = json.dumps({**fields, "crc32c": f"{crc32c(line):08x}"}).encode() + b"\n"
    assert agrees_with_checksum(content)
    with pytest.raises(UnsupportedVersion, match="this release knows 1"):
        decode_identity(content)

"""Iterator tokens: opaque, short, and proof against a changed letter."""

from __future__ import annotations

import base64
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.errors import InvalidArgument
from shardlog.format.checksum import crc32c
from shardlog.format.token import Token, decode_token, encode_token

TOKEN = Token(b"0123456789abcdef", 3, 1001, 1_767_225_600_000_000)

tokens = st.builds(
    Token,
    st.binary(min_size=16, max_size=16),
    st.integers(min_value=0, max_value=2**32 - 1),
    st.integers(min_value=0, max_value=2**64 - 1),
    st.integers(min_value=-(2**63), max_value=2**63 - 1),
)


@given(token=tokens)
@thorough
def test_a_token_comes_back(token: Token) -> None:
    """Text that goes into a URL as it is, within the 2048 characters that DynamoDB Streams allows."""
    text = encode_token(token)
    assert decode_token(text) == token
    assert text.isascii()
    assert not set(text) & set("+/?#& ")
    assert len(text) <= 2048


def test_no_changed_letter_gives_another_position() -> None:
    """Every other ASCII letter at every place: refused, or the very same token (base64 has spare bits)."""
    text = encode_token(TOKEN)
    for at in range(len(text)):
        for letter in map(chr, range(128)):
            if letter == text[at]:
                continue
            with suppress(InvalidArgument):
                assert decode_token(text[:at] + letter + text[at + 1 :]) == TOKEN


def test_a_token_that_is_cut_or_goes_on_is_refused() -> None:
    """At every length, and with anything behind it."""
    text = encode_token(TOKEN)
    for wrong in [text[:length] for length in range(len(text))] + [text + "A", text + "AAAA", text + "\n", " " + text]:
        with pytest.raises(InvalidArgument):
            decode_token(wrong)


def _sealed(fields: bytes) -> str:
    return base64.urlsafe_b64encode(fields + struct.pack("<I", crc32c(fields))).decode()


@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_token_of_a_later_version_is_told_from_nonsense(version: int) -> None:
    """Its checksum is right, so the error speaks of the version."""
    fields = struct.pack("<B16sIQq", version, *(TOKEN.stream_uuid, TOKEN.shard, TOKEN.sequence, TOKEN.issued_us))
    with pytest.raises(InvalidArgument, match=f"expected version 1, found {version}"):
        decode_token(_sealed(fields))


@pytest.mark.parametrize("nonsense", ["", "x", "é", "=", "A" * 5000, None, 7, b"AAAA", ["A"]], ids=repr)
def test_nonsense_is_refused(nonsense: object) -> None:
    """Whatever a caller hands in is an InvalidArgument, and a long one is not quoted whole."""
    with pytest.raises(InvalidArgument) as refusal:
        decode_token(nonsense)  # type: ignore[arg-type]  # that is the point
    assert len(str(refusal.value)) < 200

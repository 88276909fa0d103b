"""CRC-32C: two implementations that must agree, and a third, plain one here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.format.checksum import IMPLEMENTATION, crc32c, crc32c_independent

# RFC 3720 (iSCSI), appendix B.4; the last one is the check value of the catalogues.
PUBLISHED = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(range(31, -1, -1)), 0x113FDB5C),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


@pytest.mark.parametrize(("content", "expected"), PUBLISHED)
def test_published_values(content: bytes, expected: int) -> None:
    """Both give the values of the standard."""
    assert crc32c(content) == crc32c_independent(content) == expected


def _plain(content: bytes, seed: int) -> int:
    value = seed ^ 0xFFFFFFFF
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@given(content=st.binary(max_size=300), seed=st.integers(min_value=0, max_value=2**32 - 1))
@thorough
def test_the_implementations_agree(content: bytes, seed: int) -> None:
    """With each other, and with the bit-by-bit definition, whatever the seed."""
    assert crc32c(content, seed) == crc32c_independent(content, seed) == _plain(content, seed)


@given(content=st.binary(max_size=300), cut=st.integers(min_value=0, max_value=300))
@thorough
def test_a_seed_stands_for_the_bytes_before(content: bytes, cut: int) -> None:
    """Checksummed in two pieces or in one: the same."""
    assert crc32c(content[cut:], crc32c(content[:cut])) == crc32c(content)


def test_the_implementation_is_named() -> None:
    """Where neither has its compiled build, the package refuses to be imported unless that was accepted."""
    assert IMPLEMENTATION in ("google-crc32c", "crcmod")


_HOBBLED = """
import sys
import google_crc32c, crcmod.crcmod, crcmod._crcfunpy
google_crc32c.implementation = "python"
if "slow" in sys.argv:
    crcmod.crcmod._crcfunext = crcmod._crcfunpy
from shardlog.format.checksum import IMPLEMENTATION, crc32c
print(IMPLEMENTATION, hex(crc32c(b"123456789")))
"""


def _import_hobbled(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _HOBBLED, *words],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_second_stands_in_for_the_first() -> None:
    """Where the fast one has no compiled build, the other one's is used."""
    assert _import_hobbled().stdout == "crcmod 0xe3069283\n"


def test_a_slow_checksum_has_to_be_asked_for() -> None:
    """Without any compiled build the import says what to do; with the variable set it goes on."""
    refused = _import_hobbled("slow")
    assert refused.returncode != 0
    assert "SHARDLOG_ALLOW_SLOW_CHECKSUM=1" in refused.stderr
    allowed = _import_hobbled("slow", SHARDLOG_ALLOW_SLOW_CHECKSUM="1")
    assert allowed.stdout == "crcmod (pure Python, slow) 0xe3069283\n"

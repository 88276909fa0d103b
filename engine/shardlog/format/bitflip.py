"""Whether one flipped bit explains a checksum that does not match.

A torn write and a flipped bit in the last commit look alike; this tells them apart. CRC-32C is linear: flipping a bit
changes the checksum by a value that depends only on the bit's distance from the end, e(k) = x^k * e(0). Which k gives
the difference seen is a discrete logarithm, found by baby steps and giant steps instead of by trying every bit.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.commit import ENTRY_BYTES, HEADER_BYTES, decode_header

_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C, bits reflected
_BITS: Final = 32


def flipped_bit(length: int, difference: int) -> int | None:
    """The bit of `length` bytes whose flip changes their CRC-32C by `difference`: its distance from the last bit.

    None where no single bit does. The bits of a byte count from the least significant one, as the checksum takes them.
    """
    bits = 8 * length
    stride = isqrt(bits) + 1
    baby: dict[int, int] = {}
    value = difference
    for step in range(stride):
        baby.setdefault(value, step)
        value = _times_x(value)
    giant = [_power(1 << bit, stride) for bit in range(_BITS)]
    value = _POLYNOMIAL
    for turn in range(stride + 1):
        if value in baby and 0 <= turn * stride - baby[value] < bits:
            return turn * stride - baby[value]
        value = _apply(giant, value)
    return None


def with_bit_flipped(content: bytes, distance: int) -> bytes:
    """The same bytes but for the bit at a distance from the last one, counted as `flipped_bit` does."""
    changed = bytearray(content)
    changed[len(content) - 1 - distance // 8] ^= 0x80 >> distance % 8
    return bytes(changed)


def mended_header(buffer: bytes, seed: int) -> bytes | None:
    """The 64 bytes of a header with the one bit flipped that makes it check out with the directory that follows it.

    None where no single bit does.
    """
    header = bytearray(buffer[:HEADER_BYTES])
    for bit in range(8 * len(header)):
        header[bit // 8] ^= 1 << bit % 8
        directory_end = HEADER_BYTES + int.from_bytes(header[12:16], "little") * ENTRY_BYTES
        try:
            if decode_header(bytes(header) + buffer[HEADER_BYTES:directory_end], 0, 0, seed):
                return bytes(header)
        except (CorruptLog, UnsupportedVersion):
            pass
        header[bit // 8] ^= 1 << bit % 8
    return None


def _times_x(value: int) -> int:
    return (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)


def _power(value: int, times: int) -> int:
    for _ in range(times):
        value = _times_x(value)
    return value


def _apply(images: list[int], value: int) -> int:
    result = 0
    while value:
        low = value & -value
        result ^= images[low.bit_length() - 1]
        value ^= low
    return result

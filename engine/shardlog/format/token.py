"""Iterator tokens: opaque text that holds a position in one shard.

URL-safe base64 of, little-endian: version u8, stream uuid 16s, shard u32, sequence u64, issued i64 (microseconds since
1970), crc u32. The position is a *sequence number*, so a token survives restarts; TRIM_HORIZON_SEQUENCE stands for the
horizon of the moment when it is used.
"""

from __future__ import annotations

import base64
import binascii
import struct
from dataclasses import dataclass
from typing import Final

from shardlog.errors import InvalidArgument
from shardlog.format.checksum import crc32c

VERSION: Final = 1
TRIM_HORIZON_SEQUENCE: Final = 0

_TOKEN = struct.Struct("<B16sIQq")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Token:
    """What an iterator holds."""

    stream_uuid: bytes
    shard: int
    sequence: int
    issued_us: int


def encode_token(token: Token) -> str:
    """The text of a token."""
    fields = _TOKEN.pack(VERSION, token.stream_uuid, token.shard, token.sequence, token.issued_us)
    return base64.urlsafe_b64encode(fields + _CRC.pack(crc32c(fields))).decode("ascii")


def decode_token(text: str) -> Token:
    """The token of a text. Raises InvalidArgument."""
    try:
        content = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True)
    except (AttributeError, UnicodeEncodeError, binascii.Error):
        content = b""
    fields, crc = content[: _TOKEN.size], content[_TOKEN.size :]
    if len(content) != _TOKEN.size + _CRC.size or _CRC.pack(crc32c(fields)) != crc:
        raise InvalidArgument(f"iterator: expected one that iterator() or get_records() gave, found {text!r:.80}")
    version, stream_uuid, shard, sequence, issued_us = _TOKEN.unpack(fields)
    if version != VERSION:
        raise InvalidArgument(f"iterator: expected version {VERSION}, found {version}")
    return Token(stream_uuid, shard, sequence, issued_us)

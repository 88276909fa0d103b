"""The content of a STORE file: one line of JSON.

| field | value |
|-------|-------|
| format | the store's format version, 1 |
| uuid | 32 hexadecimal digits |
| crc32c | checksum of the line without this field, 8 hexadecimal digits |

Format and uuid are readable before anything whose meaning depends on the version.
"""

from __future__ import annotations

import json
from typing import Final

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c

STORE_FORMAT: Final = 1
STORE_BYTES_MAX: Final = 4096


def encode_identity(store_uuid: bytes) -> bytes:
    """The content of the STORE file of a store."""
    fields: dict[str, object] = {"format": STORE_FORMAT, "uuid": store_uuid.hex()}
    fields["crc32c"] = f"{crc32c(_line(fields)):08x}"
    return _line(fields)


def decode_identity(content: bytes) -> bytes:
    """The store's uuid. Raises CorruptLog, UnsupportedVersion."""
    try:
        fields = json.loads(content)
        store_format, store_uuid = fields["format"], bytes.fromhex(fields["uuid"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptLog(f"expected a store's identity, found {content[:80]!r}") from error
    if store_format != STORE_FORMAT:
        raise UnsupportedVersion(f"the store has format {store_format!r:.40}; this release knows {STORE_FORMAT}")
    if content != encode_identity(store_uuid):
        raise CorruptLog(f"expected a store's identity that agrees with its checksum, found {content[:120]!r}")
    return store_uuid


def agrees_with_checksum(content: bytes) -> bool:
    """Whether a content of any format version is what was written."""
    try:
        fields = json.loads(content)
        crc = fields.pop("crc32c")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return crc == f"{crc32c(_line(fields)):08x}" and content == _line({**fields, "crc32c": crc})


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode() + b"\n"

"""MARK: a lower bound of where the log ends, kept outside the log.

Three blocks of 4 KiB, so that a torn write harms one of them:

| block | content |
|-------|---------|
| 0, 1 | two slots, written in turn; the valid one with the greater commit count holds |
| 2 | the *unsynced* flag of a stream of level "os" |

Slot, little-endian: magic 4s, version u16, reserved u16, commit count u64, segment id u32, last crc u32, offset u64,
next sequence u64, checkpoint u64, crc u32. Everything before (segment, offset) was synced when it was written; the
block at offset `checkpoint` (0: there is none) of that segment holds a checkpoint (`format.control`).
Flag: magic 4s, version u16, flag u16 (0 or 1), crc u32. A flag that cannot be read counts as set.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from shardlog.errors import UnsupportedVersion
from shardlog.format.checksum import crc32c

VERSION: Final = 1
BLOCK_BYTES: Final = 4096
MARK_BYTES: Final = 3 * BLOCK_BYTES
FLAG_OFFSET: Final = 2 * BLOCK_BYTES

_SLOT_MAGIC = b"MARK"
_FLAG_MAGIC = b"FLAG"
_SLOT = struct.Struct("<4sHHQIIQQQ")
_FLAG = struct.Struct("<4sHH")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Mark:
    """The synced end of the log: everything before `offset` of segment `segment_id`, below `next_sequence`."""

    commits: int
    segment_id: int
    offset: int
    next_sequence: int
    last_crc: int
    checkpoint: int = 0


def slot_offset(mark: Mark) -> int:
    """Where the slot that this mark goes to starts."""
    return mark.commits % 2 * BLOCK_BYTES


def encode_slot(mark: Mark) -> bytes:
    """A slot's bytes."""
    fields = _SLOT.pack(
        _SLOT_MAGIC,
        VERSION,
        0,
        mark.commits,
        mark.segment_id,
        mark.last_crc,
        mark.offset,
        mark.next_sequence,
        mark.checkpoint,
    )
    return fields + _CRC.pack(crc32c(fields))


def encode_flag(unsynced: bool) -> bytes:
    """The flag's bytes."""
    fields = _FLAG.pack(_FLAG_MAGIC, VERSION, int(unsynced))
    return fields + _CRC.pack(crc32c(fields))


def decode_mark(content: bytes) -> Mark | None:
    """The newest valid slot, or None. Raises UnsupportedVersion."""
    slots = [_decode_slot(content[start : start + BLOCK_BYTES]) for start in (0, BLOCK_BYTES)]
    return max((slot for slot in slots if slot), key=lambda slot: slot.commits, default=None)


def decode_flag(content: bytes) -> bool:
    """Whether appends may be unsynced. Raises UnsupportedVersion."""
    block = content[FLAG_OFFSET:]
    if not _checks_out(block, _FLAG, _FLAG_MAGIC):
        return True
    _, _, flag = _FLAG.unpack_from(block)
    return bool(flag)


def _decode_slot(block: bytes) -> Mark | None:
    if not _checks_out(block, _SLOT, _SLOT_MAGIC):
        return None
    _, _, reserved, commits, segment_id, last_crc, offset, next_sequence, checkpoint = _SLOT.unpack_from(block)
    return None if reserved else Mark(commits, segment_id, offset, next_sequence, last_crc, checkpoint)


def _checks_out(block: bytes, layout: struct.Struct, magic: bytes) -> bool:
    """Whether magic and checksum are right. To pass over a sound slot of a later version would lose a witness."""
    if len(block) < layout.size + _CRC.size or not block.startswith(magic):
        return False
    (crc,) = _CRC.unpack_from(block, layout.size)
    if crc != crc32c(block[: layout.size]):
        return False
    (version,) = struct.unpack_from("<H", block, len(magic))
    if version != VERSION:
        raise UnsupportedVersion(f"this is a MARK of format version {version}; this release knows {VERSION}")
    return True

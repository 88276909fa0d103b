"""A file in memory, and blocks to put into it."""

from __future__ import annotations

from dataclasses import dataclass

from shardlog.format.commit import COMMIT, encode_block, encode_entry, seed_of

SEED = seed_of(b"stream-uuid-stre", 1)


class MemoryFile:
    """What stepping through a segment needs of a file. `reads` are the (length, offset) asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.reads: list[tuple[int, int]] = []

    def pread(self, length: int, offset: int) -> bytes:
        """See `File`."""
        self.reads.append((length, offset))
        return self.content[offset : offset + length]


@dataclass(frozen=True)
class Made:
    """A block that was made: where it lies and which numbers it holds."""

    start: int
    end: int
    first: int
    next: int
    crc: int
    bodies: list[bytes]
    header_end: int
    """End of its directory."""
    bodies_end: int


def made_block(
    bodies: list[bytes],
    start: int,
    first: int,
    previous_crc: int,
    *,
    seed: int = SEED,
    block_type: int = COMMIT,
    durable: int = 1,
) -> tuple[bytes, Made]:
    """A block of batches of one record each."""
    content, crc = encode_block(
        [encode_entry(0, 1, body) for body in bodies], bodies, seed=seed, record_count=len(bodies),
        first_sequence=first, durable_sequence=durable, records_before=first - 1, timestamp_us=first,
        previous_crc=previous_crc, block_type=block_type,
    )  # fmt: skip
    header_end = start + 64 + 16 * len(bodies)
    return content, Made(
        start,
        start + len(content),
        first,
        first + len(bodies),
        crc,
        bodies,
        header_end,
        header_end + sum(map(len, bodies)),
    )


def made_log(blocks: list[list[bytes]], start: int, first: int, previous_crc: int) -> tuple[bytes, list[Made]]:
    """Blocks one after the other, each continuing the one before, behind `start` zeros."""
    content = bytearray(start)
    made = []
    for bodies in blocks:
        block, what = made_block(bodies, len(content), first, previous_crc)
        content += block
        made.append(what)
        first, previous_crc = what.next, what.crc
    return bytes(content), made

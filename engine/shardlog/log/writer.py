"""Writing segments: blocks into the active one, sealing it, and creating its successor.

Owns the order of writes and syncs. Who may write is settled before (the index's write transaction); what becomes
visible, after.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from shardlog.errors import ShardlogError, StorageFailed, StorageFull
from shardlog.files.protocol import File, Files, Site
from shardlog.format import names
from shardlog.format.commit import FOOTER, HEADER_BYTES, encode_block
from shardlog.format.segment import (
    TRAILER_BYTES,
    Footer,
    SegmentHeader,
    encode_footer,
    encode_header,
    encode_trailer,
)

FOOTER_RESERVE_BYTES: Final = 256 << 10
_RESERVED_PART: Final = 512
"""A footer has a row of at most 37 bytes per 64 KiB of segment, and half of the reserve is for trim records."""


def footer_reserve(segment_bytes: int) -> int:
    """Bytes at the end of a segment that commits leave free, so that a full disk can still seal and expire."""
    return min(max(FOOTER_RESERVE_BYTES, segment_bytes // _RESERVED_PART), segment_bytes // 4)


class ActiveSegment:
    """The segment that takes the next block, open to write."""

    def __init__(self, file: File, segment_id: int, seed: int) -> None:
        self.segment_id = segment_id
        self.seed = seed
        self._file = file

    def write(self, block: bytes, offset: int) -> None:
        """Write a block; nothing is durable yet."""
        self._file.pwrite(block, offset)

    def sync(self, site: Site) -> None:
        """Make all that was written durable."""
        self._file.sync(site)

    def cancel(self, offset: int) -> None:
        """Zero the header of a block whose commit failed and sync that, so that the block cannot reappear."""
        try:
            self._file.pwrite(bytes(HEADER_BYTES), offset)
        except StorageFull:
            if any(self._file.pread(HEADER_BYTES, offset)):
                raise
            return  # a limit on the size of files, which kept the block out as well
        self._file.sync(Site.COMMIT_CANCELLED)

    def rewrite(self, start: int, end: int, site: Site) -> None:
        """Write bytes again that are there already, then sync: page cache and disk may differ after a failed sync."""
        offset = start
        while offset < end:
            piece = self._file.pread(min(1 << 20, end - offset), offset)
            if not piece:
                raise StorageFailed(f"segment {self.segment_id}: expected bytes up to {end}, it ends at {offset}")
            self._file.pwrite(piece, offset)
            offset += len(piece)
        self._file.sync(site)

    def seal(
        self,
        end: int,
        footer: Footer,
        *,
        next_sequence: int,
        durable_sequence: int,
        records: int,
        timestamp_us: int,
        crc: int,
    ) -> None:
        """End the segment at `end` with its footer, and sync it: at every level, because nothing will sync it later.

        `durable_sequence` is what was synced *before*: the footer may reach the disk without the blocks before it.
        """
        block, _ = encode_block(
            [],
            [encode_footer(footer)],
            seed=self.seed,
            record_count=0,
            first_sequence=next_sequence,
            durable_sequence=durable_sequence,
            records_before=records,
            timestamp_us=timestamp_us,
            previous_crc=crc,
            block_type=FOOTER,
        )
        self._file.pwrite(block + encode_trailer(end, self.segment_id), end)
        self._file.truncate(end + len(block) + TRAILER_BYTES)
        self._file.sync(Site.SEGMENT_SEALED)

    def size(self) -> int:
        """Length of the file."""
        return self._file.size()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class NewSegment:
    """A successor under a temporary name: it becomes a segment when it is named."""

    def __init__(self, files: Files, log_path: str, header: SegmentHeader, size: int) -> None:
        """Create, preallocate, write the header and sync. Raises StorageFull having left nothing behind."""
        self._files = files
        self._log_path = log_path
        self._target = f"{log_path}/{names.segment_name(header.first_sequence, header.segment_id)}"
        self._temporary = self._target + names.TEMPORARY
        content, self.crc = encode_header(header)
        self.size = size
        file = files.create(self._temporary)
        try:
            file.allocate(size)
            file.pwrite(content, 0)
            file.sync(Site.SEGMENT_HEADER)
        except ShardlogError:
            self.abandon()
            raise
        finally:
            file.close()

    def name(self) -> None:
        """Give it its name, durably."""
        self._files.rename(self._temporary, self._target)
        self._files.sync_directory(self._log_path, Site.SEGMENT_ENTRY)

    def abandon(self) -> None:
        """Remove it."""
        self._files.unlink(self._temporary)


def new_segment_bytes(files: Files, log_path: str, wanted: int, needed: int) -> int:
    """How large to make a segment: as wanted, less on a disk that is nearly full, never less than needed.

    Raises StorageFull where not even that fits.
    """
    free = files.free_bytes(log_path)
    if free < needed:
        raise StorageFull(f"{log_path}: a new segment needs {needed} bytes, {free} are free")
    return min(max(wanted, needed), max(needed, free // 2))


def remove_begun_segment(files: Files, log_path: str, segment_id: int) -> None:
    """Remove a segment that a dead writer began to roll to, named or not; nothing was ever appended to it."""
    removed = False
    for name in files.names(log_path):
        parsed = names.parse_segment_name(name.removesuffix(names.TEMPORARY))
        if parsed and parsed[1] == segment_id:
            files.unlink(f"{log_path}/{name}")
            removed = True
    if removed:
        files.sync_directory(log_path, Site.SEGMENT_REMOVED)


def remove_expired(files: Files, path: str) -> None:
    """Unlink a segment behind the trim horizon; another process may have been faster."""
    with suppress(FileNotFoundError):
        files.unlink(path)

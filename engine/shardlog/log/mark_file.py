"""The MARK file: `format.mark` on disk."""

from __future__ import annotations

from shardlog.files.protocol import File, Files, Site
from shardlog.format.mark import (
    FLAG_OFFSET,
    MARK_BYTES,
    Mark,
    decode_flag,
    decode_mark,
    encode_flag,
    encode_slot,
    slot_offset,
)


def create_mark(files: Files, path: str, site: Site) -> None:
    """Create MARK with no slot, so that the log is scanned from its start, and synced."""
    file = files.create(path)
    file.pwrite(bytes(FLAG_OFFSET) + encode_flag(False).ljust(MARK_BYTES - FLAG_OFFSET, b"\0"), 0)
    file.sync(site)
    file.close()


class MarkFile:
    """MARK, open. Positions may be written by anybody at any time after a publication: the greatest count holds."""

    def __init__(self, file: File) -> None:
        self._file = file

    def read(self) -> tuple[Mark | None, bool]:
        """The newest position, and whether appends may be unsynced."""
        content = self._file.pread(MARK_BYTES, 0)
        return decode_mark(content), decode_flag(content)

    def says_unsynced(self) -> bool:
        """Whether the flag is set, and not merely unreadable."""
        flag = encode_flag(True)
        return self._file.pread(len(flag), FLAG_OFFSET) == flag

    def write(self, mark: Mark) -> None:
        """Write a position without syncing it; this also wakes the followers of every process."""
        self._file.pwrite(encode_slot(mark), slot_offset(mark))

    def ring(self) -> None:
        """Wake the followers without a new position: level "os" publishes what is not synced."""
        self._file.pwrite(b"\0", MARK_BYTES - 1)

    def sync(self) -> None:
        """Make the positions written so far durable."""
        self._file.sync(Site.MARK_POSITION)

    def set_unsynced(self, unsynced: bool) -> None:
        """Write the flag of level "os" and sync it; only under the lock between the writers."""
        self._file.pwrite(encode_flag(unsynced), FLAG_OFFSET)
        self._file.sync(Site.MARK_UNSYNCED)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

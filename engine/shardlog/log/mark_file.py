"""The MARK file: `format.mark` on disk."""

from __future__ import annotations

from dataclasses import replace

from shardlog.files.protocol import File, Files, Site
from shardlog.format import names
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


def create_mark(files: Files, path: str, site: Site, *, unsynced: bool = False) -> None:
    """Create MARK with no slot, so that the log is scanned from its start, and synced."""
    file = files.create(path)
    file.pwrite(bytes(FLAG_OFFSET) + encode_flag(unsynced).ljust(MARK_BYTES - FLAG_OFFSET, b"\0"), 0)
    file.sync(site)
    file.close()


def open_mark(files: Files, stream_path: str) -> MarkFile:
    """Open a stream's MARK.

    Where it is lost it is made: all of the last segment counts as unsynced, which costs one rewrite of it, and numbers
    jump, because it may have told of some that are not in the log.
    """
    path = f"{stream_path}/{names.MARK}"
    if not files.exists(path):
        create_mark(files, path, Site.STREAM_MARK, unsynced=True)
        files.sync_directory(stream_path, Site.STREAM_ENTRIES)
    return MarkFile(files.open(path))


class MarkFile:
    """MARK, open. Positions may be written by anybody at any time after a publication: the greatest count holds."""

    def __init__(self, file: File) -> None:
        self._file = file

    def read(self) -> tuple[Mark | None, bool]:
        """The newest position, and whether appends may be unsynced."""
        content = self._file.pread(MARK_BYTES, 0)
        return decode_mark(content), decode_flag(content)

    def write(self, mark: Mark) -> None:
        """Write a position without syncing it; this also wakes the followers of every process."""
        self._file.pwrite(encode_slot(mark), slot_offset(mark))

    def write_numbers(self, mark: Mark) -> None:
        """Write a position whose number the log does not tell, synced; in both slots, because one may be damaged."""
        for each in (mark, replace(mark, commits=mark.commits + 1)):
            self.write(each)
            self.sync()

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

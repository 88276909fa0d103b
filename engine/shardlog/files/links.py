"""Giving a file a second name, or a copy where that cannot be.

A hard link takes no space and no time; both names stand for the same bytes on the disk. Across file systems, on a
medium that cannot be written, or where the system forbids it, the bytes are copied instead.
"""

from __future__ import annotations

import os
from typing import Final

from shardlog.errors import ShardlogError
from shardlog.files.protocol import File, Files, Site

_PIECE_BYTES: Final = 1 << 20


def link_or_copy(files: Files, source: str, target: str, site: Site) -> bool:
    """Link `target` to `source`, or copy it, synced; whether it is a link. FileNotFoundError where it is gone."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        copy(files, source, target, None, site)
        return False
    return True


def copy(files: Files, source: str, target: str, length: int | None, site: Site) -> None:
    """Copy the first `length` bytes of a file (None: all) to a new file, and sync it."""
    original = files.open_to_read(source)
    try:
        made = files.create(target)
        try:
            _copy_bytes(original, made, original.size() if length is None else length)
            made.sync(site)
        except ShardlogError:
            files.unlink(target)
            raise
        finally:
            made.close()
    finally:
        original.close()


def _copy_bytes(source: File, target: File, length: int) -> None:
    offset = 0
    while offset < length and (piece := source.pread(min(_PIECE_BYTES, length - offset), offset)):
        target.pwrite(piece, offset)
        offset += len(piece)

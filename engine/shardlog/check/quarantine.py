"""Copies of what a repair takes out of use, in a stream's `lost+found`, each with a manifest that says what it is.

A copy is whole when it has its name. Names tell place and checksum, so that a repair which is run again makes no second
copy.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

from shardlog.files.protocol import File, Files, Site
from shardlog.format import names
from shardlog.format.checksum import crc32c

_PIECE_BYTES: Final = 1 << 20
MANIFEST: Final = ".json"


def keep_copy(files: Files, directory: str, path: str, offset: int, end: int | None, about: dict[str, Any]) -> None:
    """Copy bytes `[offset, end)` of a file (`end` None: to its end) into `directory`/lost+found."""
    source = files.open_to_read(path)
    try:
        end = source.size() if end is None else min(end, source.size())
        crc = 0
        for piece in _pieces(source, offset, end):
            crc = crc32c(piece, crc)
        lost = f"{directory}/{names.LOST_AND_FOUND}"
        if not files.exists(lost):
            files.make_directory(lost)
        files.sync_directory(directory, Site.LOST_AND_FOUND_ENTRY)
        name = f"{os.path.basename(path)}-{offset:012d}-{crc:08x}"
        manifest = {
            "file": name,
            "source": os.path.basename(path),
            "offset": offset,
            "bytes": end - offset,
            **about,
        }
        if not files.exists(f"{lost}/{name}"):
            _write(files, f"{lost}/{name}", source, offset, end)
        _write_text(files, f"{lost}/{name}{MANIFEST}", json.dumps(manifest) + "\n")
        files.sync_directory(lost, Site.LOST_AND_FOUND_ENTRY)
    finally:
        source.close()


def copy_pieces(source: File, target: File, offset: int, end: int, target_offset: int) -> None:
    """Copy bytes `[offset, end)` of a file into another one, piece by piece."""
    for piece in _pieces(source, offset, end):
        target.pwrite(piece, target_offset)
        target_offset += len(piece)


def _pieces(source: File, offset: int, end: int) -> Any:
    while offset < end and (piece := source.pread(min(_PIECE_BYTES, end - offset), offset)):
        yield piece
        offset += len(piece)


def _write(files: Files, path: str, source: File, offset: int, end: int) -> None:
    file = _create(files, path + names.TEMPORARY)
    try:
        copy_pieces(source, file, offset, end, 0)
        file.sync(Site.LOST_AND_FOUND)
    finally:
        file.close()
    files.rename(path + names.TEMPORARY, path)


def _write_text(files: Files, path: str, text: str) -> None:
    file = _create(files, path + names.TEMPORARY)
    try:
        file.pwrite(text.encode(), 0)
        file.sync(Site.LOST_AND_FOUND)
    finally:
        file.close()
    files.rename(path + names.TEMPORARY, path)


def _create(files: Files, path: str) -> File:
    if files.exists(path):
        files.unlink(path)  # left by a repair that was interrupted
    return files.create(path)

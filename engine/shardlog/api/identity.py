"""The identity of a store: its STORE file, format version and uuid."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

from shardlog.errors import CorruptLog, StorageFailed, UnsupportedVersion
from shardlog.files.gate import gate_held
from shardlog.files.mounts import check_filesystem
from shardlog.files.protocol import Files, Site
from shardlog.format import names
from shardlog.format.identity import STORE_BYTES_MAX, decode_identity, encode_identity


def create_store(files: Files, path: str) -> None:
    """Make a store in a directory, which is made as well if need be."""
    _make_directories(files, path)
    check_filesystem(path)
    content = encode_identity(uuid.uuid4().bytes)
    temporary = f"{path}/{names.STORE}-{uuid.uuid4().hex}{names.TEMPORARY}"
    file = files.create(temporary)
    try:
        file.pwrite(content, 0)
        file.sync(Site.STORE_IDENTITY)
    finally:
        file.close()
    lock = files.open_lock(f"{path}/{names.LOCK}")
    try:
        with gate_held(lock, path, 10.0):
            if files.exists(f"{path}/{names.STORE}"):
                files.unlink(temporary)  # another process was faster
            else:
                files.rename(temporary, f"{path}/{names.STORE}")
            files.sync_directory(path, Site.STORE_ENTRY)
    finally:
        lock.close()


def _make_directories(files: Files, path: str) -> None:
    parent = os.path.dirname(path)
    if files.exists(path):
        # Whoever made it may have been killed before its name was synced; or it is the user's, and not ours to sync.
        with suppress(StorageFailed):
            files.sync_directory(parent, Site.STORE_ENTRY)
        return
    _make_directories(files, parent)
    with suppress(FileExistsError):
        files.make_directory(path)
    files.sync_directory(parent, Site.STORE_ENTRY)


def read_identity(files: Files, path: str) -> bytes:
    """The uuid that a STORE file holds. Raises CorruptLog, UnsupportedVersion."""
    file = files.open_to_read(path)
    try:
        content = file.pread(STORE_BYTES_MAX, 0)
    finally:
        file.close()
    try:
        return decode_identity(content)
    except (CorruptLog, UnsupportedVersion) as error:
        raise type(error)(f"{path}: {error}") from error

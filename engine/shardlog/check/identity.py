"""Phase: whether this is a store, and which streams it has.

STORE must be exactly what was written; directories that an interrupted creation or deletion left are notes.
"""

from __future__ import annotations

import os
from typing import Final

from shardlog.check.findings import CODES, Finding
from shardlog.errors import CorruptLog, InvalidArgument, StorageFailed, UnsupportedVersion
from shardlog.files.protocol import Files
from shardlog.format import names
from shardlog.format.identity import STORE_BYTES_MAX, agrees_with_checksum, decode_identity
from shardlog.options import checked_stream_name

_KNOWN_NAMES: Final = frozenset({names.STORE, names.LOCK, names.STREAMS, names.LOST_AND_FOUND})


def is_store(files: Files, path: str) -> bool:
    """Whether a directory is a store, however damaged; False: it is that of one stream.

    Raises InvalidArgument where it is neither, StorageFailed where that cannot be seen.
    """
    if not os.path.lexists(path):
        what = "nothing"
    elif not os.path.isdir(path):
        what = "a file"
    else:
        found = set(files.names(path))
        if names.STORE in found or names.STREAMS in found:
            return True
        if found & {names.LOG, names.MARK}:
            return False
        what = "another directory"
    raise InvalidArgument(f"{path}: expected a store, or the directory of a stream, found {what}")


class StoreIdentity:
    """The phase: its findings, the store's uuid if it can be read, and the directories of its streams."""

    def __init__(self, files: Files, path: str) -> None:
        self.findings: list[Finding] = []
        self.store_uuid: bytes | None = None
        self.streams: list[str] = []
        self._files = files
        self._path = path
        self._read_identity()
        self._list_store()

    def compare(self, stream: str, store_uuid: bytes | None) -> None:
        """Hold the store's uuid against the one in a stream's segment headers."""
        if self.store_uuid is not None and store_uuid is not None and store_uuid != self.store_uuid:
            self._add("store-identity-foreign", stream, f"it was created in the store of uuid {store_uuid.hex()}")

    def _read_identity(self) -> None:
        path = f"{self._path}/{names.STORE}"
        try:
            file = self._files.open_to_read(path)
        except FileNotFoundError:
            self._add("store-identity-missing", path, "expected the identity of the store, found nothing")
            return
        except (IsADirectoryError, StorageFailed) as error:
            self._add("read-failed", path, str(error))
            return
        try:
            content = file.pread(STORE_BYTES_MAX + 1, 0)
        except (IsADirectoryError, StorageFailed) as error:
            self._add("store-identity-damaged", path, str(error))
            return
        finally:
            file.close()
        try:
            self.store_uuid = decode_identity(content)
        except CorruptLog as error:
            self._add("store-identity-damaged", path, str(error))
        except UnsupportedVersion as error:
            is_sound = agrees_with_checksum(content)
            self._add("version-unsupported" if is_sound else "store-identity-damaged", path, str(error))

    def _list_store(self) -> None:
        for name in self._names(self._path):
            path = f"{self._path}/{name}"
            if name.startswith(names.STORE) and name.endswith(names.TEMPORARY):
                self._add("temporary-left", path, "left by a creation of the store that was interrupted")
            elif name not in _KNOWN_NAMES:
                self._add("unknown-name", path, "no file of a store has such a name")
        for name in self._names(f"{self._path}/{names.STREAMS}"):
            path = f"{self._path}/{names.STREAMS}/{name}"
            if name == names.LOST_AND_FOUND:
                continue  # a file system's own, where the directory is its root
            if not _is_stream_name(name) or not os.path.isdir(path):
                self._add("unknown-name", path, "no directory of a stream")
                continue
            self._list_labels(path)

    def _list_labels(self, base: str) -> None:
        for label in self._names(base):
            path = f"{base}/{label}"
            if names.is_label(label) and os.path.isdir(path):
                self.streams.append(path)
            elif names.is_label(label.removesuffix(names.TEMPORARY)):
                self._add("stream-unfinished", path, "its creation was interrupted")
            elif names.is_label(label.removesuffix(names.DELETED)):
                self._add("stream-half-deleted", path, "its deletion was interrupted")
            else:
                self._add("unknown-name", path, "no incarnation of a stream has such a name")

    def _names(self, path: str) -> list[str]:
        try:
            return sorted(self._files.names(path))
        except FileNotFoundError:
            return []
        except (NotADirectoryError, StorageFailed) as error:
            self._add("read-failed", path, str(error))
            return []

    def _add(self, code: str, path: str, message: str) -> None:
        self.findings.append(Finding(code, CODES[code].severity, path, None, None, message))


def _is_stream_name(name: str) -> bool:
    try:
        checked_stream_name(name)
    except InvalidArgument:
        return False
    return True

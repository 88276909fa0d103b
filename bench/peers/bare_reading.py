"""The limit of reading: large preads, a checksum and a decoder's call per body, and nothing else.

The file holds the bodies of the same commits, one after the other; where they lie is known beforehand.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

import google_crc32c
import msgspec

from shardlog import Change
from shardlog.format.values import encode

_PIECE_BYTES: Final = 256 << 10


class RawRow(msgspec.Struct, array_like=True, gc=False):
    """A row whose images stay encoded."""

    code: int
    keys: msgspec.Raw
    new: msgspec.Raw
    old: msgspec.Raw


class DecodedRow(msgspec.Struct, array_like=True, gc=False):
    """A row whose images are decoded."""

    code: int
    keys: dict[str, Any]
    new: dict[str, Any] | None
    old: dict[str, Any] | None


class BodyFile:
    """Bodies in a file, and their places and checksums in memory."""

    def __init__(self, path: str, commits: Iterable[list[Change]]) -> None:
        self._pieces: list[tuple[int, int, list[tuple[int, int, int]]]] = []
        with open(path, "wb") as file:
            places: list[tuple[int, int, int]] = []
            offset = length = 0
            for changes in commits:
                body = encode([change.row for change in changes])
                file.write(body)
                places.append((length, length + len(body), google_crc32c.value(body)))
                length += len(body)
                if length >= _PIECE_BYTES:
                    self._pieces.append((offset, length, places))
                    offset, length, places = offset + length, 0, []
            if places:
                self._pieces.append((offset, length, places))
        self._descriptor = os.open(path, os.O_RDONLY)

    def raw_rows(self) -> Iterator[list[RawRow]]:
        """Every body's rows, images undecoded."""
        return self._decoded(msgspec.msgpack.Decoder(list[RawRow]))

    def decoded_rows(self) -> Iterator[list[DecodedRow]]:
        """Every body's rows, images decoded."""
        return self._decoded(msgspec.msgpack.Decoder(list[DecodedRow]))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _decoded(self, decoder: msgspec.msgpack.Decoder[Any]) -> Iterator[list[Any]]:
        decode = decoder.decode
        for offset, length, places in self._pieces:
            piece = os.pread(self._descriptor, length, offset)
            for first, end, checksum in places:
                body = piece[first:end]
                if google_crc32c.value(body) != checksum:
                    raise OSError(f"the body at {offset + first} changed")
                yield decode(body)

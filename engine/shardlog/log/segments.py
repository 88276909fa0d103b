"""The segment files of a log directory: their names, headers and footers, and open files to read them.

Headers and footers never change once a segment has its name (a footer: once it is sealed), so they are kept; files are
opened when needed and closed when nobody reads them any more.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, Generic, TypeVar

from shardlog.errors import CorruptLog, StreamNotFound, TrimmedData
from shardlog.files.protocol import File, Files
from shardlog.format import names
from shardlog.format.commit import FOOTER, HEADER_BYTES, decode_header, seed_of
from shardlog.format.segment import (
    FIXED_HEADER_BYTES,
    TRAILER_BYTES,
    Footer,
    SegmentHeader,
    decode_footer,
    decode_trailer,
    header_length,
)
from shardlog.format.segment import decode_header as decode_segment_header
from shardlog.log.walk import Block

Value = TypeVar("Value")

_HEADERS_KEPT: Final = 1024
_FOOTERS_KEPT: Final = 256
_FILES_KEPT: Final = 32
_FIRST_READ_BYTES: Final = 4096


def list_segments(files: Files, path: str) -> list[tuple[int, int]]:
    """(first sequence, segment id) of every segment in a log directory, oldest first."""
    parsed = (names.parse_segment_name(name) for name in files.names(path))
    return sorted(segment for segment in parsed if segment)


def expired_segments(segments: Sequence[tuple[int, int]], horizon: int) -> list[tuple[int, int]]:
    """Those of all segments, oldest first, that lie behind the trim horizon: what a crash left of an expiry."""
    return [segment for segment, successor in pairwise(segments) if successor[0] <= horizon]


def read_segment_header(file: File) -> SegmentHeader:
    """The header of an open segment. Raises CorruptLog or UnsupportedVersion."""
    content = file.pread(_FIRST_READ_BYTES, 0)
    if len(content) >= FIXED_HEADER_BYTES:
        length = header_length(content)
        if length > len(content):
            content = file.pread(length, 0)
    return decode_segment_header(content)


class _Kept(Generic[Value]):
    """A small map by segment id that forgets what was not used for longest."""

    def __init__(self, most: int) -> None:
        self._values: OrderedDict[int, Value] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def get_or_make(self, key: int, make: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            if len(self._values) > self._most:
                self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        with self._lock:
            self._values.clear()

    def abandon(self) -> None:
        self._lock = threading.Lock()
        self._values.clear()


class Segments:
    """The segments of one stream's log, for reading."""

    def __init__(self, files: Files, path: str, stream_uuid: bytes) -> None:
        self._files = files
        self._path = path
        self.stream_uuid = stream_uuid
        self._headers: _Kept[SegmentHeader] = _Kept(_HEADERS_KEPT)
        self._footers: _Kept[Footer | None] = _Kept(_FOOTERS_KEPT)
        self._open: _Kept[File] = _Kept(_FILES_KEPT)

    def path_of(self, first_sequence: int, segment_id: int) -> str:
        """Where a segment lies."""
        return f"{self._path}/{names.segment_name(first_sequence, segment_id)}"

    def on_disk(self) -> list[tuple[int, int]]:
        """(first sequence, segment id) of the files there are, oldest first. Raises StreamNotFound when all is gone."""
        try:
            return list_segments(self._files, self._path)
        except FileNotFoundError:
            raise StreamNotFound(f"{self._path}: the stream was deleted") from None

    def seed_of(self, segment_id: int) -> int:
        """The seed of a segment's header checksums."""
        return seed_of(self.stream_uuid, segment_id)

    def file(self, first_sequence: int, segment_id: int) -> File:
        """The open file of a segment. It closes when the last reader drops it. Raises TrimmedData when it is gone."""
        path = self.path_of(first_sequence, segment_id)
        try:
            return self._open.get_or_make(segment_id, lambda: self._files.open_to_read(path))
        except FileNotFoundError:
            raise TrimmedData(f"{path}: the segment is gone; the records from {first_sequence} have expired") from None

    def header(self, first_sequence: int, segment_id: int) -> SegmentHeader:
        """A segment's header. Raises CorruptLog."""
        return self._headers.get_or_make(segment_id, lambda: self._checked_header(first_sequence, segment_id))

    def footer(self, first_sequence: int, segment_id: int) -> Footer | None:
        """What a sealed segment's footer says; None where it cannot be read, which costs speed only."""
        return self._footers.get_or_make(segment_id, lambda: self._read_footer(first_sequence, segment_id))

    def close_files(self) -> None:
        """Drop the open files; whoever reads one keeps it."""
        self._open.clear()

    def close(self) -> None:
        """Drop everything kept."""
        self._open.clear()
        self._headers.clear()
        self._footers.clear()

    def abandon(self) -> None:
        """The same in a forked child, where a lock may be held by a thread that does not exist."""
        self._open.abandon()
        self._headers.abandon()
        self._footers.abandon()

    def _checked_header(self, first_sequence: int, segment_id: int) -> SegmentHeader:
        header = read_segment_header(self.file(first_sequence, segment_id))
        if (header.stream_uuid, header.first_sequence, header.segment_id) != (
            self.stream_uuid,
            first_sequence,
            segment_id,
        ):
            raise CorruptLog(
                f"{self.path_of(first_sequence, segment_id)}: expected the header of segment {segment_id} that starts "
                f"at {first_sequence}, found that of segment {header.segment_id} that starts at {header.first_sequence}"
            )
        return header

    def footer_offset(self, first_sequence: int, segment_id: int) -> int | None:
        """Where a sealed segment's footer starts, its blocks end; None where its trailer cannot be read."""
        file = self.file(first_sequence, segment_id)
        try:
            return decode_trailer(file.pread(TRAILER_BYTES, max(0, file.size() - TRAILER_BYTES)), segment_id)
        except CorruptLog:
            return None

    def _read_footer(self, first_sequence: int, segment_id: int) -> Footer | None:
        offset = self.footer_offset(first_sequence, segment_id)
        if offset is None:
            return None
        file = self.file(first_sequence, segment_id)
        try:
            start = file.pread(HEADER_BYTES, offset)
            header = decode_header(start, 0, offset, self.seed_of(segment_id))
            if header is None or header.type != FOOTER:
                return None
            return decode_footer(Block(header, start, 0, file).content())
        except CorruptLog:
            return None

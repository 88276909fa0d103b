"""Checking a store from the page cache, against a bare loop that reads the same files and checksums the same bytes."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import closing, suppress
from itertools import cycle
from pathlib import Path

import google_crc32c

import shardlog
from bench.settings import Settings
from shardlog.errors import CorruptLog
from shardlog.files.posix import PosixFiles
from shardlog.format.commit import ENTRY_BYTES, HEADER_BYTES, seed_of
from shardlog.log.segments import read_segment_header
from shardlog.log.walk import Span, Steps
from shardlog_tools.measuring.changes import change_commits
from shardlog_tools.measuring.contestants import STREAM
from shardlog_tools.measuring.machine import sync_times
from shardlog_tools.measuring.results import Row, Table, at_least
from shardlog_tools.measuring.rounds import take_turns

_RECORDS_PER_COMMIT = 100
_SEGMENTS = 4
_CRC_BYTES = 4
_PIECE_BYTES = 1 << 20
_ANY_SEQUENCE = 1 << 62
_GOAL_GB_PER_SECOND = 1.0

Places = list[tuple[int, list[tuple[int, int]]]]
"""Pieces of a segment: where each starts, and first and end of what is under one checksum, relative to that."""


class Pass:
    """Goes over the log again and again. The figure: GB (10^9 bytes) of segments per second."""

    def __init__(self, name: str, log_bytes: int) -> None:
        self.name = name
        self._log_bytes = log_bytes

    def turn(self, seconds: float) -> float:
        start = time.perf_counter()
        passes = 0
        while True:
            self.go_over()
            passes += 1
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return self._log_bytes * passes / elapsed / 1e9

    def go_over(self) -> None:
        """The whole log once."""
        raise NotImplementedError


class Check(Pass):
    """`shardlog.fsck`, without `deep`."""

    def __init__(self, store: str, log_bytes: int) -> None:
        super().__init__("fsck", log_bytes)
        self._store = store

    def go_over(self) -> None:
        if shardlog.fsck(self._store).findings:
            raise RuntimeError("a sound store was found damaged")


class BareLoop(Pass):
    """What cannot be left out: reading, and a call per checksum. Where the bytes lie is known beforehand."""

    def __init__(self, segments: list[tuple[str, Places]], log_bytes: int) -> None:
        super().__init__("read, checksum", log_bytes)
        self._segments = segments
        self.checksum = 0

    def go_over(self) -> None:
        crc = 0
        for path, pieces in self._segments:
            descriptor = os.open(path, os.O_RDONLY)
            for offset, places in pieces:
                piece = os.pread(descriptor, places[-1][1], offset)
                for first, end in places:
                    crc ^= google_crc32c.value(piece[first:end])
            os.close(descriptor)
        self.checksum = crc


def check(settings: Settings) -> Table:
    """`fsck` of a log of four full segments, one core, all of it in the page cache."""
    with tempfile.TemporaryDirectory(dir=settings.directory) as directory:
        store = os.path.join(directory, "store")
        segments = [(str(path), places_of(path)) for path in _build(store, settings)]
        log_bytes = sum(offset + places[-1][1] for _, pieces in segments for offset, places in pieces[-1:])
        sync = sync_times(settings.directory)
        subject, limit = take_turns([Check(store, log_bytes), BareLoop(segments, log_bytes)], settings)
    title = f"a log of {log_bytes / 1e6:.0f} MB in {len(segments)} segments, commits of {_RECORDS_PER_COMMIT} records"
    rows = (Row(subject, goal=at_least(_GOAL_GB_PER_SECOND)), Row(limit, subject))
    return Table("fsck", title, "GB/s", rows, sync)


def _build(store: str, settings: Settings) -> list[Path]:
    """A stream that is closed; its segments, oldest first."""
    commits = change_commits(_RECORDS_PER_COMMIT)
    with shardlog.open(store) as opened:
        stream = opened.create_stream(
            STREAM, retention=None, durability="os", shards=settings.shards, segment_bytes=settings.fill_bytes
        )
        log = next(Path(store).glob("streams/*/*/log"))
        for changes in cycle(commits):
            stream.append(changes)
            if len(os.listdir(log)) > _SEGMENTS:
                break
    return sorted(log.iterdir())


def places_of(path: Path) -> Places:
    """Where the bytes under checksums are: header and directory of each block, and each body."""
    file = PosixFiles().open_to_read(str(path))
    pieces: Places = []
    with closing(file), suppress(CorruptLog):  # zeros behind the last commit
        header = read_segment_header(file)
        seed = seed_of(header.stream_uuid, header.segment_id)
        span = Span(header.header_bytes, file.data_end(), seed, header.crc, header.first_sequence, _ANY_SEQUENCE)
        for block in Steps(file, span, bodies=False):
            if not block.header.batch_count:
                break  # the footer
            offset = block.header.offset
            if not pieces or block.header.end - pieces[-1][0] > _PIECE_BYTES:
                pieces.append((offset, []))
            places, start = pieces[-1][1], offset - pieces[-1][0]
            directory_end = start + HEADER_BYTES + block.header.batch_count * ENTRY_BYTES
            places += [(start, start + HEADER_BYTES - _CRC_BYTES), (start + HEADER_BYTES, directory_end)]
            for batch in block.batches():
                places.append((start + batch.body_offset, start + batch.body_offset + batch.body_bytes))
    return pieces

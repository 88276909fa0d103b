"""Logs written by the engine itself, and a hand that edits their bytes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import shardlog
from shardlog import Change, Stream
from shardlog.files.posix import PosixFiles
from shardlog.format.commit import FOOTER, CommitHeader, seed_of
from shardlog.format.mark import Mark
from shardlog.format.names import segment_name
from shardlog.format.segment import SegmentHeader
from shardlog.log.mark_file import MarkFile
from shardlog.log.recovery import LogEnd, find_log_end
from shardlog.log.segments import list_segments, read_segment_header
from shardlog.log.walk import Span, Steps
from shardlog.testing.clock import ManualClock

FILES = PosixFiles()
SEGMENT_BYTES = 16 << 10


def some_changes(first: int, count: int, text_bytes: int = 40) -> list[Change]:
    """Inserts of items `first`, `first + 1`, and so on."""
    return [
        Change.insert(keys={"id": number}, new={"id": number, "text": chr(97 + number % 26) * text_bytes})
        for number in range(first, first + count)
    ]


@dataclass(frozen=True)
class Log:
    """The log of one stream that nobody has open."""

    stream_path: str

    @property
    def path(self) -> str:
        """The directory of the segments."""
        return f"{self.stream_path}/log"

    @property
    def segments(self) -> list[tuple[int, int]]:
        """(first sequence, id) of each, oldest first."""
        return list_segments(FILES, self.path)

    def file_of(self, segment: int = -1) -> Path:
        """A segment's file."""
        return Path(self.path) / segment_name(*self.segments[segment])

    def header(self, segment: int = -1) -> SegmentHeader:
        """A segment's header."""
        file = FILES.open_to_read(str(self.file_of(segment)))
        try:
            return read_segment_header(file)
        finally:
            file.close()

    def seed(self, segment: int = -1) -> int:
        """The seed of a segment's header checksums."""
        return seed_of(self.header(segment).stream_uuid, self.segments[segment][1])

    def blocks(self, segment: int = -1) -> list[CommitHeader]:
        """The headers of a segment's commits; its footer is left out."""
        header = self.header(segment)
        content = self.file_of(segment).read_bytes()
        end = len(content.rstrip(b"\0")) + 64
        file = FILES.open_to_read(str(self.file_of(segment)))
        span = Span(
            header.header_bytes, min(end, len(content)), self.seed(segment), header.crc, header.first_sequence, 0
        )
        found = []
        try:
            for block in Steps(file, span, bodies=False):
                if block.header.type == FOOTER:
                    break
                found.append(block.header)
        except shardlog.CorruptLog:
            pass  # the zeros, or the trailer
        finally:
            file.close()
        return found

    def mark(self) -> Mark | None:
        """The position in MARK."""
        file = MarkFile(FILES.open_to_read(f"{self.stream_path}/MARK"))
        try:
            return file.read()[0]
        finally:
            file.close()

    def mark_before(self, block: CommitHeader, segment: int = -1) -> Mark:
        """MARK as it may have been before a block was written: of its segment, but as old as can be."""
        _, segment_id = self.segments[segment]
        return Mark(1, segment_id, block.offset, block.first_sequence, block.previous_crc)

    def write(self, content: bytes, offset: int, segment: int = -1) -> None:
        """Put bytes into a segment."""
        with self.file_of(segment).open("r+b") as file:
            file.seek(offset)
            file.write(content)

    def read(self, length: int, offset: int, segment: int = -1) -> bytes:
        """Bytes of a segment."""
        return self.file_of(segment).read_bytes()[offset : offset + length]

    def flip(self, offset: int, bits: int, segment: int = -1) -> None:
        """Flip the bits of one byte of a segment."""
        self.write(bytes([self.read(1, offset, segment)[0] ^ bits]), offset, segment)

    def end(self, mark: Mark | None = None) -> LogEnd:
        """Where the log ends, as recovery finds it."""
        return find_log_end(FILES, self.path, mark)

    def content(self) -> dict[str, bytes]:
        """All files of the stream but the index."""
        return {
            str(path.relative_to(self.stream_path)): path.read_bytes()
            for path in sorted(Path(self.stream_path).rglob("*"))
            if path.is_file() and path.parent.name != "index"
        }

    def copy_to(self, directory: Path) -> Log:
        """A copy of its own to be edited."""
        shutil.copytree(self.stream_path, directory)
        return replace(self, stream_path=str(directory))


@contextmanager
def written_log(directory: Path, **options: object) -> Iterator[tuple[Stream, ManualClock, list[Log]]]:
    """A new stream to append to; when the block ends, the list holds its log."""
    clock = ManualClock()
    logs: list[Log] = []
    with shardlog.open(directory, clock=clock) as store:
        stream = store.create_stream("s", segment_bytes=SEGMENT_BYTES, **options)  # type: ignore[arg-type]
        yield stream, clock, logs
    logs.append(Log(os.path.join(directory, "streams", "s", stream.label)))


def short_log(directory: Path, **options: object) -> Log:
    """One segment of five commits: single records, several batches, a producer's position, a body of sectors."""
    with written_log(directory, shards=2, **options) as (stream, clock, logs):
        stream.append(some_changes(0, 1))
        clock.advance(timedelta(seconds=1))
        stream.append(some_changes(1, 8))
        stream.append(some_changes(10, 2), producer="p", position=7)
        stream.append(some_changes(20, 3, text_bytes=700))
        stream.append(some_changes(30, 2))
    return logs[0]


def long_log(directory: Path) -> Log:
    """Four segments, the last of three commits."""
    with written_log(directory) as (stream, _, logs):
        number = 0
        while (
            len(segments := list_segments(FILES, _log_path(stream))) < 4 or stream.next_sequence < segments[-1][0] + 9
        ):
            stream.append(some_changes(number, 2, text_bytes=600), producer="p", position=number)
            number += 1
    return logs[0]


def _log_path(stream: Stream) -> str:
    return f"{stream._stream.path}/log"

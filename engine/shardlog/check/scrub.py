"""Verifying sealed segments at leisure, streams in use or not: to find damage while there is still another copy.

One pass goes through all sealed segments of a store, oldest first, reads each from the disk (not from what the system
happens to have in memory) at a limited rate, and checks header, blocks and footer. No lock is taken: sealed segments do
not change, and one that expires meanwhile is passed over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from shardlog.check.blocks import BlockScan
from shardlog.check.findings import Finding
from shardlog.check.identity import StoreIdentity, is_store
from shardlog.check.segments import Place, end_of, footer_problem, read_header
from shardlog.check.subject import Subject
from shardlog.errors import ShardlogError
from shardlog.files.protocol import File, Files
from shardlog.format import names
from shardlog.format.commit import seed_of
from shardlog.log.segments import list_segments
from shardlog.log.walk import Span
from shardlog.stream.state import KnownGap, decode_state

_BURST_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A segment that was verified; no bytes: something that could not be, or the store's identity."""

    path: str
    bytes: int
    findings: tuple[Finding, ...]


class Pace:
    """Lets so many bytes pass per second; None: as many as there are."""

    def __init__(
        self,
        bytes_per_second: int | None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_second = bytes_per_second
        self._monotonic = monotonic
        self._sleep = sleep
        self._free_at = monotonic()

    def spend(self, size: int) -> None:
        """Account for bytes that were read, and sleep if that was too fast."""
        if self._bytes_per_second is None:
            return
        now = self._monotonic()
        self._free_at = max(self._free_at, now - _BURST_SECONDS) + size / self._bytes_per_second
        if self._free_at > now:
            self._sleep(self._free_at - now)


class _PacedFile:
    """A file whose reads are paced."""

    def __init__(self, inner: File, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    def pread(self, length: int, offset: int) -> bytes:
        content = self._inner.pread(length, offset)
        self._pace.spend(len(content))
        return content

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


def scrub_pass(files: Files, path: str, pace: Pace) -> Iterator[Scrubbed]:
    """Verify every sealed segment of a store, or of one stream's directory, once. Raises as `is_store`."""
    if not is_store(files, path):
        yield from _scrub_stream(files, path, pace)
        return
    identity = StoreIdentity(files, path)
    errors = tuple(finding for finding in identity.findings if finding.severity == "error")
    if errors:
        yield Scrubbed(path, 0, errors)
    for stream in identity.streams:
        yield from _scrub_stream(files, stream, pace)


def _scrub_stream(files: Files, stream: str, pace: Pace) -> Iterator[Scrubbed]:
    log_path = f"{stream}/{names.LOG}"
    try:
        segments = list_segments(files, log_path)
    except FileNotFoundError:
        return  # deleted meanwhile
    except (ShardlogError, OSError) as error:
        subject = Subject(stream, files)
        subject.add("read-failed", log_path, str(error))
        yield Scrubbed(log_path, 0, tuple(subject.findings))
        return
    places = [Place(*segment, f"{log_path}/{names.segment_name(*segment)}") for segment in segments]
    gaps = _known_gaps(files, places)
    for place, successor in pairwise(places):
        subject = Subject(stream, files, gaps=gaps)
        try:
            size = _scrub_segment(subject, place, successor, pace)
        except FileNotFoundError:
            continue  # expired
        except (ShardlogError, OSError) as error:
            subject.add("read-failed", place.path, str(error))
            size = 0
        yield Scrubbed(place.path, size, tuple(subject.findings))


def _known_gaps(files: Files, places: list[Place]) -> tuple[KnownGap, ...]:
    """The damage that the newest segment's header knows of."""
    for place in places[-1:]:
        try:
            read_header(files, place, None)
            if place.header is not None:
                return decode_state(place.header.snapshot).state.gaps
        except ShardlogError:
            break
    return ()


def _scrub_segment(subject: Subject, place: Place, successor: Place, pace: Pace) -> int:
    files = subject.files
    _forget_cached(place.path)
    for each in (place, successor):
        read_header(files, each, None)
    if place.problem is not None:
        if place.problem[0] == "segment-missing":
            raise FileNotFoundError(place.path)
        subject.add(*place.problem[:1], place.path, place.problem[1], offset=0, segment_id=place.segment_id)
    if place.header is None:
        return 0
    header = place.header
    end = end_of(files, place, successor, header.stream_uuid)
    seed = seed_of(header.stream_uuid, place.segment_id)
    file: File = _PacedFile(files.open_to_read(place.path), pace)  # type: ignore[assignment]  # the rest is passed on
    try:
        span = Span(header.header_bytes, end.offset, seed, header.crc, place.first_sequence, end.next_sequence)
        scan = BlockScan(subject, file, place.path, place.segment_id, span)
        scan.records, scan.timestamp_us = header.records_before, header.timestamp_before_us
        scan.run()
        problem = footer_problem(file, place.segment_id, seed, end.offset, None if scan.is_damaged else scan)
        if problem is not None:
            subject.add(problem[0], place.path, problem[1], offset=end.offset, segment_id=place.segment_id)
        return file.size()
    finally:
        file.close()
        place.header = successor.header = None


def _forget_cached(path: str) -> None:
    """Have the system drop what it has of a file in memory, so that it is the disk that is read (posix_fadvise(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)

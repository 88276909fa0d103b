"""Writing segments: what is written, and in which order it is made durable."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.faults import FaultyFiles, failing, no_room

from shardlog.errors import StorageFailed, StorageFull
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Site
from shardlog.format import names
from shardlog.format.commit import FOOTER, HEADER_BYTES, decode_header, seed_of
from shardlog.format.segment import (
    TRAILER_BYTES,
    Footer,
    Predecessor,
    SegmentHeader,
    SparsePosition,
    decode_footer,
    decode_trailer,
    encode_footer,
)
from shardlog.log.recovery import INDEX_STRIDE_BYTES
from shardlog.log.segments import list_segments, read_segment_header
from shardlog.log.writer import (
    ActiveSegment,
    NewSegment,
    footer_reserve,
    new_segment_bytes,
    remove_begun_segment,
)
from shardlog.options import SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SHARDS_MAX
from shardlog.testing.operations import (
    Allocated,
    Created,
    DirectorySynced,
    Operation,
    Outcome,
    Renamed,
    Synced,
    Written,
)
from shardlog.testing.recording import RecordingFiles

HEADER = SegmentHeader(
    2, 11, 1, b"store-uuid-store", b"stream-uuid-stre", 10, 1, Predecessor(1, 8192, 11, 7), b"snapshot"
)
NAME = names.segment_name(11, 2)
SEED = seed_of(HEADER.stream_uuid, 2)
FOOTER_VALUE = Footer([SparsePosition(11, 4096, 5, 10)], {0: 3}, 5, 6)


@pytest.fixture
def log_path(tmp_path: Path) -> str:
    """A log directory."""
    path = tmp_path / "log"
    path.mkdir()
    return str(path)


def _kinds(operations: tuple[Operation, ...]) -> list[type[Operation]]:
    return [type(operation) for operation in operations]


def test_a_new_segment_is_whole_before_it_has_its_name(log_path: str) -> None:
    """Created under a temporary name, preallocated, header written, synced; named; the directory synced."""
    files = RecordingFiles(log_path)
    segment = NewSegment(files, log_path, HEADER, 16 << 10)
    assert files.names(log_path) == [NAME + names.TEMPORARY]
    assert list_segments(files, log_path) == []
    segment.name()
    operations = files.recording().operations
    assert _kinds(operations) == [Created, Allocated, Written, Synced, Renamed, DirectorySynced]
    assert operations[3:] == (
        Synced(operations[0].handle, Site.SEGMENT_HEADER, Outcome.DONE),  # type: ignore[union-attr]  # Created has it
        Renamed(NAME + names.TEMPORARY, NAME),
        DirectorySynced("", Site.SEGMENT_ENTRY, Outcome.DONE),
    )
    assert list_segments(files, log_path) == [(11, 2)]
    file = files.open_to_read(f"{log_path}/{NAME}")
    assert file.size() == 16 << 10
    assert read_segment_header(file) == replace(HEADER, crc=segment.crc)


@pytest.mark.parametrize("operation", ["allocate", "pwrite", "sync"])
@pytest.mark.parametrize(("strike", "expected"), [(no_room, StorageFull), (failing, StorageFailed)])
def test_a_new_segment_that_fails_leaves_nothing(
    log_path: str, operation: str, strike: object, expected: type[Exception]
) -> None:
    """No room, or a failing disk: the temporary file is gone, and the same segment can be tried again."""
    files = FaultyFiles()
    files.arm(lambda step: step.operation == operation, strike)  # type: ignore[arg-type]  # raises
    with pytest.raises(expected):
        NewSegment(files, log_path, HEADER, 16 << 10)
    assert files.names(log_path) == []
    NewSegment(files, log_path, HEADER, 16 << 10).name()
    assert list_segments(files, log_path) == [(11, 2)]


def _active(files: PosixFiles, log_path: str, size: int = 16 << 10) -> ActiveSegment:
    NewSegment(files, log_path, HEADER, size).name()
    return ActiveSegment(files.open(f"{log_path}/{NAME}"), 2, SEED)


def test_sealing(log_path: str) -> None:
    """Footer and trailer at the end of the blocks, the file cut behind them, and synced, at every level."""
    files = FaultyFiles()
    segment = _active(files, log_path)
    segment.write(b"blocks", HEADER.header_bytes)
    files.steps.clear()
    segment.seal(
        HEADER.header_bytes + 8, FOOTER_VALUE, next_sequence=14, durable_sequence=12, records=13, timestamp_us=6, crc=9
    )
    assert [(step.operation, step.site) for step in files.steps] == [
        ("pwrite", None),
        ("truncate", None),
        ("sync", Site.SEGMENT_SEALED),
    ]
    content = Path(f"{log_path}/{NAME}").read_bytes()
    assert segment.size() == len(content)
    offset = decode_trailer(content[-TRAILER_BYTES:], 2)
    assert offset == HEADER.header_bytes + 8
    header = decode_header(content, offset, offset, SEED)
    assert header is not None
    assert (header.type, header.end) == (FOOTER, len(content) - TRAILER_BYTES)
    assert (header.first_sequence, header.next_sequence, header.durable_sequence) == (14, 14, 12)
    assert (header.records_before, header.timestamp_us, header.previous_crc) == (13, 6, 9)
    assert decode_footer(content[offset + HEADER_BYTES : offset + HEADER_BYTES + header.length]) == FOOTER_VALUE


def test_sealing_again_gives_the_same(log_path: str) -> None:
    """Who finds a segment that was sealed, but has no successor, seals it once more."""
    segment = _active(PosixFiles(), log_path)
    path = Path(f"{log_path}/{NAME}")
    contents = []
    for _ in range(2):
        segment.seal(
            HEADER.header_bytes, FOOTER_VALUE, next_sequence=14, durable_sequence=14, records=13, timestamp_us=6, crc=9
        )
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize("segment_bytes", [SEGMENT_BYTES_MIN, 1 << 20, 64 << 20, 256 << 20, SEGMENT_BYTES_MAX])
def test_the_largest_footer_fits_what_is_kept_free(segment_bytes: int) -> None:
    """On a full disk a segment can still be sealed; half of what is kept free is for trim records.

    As many position rows as a segment can have, with the largest numbers, and every shard that fits into it.
    """
    rows = [SparsePosition(2**63, 2**32 - 1, 2**62, 2**63)] * -(-segment_bytes // INDEX_STRIDE_BYTES)
    # A record takes at least 5 bytes, a batch 16 more; of a small segment a quarter is header, another is kept free.
    shards = min(SHARDS_MAX, segment_bytes // 2 // 21)
    counts = dict.fromkeys(range(shards), segment_bytes // 5 // shards)
    footer = encode_footer(Footer(rows, counts, 2**62, 2**62))
    assert len(footer) + HEADER_BYTES + TRAILER_BYTES <= footer_reserve(segment_bytes) // 2
    assert footer_reserve(segment_bytes) <= segment_bytes // 4


def test_a_cancelled_block_has_no_header(log_path: str) -> None:
    """Its first 64 bytes are zeros, synced before anybody else may write."""
    files = FaultyFiles()
    segment = _active(files, log_path)
    segment.write(b"x" * 100, 8192)
    files.steps.clear()
    segment.cancel(8192)
    assert [(step.operation, step.site) for step in files.steps] == [("pwrite", None), ("sync", Site.COMMIT_CANCELLED)]
    content = Path(f"{log_path}/{NAME}").read_bytes()
    assert content[8192:8300] == bytes(HEADER_BYTES) + b"x" * 36 + bytes(8)


def test_bytes_are_written_again(log_path: str) -> None:
    """As they are, in pieces, then synced at the site that asked for it."""
    files = FaultyFiles()
    segment = _active(files, log_path, 3 << 20)
    content = bytes(range(256)) * (10 << 10)
    segment.write(content, 5000)
    files.steps.clear()
    segment.rewrite(4000, 5000 + len(content), Site.ADOPTED)
    writes = [step for step in files.steps if step.operation == "pwrite"]
    assert b"".join(step.content for step in writes) == bytes(1000) + content
    assert writes[0].offset == 4000
    assert max(len(step.content) for step in writes) <= 1 << 20
    assert [(step.operation, step.site) for step in files.steps[len(writes) :]] == [("sync", Site.ADOPTED)]


def test_bytes_that_are_not_there_cannot_be_written_again(log_path: str) -> None:
    """A file that was cut behind our back is an error, not an endless loop."""
    segment = _active(PosixFiles(), log_path)
    with pytest.raises(StorageFailed, match="ends at 16384"):
        segment.rewrite(0, 20_000, Site.ADOPTED)


class _NearlyFull(PosixFiles):
    def __init__(self, free: int) -> None:
        self.free = free

    def free_bytes(self, path: str) -> int:
        return self.free


@pytest.mark.parametrize(
    ("free", "wanted", "needed", "expected"),
    [
        (10_000, 1000, 100, 1000),  # as wanted
        (10_000, 100, 1000, 1000),  # a block larger than a segment gets one of its own
        (1500, 1000, 100, 750),  # half of what is left
        (150, 1000, 100, 100),  # never less than needed
        (100, 1000, 100, 100),
    ],
)
def test_how_large_a_new_segment_is(free: int, wanted: int, needed: int, expected: int) -> None:
    """As wanted while there is room, then half of what is left, then just what is needed."""
    assert new_segment_bytes(_NearlyFull(free), "/log", wanted, needed) == expected


def test_a_segment_that_does_not_fit_is_not_begun() -> None:
    """StorageFull, with the figures."""
    with pytest.raises(StorageFull, match="needs 100 bytes, 99 are free"):
        new_segment_bytes(_NearlyFull(99), "/log", 1000, 100)


def test_a_segment_that_was_begun_is_removed(log_path: str) -> None:
    """Named or not, whatever number it starts at; others stay, and the directory is synced only if need be."""
    files = FaultyFiles()
    for name in (NAME, names.segment_name(12, 2) + names.TEMPORARY, names.segment_name(11, 3), "notes.txt"):
        Path(log_path, name).touch()
    remove_begun_segment(files, log_path, 2)
    assert sorted(os.listdir(log_path)) == [names.segment_name(11, 3), "notes.txt"]
    assert files.steps[-1].site is Site.SEGMENT_REMOVED
    files.steps.clear()
    remove_begun_segment(files, log_path, 2)
    assert files.steps == []

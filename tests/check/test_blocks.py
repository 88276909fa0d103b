"""The scan in a few calls per commit against the definition, mending of headers, seeds without headers, memory."""

from __future__ import annotations

import os
import random
import resource
import shutil
import tracemalloc
from pathlib import Path

import pytest
from tests.check.damage import NAME, Original, append_some, flips, spoilt_stretches
from tests.check.forged import log_paths

import shardlog
from shardlog import Change
from shardlog.check import fsck
from shardlog.check.blocks import BlockScan
from shardlog.check.findings import Finding
from shardlog.check.mending import mended_header
from shardlog.check.seeds import seed_of_blocks, solved_seed
from shardlog.check.subject import Subject
from shardlog.files.posix import PosixFiles
from shardlog.format.checksum import crc32c
from shardlog.format.commit import seed_of
from shardlog.log.segments import list_segments, read_segment_header
from shardlog.log.walk import Damage, Span, walk
from shardlog.testing.images import materialise


def scanned(path: Path, open_shards: frozenset[int] | None, span: Span) -> tuple[BlockScan, list[Finding]]:
    """A scan of a segment's blocks: in its fast form, if it is told the shards."""
    files = PosixFiles()
    subject = Subject(str(path.parent.parent), files)
    file = files.open_to_read(str(path))
    scan = BlockScan(subject, file, str(path), 1, span)
    scan.open_shards = open_shards
    scan.run()
    file.close()
    return scan, subject.findings


def span_of(path: Path) -> Span:
    """The blocks of a segment whose header is sound, to the end of the file."""
    file = PosixFiles().open_to_read(str(path))
    header = read_segment_header(file)
    size = file.size()
    file.close()
    seed = seed_of(header.stream_uuid, header.segment_id)
    return Span(header.header_bytes, size, seed, header.crc, header.first_sequence, header.first_sequence + 10_000)


def sums(scan: BlockScan) -> tuple[object, ...]:
    return scan.offset, scan.next_sequence, scan.last_crc, scan.records, scan.timestamp_us, scan.counts, scan.rows


def test_the_fast_form_agrees_with_the_definition(small: Original, place: Path, seed: int) -> None:
    """On sound and on spoilt segments: the same findings at the same places, and the same sums."""
    materialise(small.image, str(place))
    path = log_paths(place)[0]
    span = span_of(path)
    relative = small.segments[0]
    cases = [
        *flips(small, relative, range(4096 + seed % 50, 12_000, 50)),
        *spoilt_stretches(small, relative, seed, 150),
    ]
    for case in cases:
        content = case.image[relative]
        assert content is not None
        path.write_bytes(content)
        fast, found = scanned(path, frozenset({0, 1}), span)
        plain, expected = scanned(path, None, span)
        assert found == expected, case.story
        assert sums(fast) == sums(plain), case.story


def test_the_definition_is_the_readers(small: Original, place: Path, seed: int) -> None:
    """What the scan calls damage of blocks is what readers meet: the same numbers at the same places."""
    materialise(small.image, str(place))
    path = log_paths(place)[0]
    span = span_of(path)
    relative = small.segments[0]
    for case in spoilt_stretches(small, relative, seed, 100):
        content = case.image[relative]
        assert content is not None
        path.write_bytes(content)
        _, found = scanned(path, frozenset({0, 1}), span)
        file = PosixFiles().open_to_read(str(path))
        expected = []
        for item in walk(file, span, bodies=True):
            if isinstance(item, Damage):
                expected.append((item.offset, item.end, (item.first, item.next)))
            elif item.header.type == 2:
                break
        file.close()
        damages = [(each.offset, each.end, each.sequences) for each in found if each.code == "block-damaged"]
        assert damages == expected, case.story


def test_headers_are_mended_exactly(small: Original, place: Path) -> None:
    """Any one flipped bit of any header gives the header as it was written; two give none, or the same."""
    materialise(small.image, str(place))
    path = log_paths(place)[1]
    files = PosixFiles()
    content = path.read_bytes()
    file = files.open_to_read(str(path))
    header = read_segment_header(file)
    file.close()
    rng = random.Random(5)
    for bit in [*range(0, 8 * 120, 7), *range(8 * 120, 8 * 4096, 211)]:
        spoilt = bytearray(content)
        spoilt[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoilt)
        file = files.open_to_read(str(path))
        assert mended_header(file, header.first_sequence, header.segment_id) == header, bit
        assert mended_header(file, header.first_sequence, header.segment_id + 1) is None
        file.close()
        other = rng.randrange(8 * 700)
        spoilt[other // 8] ^= 1 << other % 8
        path.write_bytes(spoilt)
        file = files.open_to_read(str(path))
        assert mended_header(file, header.first_sequence, header.segment_id) in (None, header)
        file.close()


@pytest.mark.parametrize("content", [b"", b"\0", b"a commit", b"\xff" * 80, os.urandom(100)])
def test_a_seed_is_solved_from_a_checksum(content: bytes) -> None:
    """CRC-32C is linear in its seed, so one checksum tells it."""
    for seed in (0, 1, 0xDEADBEEF, 0xFFFFFFFF):
        assert solved_seed(content, crc32c(content, seed)) == seed


def test_blocks_tell_their_seed(small: Original, place: Path) -> None:
    """A segment without its header is still read."""
    materialise(small.image, str(place))
    for path in log_paths(place):
        expected = span_of(path).seed
        with path.open("r+b") as opened:
            opened.write(os.urandom(4096))
        file = PosixFiles().open_to_read(str(path))
        assert seed_of_blocks(file) == expected
        file.close()


def big_store(path: Path, segments: int) -> int:
    """A store of so many segments of 8 MiB; returns the bytes of its log."""
    shutil.rmtree(path, ignore_errors=True)
    with shardlog.open(path) as store:
        stream = store.create_stream(NAME, segment_bytes=8 << 20, retention=None, durability="os")
        changes = [Change.insert(keys={"id": number}, new={"id": number, "text": "x" * 1000}) for number in range(100)]
        while len(list_segments(PosixFiles(), str(log_paths(path)[0].parent))) < segments + 1:
            stream.append(changes)
    return sum(segment.stat().st_size for segment in log_paths(path))


def test_memory_does_not_grow_with_the_log(place: Path) -> None:
    """The check keeps a piece of a segment, and not more for more segments."""
    peaks = []
    for segments in (1, 4):
        size = big_store(place, segments)
        tracemalloc.start()
        assert fsck(place).findings == ()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert peaks[-1] < min(size, 6 << 20)
    assert peaks[1] < peaks[0] * 1.5


def test_speed(place: Path) -> None:
    """A guard, far below the figure (1 GB/s and more): per commit, not per record."""
    size = big_store(place, 3)
    before = resource.getrusage(resource.RUSAGE_SELF)
    assert fsck(place).findings == ()
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert size / seconds > 150e6


def test_producers_do_not_slow_the_scan_down_much(place: Path) -> None:
    """Commits with a control record are taken one by one, from the same piece."""
    shutil.rmtree(place, ignore_errors=True)
    with shardlog.open(place) as store:
        stream = store.create_stream(NAME, retention=None, durability="os")
        append_some(stream, 400)
    assert fsck(place).findings == ()

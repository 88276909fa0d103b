"""The segments of a log as readers see them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.log.logs import FILES, Log

from shardlog.errors import CorruptLog, TrimmedData, UnsupportedVersion
from shardlog.files.protocol import Site
from shardlog.format.checksum import crc32c
from shardlog.format.segment import TRAILER_BYTES, encode_trailer
from shardlog.log.segments import Segments, expired_segments, list_segments


def _segments(log: Log) -> Segments:
    return Segments(FILES, log.path, log.header().stream_uuid)


def test_segments_are_listed_in_order(long: Log) -> None:
    """Oldest first; what is temporary or foreign is left out."""
    for name in ("00000000000000000099-00000009.seg.tmp", "notes.txt", "00000000000000000099.seg"):
        (Path(long.path) / name).touch()
    assert list_segments(FILES, long.path) == [(1, 1), (16, 2), (31, 3), (46, 4)]


@pytest.mark.parametrize(
    ("horizon", "count"), [(1, 0), (15, 0), (16, 1), (17, 1), (31, 2), (45, 2), (46, 3), (1000, 3)]
)  # fmt: skip
def test_which_segments_have_expired(horizon: int, count: int) -> None:
    """Those whose successor starts at or before the horizon; the last one never."""
    segments = [(1, 1), (16, 2), (31, 3), (46, 4)]
    assert expired_segments(segments, horizon) == segments[:count]
    assert expired_segments([], horizon) == []


def test_each_header_names_its_predecessor(long: Log) -> None:
    """Where the one before ends, its last number and checksum: that ends it, whatever bytes follow there."""
    segments = _segments(long)
    assert segments.header(*long.segments[0]).predecessor.segment_id == 0
    for number in range(1, 4):
        before = segments.header(*long.segments[number]).predecessor
        last = long.blocks(number - 1)[-1]
        assert before.segment_id == long.segments[number - 1][1]
        assert (before.end, before.next_sequence, before.last_crc) == (last.end, last.next_sequence, last.crc)


def test_a_footer_says_what_its_blocks_say(long: Log) -> None:
    """Where it starts, positions, counts, times."""
    segments = _segments(long)
    for number in range(3):
        blocks = long.blocks(number)
        assert segments.footer_offset(*long.segments[number]) == blocks[-1].end
        footer = segments.footer(*long.segments[number])
        assert footer is not None
        assert [(row.first_sequence, row.offset) for row in footer.positions] == [
            (blocks[0].first_sequence, blocks[0].offset)
        ]
        assert footer.shard_records == {0: 2 * len(blocks)}
        assert footer.first_timestamp_us == blocks[0].timestamp_us
        assert footer.last_timestamp_us == blocks[-1].timestamp_us


def test_a_segment_that_is_not_sealed_has_no_footer(long: Log) -> None:
    """Nor an end that the file tells."""
    segments = _segments(long)
    assert segments.footer(*long.segments[3]) is None
    assert segments.footer_offset(*long.segments[3]) is None


@pytest.mark.parametrize("place", ["trailer", "footer header", "footer body", "footer checksum", "cut", "empty"])
def test_a_footer_that_cannot_be_read_costs_speed_only(long: Log, place: str) -> None:
    """None, and no error: what it says is in the blocks as well."""
    size = long.file_of(1).stat().st_size
    footer = long.blocks(1)[-1].end
    match place:
        case "trailer":
            long.flip(size - TRAILER_BYTES + 9, 1, 1)
        case "footer header":
            long.flip(footer + 9, 1, 1)
        case "footer body":
            long.flip(footer + 70, 1, 1)
        case "footer checksum":
            long.flip(size - TRAILER_BYTES - 8, 1, 1)
        case "cut":
            os.truncate(long.file_of(1), size - 5)
        case "empty":
            os.truncate(long.file_of(1), 0)
    assert _segments(long).footer(*long.segments[1]) is None


def test_a_trailer_that_points_elsewhere_is_not_followed(long: Log) -> None:
    """Its checksum is right, but what is there is a commit, or nothing."""
    size = long.file_of(1).stat().st_size
    for offset in (long.blocks(1)[0].offset, 0, 8, size - 8, size, 2**40):
        long.write(encode_trailer(offset, 2), size - TRAILER_BYTES, 1)
        assert _segments(long).footer(*long.segments[1]) is None


def test_a_trailer_of_a_later_version(long: Log) -> None:
    """Is unsupported: a newer release sealed this segment."""
    size = long.file_of(1).stat().st_size
    trailer = bytearray(long.read(TRAILER_BYTES, size - TRAILER_BYTES, 1))
    trailer[20] = 2
    trailer[24:28] = crc32c(bytes(trailer[:24])).to_bytes(4, "little")
    long.write(bytes(trailer), size - TRAILER_BYTES, 1)
    with pytest.raises(UnsupportedVersion):
        _segments(long).footer(*long.segments[1])


def test_headers_are_checked_against_their_names(long: Log) -> None:
    """A file under another segment's name, or of another stream, is not read as that one."""
    content = long.file_of(0).read_bytes()
    long.file_of(1).write_bytes(content)
    with pytest.raises(CorruptLog, match="segment 2 that starts at 16, found that of segment 1 that starts at 1"):
        _segments(long).header(*long.segments[1])
    stranger = Segments(FILES, long.path, b"another-stream!!")
    with pytest.raises(CorruptLog):
        stranger.header(*long.segments[0])


def test_a_damaged_header_is_not_remembered(long: Log) -> None:
    """The error is no lasting one: a header that was restored is read."""
    segments = _segments(long)
    long.flip(30, 1, 1)
    with pytest.raises(CorruptLog):
        segments.header(*long.segments[1])
    long.flip(30, 1, 1)
    assert segments.header(*long.segments[1]).segment_id == 2


def test_a_segment_that_is_gone_was_trimmed(long: Log) -> None:
    """TrimmedData; whoever has it open reads on."""
    segments = _segments(long)
    file = segments.file(*long.segments[0])
    names = long.segments
    long.file_of(1).unlink()
    long.file_of(0).unlink()
    assert segments.file(*names[0]) is file
    assert file.pread(8, 0) == b"shardlog"
    with pytest.raises(TrimmedData, match="records from 16 have expired"):
        segments.file(*names[1])


def test_files_are_shared_and_given_back(long: Log) -> None:
    """One open file per segment for all readers, closed when nobody holds it; never more than a few are kept."""
    before = len(os.listdir("/proc/self/fd"))
    segments = _segments(long)
    held = segments.file(*long.segments[0])
    assert segments.file(*long.segments[0]) is held
    assert len(os.listdir("/proc/self/fd")) == before + 1
    segments.close_files()
    assert held.pread(8, 0) == b"shardlog"
    del held
    assert len(os.listdir("/proc/self/fd")) == before


def test_only_a_few_files_are_kept_open(tmp_path: Path) -> None:
    """A reader that goes through a thousand segments does not use up the process's descriptors."""
    for number in range(200):
        FILES.create(f"{tmp_path}/{number:020d}-{number:08x}.seg").close()
    before = len(os.listdir("/proc/self/fd"))
    segments = Segments(FILES, str(tmp_path), bytes(16))
    for segment in list_segments(FILES, str(tmp_path)):
        segments.file(*segment)
    assert len(os.listdir("/proc/self/fd")) <= before + 40
    segments.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_kept_is_not_read_again(long: Log) -> None:
    """Headers and footers never change: files that are gone are not asked."""
    segments = _segments(long)
    names = long.segments
    headers = [segments.header(*name) for name in names]
    footer = segments.footer(*names[0])
    segments.close_files()
    for number in range(4):
        long.file_of(0).unlink()
        assert segments.header(*names[number]) == headers[number]
    assert segments.footer(*names[0]) is footer
    segments.close()
    with pytest.raises(TrimmedData):
        segments.header(*names[0])


def test_sites_are_named_for_people() -> None:
    """A failed sync says what would be lost: no two sites say the same."""
    assert len({str(site) for site in Site}) == len(Site)

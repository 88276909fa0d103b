"""Where a log ends: a torn tail ends it, corruption does not, and what tells one from the other.

Recovery only looks: what is done about it is another's business, and tested there.
"""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from tests.log.logs import FILES, Log, some_changes, written_log
from tests.support.faults import FaultyFiles, failing, open_with
from tests.support.history import records_only

import shardlog
from shardlog.errors import CorruptLog, StorageFailed, UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.format.commit import CONTROL_SHARD, ENTRY_BYTES, HEADER_BYTES, CommitHeader
from shardlog.format.mark import Mark
from shardlog.format.segment import TRAILER_BYTES
from shardlog.log.recovery import LogEnd, add_counts, find_log_end
from shardlog.stream import plan as plan_module
from shardlog.stream.lineage import fold
from shardlog.stream.state import decode_state, positions_of
from shardlog.testing.clock import ManualClock

BIT = "one flipped bit that explains it"
PROMISE = "the durable sequence of a later commit"


def _check_is_whole(log: Log, end: LogEnd) -> None:
    last = log.blocks()[-1]
    assert end.damage == []
    assert (end.offset, end.next_sequence, end.last_crc) == (last.end, last.next_sequence, last.crc)
    assert (end.torn_end, end.sealed) == (0, False)


def _check_is_torn(end: LogEnd, block: CommitHeader, torn_end: int) -> None:
    """The log ends before the block; the bytes of the tear end at `torn_end`."""
    assert end.damage == []
    assert (end.offset, end.next_sequence, end.last_crc) == (block.offset, block.first_sequence, block.previous_crc)
    assert end.torn_end == (torn_end if torn_end > block.offset else 0)


def _check_is_corrupt(end: LogEnd, block: CommitHeader, *witnesses: str) -> None:
    (damage,) = end.damage
    assert damage.offset == block.offset
    assert damage.sequences is not None
    assert damage.sequences[0] == block.first_sequence
    assert damage.witnesses == witnesses
    for words in (damage.segment, str(block.offset), str(block.first_sequence), *witnesses):
        assert words is not None
        assert words in str(damage)


def test_a_sound_log(short: Log) -> None:
    """It ends where the last commit does, whether MARK is there or not."""
    for mark in (short.mark(), None):
        _check_is_whole(short, short.end(mark))
    assert short.mark() == Mark(6, 1, 7584, 18, short.blocks()[-1].crc)


def test_what_the_scan_gathers(short: Log) -> None:
    """State, producers' positions, counts per shard, and where the blocks are that the index will know."""
    end = short.end()
    state = fold(decode_state(end.snapshot).state, end.controls)
    assert not state.closed
    assert positions_of(end.controls) == {"p": 7}
    assert [sequence for sequence, _ in end.controls] == [12]
    assert end.records == 16
    assert sum(records for records, _ in end.counts.values()) == 16
    assert [row.offset for row in end.positions] == [4096]
    assert end.indexed_offset == 4096
    assert end.timestamp_us == short.blocks()[-1].timestamp_us
    assert end.segments == short.segments
    assert add_counts(None, 1, 2) == (1, 2)
    assert add_counts((10, 20), 1, 2) == (11, 22)


def test_an_empty_log(tmp_path: Path) -> None:
    """Nothing was ever appended: it ends where its header does."""
    with written_log(tmp_path / "store") as (_, _, logs):
        pass
    (log,) = logs
    for mark in (log.mark(), None):
        end = log.end(mark)
        assert (end.offset, end.next_sequence, end.records, end.torn_end) == (4096, 1, 0, 0)
        assert (end.last_crc, end.positions, end.damage) == (log.header().crc, [], [])


def test_only_the_last_segment_is_read(long: Log) -> None:
    """Opening costs a scan of one segment: damage before it is for readers to find."""
    for segment in range(3):
        long.write(bytes(4000), 4096, segment)
    for mark in (long.mark(), None):
        _check_is_whole(long, long.end(mark))


def test_nothing_is_changed(short: Log, long: Log) -> None:
    """Not a byte, whatever is found."""
    short.flip(short.blocks()[1].offset, 0xFF)
    long.write(bytes(100), 0)
    for log in (short, long):
        before = log.content()
        log.end(None)
        log.end(log.mark())
        assert log.content() == before


def test_a_tail_torn_anywhere(short: Log) -> None:
    """The last commit written up to any byte, zeros behind: it never happened, and what is there of it is told.

    Only where the missing bytes come to a single bit the two cannot be told apart, and it counts as corruption.
    """
    block = short.blocks()[-1]
    whole = short.read(block.end - block.offset, block.offset)
    for cut in {*range(0, len(whole), 5), *range(len(whole) - 20, len(whole))}:
        rest = whole[cut:]
        short.write(bytes(len(rest)), block.offset + cut)
        missing_bits = sum(byte.bit_count() for byte in rest)
        end = short.end()
        if missing_bits == 0:
            _check_is_whole(short, end)
        elif missing_bits == 1:
            _check_is_corrupt(end, block, BIT)
        else:
            _check_is_torn(end, block, block.offset + len(whole[:cut].rstrip(b"\0")))
        short.write(whole, block.offset)


def test_a_tail_with_garbage_in_it(short: Log, seed: int) -> None:
    """Any 512-byte sector of a commit may be missing, or hold anything, whatever came before or behind it."""
    block = short.blocks()[3]
    whole = short.read(block.end - block.offset, block.offset)
    short.write(bytes(short.blocks()[4].end - block.end), block.end)
    source = random.Random(seed)
    for start in range(-block.offset % 512, len(whole), 512):
        for filler in (bytes(512), source.randbytes(512)):
            torn = (whole[:start] + filler + whole[start + 512 :])[: len(whole)]
            short.write(torn, block.offset)
            _check_is_torn(short.end(), block, block.offset + len(torn.rstrip(b"\0")))


def test_bytes_behind_the_end_are_a_tear(short: Log, seed: int) -> None:
    """Whatever a dead writer left there: the log ends before it, and it is not written over in place."""
    last = short.blocks()[-1]
    for garbage in (b"\1", b"SLOG", random.Random(seed).randbytes(999).rstrip(b"\0"), bytes(2000) + b"\1"):
        short.write(garbage, last.end)
        end = short.end(short.mark())
        assert end.damage == []
        assert (end.offset, end.next_sequence) == (last.end, last.next_sequence)
        assert end.torn_end == last.end + len(garbage)
        short.write(bytes(len(garbage)), last.end)


def test_a_file_that_ends_in_the_middle_of_a_commit(short: Log) -> None:
    """A size that was never synced: as torn as zeros, and as corrupt where MARK knows better."""
    blocks = short.blocks()
    with short.file_of().open("r+b") as file:
        for length in range(blocks[-1].end - 8, blocks[-1].offset, -8):
            file.truncate(length)
            kept = short.read(length, blocks[-1].offset)
            if length >= blocks[-1].offset + HEADER_BYTES + blocks[-1].length:
                continue
            _check_is_torn(short.end(), blocks[-1], blocks[-1].offset + len(kept.rstrip(b"\0")))
        file.truncate(blocks[-1].offset)
        end = short.end()
        assert (end.offset, end.torn_end, end.damage) == (blocks[-1].offset, 0, [])
        _check_is_corrupt(short.end(short.mark()), blocks[-1], "MARK")


@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("region", ["header", "directory", "body", "padding"])
def test_one_flipped_bit_is_no_tear(short: Log, number: int, region: str) -> None:
    """In the last commit no later one bears witness; but a torn write does not look like one flipped bit."""
    block = short.blocks()[number]
    short.write(bytes(short.file_of().stat().st_size - block.end), block.end)
    directory_end = block.offset + HEADER_BYTES + block.batch_count * ENTRY_BYTES
    body_end = block.offset + HEADER_BYTES + block.length
    start, end = {
        "header": (block.offset, block.offset + HEADER_BYTES),
        "directory": (block.offset + HEADER_BYTES, directory_end),
        "body": (directory_end, body_end),
        "padding": (body_end, block.end),
    }[region]
    for offset in range(start, end, max(1, (end - start) // 25)):
        short.flip(offset, 1 << offset % 8)
        _check_is_corrupt(short.end(), block, BIT)
        _check_is_corrupt(short.end(short.mark_before(block)), block, BIT)
        short.flip(offset, 1 << offset % 8)


def test_the_bits_of_the_counts_and_checksums(short: Log) -> None:
    """Half of the bits of length, counts and both checksums of the last commit: they say how much there is to check."""
    block = short.blocks()[-1]
    fields = [*range(8, 20), *range(60, 64), *range(HEADER_BYTES, HEADER_BYTES + ENTRY_BYTES)]
    for offset in (block.offset + place for place in fields):
        for bit in range(offset % 2, 8, 2):
            short.flip(offset, 1 << bit)
            _check_is_corrupt(short.end(), block, BIT)
            short.flip(offset, 1 << bit)


def test_a_flipped_bit_in_a_large_commit(tmp_path: Path) -> None:
    """A batch count that lost its highest bit asks for less directory than there is; the search looks at all of it."""
    with written_log(tmp_path / "store", shards=64) as (stream, _, logs):
        stream.append(some_changes(0, 100, text_bytes=1))
    (log,) = logs
    (block,) = log.blocks()
    for bit in range(block.batch_count.bit_length()):
        log.flip(block.offset + 12, 1 << bit)
        _check_is_corrupt(log.end(), block, BIT)
        log.flip(block.offset + 12, 1 << bit)


def test_two_flipped_bits_look_like_a_tear(short: Log) -> None:
    """The limit of what can be told of the very last commit, past the MARK that reached the disk."""
    block = short.blocks()[-1]
    short.flip(block.offset + 30, 0x11)
    _check_is_torn(short.end(), block, block.offset + HEADER_BYTES + block.length)


def test_a_later_commit_promises(short: Log) -> None:
    """Each but the last, damaged beyond explanation: a later one says that everything before it was synced."""
    blocks = short.blocks()
    for block, after in pairwise(blocks):
        for offset in (block.offset, block.offset + 20, block.offset + HEADER_BYTES, block.end - 20):
            saved = short.read(9, offset)
            short.write(bytes(byte ^ 0x5A for byte in saved), offset)
            end = short.end(None)
            _check_is_corrupt(end, block, PROMISE)
            assert end.damage[0].sequences == (block.first_sequence, after.first_sequence)
            assert (end.offset, end.next_sequence) == (blocks[-1].end, blocks[-1].next_sequence)
            assert end.records == 16
            short.write(saved, offset)


def test_several_places_of_damage(short: Log) -> None:
    """Each is told; the scan goes on behind it."""
    blocks = short.blocks()
    for number in (0, 2):
        short.write(bytes(HEADER_BYTES), blocks[number].offset)
    end = short.end()
    assert [damage.sequences for damage in end.damage] == [
        (block.first_sequence, block.next_sequence) for block in (blocks[0], blocks[2])
    ]
    assert end.next_sequence == blocks[-1].next_sequence


def test_mark_bears_witness(short: Log) -> None:
    """What it says was synced was there: its loss is corruption however it looks, zeros included."""
    blocks = short.blocks()
    mark = short.mark()
    assert mark is not None
    size = short.file_of().stat().st_size
    whole = short.read(size, 0)
    for number in (0, 2, 4):
        short.write(bytes(size - blocks[number].offset), blocks[number].offset)
        end = short.end(mark)
        _check_is_corrupt(end, blocks[number], "MARK")
        assert end.damage[0].sequences == (blocks[number].first_sequence, mark.next_sequence)
        assert (end.offset, end.next_sequence) == (mark.offset, mark.next_sequence)
        before = short.end(short.mark_before(blocks[number]))
        assert before.damage == []
        assert (before.offset, before.torn_end) == (blocks[number].offset, 0)
        short.write(whole, 0)


def test_what_was_synced_is_not_read_again(short: Log) -> None:
    """Bodies before MARK are left to readers; bodies behind it, and control records anywhere, are looked at."""
    blocks = short.blocks()
    for number, block in enumerate(blocks):
        offset = block.offset + HEADER_BYTES + block.batch_count * ENTRY_BYTES + 3
        saved = short.read(2, offset)
        short.write(bytes(byte ^ 0x5A for byte in saved), offset)
        assert short.end(short.mark()).damage == []
        witnesses = (PROMISE,) if number < 4 else ()
        behind = short.end(short.mark_before(block))
        if witnesses:
            _check_is_corrupt(behind, block, *witnesses)
        else:
            _check_is_torn(behind, block, block.offset + HEADER_BYTES + block.length)
        short.write(saved, offset)


def test_a_damaged_control_record_is_noticed(short: Log) -> None:
    """Also before MARK: state depends on it."""
    block = short.blocks()[2]
    short.write(b"\0\0", block.offset + HEADER_BYTES + block.length - 4)
    end = short.end(short.mark())
    _check_is_corrupt(end, block, "MARK", PROMISE)
    assert end.controls == []


def test_blocks_that_promise_nothing_are_no_witness(tmp_path: Path) -> None:
    """Level "os" syncs nothing: a later block may reach the disk before an earlier one, and both never happened."""
    with written_log(tmp_path / "store", durability="os") as (stream, _, logs):
        for number in range(4):
            stream.append(some_changes(number, 1))
    (log,) = logs
    blocks = log.blocks()
    assert {block.durable_sequence for block in blocks} == {1}
    log.write(bytes(blocks[1].end - blocks[1].offset), blocks[1].offset)
    _check_is_torn(log.end(), blocks[1], blocks[3].offset + HEADER_BYTES + blocks[3].length)
    _check_is_corrupt(log.end(log.mark()), blocks[1], "MARK")


def test_stale_bytes_of_a_commit_that_failed(short: Log) -> None:
    """Its header was zeroed, its bodies are still there: nothing of it comes back."""
    blocks = short.blocks()
    short.write(bytes(HEADER_BYTES), blocks[3].offset)
    short.write(bytes(blocks[4].end - blocks[4].offset), blocks[4].offset)
    _check_is_torn(
        short.end(short.mark_before(blocks[3])), blocks[3], blocks[3].offset + HEADER_BYTES + blocks[3].length
    )


def test_a_block_that_belongs_elsewhere_is_not_taken_up(short: Log) -> None:
    """A sound block behind the end that does not continue the chain: bytes of an earlier life of the file."""
    blocks = short.blocks()
    copy = short.read(blocks[1].end - blocks[1].offset, blocks[1].offset)
    last = blocks[-1]
    short.write(copy, last.end)
    end = short.end(short.mark())
    assert end.damage == []
    assert (end.offset, end.next_sequence) == (last.end, last.next_sequence)
    assert end.torn_end > last.end


def test_a_segment_without_a_successor(long: Log) -> None:
    """It was sealed, and the writer died before the next one had its name: the log ends before the footer."""
    blocks = long.blocks(2)
    long.file_of(3).unlink()
    end = long.end(long.mark_before(blocks[-1], 2))
    assert end.sealed
    assert end.damage == []
    assert (end.offset, end.next_sequence, end.last_crc) == (
        blocks[-1].end,
        blocks[-1].next_sequence,
        blocks[-1].crc,
    )


def test_a_footer_that_was_torn(long: Log) -> None:
    """Nobody needs it: it is the tail that never happened, and sealing is done again."""
    blocks = long.blocks(2)
    footer = blocks[-1].end
    size = long.file_of(2).stat().st_size
    whole = long.read(size - footer, footer, 2)
    long.file_of(3).unlink()
    for cut in range(1, len(whole) - TRAILER_BYTES, 17):
        long.write(bytes(size - footer - cut), footer + cut)
        end = long.end(long.mark_before(blocks[-1]))
        assert end.damage == []
        assert (end.offset, end.next_sequence) == (footer, blocks[-1].next_sequence)
        assert end.sealed is (cut >= HEADER_BYTES)
        assert end.sealed or end.torn_end == footer + len(whole[:cut].rstrip(b"\0"))
        long.write(whole, footer)


def test_a_segment_that_mark_knows_is_missing(long: Log) -> None:
    """It had its name and was synced: its loss is corruption, and the rest is still served."""
    mark = long.mark()
    assert mark is not None
    missing = long.file_of(3)
    blocks = long.blocks(2)
    missing.unlink()
    end = long.end(mark)
    (damage,) = end.damage
    assert damage.witnesses == ("MARK",)
    assert damage.sequences == (blocks[-1].next_sequence, mark.next_sequence)
    assert "segment 4" in str(damage)
    assert (end.offset, end.next_sequence) == (blocks[-1].end, mark.next_sequence)


def test_the_end_of_a_segment_that_mark_has_passed(long: Log) -> None:
    """MARK of a later segment says that all of this one was synced: zeros at its end are no tear."""
    mark = long.mark()
    long.file_of(3).unlink()
    blocks = long.blocks(2)
    long.write(bytes(blocks[-1].end - blocks[-1].offset), blocks[-1].offset, 2)
    end = long.end(mark)
    assert [damage.witnesses[0] for damage in end.damage] == ["MARK", "MARK"]
    assert end.damage[0].sequences is not None
    assert end.damage[0].sequences[0] == blocks[-1].first_sequence


@pytest.mark.parametrize("damage", ["zeros", "flip", "empty", "other"])
def test_the_last_header_cannot_be_read(long: Log, damage: str) -> None:
    """A segment gets its name after its header was synced: that is corruption. Its blocks are found and served."""
    blocks, path, mark = long.blocks(3), long.file_of(3), long.mark()
    assert mark is not None
    before = long.blocks(2)[-1]
    match damage:
        case "zeros":
            long.write(bytes(4096), 0, 3)
        case "flip":
            long.flip(30, 1, 3)
        case "empty":
            path.write_bytes(b"")
        case "other":
            long.write(long.read(4096, 0, 1), 0, 3)
    end = long.end(mark)
    first = end.damage[0]
    assert (first.segment, first.offset, first.witnesses) == (str(path), 0, ("the segment has its name",))
    assert end.header.segment_id == 4
    assert not end.sealed
    if damage == "empty":
        assert end.next_sequence == mark.next_sequence
    else:
        assert (end.offset, end.next_sequence) == (blocks[-1].end, blocks[-1].next_sequence)
        assert [row.offset for row in end.positions] == [blocks[0].offset]
    assert end.next_sequence > before.next_sequence


def test_a_later_segment_bears_witness(long: Log) -> None:
    """Where the last header is gone, the segment before is scanned: its tail was sealed, and cannot be torn."""
    blocks, last = long.blocks(2), long.blocks(3)[-1]
    long.write(bytes(4096), 0, 3)
    long.write(bytes(blocks[-1].end - blocks[-1].offset), blocks[-1].offset, 2)
    end = long.end(None)
    sealed = end.damage[1]
    assert sealed.segment == long.file_of(2).name
    assert sealed.witnesses[0] == "a later segment"
    assert sealed.sequences is not None
    assert sealed.sequences[0] == blocks[-1].first_sequence
    assert end.next_sequence == last.next_sequence


def test_no_header_can_be_read(long: Log) -> None:
    """Then nothing is known of the stream: CorruptLog."""
    for segment in range(4):
        long.write(bytes(4096), 0, segment)
    with pytest.raises(CorruptLog, match="magic"):
        long.end(long.mark())


def test_no_segment_is_there(long: Log) -> None:
    """Likewise; other files do not count."""
    for segment in long.segments:
        (Path(long.path) / f"{segment[0]:020d}-{segment[1]:08x}.seg").unlink()
    (Path(long.path) / "00000000000000000001-00000001.seg.tmp").touch()
    with pytest.raises(CorruptLog, match="found none"):
        long.end(long.mark())


def test_a_segment_of_a_later_version(long: Log) -> None:
    """Is unsupported, not corrupt; and not taken for the end of what came before."""
    header = bytearray(long.read(4096, 0, 3))
    snapshot_bytes = int.from_bytes(header[16:20], "little")
    header[8] = 2
    end = 112 + snapshot_bytes
    header[end : end + 4] = crc32c(bytes(header[:end])).to_bytes(4, "little")
    long.write(bytes(header), 0, 3)
    with pytest.raises(UnsupportedVersion, match="version 2"):
        long.end(long.mark())


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_commit_of_a_later_version(short: Log, number: int) -> None:
    """A newer release wrote here: not a torn tail, though nobody bears witness."""
    block = short.blocks()[number]
    header = bytearray(short.read(HEADER_BYTES, block.offset))
    header[6] = 2
    directory = short.read(block.batch_count * ENTRY_BYTES, block.offset + HEADER_BYTES)
    header[60:] = crc32c(directory, crc32c(bytes(header[:60]), short.seed())).to_bytes(4, "little")
    short.write(bytes(header), block.offset)
    with pytest.raises(UnsupportedVersion, match="version 2"):
        short.end(short.mark_before(block))


@pytest.fixture
def checkpointed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    """A segment with several checkpoints, made where usually a megabyte lies between two."""
    monkeypatch.setattr(plan_module, "CHECKPOINT_STRIDE_BYTES", 1500)
    with written_log(tmp_path / "store", shards=2) as (stream, _, logs):
        for number in range(12):
            stream.append(some_changes(number * 10, 3), producer=f"p{number % 3}", position=number)
    return logs[0]


def _meaning(end: LogEnd) -> object:
    """What a scan comes to, wherever it began."""
    snapshot = decode_state(end.snapshot)
    counts = dict(snapshot.counts)
    for shard, count in end.counts.items():
        counts[shard] = add_counts(counts.get(shard), *count)
    return (
        fold(snapshot.state, end.controls),
        {**snapshot.producers, **positions_of(end.controls)},
        counts,
        (end.offset, end.next_sequence, end.records, end.last_crc, end.timestamp_us),
        [tuple(row) if isinstance(row, tuple) else row for row in end.positions],
        end.checkpoint,
    )


def test_a_scan_from_a_checkpoint_comes_to_the_same(checkpointed: Log) -> None:
    """As one from the header: it is only shorter."""
    mark = checkpointed.mark()
    assert mark is not None
    assert mark.checkpoint > checkpointed.blocks()[3].offset
    whole, short_cut = checkpointed.end(None), checkpointed.end(mark)
    assert _meaning(short_cut) == _meaning(whole)
    assert len(short_cut.controls) < len(whole.controls)
    assert whole.checkpoint == mark.checkpoint


def test_a_checkpoint_spares_what_lies_before_it(checkpointed: Log) -> None:
    """Damage there is for readers to find: it was synced."""
    mark = checkpointed.mark()
    expected = _meaning(checkpointed.end(mark))
    checkpointed.write(bytes(500), checkpointed.blocks()[1].offset)
    assert checkpointed.end(mark).damage == []
    assert _meaning(checkpointed.end(mark)) == expected


def test_a_checkpoint_that_cannot_be_read(checkpointed: Log, caplog: pytest.LogCaptureFixture) -> None:
    """The scan starts at the header, and finds what is wrong there."""
    mark = checkpointed.mark()
    assert mark is not None
    (block,) = (block for block in checkpointed.blocks() if block.offset == mark.checkpoint)
    checkpointed.write(bytes(HEADER_BYTES), block.offset)
    end = checkpointed.end(mark)
    assert f"the checkpoint at {mark.checkpoint} cannot be read" in caplog.text
    assert end.damage[0].offset == block.offset
    assert end.damage[0].witnesses[0] == "MARK"


@pytest.mark.parametrize("place", ["a block without one", "the middle of a block", "behind the end", "the header"])
def test_a_mark_that_names_no_checkpoint(checkpointed: Log, place: str, caplog: pytest.LogCaptureFixture) -> None:
    """Costs a longer scan, and nothing else."""
    mark, blocks = checkpointed.mark(), checkpointed.blocks()
    assert mark is not None
    offset = {
        "a block without one": blocks[1].offset,
        "the middle of a block": mark.checkpoint + 8,
        "behind the end": 16_000,
        "the header": 16,
    }[place]
    assert _meaning(checkpointed.end(replace(mark, checkpoint=offset))) == _meaning(checkpointed.end(None))
    assert "cannot be read" in caplog.text


def test_the_numbers_of_control_records(short: Log) -> None:
    """A control record's number lies behind those of its commit's records."""
    block = short.blocks()[2]
    file = FILES.open_to_read(str(short.file_of()))
    assert block.record_count == 3
    assert file.pread(4, block.offset + HEADER_BYTES + 2 * ENTRY_BYTES) == CONTROL_SHARD.to_bytes(4, "little")
    file.close()
    assert find_log_end(FILES, short.path, None).controls[0][0] == block.next_sequence - 1


def test_a_roll_that_was_cut_short_is_gone_on_with(store_path: Path) -> None:
    """Found once: a segment that rolled by age is sealed shorter than what is kept free for footers.

    If the writer died before the successor had its name, the room left in it came out negative, and the stream could
    not be opened any more.
    """
    clock, files = ManualClock(), FaultyFiles()
    with open_with(store_path, files, clock=clock) as store:
        stream = store.create_stream("s")
        stream.append(some_changes(1, 1))
        clock.advance(timedelta(hours=7))
        files.arm(lambda step: step.operation == "rename" and step.is_segment, failing)
        with pytest.raises(StorageFailed):
            stream.append(some_changes(2, 1))
    with shardlog.open(store_path, clock=clock) as store:
        stream = store.stream("s")
        stream.append(some_changes(3, 1))
        assert [record.keys["id"] for record in records_only(stream.read())] == [1, 3]

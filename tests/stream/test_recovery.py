"""What opening makes of a log that a crash or the disk has changed behind its end, or before it."""

from __future__ import annotations

import json
import logging
import random
import shutil
from pathlib import Path

import pytest
from tests.support.history import Append, appends_of, batch, changes, check_holds, new_stream, records_only, seen_in

import shardlog
from shardlog import CorruptLog, Gap, Record, Store, Stream
from shardlog.format.mark import BLOCK_BYTES, decode_mark

APPENDS = 5  # fewer than fill a segment


def last_segment(store_path: Path) -> Path:
    """The active segment of stream "s"."""
    return sorted(store_path.glob("streams/s/*/log/*.seg"))[-1]


def lost_and_found(store_path: Path) -> dict[str, bytes]:
    """What recovery set aside."""
    return {path.name: path.read_bytes() for path in store_path.glob("streams/s/*/lost+found/*")}


class Crashed:
    """A store as a crash left it: whole up to `end`, which MARK knows; `acknowledged` is what it must hold."""

    def __init__(self, path: Path, end: int, starts: list[int], acknowledged: dict[Append, list[int]]) -> None:
        self.path = path
        self.end = end
        self.starts = starts
        self.acknowledged = acknowledged
        self.next_sequence = 1 + max(max(sequences) for sequences in acknowledged.values())

    @property
    def segment(self) -> Path:
        return last_segment(self.path)

    def write_behind(self, content: bytes, distance: int = 0) -> None:
        """Put bytes behind the end."""
        with self.segment.open("r+b") as file:
            file.seek(self.end + distance)
            file.write(content)

    def flip(self, offset: int, bit: int = 0) -> None:
        """Flip one bit of the active segment."""
        with self.segment.open("r+b") as file:
            file.seek(offset)
            (byte,) = file.read(1)
            file.seek(offset)
            file.write(bytes([byte ^ 1 << bit]))

    def forget_mark(self, commits_back: int) -> None:
        """Let MARK be as it was before the last commits, or (0) as new."""
        (path,) = self.path.glob("streams/s/*/MARK")
        content = bytearray(path.read_bytes())
        content[: 2 * BLOCK_BYTES] = bytes(2 * BLOCK_BYTES)
        path.write_bytes(content)
        assert decode_mark(bytes(content)) is None
        assert commits_back == 0


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Crashed:
    """A store that was copied while it was in use, as a crash would have left it."""
    path = tmp_path_factory.mktemp("crashed") / "store"
    copy = path.with_name("copy")
    with shardlog.open(path) as store:
        stream = new_stream(store, shards=2)
        acknowledged = {}
        starts = []
        for number in range(APPENDS):
            starts.append(stream._stream.tail().offset)
            acknowledged["a", number] = stream.append(batch("a", number, 3)).sequences
        assert stream.statistics().segments == 1
        shutil.copytree(path, copy)
        return Crashed(copy, stream._stream.tail().offset, starts, acknowledged)


@pytest.fixture
def crashed(template: Crashed, store_path: Path) -> Crashed:
    """A copy of it to be damaged."""
    shutil.copytree(template.path, store_path)
    return Crashed(store_path, template.end, template.starts, template.acknowledged)


def whole_block(crashed: Crashed, keep: int) -> bytes:
    """A block that continues the log, as a writer that died would have written it; its first `keep` bytes."""
    copy = crashed.path.with_name("to take a block from")
    if not copy.exists():
        shutil.copytree(crashed.path, copy)
        with shardlog.open(copy) as store:
            store.stream("s").append(batch("torn", 0, 3))
    content = last_segment(copy).read_bytes()[crashed.end :]
    block = content[: content.index(b"SLOG", 4)] if b"SLOG" in content[4:] else content
    return block.rstrip(b"\0")[:keep]


# Torn tails


@pytest.mark.parametrize("keep", [1, 7, 8, 63, 64, 65, 100, 300, 400])
@pytest.mark.parametrize("forgets_mark", [False, True])
def test_a_torn_block_is_set_aside(
    crashed: Crashed, keep: int, forgets_mark: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A block of which a part was written: it never was; its bytes are kept, numbers go on, in a new segment."""
    torn = whole_block(crashed, keep)
    crashed.write_behind(torn)
    if forgets_mark:
        crashed.forget_mark(0)
    with shardlog.open(crashed.path) as again:
        stream = again.stream("s")
        assert check_holds(stream, crashed.acknowledged).keys() == crashed.acknowledged.keys()
        assert stream.next_sequence == crashed.next_sequence
        result = stream.append(batch("b", 0, 3))
        assert min(result.sequences) == crashed.next_sequence
        assert stream.statistics().segments == 2
    assert "torn tail" in caplog.text
    aside = lost_and_found(crashed.path)
    (kept,) = [content for name, content in aside.items() if not name.endswith(".json")]
    assert kept.rstrip(b"\0") == torn.rstrip(b"\0")
    (manifest,) = [
        json.loads(content) for name, content in lost_and_found(crashed.path).items() if name.endswith(".json")
    ]
    assert manifest["offset"] == crashed.end
    wanted = crashed.acknowledged | {("b", 0): result.sequences}
    with shardlog.open(crashed.path) as again:
        assert check_holds(again.stream("s"), wanted).keys() == wanted.keys()


def test_a_whole_block_that_was_never_published_is_adopted_or_not(crashed: Crashed) -> None:
    """The writer died between its write and its acknowledgement: whole, it is taken over, and stays."""
    crashed.write_behind(whole_block(crashed, 1 << 20))
    found = []
    for _ in range(2):
        with shardlog.open(crashed.path) as again:
            found.append(check_holds(again.stream("s"), crashed.acknowledged))
    assert found[0] == found[1]
    assert found[0].keys() == {*crashed.acknowledged, ("torn", 0)}
    assert lost_and_found(crashed.path) == {}


def test_garbage_behind_the_end_is_set_aside(crashed: Crashed, seed: int) -> None:
    """Any bytes behind the end, near or far, are kept apart and disturb nothing."""
    choices = random.Random(seed)
    for distance in (0, 8, 100, 2000):
        crashed.write_behind(choices.randbytes(50), distance)
    with shardlog.open(crashed.path) as again:
        stream = again.stream("s")
        assert check_holds(stream, crashed.acknowledged).keys() == crashed.acknowledged.keys()
        result = stream.append(batch("b", 0, 3))
    assert lost_and_found(crashed.path)
    wanted = crashed.acknowledged | {("b", 0): result.sequences}
    with shardlog.open(crashed.path) as again:
        assert check_holds(again.stream("s"), wanted).keys() == wanted.keys()


def test_bytes_of_an_earlier_block_do_not_pass_for_one(crashed: Crashed) -> None:
    """Stale blocks behind the end, whole and with right checksums, do not continue the log."""
    content = crashed.segment.read_bytes()
    crashed.write_behind(content[crashed.starts[2] : crashed.end])
    with shardlog.open(crashed.path) as again:
        stream = again.stream("s")
        assert check_holds(stream, crashed.acknowledged).keys() == crashed.acknowledged.keys()
        assert stream.next_sequence == crashed.next_sequence


def test_blocks_stored_as_user_data_do_not_pass_for_blocks(store: Store, store_path: Path) -> None:
    """A segment's own bytes as values of records: not taken for commits, not even behind damage."""
    stream = new_stream(store, shards=2)
    for number in range(3):
        stream.append(batch("a", number, 3))
    content = last_segment(store_path).read_bytes()[4096:9000]
    for number in range(10):
        image = {"id": number, "blob": content}
        stream.append([shardlog.Change.insert(keys={"id": number}, new=image)])
    held = seen_in(records_only(stream.read()))
    store.close()
    first = min(store_path.glob("streams/s/*/log/*.seg"))
    damaged = bytearray(first.read_bytes())
    damaged[damaged.index(b"SLOG", 4200)] ^= 1
    first.write_bytes(damaged)
    with shardlog.open(store_path) as again:
        found = seen_in(item for item in again.stream("s").read(on_damage="gap") if isinstance(item, Record))
        assert found.items() <= held.items()
        assert len(found) == len(held) - 3


def test_only_zeros_behind_the_end_go_on_in_place(crashed: Crashed, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing torn: writing goes on in the same segment, and nothing is set aside or said."""
    with shardlog.open(crashed.path) as again:
        stream = again.stream("s")
        stream.append(batch("b", 0, 3))
        assert stream.statistics().segments == 1
    assert lost_and_found(crashed.path) == {}
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]


@pytest.mark.parametrize("cut", [0, 1, 4000])
def test_a_file_that_ends_at_its_last_block(crashed: Crashed, cut: int) -> None:
    """The size of a file may be lost (or grow) without its data: what was synced is all that is needed."""
    with crashed.segment.open("r+b") as file:
        file.truncate(crashed.end + cut)
    with shardlog.open(crashed.path) as again:
        stream = again.stream("s")
        assert check_holds(stream, crashed.acknowledged).keys() == crashed.acknowledged.keys()
        acknowledged = crashed.acknowledged | {("b", n): stream.append(batch("b", n, 3)).sequences for n in range(30)}
        assert check_holds(stream, acknowledged).keys() == acknowledged.keys()


def test_recovery_twice_is_recovery_once(crashed: Crashed) -> None:
    """Opening after a crash, and again before anything was appended, changes nothing more."""
    crashed.write_behind(whole_block(crashed, 200))
    states = []
    for _ in range(3):
        with shardlog.open(crashed.path) as again:
            stream = again.stream("s")
            states.append((seen_in(records_only(stream.read())), stream.next_sequence, lost_and_found(crashed.path)))
    assert states[0] == states[1] == states[2]


def test_an_index_of_nobody_is_not_believed(crashed: Crashed, template: Crashed, tmp_path: Path) -> None:
    """An index that opens without error and points into the past is made anew: newer records are there."""
    old = tmp_path / "old"
    shutil.copytree(crashed.path, old)
    with shardlog.open(crashed.path) as again:
        result = again.stream("s").append(batch("b", 0, 3))
    (mine,), (theirs,) = crashed.path.glob("streams/s/*/index"), old.glob("streams/s/*/index")
    shutil.rmtree(mine)
    shutil.copytree(theirs, mine)
    wanted = crashed.acknowledged | {("b", 0): result.sequences}
    with shardlog.open(crashed.path) as again:
        assert check_holds(again.stream("s"), wanted).keys() == wanted.keys()


# Corruption


HEADER_PLACES = {
    "magic": 0,
    "type": 4,
    "version": 6,
    "length": 8,
    "records": 16,
    "sequence": 24,
    "crc": 60,
    "entry": 66,
}


def damaged_readings(crashed: Crashed, number: int) -> None:
    """To write: CorruptLog with witnesses. To read: everything but append `number`, whose range is told."""
    before = {path: path.read_bytes() for path in crashed.path.rglob("*.seg")}
    lost = crashed.acknowledged["a", number]
    with shardlog.open(crashed.path) as again:
        with pytest.raises(CorruptLog) as caught:
            again.stream("s")
        error = caught.value
        assert error.segment is not None
        assert crashed.segment.name in error.segment
        assert error.offset == crashed.starts[number]
        assert error.sequences is not None
        assert error.sequences[0] <= min(lost) <= max(lost) < error.sequences[1]
        assert error.witnesses
        for witness in error.witnesses:
            assert witness in str(error)
    with shardlog.open(crashed.path, read_only=True) as reading:
        stream = reading.stream("s")
        found = list(stream.read(on_damage="gap"))
        records = [item for item in found if isinstance(item, Record)]
        gaps = [item for item in found if isinstance(item, Gap)]
        kept = {append: sequences for append, sequences in crashed.acknowledged.items() if append[1] != number}
        assert gaps
        covered = {sequence for gap in gaps for sequence in range(gap.first, gap.next)}
        assert not covered & {record.sequence for record in records}
        assert covered | {record.sequence for record in records} >= set(range(1, crashed.next_sequence))
        whole = [record for record in records if record.sequence not in lost]
        assert appends_of(whole) == kept
        with pytest.raises(CorruptLog) as raised:
            list(stream.read())
        assert raised.value.sequences is not None
        assert numbers_from(stream, gaps[-1].next) == [
            record.sequence for record in records if record.sequence >= gaps[-1].next
        ]
    assert {path: path.read_bytes() for path in crashed.path.rglob("*.seg")} == before
    assert lost_and_found(crashed.path) == {}


def numbers_from(stream: Stream, sequence: int) -> list[int]:
    """Sequence numbers from one on."""
    return [record.sequence for record in records_only(stream.read(sequence))]


@pytest.mark.parametrize("place", HEADER_PLACES)
@pytest.mark.parametrize("number", [0, 2, APPENDS - 1])
def test_a_flipped_bit_before_the_end_is_corruption(crashed: Crashed, number: int, place: str) -> None:
    """One bit in a commit that MARK (or a later commit) knows to be durable, the last one included."""
    crashed.flip(crashed.starts[number] + HEADER_PLACES[place], bit=5)
    damaged_readings(crashed, number)


@pytest.mark.parametrize("number", [0, 2, APPENDS - 1])
def test_a_flipped_bit_in_a_body_is_told_when_it_is_read(crashed: Crashed, number: int) -> None:
    """What MARK knows to be durable is not read at opening: a body's damage stops no writer, and every reader."""
    crashed.flip(crashed.starts[number] + 150)
    lost = crashed.acknowledged["a", number]
    for read_only in (True, False):
        with shardlog.open(crashed.path, read_only=read_only) as again:
            stream = again.stream("s")
            found = list(stream.read(on_damage="gap"))
            (gap,) = [item for item in found if isinstance(item, Gap)]
            assert min(lost) <= gap.first < gap.next <= max(lost) + 1
            present = {item.sequence for item in found if isinstance(item, Record)}
            assert present == set(range(1, crashed.next_sequence)) - set(range(gap.first, gap.next))
            with pytest.raises(CorruptLog) as caught:
                list(stream.read())
            assert caught.value.sequences == (gap.first, gap.next)
            if not read_only:
                assert min(stream.append(batch("b", 0, 3)).sequences) == crashed.next_sequence


@pytest.mark.parametrize("place", [*HEADER_PLACES, "body"])
def test_a_flipped_bit_in_the_last_commit_explains_itself(crashed: Crashed, place: str) -> None:
    """Even where MARK says nothing: a torn write does not differ by one bit from a whole one."""
    crashed.forget_mark(0)
    crashed.flip(crashed.starts[-1] + HEADER_PLACES.get(place, 150), bit=5)
    damaged_readings(crashed, APPENDS - 1)


@pytest.mark.parametrize("forgets_mark", [False, True])
def test_a_later_commit_is_a_witness(crashed: Crashed, forgets_mark: bool) -> None:
    """Many wrong bytes in the middle: the commits behind them promise that what was before was durable."""
    if forgets_mark:
        crashed.forget_mark(0)
    crashed.write_behind(b"\xaa" * 100, crashed.starts[2] + 80 - crashed.end)
    damaged_readings(crashed, 2)


def test_what_mark_knows_is_not_torn(crashed: Crashed) -> None:
    """The last commit overwritten with garbage: MARK is the witness."""
    crashed.write_behind(b"\xaa" * 100, crashed.starts[-1] - crashed.end)
    damaged_readings(crashed, APPENDS - 1)


def test_a_log_cut_short_before_mark_is_corruption(crashed: Crashed) -> None:
    """The file ends before what MARK says was synced."""
    with crashed.segment.open("r+b") as file:
        file.truncate(crashed.starts[-1])
    damaged_readings(crashed, APPENDS - 1)


def test_a_lost_last_segment_is_corruption(store: Store, store_path: Path) -> None:
    """MARK knows the segment that is gone: to write it is refused, to read the rest is served."""
    stream = new_stream(store)
    number = 0
    acknowledged = {}
    while stream.statistics().segments < 3:
        acknowledged["a", number] = stream.append(batch("a", number, 3)).sequences
        number += 1
    store.close()
    gone = last_segment(store_path)
    gone.unlink()
    first_lost = int(gone.name.split("-")[0])
    with shardlog.open(store_path) as again, pytest.raises(CorruptLog, match="MARK"):
        again.stream("s")
    with shardlog.open(store_path, read_only=True) as reading:
        stream = reading.stream("s")
        found = list(stream.read(on_damage="gap"))
        kept = {append: sequences for append, sequences in acknowledged.items() if sequences[-1] < first_lost}
        assert appends_of(item for item in found if isinstance(item, Record)) == kept
        with pytest.raises(CorruptLog):
            list(stream.read())


@pytest.mark.parametrize("offset", [0, 9, 13, 20, 26, 60, 111, 130])
def test_a_damaged_header_of_the_last_segment(crashed: Crashed, offset: int) -> None:
    """To write it is refused; to read, nothing that can be verified is kept back, and nothing is made up."""
    crashed.flip(offset, bit=1)
    with shardlog.open(crashed.path) as again, pytest.raises(CorruptLog):
        again.stream("s")
    with shardlog.open(crashed.path, read_only=True) as reading, pytest.raises(CorruptLog):
        list(reading.stream("s").read())


def test_a_sealed_segment_without_its_successor(store: Store, store_path: Path, tmp_path: Path) -> None:
    """A crash between sealing and naming: the next number goes to a new segment."""
    stream = new_stream(store)
    number = 0
    acknowledged = {}
    while stream.statistics().segments < 2:
        acknowledged["a", number] = stream.append(batch("a", number, 3)).sequences
        number += 1
    copy = tmp_path / "copy"
    shutil.copytree(store_path, copy)
    before = {append: sequences for append, sequences in acknowledged.items() if append[1] < number - 1}
    last_segment(copy).unlink()
    (mark,) = copy.glob("streams/s/*/MARK")
    content = bytearray(mark.read_bytes())
    content[: 2 * BLOCK_BYTES] = bytes(2 * BLOCK_BYTES)
    mark.write_bytes(content)
    with shardlog.open(copy) as again:
        stream = again.stream("s")
        assert check_holds(stream, before).keys() == before.keys()
        before["b", 0] = stream.append(batch("b", 0, 3)).sequences
        assert stream.statistics().segments == 2
    with shardlog.open(copy) as again:
        assert check_holds(again.stream("s"), before).keys() == before.keys()


def test_other_files_in_the_log_directory_are_left_alone(crashed: Crashed) -> None:
    """What is not a segment's name is nobody's: it is neither read nor removed."""
    strange = crashed.segment.with_name("notes.txt")
    strange.write_text("mine")
    with shardlog.open(crashed.path) as again:
        assert check_holds(again.stream("s"), crashed.acknowledged).keys() == crashed.acknowledged.keys()
        again.stream("s").append(changes(0, 1))
    assert strange.read_text() == "mine"

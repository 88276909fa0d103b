"""Stepping through a segment: every block that is there, and every number that is not, exactly once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.log.memory_file import SEED, Made, MemoryFile, made_block, made_log

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.format.commit import ALIGNMENT, FOOTER, HEADER_BYTES, encode_block, seed_of
from shardlog.format.segment import HEADER_STEP
from shardlog.log import walk as walk_module
from shardlog.log.walk import Block, Damage, Span, Steps, find_block, find_block_behind, is_zero, walk

START = 4096
FIRST = 11
HEADER_CRC = 0xC0FFEE


@pytest.fixture(params=[64, 96, 1000, 256 << 10], ids=lambda piece: f"pieces of {piece}")
def piece_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How much is read at once: headers, directories and bodies straddle pieces in all ways."""
    monkeypatch.setattr(walk_module, "PIECE_BYTES", request.param)
    piece: int = request.param
    return piece


def _log(blocks: list[list[bytes]]) -> tuple[bytes, list[Made]]:
    return made_log(blocks, START, FIRST, HEADER_CRC)


def _span(made: list[Made], **changes: int | None) -> Span:
    whole = Span(START, made[-1].end, SEED, HEADER_CRC, FIRST, made[-1].next)
    return replace(whole, **changes)  # type: ignore[arg-type]  # the fields are integers


def _walked(content: bytes, span: Span, *, bodies: bool = True) -> list[Block | Damage]:
    return list(walk(MemoryFile(content), span, bodies=bodies))  # type: ignore[arg-type]  # it has what is needed


def _check_is(block: Block | Damage, made: Made) -> None:
    assert isinstance(block, Block)
    header = block.header
    assert (header.offset, header.end, header.crc) == (made.start, made.end, made.crc)
    assert (header.first_sequence, header.next_sequence) == (made.first, made.next)
    assert [block.body(batch) for batch in block.batches()] == made.bodies


bodies_lists = st.lists(
    st.lists(st.integers(min_value=0, max_value=400).map(bytes), min_size=1, max_size=6), max_size=8
)
some_blocks = bodies_lists.filter(len)
# The fixture only sets the size of a piece, which is the same for all examples.
exploring = settings(
    max_examples=25, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(blocks=some_blocks, bodies=st.booleans(), behind=st.integers(min_value=0, max_value=600))
@exploring
def test_every_block_in_order(piece_bytes: int, blocks: list[list[bytes]], bodies: bool, behind: int) -> None:
    """Whatever the sizes of blocks and pieces, whether bodies are wanted or not, whatever lies behind the end."""
    content, made = _log(blocks)
    walked = _walked(content + b"\xaa" * behind, _span(made), bodies=bodies)
    assert len(walked) == len(made)
    for block, what in zip(walked, made, strict=True):
        _check_is(block, what)


@given(blocks=some_blocks, data=st.data())
@exploring
def test_what_is_damaged_is_told_and_the_rest_is_there(
    piece_bytes: int, blocks: list[list[bytes]], data: st.DataObject
) -> None:
    """Blocks and damage together cover every number and every byte once, in order; undamaged blocks are all there."""
    content, made = _log(blocks)
    start = data.draw(st.integers(min_value=START, max_value=made[-1].end - 1))
    length = data.draw(st.integers(min_value=1, max_value=600))
    filler = data.draw(st.sampled_from([b"\0", b"\xff", b"SLOG"]))
    changed = bytearray(content)
    changed[start : start + length] = (filler * length)[: max(0, min(length, len(content) - start))]
    _check_covers(bytes(changed), content, made, _walked(bytes(changed), _span(made)))


def _check_covers(changed: bytes, content: bytes, made: list[Made], walked: list[Block | Damage]) -> None:
    sequence, offset = FIRST, START
    for item in walked:
        if isinstance(item, Block):
            assert (item.header.first_sequence, item.header.offset) == (sequence, offset)
            sequence, offset = item.header.next_sequence, item.header.end
        else:
            assert (item.first, item.offset) == (sequence, offset)
            assert item.reason
            sequence, offset = item.next, item.end
    assert (sequence, offset) == (made[-1].next, made[-1].end)
    found = {item.header.offset: item for item in walked if isinstance(item, Block)}
    for what in made:
        is_sound = all(
            changed[start:end] == content[start:end]
            for start, end in ((what.start, what.header_end), (what.bodies_end, what.end))
        )
        assert (what.start in found) is is_sound
        if changed[what.start : what.end] == content[what.start : what.end]:
            _check_is(found[what.start], what)


BLOCKS = [[b"one"], [b"two", b"three"], [b"four"], [b"five" * 30], [b"six"]]


def test_each_place_of_damage(piece_bytes: int) -> None:
    """Each byte of each block's header and directory, changed: that block alone is damage, whatever the byte."""
    content, made = _log(BLOCKS)
    for number, what in enumerate(made):
        for at in range(what.start, what.header_end):
            changed = bytearray(content)
            changed[at] ^= 0x41
            walked = _walked(bytes(changed), _span(made))
            assert len(walked) == len(made)
            damage = walked[number]
            assert isinstance(damage, Damage)
            assert (damage.first, damage.next, damage.offset, damage.end) == (
                what.first,
                what.next,
                what.start,
                what.end,
            )
            assert damage.shard is None
            for block, other in zip(
                walked[:number] + walked[number + 1 :], made[:number] + made[number + 1 :], strict=True
            ):
                _check_is(block, other)


def test_a_damaged_body_harms_its_batch_alone(piece_bytes: int) -> None:
    """The block is there, its other batches are read; the one that was changed raises CorruptLog when asked for."""
    content, made = _log([[b"first" * 20, b"second" * 20, b"third" * 20]])
    at = content.index(b"second") + 7
    (block,) = _walked(content[:at] + b"!" + content[at + 1 :], _span(made))
    assert isinstance(block, Block)
    first, second, third = block.batches()
    assert (block.body(first), block.body(third)) == (b"first" * 20, b"third" * 20)
    with pytest.raises(CorruptLog, match="batch checksum"):
        block.body(second)


@pytest.mark.parametrize("body_bytes", [1, 1001, (256 << 10) + 1, (1 << 20) + 1])
def test_padding_is_checked(body_bytes: int) -> None:
    """A bit in the zeros behind a block is damage, though nothing is lost with it, however large the block is."""
    content, made = _log([[bytes(body_bytes)], [b"y"]])
    assert made[0].end - made[0].bodies_end == 7
    for at in range(made[0].bodies_end, made[0].end):
        damage, block = _walked(content[:at] + b"\1" + content[at + 1 :], _span(made))
        assert isinstance(damage, Damage)
        assert "padding" in damage.reason
        _check_is(block, made[1])


def test_several_stretches_of_damage() -> None:
    """Each is told by itself; what lies between them is read."""
    content, made = _log(BLOCKS)
    changed = bytearray(content)
    for number in (1, 3):
        changed[made[number].start] ^= 1
    walked = _walked(bytes(changed), _span(made))
    assert [type(item) for item in walked] == [Block, Damage, Block, Damage, Block]
    for number in (0, 2, 4):
        _check_is(walked[number], made[number])


def test_damage_at_the_end_goes_to_the_end() -> None:
    """The numbers up to the end of the stretch are missing, as far as it is known to go."""
    content, made = _log(BLOCKS)
    walked = _walked(content[: made[3].start], _span(made))
    assert len(walked) == 4
    damage = walked[3]
    assert isinstance(damage, Damage)
    assert (damage.first, damage.next, damage.offset, damage.end) == (
        made[3].first,
        made[4].next,
        made[3].start,
        made[4].end,
    )


@pytest.mark.parametrize("cut", range(1, 200, 7))
def test_a_file_that_was_cut(piece_bytes: int, cut: int) -> None:
    """Wherever it ends: what is whole is read, the rest is damage or raises, and nothing is made up."""
    content, made = _log(BLOCKS)
    kept = content[:-cut]
    walked = _walked(kept, _span(made))
    for item, what in zip(walked, made, strict=False):
        if what.bodies_end <= len(kept):
            _check_is(item, what)
        elif isinstance(item, Block):
            with pytest.raises(CorruptLog):
                _check_is(item, what)
        else:
            assert (item.first, item.offset, item.next) == (what.first, what.start, made[-1].next)
            break


def test_a_block_out_of_the_chain_is_damage() -> None:
    """A sound block that continues another one than it should, as stale bytes of an earlier try do."""
    content, made = _log([[b"one"]])
    stale, what = made_block([b"stale"], len(content), made[0].next, HEADER_CRC)
    block, damage = _walked(content + stale, _span([*made, what]))
    _check_is(block, made[0])
    assert isinstance(damage, Damage)
    assert "continues" in damage.reason


def test_the_chain_begins_at_the_header() -> None:
    """The first block continues the segment's header; where a reader starts in the middle, it takes the chain up."""
    content, made = _log(BLOCKS)
    (first, *_) = _walked(content, _span(made, previous_crc=HEADER_CRC ^ 1))
    assert isinstance(first, Damage)
    middle = _walked(content, _span(made, start=made[2].start, previous_crc=None, next_sequence=made[2].first))
    for block, what in zip(middle, made[2:], strict=True):
        _check_is(block, what)


def test_numbers_do_not_go_back() -> None:
    """A sound block of numbers that were there before is damage; numbers may be left out."""
    content, made = _log([[b"one", b"two"]])
    again, back = made_block([b"again"], len(content), made[0].next - 1, made[0].crc)
    _, damage = _walked(content + again, _span([*made, back], end_sequence=99))
    assert isinstance(damage, Damage)
    assert (damage.first, damage.next) == (made[0].next, 99)
    later, jumped = made_block([b"later"], len(content), made[0].next + 1000, made[0].crc)
    _, block = _walked(content + later, _span([*made, jumped]))
    _check_is(block, jumped)


def test_a_block_that_crosses_the_end_is_damage() -> None:
    """No byte beyond the end is kept: a dead writer's block may be overwritten there."""
    content, made = _log(BLOCKS)
    for end in range(made[3].start + ALIGNMENT, made[3].end, ALIGNMENT):
        *blocks, damage = _walked(content, _span(made, end=end, end_sequence=made[3].first))
        assert len(blocks) == 3
        assert isinstance(damage, Damage)
        assert (damage.offset, damage.end, damage.next) == (made[3].start, end, made[3].first)


def test_an_empty_stretch() -> None:
    """Nothing to step through: nothing is read."""
    file = MemoryFile(b"")
    assert list(walk(file, Span(START, START, SEED, HEADER_CRC, FIRST, FIRST), bodies=True)) == []  # type: ignore[arg-type]
    assert file.reads == []


def test_a_directory_larger_than_a_piece() -> None:
    """20,000 batches take 320 KB of directory; a piece is 256 KiB."""
    content, made = _log([[b"small"], [b"x"] * 20_000, [b"after"]])
    for bodies in (True, False):
        for block, what in zip(_walked(content, _span(made), bodies=bodies), made, strict=True):
            _check_is(block, what)


def test_a_commit_larger_than_a_piece(seed: int) -> None:
    """It is read whole once where bodies are wanted, and not at all where they are not."""
    large = random.Random(seed).randbytes(3 << 20)
    content, made = _log([[b"before"], [large, b"tail"], [b"after"]])
    for block, what in zip(_walked(content, _span(made)), made, strict=True):
        _check_is(block, what)
    file = MemoryFile(content)
    headers = list(walk(file, _span(made), bodies=False))  # type: ignore[arg-type]  # it has what is needed
    assert len(headers) == 3
    assert sum(length for length, _ in file.reads) < 1 << 20


def test_bytes_are_read_in_large_pieces() -> None:
    """One read for many small blocks."""
    content, made = _log([[b"x" * 100]] * 1000)
    file = MemoryFile(content)
    assert len(list(walk(file, _span(made), bodies=True))) == 1000  # type: ignore[arg-type]  # it has what is needed
    assert len(file.reads) <= 2


def test_a_block_of_a_later_version_is_unsupported() -> None:
    """Not damage: what comes after it may mean anything."""
    content, made = _log(BLOCKS)
    start = made[1].start
    header = bytearray(content[start : start + HEADER_BYTES])
    header[6] = 2
    directory = content[start + HEADER_BYTES : made[1].header_end]
    crc = crc32c(directory, crc32c(bytes(header[:60]), SEED))
    later = content[:start] + bytes(header[:60]) + crc.to_bytes(4, "little") + content[start + HEADER_BYTES :]
    walked: Iterator[Block | Damage] = walk(MemoryFile(later), _span(made), bodies=True)  # type: ignore[arg-type]
    _check_is(next(walked), made[0])
    with pytest.raises(UnsupportedVersion):
        next(walked)


def test_steps_stop_where_something_is_wrong() -> None:
    """They raise, and know the offset and the number that they had come to."""
    content, made = _log(BLOCKS)
    changed = bytearray(content)
    changed[made[2].start + 30] ^= 1
    steps = Steps(MemoryFile(bytes(changed)), _span(made), bodies=True)  # type: ignore[arg-type]  # likewise
    blocks = iter(steps)
    _check_is(next(blocks), made[0])
    _check_is(next(blocks), made[1])
    with pytest.raises(CorruptLog, match="header checksum"):
        next(blocks)
    assert (steps.offset, steps.next_sequence) == (made[2].start, made[2].first)


def test_a_footer_s_content() -> None:
    """It has no directory; its body is handed out as it is, also where it has to be fetched."""
    body = bytes(range(256)) * 2000
    content, _ = encode_block(
        [], [body], seed=SEED, record_count=0, first_sequence=FIRST, durable_sequence=FIRST, records_before=0,
        timestamp_us=0, previous_crc=HEADER_CRC, block_type=FOOTER,
    )  # fmt: skip
    span = Span(START, START + len(content), SEED, HEADER_CRC, FIRST, FIRST)
    for bodies in (True, False):
        (block,) = _walked(bytes(START) + content, span, bodies=bodies)
        assert isinstance(block, Block)
        assert block.content() == body


def test_the_next_sound_block_is_found(piece_bytes: int) -> None:
    """From any offset on: the first that starts at it or behind it, by its own header alone."""
    content, made = _log(BLOCKS)
    file = MemoryFile(content)
    for start in range(START - 8, made[-1].end + 1):
        found = find_block(file, start, made[-1].end, SEED, FIRST)  # type: ignore[arg-type]  # it has what is needed
        expected = next((what for what in made if what.start >= start), None)
        assert (found.offset if found else None) == (expected.start if expected else None)


def test_no_block_is_found_within_the_header() -> None:
    """A copy of a later block that strayed there would hide all those before it, which are in their place."""
    first, _ = made_block([b"first"], 0, 20, 0)
    later, _ = made_block([b"later"], 0, 30, 0)
    file = MemoryFile((bytes(1024) + later).ljust(HEADER_STEP, b"\0") + first + later)
    found = find_block(file, 0, len(file.content), SEED, 20)  # type: ignore[arg-type]  # it has what is needed
    assert found is not None
    assert (found.offset, found.first_sequence) == (HEADER_STEP, 20)


def test_behind_damage_a_sound_block_may_be_right_there() -> None:
    """Where those before it are missing; one of the number that is due, with another predecessor, is not taken."""
    block, _ = made_block([b"ours"], 0, 20, 0)
    file = MemoryFile(bytes(HEADER_STEP) + block)
    for next_sequence, offset in ((15, HEADER_STEP), (20, None), (21, None)):
        found = find_block_behind(file, HEADER_STEP, len(file.content), SEED, next_sequence)  # type: ignore[arg-type]
        assert (found.offset if found else None) == offset


def test_only_blocks_of_this_segment_are_found() -> None:
    """Blocks of another segment, unaligned copies, blocks beyond the end and earlier numbers are passed over."""
    ours, _ = made_block([b"ours"], 0, 20, 0)
    theirs, _ = made_block([b"theirs"], 0, 20, 0, seed=seed_of(b"stream-uuid-stre", 2))
    earlier, _ = made_block([b"earlier"], 0, 19, 0)
    front = bytes(HEADER_STEP) + b"SLOG" * 40 + theirs + earlier + b"1234" + ours + b"5678"
    assert len(front) % ALIGNMENT == 0
    file = MemoryFile(front + ours)
    found = find_block(file, 0, len(file.content), SEED, 20)  # type: ignore[arg-type]  # it has what is needed
    assert found is not None
    assert found.offset == len(front)
    assert find_block(file, 0, len(file.content) - 8, SEED, 20) is None  # type: ignore[arg-type]
    assert find_block(file, 0, len(file.content), SEED, 21) is None  # type: ignore[arg-type]
    assert find_block(file, 0, len(file.content) + 4096, SEED, 20) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [0, 1, 4095, 4096, 256 << 10])
def test_zeros_are_told(length: int) -> None:
    """Of any length up to a piece's."""
    assert is_zero(bytes(length))
    for at in {0, length // 2, length - 1} & set(range(length)):
        assert not is_zero(bytes(at) + b"\1" + bytes(length - at - 1))


def test_the_made_blocks_are_a_chain() -> None:
    """The blocks of these tests are as the engine writes them: aligned, end to end."""
    _, made = _log(BLOCKS)
    assert all(one.end == other.start and one.next == other.first for one, other in pairwise(made))
    assert all(what.start % ALIGNMENT == 0 for what in made)

"""How much a reader of bodies reads at once: little at first, then more, and no block twice."""

from __future__ import annotations

import pytest
from tests.log.memory_file import SEED, Made, MemoryFile, made_log

from shardlog.log import walk as walk_module
from shardlog.log.walk import PIECE_BYTES, Span, Steps

START = 4096
CRC = 7


def _read(blocks: int, body_bytes: int) -> tuple[list[Made], list[tuple[int, int]]]:
    content, made = made_log([[bytes(body_bytes)]] * blocks, START, 1, CRC)
    file = MemoryFile(content)
    steps = Steps(file, Span(START, len(content), SEED, CRC, 1, blocks + 1), bodies=True)  # type: ignore[arg-type]
    for block in steps:
        for batch in block.batches():
            block.body(batch)
    return made, file.reads


def test_the_first_piece_is_small_and_they_grow() -> None:
    """Who wants one record does not read a quarter of a MiB for it; who reads on soon reads as much at once."""
    _, reads = _read(2_000, 900)
    lengths = [length for length, _ in reads]
    assert lengths[0] == 64 << 10
    assert lengths[1] <= 128 << 10
    assert PIECE_BYTES - 1_024 < lengths[2] <= PIECE_BYTES


@pytest.mark.parametrize("body_bytes", [900, 13_000, 50_000, 131_000])
def test_blocks_that_are_alike_are_read_once(body_bytes: int) -> None:
    """A piece ends where a block does, so that its last one need not be read again."""
    made, reads = _read(40 + 2_000_000 // body_bytes, body_bytes)
    first = 64 << 10
    total = sum(length for length, _ in reads)
    assert total <= made[-1].end - START + 2 * first + PIECE_BYTES


def test_a_small_piece_is_small_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests make pieces small so that blocks straddle them: the first one, too."""
    monkeypatch.setattr(walk_module, "PIECE_BYTES", 96)
    _, reads = _read(3, 200)
    assert reads[0][0] == 96

"""The tail row: every field comes back, and no other bytes are taken for it."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlog.index.tail import CLOSED, MUST_ROLL, ROLLING, Tail, decode_tail, encode_tail

_LIMITS = {"flags": 2**32 - 1, "segment_id": 2**32 - 1, "last_crc": 2**32 - 1, "rolling_id": 2**32 - 1}
_TIMES = {"timestamp_us", "segment_created_us"}

tails = st.builds(
    Tail,
    **{
        name: st.integers(min_value=-(2**63), max_value=2**63 - 1)
        if name in _TIMES
        else st.integers(min_value=0, max_value=_LIMITS.get(name, 2**64 - 1))
        for name in Tail._fields
    },
)


@given(tail=tails)
@settings(max_examples=50, deadline=None, print_blob=True)
def test_the_row_comes_back(tail: Tail) -> None:
    """All fields, each in its whole range."""
    assert decode_tail(encode_tail(tail)) == tail


def test_flags_are_bits() -> None:
    """Each its own."""
    assert len({ROLLING, MUST_ROLL, CLOSED}) == 3
    assert all(flag.bit_count() == 1 for flag in (ROLLING, MUST_ROLL, CLOSED))


def test_another_length_is_no_row() -> None:
    """A row of another release is not read as if it were ours: the index is made anew in any case."""
    content = encode_tail(Tail(*range(len(Tail._fields))))
    for wrong in (b"", content[:-1], content + b"\0"):
        with pytest.raises(struct.error):
            decode_tail(wrong)

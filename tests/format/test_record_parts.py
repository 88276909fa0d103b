"""A batch in parts is the batch: the same records, a short list first; what is wrong with it is told as before."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardlog.errors import CorruptLog
from shardlog.format.record import FIRST_PART_RECORDS, BatchContext, StoredBatch, encode_batch

_FIRST = 1_000
_CONTEXT = BatchContext("shard", 5, "0" * 16)


def _batch(count: int, body: bytes | None = None) -> StoredBatch:
    rows = [
        [1, {"id": number}, {"id": number, "nested": [{"a": b"\xdd" * (number % 7)}]}, None] for number in range(count)
    ]
    return StoredBatch(encode_batch(rows, range(count)) if body is None else body, count, _FIRST, _CONTEXT)


@given(count=st.integers(1, 300), first=st.integers(-5, 305), length=st.integers(1, 310))
@settings(max_examples=150, deadline=None, print_blob=True)
def test_parts_put_together_are_the_records(count: int, first: int, length: int) -> None:
    """Whatever part of the batch is asked for; where there are two, the first is short."""
    batch = _batch(count)
    begin, end = _FIRST + first, _FIRST + first + length
    if begin >= batch.next_sequence or end <= batch.first_sequence:
        return
    parts = list(batch.records_in_parts(begin, end))
    together = [record for part in parts for record in part]
    assert together == batch.records(begin, end)
    assert [record.shard_id for record in together] == ["shard"] * len(together)
    assert len(parts) <= 2
    assert len(parts) == 1 or len(parts[0]) == FIRST_PART_RECORDS


@pytest.mark.parametrize(
    "damaged",
    [
        lambda body: body[:-1],
        lambda body: body + b"\x01",
        lambda body: b"\xdc\x00\xc7" + body[3:],
        lambda body: body[:3] + b"\xc1" + body[4:],
        lambda _: b"",
        lambda _: b"\x01",
    ],
    ids=["cut", "longer", "another count", "no such type", "empty", "not an array"],
)
def test_what_is_wrong_is_told_as_before(damaged: object) -> None:
    """The sums were right and the content is not: CorruptLog, in parts or not, at the first look at latest."""
    body = damaged(_batch(200).body)  # type: ignore[operator]
    with pytest.raises(CorruptLog):
        _ = _batch(200, body).records(_FIRST, _FIRST + 200)[0].event
    parts = _batch(200, body).records_in_parts(_FIRST + 50, _FIRST + 200)
    with pytest.raises(CorruptLog):
        _ = [record.event for part in parts for record in part]

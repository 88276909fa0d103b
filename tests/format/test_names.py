"""The names of files, shards and streams."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.clock import wall_us_of
from shardlog.format import names

MOMENT_US = wall_us_of(datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC))

sequences = st.integers(min_value=0, max_value=2**64 - 1)
segment_ids = st.integers(min_value=0, max_value=2**32 - 1)


@given(first=sequences, segment_id=segment_ids)
@thorough
def test_a_segment_s_name_comes_back(first: int, segment_id: int) -> None:
    """A name says first sequence number and id."""
    assert names.parse_segment_name(names.segment_name(first, segment_id)) == (first, segment_id)


@given(segments=st.lists(st.tuples(sequences, segment_ids), max_size=8))
@thorough
def test_names_sort_by_first_sequence(segments: list[tuple[int, int]]) -> None:
    """A listing in order of names is in order of the log."""
    assert sorted(names.segment_name(*segment) for segment in segments) == [
        names.segment_name(*segment) for segment in sorted(segments)
    ]


@pytest.mark.parametrize(
    "name",
    [
        "", "LOCK", "00000000000000000001-00000001.seg.tmp", "00000000000000000001-00000001", "1-1.seg",
        "00000000000000000001-0000000A.seg", "00000000000000000001-000000001.seg", "0000000000000000000x-00000001.seg",
        "00000000000000000001-00000001.seg\n", " 00000000000000000001-00000001.seg",
        "\N{ARABIC-INDIC DIGIT ONE}0000000000000000000-00000001.seg",
    ],
)  # fmt: skip
def test_other_names_are_no_segments(name: str) -> None:
    """Temporary names, foreign files, and digits that are not ASCII."""
    assert names.parse_segment_name(name) is None


def test_a_label_is_the_creation_time() -> None:
    """ISO-8601 with milliseconds, rounded down, no zone: as in the ARN of a DynamoDB stream."""
    label = names.stream_label(MOMENT_US)
    assert label == "2026-01-02T03:04:05.678"
    assert names.is_label(label)
    assert names.created_at_of(label) == datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    assert names.stream_label(wall_us_of(datetime(2026, 1, 1, tzinfo=UTC))) == "2026-01-01T00:00:00.000"


@pytest.mark.parametrize("name", ["", "2026-01-02T03:04:05", "2026-01-02T03:04:05.678.tmp", "2026-01-02T03:04:05.678Z"])
def test_other_names_are_no_labels(name: str) -> None:
    """What was never finished, or is being deleted, is not taken for a stream."""
    assert not names.is_label(name)


def test_public_ids_have_dynamodb_s_form() -> None:
    """Shard id: creation in milliseconds with twenty digits, number in eight of hex. ARN: of the table's stream."""
    assert names.shard_id(1_767_225_600_000, 0xABC) == "shardId-00000001767225600000-00000abc"
    assert 28 <= len(names.shard_id(0, 0)) <= 65
    assert names.stream_arn("t", names.stream_label(MOMENT_US)) == (
        "arn:aws:dynamodb:local:000000000000:table/t/stream/2026-01-02T03:04:05.678"
    )

"""What requests may ask, in the words of the service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shardlog.server import parameters
from shardlog.server.faults import Fault

ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/users/stream/2026-01-01T00:00:00.000"
SHARD = "shardId-00000001795266567732-00000000"
ITERATOR = f"{ARN}|1|abc"
NUMBER = "1" * 21


def text_of(
    check: Callable[[dict[str, Any]], object], members: dict[str, Any], name: str = "ValidationException"
) -> str:
    with pytest.raises(Fault) as raised:
        check(members)
    assert raised.value.name == name
    return raised.value.text


@pytest.mark.parametrize(
    ("check", "members", "most"),
    [
        (parameters.list_streams, {}, 100),
        (parameters.describe_stream, {"StreamArn": ARN}, 100),
        (parameters.get_records, {"ShardIterator": ITERATOR}, 1000),
    ],
)
def test_limits(check: Callable[..., Any], members: dict[str, Any], most: int) -> None:
    """1 to the most there is; absent or null: the most. What is wrong names Limit."""
    assert check(members).limit == check({**members, "Limit": None}).limit == most
    assert check({**members, "Limit": most}).limit == most
    assert check({**members, "Limit": 1}).limit == 1
    for value, rule in (
        (0, "greater than or equal to 1"),
        (-5, "greater"),
        (most + 1, f"less than or equal to {most}"),
    ):
        text = text_of(check, {**members, "Limit": value})
        assert text.startswith(
            f"1 validation error detected: Value '{value}' at 'limit' failed to satisfy constraint: Member must have "
        )
        assert rule in text
        assert "Limit" in text
    for wrong in ("5", 1.5, True, [1]):
        text_of(check, {**members, "Limit": wrong}, "SerializationException")


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (parameters.describe_stream, "streamArn"),
        (parameters.get_shard_iterator, "streamArn"),
        (parameters.get_shard_iterator, "shardId"),
        (parameters.get_shard_iterator, "shardIteratorType"),
        (parameters.get_records, "shardIterator"),
    ],
)
def test_what_is_needed(check: Callable[..., Any], name: str) -> None:
    """All that is missing is told at once."""
    text = text_of(check, {})
    assert f"Value null at '{name}' failed to satisfy constraint: Member must not be null" in text


def test_errors_are_counted() -> None:
    """As the service does."""
    text = text_of(parameters.get_shard_iterator, {"StreamArn": "x", "ShardId": "y", "ShardIteratorType": "Z"})
    assert text.startswith("3 validation errors detected: ")
    assert "Value 'Z' at 'shardIteratorType' failed to satisfy constraint: Member must satisfy enum value set" in text


@pytest.mark.parametrize(
    ("shard_filter", "names"),
    [
        ({}, ["shardFilter.type", "shardFilter.shardId"]),
        ({"Type": "CHILD_SHARDS"}, ["shardFilter.shardId"]),
        ({"ShardId": SHARD}, ["shardFilter.type"]),
        ({"Type": "PARENTS", "ShardId": SHARD}, ["shardFilter.type"]),
        ({"Type": "", "ShardId": SHARD}, ["shardFilter.type"]),
        ({"Type": "CHILD_SHARDS", "ShardId": "short"}, ["shardFilter.shardId"]),
        ({"Type": "CHILD_SHARDS", "ShardId": "x" * 66}, ["shardFilter.shardId"]),
    ],
)
def test_filters(shard_filter: dict[str, Any], names: list[str]) -> None:
    """What is wrong is named with its path."""
    text = text_of(parameters.describe_stream, {"StreamArn": ARN, "ShardFilter": shard_filter})
    assert all(name in text for name in names)
    assert f"{len(names)} validation error" in text


def test_a_number_goes_with_its_iterator_types() -> None:
    """AT and AFTER need one, TRIM_HORIZON and LATEST take none; the same for a timestamp."""
    base = {"StreamArn": ARN, "ShardId": SHARD}
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        assert "SequenceNumber" in text_of(parameters.get_shard_iterator, {**base, "ShardIteratorType": kind})
        asked = parameters.get_shard_iterator({**base, "ShardIteratorType": kind, "SequenceNumber": NUMBER})
        assert asked.sequence is not None
    for kind in ("TRIM_HORIZON", "LATEST"):
        assert parameters.get_shard_iterator({**base, "ShardIteratorType": kind}).kind == kind
        for more in ({"SequenceNumber": NUMBER}, {"Timestamp": 1.5}):
            text_of(parameters.get_shard_iterator, {**base, "ShardIteratorType": kind, **more})
    assert "Timestamp" in text_of(parameters.get_shard_iterator, {**base, "ShardIteratorType": "AT_TIMESTAMP"})


@pytest.mark.parametrize("number", ["x" * 21, "1" * 20, "1" * 41])
def test_numbers_are_digits(number: str) -> None:
    """21 to 40 of them."""
    base = {"StreamArn": ARN, "ShardId": SHARD, "ShardIteratorType": "AT_SEQUENCE_NUMBER"}
    text_of(parameters.get_shard_iterator, {**base, "SequenceNumber": number})


@pytest.mark.parametrize("table", ["ab", "x" * 256, "a b c", "täble"])
def test_names_of_tables(table: str) -> None:
    """3 to 255 of letters, digits, dots, dashes and underscores."""
    assert "tableName" in text_of(parameters.list_streams, {"TableName": table})


def test_values_of_other_types() -> None:
    """SerializationException, before any other rule."""
    for members in ({"StreamArn": 5}, {"StreamArn": [ARN]}, {"StreamArn": {}}, {"StreamArn": True}, {"StreamArn": 1.5}):
        text_of(parameters.describe_stream, members, "SerializationException")
    text_of(parameters.describe_stream, {"StreamArn": ARN, "ShardFilter": "CHILD"}, "SerializationException")


def test_members_that_nobody_knows_are_ignored() -> None:
    """A newer SDK may send more."""
    assert parameters.list_streams({"Future": 1}).limit == 100


@pytest.mark.parametrize("timestamp", [1e300, -1e300, 10**30])
def test_timestamps_out_of_range(timestamp: float) -> None:
    """ValidationException."""
    base = {"StreamArn": ARN, "ShardId": SHARD, "ShardIteratorType": "AT_TIMESTAMP"}
    asked = parameters.get_shard_iterator({**base, "Timestamp": timestamp})
    assert asked.timestamp is not None
    with pytest.raises(Fault, match="out of range"):
        parameters.first_moment(asked.timestamp)

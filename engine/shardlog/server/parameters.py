"""The parameters of the four operations, checked: from the JSON of a request to values. Pure.

The limits are those of the service's model (`botocore`, `dynamodbstreams/2012-08-10`). A value of another type than the
model's is a SerializationException; values that break rules are told all at once in one ValidationException, in the
words of the service. Null is the same as absent, and members that the model does not know are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from shardlog.clock import EPOCH
from shardlog.options import RECORDS_PER_PAGE_MAX
from shardlog.server.faults import serialization, validation
from shardlog.server.identifiers import StreamArn, parse_arn, parse_iterator, parse_sequence

LIST_MAX: Final = 100
"""Streams or shards in one answer."""
ITERATOR_TYPES: Final = ("TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP")
CHILD_SHARDS: Final = "CHILD_SHARDS"

_ARN_CHARACTERS: Final = (37, 1024)
_SHARD_ID_CHARACTERS: Final = (28, 65)
_SEQUENCE_CHARACTERS: Final = (21, 40)
_ITERATOR_CHARACTERS: Final = (1, 2048)
_TABLE_CHARACTERS: Final = (3, 255)
_TABLE_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]+", re.ASCII)
_JSON_TYPES: Final = {
    bool: "BOOLEAN_VALUE",
    int: "NUMBER_VALUE",
    float: "DECIMAL_VALUE",
    str: "STRING_VALUE",
    list: "START_ARRAY",
    dict: "START_OBJECT",
}


@dataclass(frozen=True, slots=True)
class ListStreams:
    """What ListStreams was asked."""

    table: str | None
    limit: int
    start: StreamArn | None


@dataclass(frozen=True, slots=True)
class DescribeStream:
    """What DescribeStream was asked. `parent_id`: only the children of this shard."""

    arn: StreamArn
    limit: int
    start_id: str | None
    parent_id: str | None


@dataclass(frozen=True, slots=True)
class GetShardIterator:
    """What GetShardIterator was asked."""

    arn: StreamArn
    shard_id: str
    kind: str
    sequence: int | None
    timestamp: Decimal | None
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class GetRecords:
    """What GetRecords was asked. `token`: the engine's."""

    arn: StreamArn
    token: str
    limit: int


def list_streams(members: Mapping[str, Any]) -> ListStreams:
    """Raises a Fault."""
    rules = _Rules(members)
    table = rules.text("TableName", _TABLE_CHARACTERS, pattern=_TABLE_NAME)
    limit = rules.limit(LIST_MAX)
    start = rules.text("ExclusiveStartStreamArn", _ARN_CHARACTERS)
    rules.check()
    return ListStreams(table, limit, None if start is None else parse_arn(start))


def describe_stream(members: Mapping[str, Any]) -> DescribeStream:
    """Raises a Fault."""
    rules = _Rules(members)
    arn = rules.needed("StreamArn", _ARN_CHARACTERS)
    limit = rules.limit(LIST_MAX)
    start_id = rules.text("ExclusiveStartShardId", _SHARD_ID_CHARACTERS)
    parent_id = None
    shard_filter = rules.structure("ShardFilter")
    if shard_filter is not None:
        inner = _Rules(shard_filter, rules.broken, "shardFilter.")
        inner.one_of("Type", (CHILD_SHARDS,))
        parent_id = inner.needed("ShardId", _SHARD_ID_CHARACTERS)
    rules.check()
    return DescribeStream(parse_arn(arn), limit, start_id, parent_id)


def get_shard_iterator(members: Mapping[str, Any]) -> GetShardIterator:
    """Raises a Fault."""
    rules = _Rules(members)
    arn = rules.needed("StreamArn", _ARN_CHARACTERS)
    shard_id = rules.needed("ShardId", _SHARD_ID_CHARACTERS)
    kind = rules.one_of("ShardIteratorType", ITERATOR_TYPES)
    sequence = rules.text("SequenceNumber", _SEQUENCE_CHARACTERS)
    timestamp = rules.number("Timestamp")
    rules.check()
    _check_together(kind, "SequenceNumber", sequence is not None, kind.endswith("SEQUENCE_NUMBER"))
    _check_together(kind, "Timestamp", timestamp is not None, kind == "AT_TIMESTAMP")
    parsed = None if sequence is None else parse_sequence(sequence)
    return GetShardIterator(parse_arn(arn), shard_id, kind, parsed, timestamp)


def _check_together(kind: str, name: str, is_given: bool, is_needed: bool) -> None:
    if is_needed and not is_given:
        raise validation(f"{name} is required when ShardIteratorType is {kind}")
    if is_given and not is_needed:
        raise validation(f"{name} must not be given when ShardIteratorType is {kind}")


def get_records(members: Mapping[str, Any]) -> GetRecords:
    """Raises a Fault."""
    rules = _Rules(members)
    iterator = rules.needed("ShardIterator", _ITERATOR_CHARACTERS)
    limit = rules.limit(RECORDS_PER_PAGE_MAX)
    rules.check()
    return GetRecords(*parse_iterator(iterator), limit)


def first_moment(timestamp: Decimal) -> datetime:
    """The first moment whose record is at or after a timestamp: records tell the second, rounded down."""
    try:
        return EPOCH + timedelta(seconds=int(timestamp.to_integral_value(ROUND_CEILING)))
    except (OverflowError, ArithmeticError):
        raise validation("Timestamp is out of range") from None


class _Rules:
    """Takes members out of a structure, and collects which of them break a rule."""

    def __init__(self, members: Mapping[str, Any], broken: list[str] | None = None, prefix: str = "") -> None:
        self._members = members
        self._prefix = prefix
        self.broken: list[str] = [] if broken is None else broken

    def check(self) -> None:
        """Raise what was collected."""
        if self.broken:
            count = len(self.broken)
            raise validation(f"{count} validation error{'s' * (count > 1)} detected: {'; '.join(self.broken)}")

    def text(self, name: str, characters: tuple[int, int], *, pattern: re.Pattern[str] | None = None) -> str | None:
        """A text of so many characters, or None."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise serialization(f"{_JSON_TYPES[type(value)]} cannot be converted to String")
        shortest, longest = characters
        if pattern is not None and not pattern.fullmatch(value):
            self._break(name, value, f"satisfy regular expression pattern: {pattern.pattern}")
        if len(value) < shortest:
            self._break(name, value, f"have length greater than or equal to {shortest}")
        if len(value) > longest:
            self._break(name, value, f"have length less than or equal to {longest}")
        return value

    def needed(self, name: str, characters: tuple[int, int]) -> str:
        """The same; there must be one."""
        value = self.text(name, characters)
        if value is None:
            self._break(name, None, "not be null")
            return ""
        return value

    def one_of(self, name: str, choices: tuple[str, ...]) -> str:
        """One of some words; there must be one."""
        value = self.needed(name, (0, 1 << 30))
        if self._members.get(name) is not None and value not in choices:
            self._break(name, value, f"satisfy enum value set: [{', '.join(choices)}]")
        return value

    def limit(self, most: int) -> int:
        """The member Limit: 1 to `most`, which is also what is meant where it is absent."""
        value = self._members.get("Limit")
        if value is None:
            return most
        if type(value) is not int:
            raise serialization(f"{_JSON_TYPES[type(value)]} cannot be converted to Integer")
        if value < 1:
            self._break("Limit", value, f"have value greater than or equal to 1 (Limit is 1 to {most})")
        if value > most:
            self._break("Limit", value, f"have value less than or equal to {most} (Limit is 1 to {most})")
        return value

    def number(self, name: str) -> Decimal | None:
        """A number, or None."""
        value = self._members.get(name)
        if value is None:
            return None
        if type(value) not in (int, float):
            raise serialization(f"{_JSON_TYPES[type(value)]} cannot be converted to Timestamp")
        return Decimal(str(value))

    def structure(self, name: str) -> Mapping[str, Any] | None:
        """A structure, or None."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise serialization(f"{_JSON_TYPES[type(value)]} cannot be converted to a structure")
        return value

    def _break(self, name: str, value: object, rule: str) -> None:
        shown = "null" if value is None else f"'{value!s:.1100}'"
        path = f"{self._prefix}{name[0].lower()}{name[1:]}"
        at = f"Value {shown} at '{path}'" if value is not None else f"Value null at '{path}'"
        self.broken.append(f"{at} failed to satisfy constraint: Member must {rule}")

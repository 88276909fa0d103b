"""The four operations of `DynamoDBStreams_20120810`: members of a request in, members of the answer out.

Shards and streams are listed in lexical order of their names and paged by the last name that was seen, so paging does
not mind what is added or deleted in between. Errors are Faults, whatever the engine raised.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from shardlog.api import Stream
from shardlog.clock import Clock
from shardlog.errors import CorruptLog, InvalidArgument, ShardlogError, ShardNotFound
from shardlog.model import ShardDescription, StreamDescription
from shardlog.server import parameters
from shardlog.server.catalogue import Catalogue, Scope
from shardlog.server.faults import (
    Fault,
    fault_of,
    internal,
    invalid_iterator,
    invalid_sequence,
    shard_not_found,
    unknown_operation,
    validation,
)
from shardlog.server.identifiers import StreamArn, iterator_text, sequence_text
from shardlog.server.records import RecordContext, api_records

Members = dict[str, Any]

_MICROSECONDS: Final = 1_000_000
_log = logging.getLogger("shardlog")


class StreamsApi:
    """The operations over the streams of a catalogue. Any number of threads may use it."""

    def __init__(self, catalogue: Catalogue, clock: Clock, observe_page: Callable[[str, int, float], None]) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._observe_page = observe_page
        """Told of each page: the stream's ARN, how many records, and the seconds that its reader is behind."""
        self._operations: dict[str, Callable[[Mapping[str, Any], Scope], Members]] = {
            "ListStreams": self.list_streams,
            "DescribeStream": self.describe_stream,
            "GetShardIterator": self.get_shard_iterator,
            "GetRecords": self.get_records,
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the operations."""
        return tuple(self._operations)

    def call(self, operation: str, members: Mapping[str, Any], scope: Scope) -> Members:
        """Do what an operation asks. Raises a Fault."""
        function = self._operations.get(operation)
        if function is None:
            raise unknown_operation(f"there is no operation {operation}")
        return function(members, scope)

    def list_streams(self, members: Mapping[str, Any], scope: Scope) -> Members:
        """The streams, of one table or of all."""
        asked = parameters.list_streams(members)
        with _translated(""):
            arns = self._catalogue.arns(scope)
        start = "" if asked.start is None else asked.start.text
        found = [arn for arn in arns if arn.text > start and asked.table in (None, arn.table)]
        page = found[: asked.limit]
        answer: Members = {
            "Streams": [{"StreamArn": arn.text, "TableName": arn.table, "StreamLabel": arn.label} for arn in page]
        }
        if len(found) > len(page):
            answer["LastEvaluatedStreamArn"] = page[-1].text
        return answer

    def describe_stream(self, members: Mapping[str, Any], _scope: Scope) -> Members:
        """A stream and its shards, all or the children of one."""
        asked = parameters.describe_stream(members)
        with _translated(asked.arn.text):
            stream = self._catalogue.find(asked.arn)
            description = stream.describe()
            horizon = stream.trim_horizon
        shards: list[ShardDescription] = list(description.shards)
        if asked.parent_id is not None:
            is_known = any(shard.shard_id == asked.parent_id for shard in shards)
            shards = [shard for shard in shards if asked.parent_id in shard.parent_ids]
            if not (is_known or shards):
                raise shard_not_found(asked.arn.text, asked.parent_id)
        found = [shard for shard in shards if shard.shard_id > (asked.start_id or "")]
        page = found[: asked.limit]
        answer = _description(asked.arn, description)
        answer["Shards"] = [_shard(shard, horizon) for shard in page]
        if len(found) > len(page):
            answer["LastEvaluatedShardId"] = page[-1].shard_id
        return {"StreamDescription": answer}

    def get_shard_iterator(self, members: Mapping[str, Any], _scope: Scope) -> Members:
        """An iterator at a position of a shard."""
        asked = parameters.get_shard_iterator(members)
        given = None if asked.sequence is None else invalid_sequence(members["SequenceNumber"])
        with _translated(asked.arn.text, asked.shard_id, given):
            stream = self._catalogue.find(asked.arn)
            moment = None if asked.timestamp is None else self._moment(asked.timestamp)
            token = stream.iterator(asked.shard_id, asked.kind, sequence=asked.sequence, timestamp=moment)
        return {"ShardIterator": iterator_text(asked.arn.text, token)}

    def get_records(self, members: Mapping[str, Any], _scope: Scope) -> Members:
        """The page of records at an iterator. No next iterator: the shard is closed and drained."""
        asked = parameters.get_records(members)
        with _translated(asked.arn.text, invalid=invalid_iterator()):
            stream = self._catalogue.find(asked.arn)
            page = stream.get_records(asked.token, asked.limit)
            answer: Members = {"Records": api_records(page.records, _context(asked.arn, stream))}
        if page.next_iterator is not None:
            answer["NextShardIterator"] = iterator_text(asked.arn.text, page.next_iterator)
        self._observe_page(asked.arn.text, len(page.records), page.behind.total_seconds())
        return answer

    def _moment(self, timestamp: Decimal) -> datetime:
        if timestamp * _MICROSECONDS > self._clock.wall_us():
            raise validation(f"Timestamp must not be in the future: {timestamp}")
        return parameters.first_moment(timestamp)


class _translated:  # noqa: N801 - reads as a function, and is cheaper than a generator on every request
    """The engine's errors become Faults; what is wrong with the log or the disk is told in the log only.

    `invalid`: which Fault it is when the engine does not take what was given.
    """

    __slots__ = ("_arn", "_invalid", "_shard_id")

    def __init__(self, arn: str, shard_id: str = "", invalid: Fault | None = None) -> None:
        self._arn = arn
        self._shard_id = shard_id
        self._invalid = invalid

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ShardNotFound):
            raise shard_not_found(self._arn, self._shard_id) from None
        if isinstance(error, InvalidArgument) and self._invalid is not None:
            raise self._invalid from None
        if isinstance(error, ShardlogError):
            fault = fault_of(error, self._arn)
            if fault.status >= internal().status or isinstance(error, CorruptLog):
                _log.error("%s: %s", self._arn, error)
            raise fault from None


def _context(arn: StreamArn, stream: Stream) -> RecordContext:
    description = stream.describe()
    return RecordContext(arn.region, description.view_type, description.table_arn is not None)


def _description(arn: StreamArn, description: StreamDescription) -> Members:
    return {
        "StreamArn": arn.text,
        "StreamLabel": arn.label,
        "StreamStatus": description.status,
        "StreamViewType": description.view_type,
        "CreationRequestDateTime": description.created_at.timestamp(),
        "TableName": arn.table,
        "KeySchema": key_schema(description),
    }


def key_schema(description: StreamDescription) -> list[Members]:
    """The partition key, then the others; empty where the stream takes any keys."""
    names = description.key_names or ((description.partition_key,) if description.partition_key else ())
    hash_name = description.partition_key or (names[0] if names else None)
    ordered = sorted(names, key=lambda name: name != hash_name)
    return [{"AttributeName": name, "KeyType": "HASH" if name == hash_name else "RANGE"} for name in ordered]


def _shard(shard: ShardDescription, horizon: int) -> Members:
    """A shard. Its end is the number of the control record that closed it, which no record has.

    So a shard without a record has a range, too, and every number of it can be asked for. It starts at the first number
    that can be read, so that reading from there reads all that the shard has.
    """
    start = max(shard.first_sequence, horizon)
    numbers = {"StartingSequenceNumber": sequence_text(start)}
    if shard.end_sequence is not None:
        numbers["EndingSequenceNumber"] = sequence_text(max(start, shard.end_sequence))
    answer: Members = {"ShardId": shard.shard_id, "SequenceNumberRange": numbers}
    if shard.parent_ids:
        answer["ParentShardId"] = shard.parent_ids[0]
    return answer


__all__ = ["Fault", "StreamsApi", "key_schema"]

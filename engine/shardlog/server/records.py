"""A record of the log as the API's GetRecords gives it. Pure.

`SizeBytes` counts names and values of keys and images. `ApproximateCreationDateTime` is rounded down to the second.
`userIdentity` is there for changes that a service made: time-to-live deletes. The service's model names its members
`Type` and `PrincipalId`, and that is what SDKs read; the Developer Guide shows `type` and `principalId`, as functions
get them. So it has both.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from shardlog.format.record import Record
from shardlog.server.attributes import image_size, typed_image
from shardlog.server.identifiers import SEQUENCE_BASE

EVENT_VERSION: Final = "1.1"
EVENT_SOURCE: Final = "aws:dynamodb"
TIME_TO_LIVE: Final = "dynamodb.amazonaws.com"
"""The identity of the service that deletes expired items."""

_MICROSECONDS: Final = 1_000_000


class RecordContext(NamedTuple):
    """What all records of a stream share. `is_typed`: images are DynamoDB-typed values already."""

    region: str
    view_type: str
    is_typed: bool


def api_records(records: list[Record], context: RecordContext) -> list[dict[str, Any]]:
    """Records as GetRecords gives them."""
    return [_api_record(record, context) for record in records]


def _api_record(record: Record, context: RecordContext) -> dict[str, Any]:
    region, view_type, is_typed = context
    keys, new, old = record.keys, record.new_image, record.old_image
    if not is_typed:
        keys = typed_image(keys)
        new = None if new is None else typed_image(new)
        old = None if old is None else typed_image(old)
    size = image_size(keys)
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": record.timestamp_us // _MICROSECONDS,
        "Keys": keys,
        "SequenceNumber": str(SEQUENCE_BASE + record.sequence),
        "StreamViewType": view_type,
    }
    if new is not None:
        change["NewImage"] = new
        size += image_size(new)
    if old is not None:
        change["OldImage"] = old
        size += image_size(old)
    change["SizeBytes"] = size
    found: dict[str, Any] = {
        "eventID": record.event_id,
        "eventName": record.event,
        "eventVersion": EVENT_VERSION,
        "eventSource": EVENT_SOURCE,
        "awsRegion": region,
        "dynamodb": change,
    }
    identity = record.identity
    if identity is not None:
        found["userIdentity"] = {
            "Type": "Service",
            "PrincipalId": identity,
            "type": "Service",
            "principalId": identity,
        }
    return found

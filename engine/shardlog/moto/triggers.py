"""Functions that moto runs for a table's stream: its event source mappings of Lambda.

moto invokes them from the write itself, not by polling; so do we, after the records are durable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from moto.dynamodb.models.table import Table

from shardlog.api import Stream
from shardlog.format.record import Record
from shardlog.server.records import RecordContext, api_records


class _Event:
    """A record as moto's Lambda takes it."""

    def __init__(self, record: dict[str, Any]) -> None:
        self._record = record

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return self._record


def invoke_functions(table: Table | None, stream: Stream, sequences: Sequence[int]) -> None:
    """Invoke each function that is mapped to the table's stream with some records."""
    if table is None or not table.lambda_event_source_mappings:
        return
    from moto.awslambda.utils import get_backend  # it needs Docker's client, which nobody else here does

    found = stream.read(min(sequences), stop=max(sequences) + 1)
    records = [record for record in found if isinstance(record, Record)]
    context = RecordContext(table.region_name, stream.describe().view_type, is_typed=True)
    events = [_Event(record) for record in msgspec.json.decode(msgspec.json.encode(api_records(records, context)))]
    for function_arn, mapping in table.lambda_event_source_mappings.items():
        backend = get_backend(table.account_id, function_arn.split(":")[3])
        backend.send_dynamodb_items(function_arn, events, mapping.event_source_arn)

"""Time to live, which moto lacks: items whose time has come are deleted, as by the service.

An item expires when the attribute that its table names is a number, and the number, as seconds since 1970, is past, but
by no more than five years (an older one is taken for a mistake). Its REMOVE says who did it.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Final

from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import Item
from moto.dynamodb.models.table import Table

from shardlog.clock import Clock
from shardlog.moto.recording import Recorder
from shardlog.server.records import TIME_TO_LIVE

OLDEST_SECONDS: Final = 5 * 365 * 24 * 3600
_MICROSECONDS: Final = 1_000_000


def delete_expired(recorder: Recorder, clock: Clock) -> int:
    """Delete the expired items of all tables; returns how many. Raises the log's errors."""
    count = 0
    with recorder.lock, recorder.made_by(TIME_TO_LIVE):
        now = clock.wall_us() // _MICROSECONDS
        for table in _tables():
            for item in _expired(table, now):
                table.delete_item(item.hash_key, item.range_key)
                count += 1
    return count


def _tables() -> Iterator[Table]:
    for by_region in list(dynamodb_backends.values()):
        for backend in list(by_region.values()):
            yield from list(backend.tables.values())


def _expired(table: Table, now: int) -> list[Item]:
    name = table.ttl.get("AttributeName")
    if table.ttl.get("TimeToLiveStatus") != "ENABLED" or name is None:
        return []
    return [item for item in table.all_items() if _is_past(item, name, now)]


def _is_past(item: Item, name: str, now: int) -> bool:
    value = item.attrs.get(name)
    if value is None or value.type != "N":
        return False
    try:
        return now - OLDEST_SECONDS <= Decimal(value.value) < now
    except InvalidOperation:
        return False

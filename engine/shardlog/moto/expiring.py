"""Time to live, which moto lacks: items whose time has come are deleted, as by the service.

An item expires when the attribute that its table names is a number, and the number, as seconds since 1970, is past, but
by no more than five years (an older one is taken for a mistake). Its REMOVE says who did it.

Many items may expire at once, and nobody else may write meanwhile. So a sweep deletes a few at a time, in one append,
and lets others write, and requests be answered, before it goes on. What they did to a table is seen: whatever is about
to be deleted is looked up again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any, Final, NamedTuple

from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table

from shardlog.clock import Clock
from shardlog.moto.recording import Recorder
from shardlog.moto.restoring import put_back
from shardlog.server.records import TIME_TO_LIVE
from shardlog.server.turns import give_way

OLDEST_SECONDS: Final = 5 * 365 * 24 * 3600
ITEMS_PER_APPEND: Final = 100
BYTES_PER_APPEND: Final = 4 << 20
"""Of items, by their sizes; one more item may come on top. An append must not become too large for the log."""

_MICROSECONDS: Final = 1_000_000


class _Place(NamedTuple):
    """A table by its name: what moto has there may be another one after a transaction, or none."""

    backend: DynamoDBBackend
    name: str

    @property
    def table(self) -> Table | None:
        return self.backend.tables.get(self.name)


class _Key(NamedTuple):
    """An item's key."""

    hash_key: DynamoType
    range_key: DynamoType | None


def delete_expired(recorder: Recorder, clock: Clock) -> int:
    """Delete the expired items of all tables; returns how many. Gives way between appends. Raises the log's errors."""
    count = 0
    now = clock.wall_us() // _MICROSECONDS
    for place in _places():
        with recorder.lock:
            waiting = _expired(place.table, now)
        give_way()
        while waiting:
            count += _delete_some(recorder, place, waiting, now)
            give_way()
    return count


def _delete_some(recorder: Recorder, place: _Place, waiting: list[_Key], now: int) -> int:
    """Delete some items, taken off the end of a list, in one append, or none; returns how many."""
    taken = size = 0
    deleted: list[Item] = []
    with recorder.lock, recorder.made_by(TIME_TO_LIVE):
        table = place.table

        def restore(recorded: Set[object]) -> None:
            for item in [] if recorded else deleted:
                put_back(table, item, None)

        with recorder.unit_or(restore):
            while waiting and taken < ITEMS_PER_APPEND and size < BYTES_PER_APPEND:
                key = waiting.pop()
                taken += 1
                if table is not None and (item := _expired_item(table, key, now)) is not None:
                    deleted.append(item)
                    size += item.size()
                    table.delete_item(*key)
    return len(deleted)


def _places() -> Iterator[_Place]:
    for by_region in list(dynamodb_backends.values()):
        for backend in list(by_region.values()):
            for name in list(backend.tables):
                yield _Place(backend, name)


def _expired(table: Table | None, now: int) -> list[_Key]:
    """The keys of items that have expired, the first one last."""
    name = None if table is None else _attribute(table)
    if table is None or name is None:
        return []
    return [_Key(item.hash_key, item.range_key) for item in _items(table) if _is_past(item, name, now)][::-1]


def _attribute(table: Table) -> str | None:
    """Which attribute says when an item expires; None: none does."""
    is_enabled = table.ttl.get("TimeToLiveStatus") == "ENABLED"
    return table.ttl.get("AttributeName") if is_enabled else None


def _items(table: Table) -> Iterable[Item]:
    """All of them, as they come: moto itself sorts them, which takes long."""
    held: Iterable[Any] = table.items.values()
    return held if table.range_key_attr is None else chain.from_iterable(items.values() for items in held)


def _expired_item(table: Table, key: _Key, now: int) -> Item | None:
    """The item of a key if it is there and has expired. moto's own look-up makes an entry where there is none."""
    name = _attribute(table)
    held: Any = table.items.get(key.hash_key)
    item: Item | None = held if held is None or key.range_key is None else held.get(key.range_key)
    return item if item is not None and name is not None and _is_past(item, name, now) else None


def _is_past(item: Item, name: str, now: int) -> bool:
    value = item.attrs.get(name)
    if value is None or value.type != "N":
        return False
    try:
        return now - OLDEST_SECONDS <= Decimal(value.value) < now
    except InvalidOperation:
        return False

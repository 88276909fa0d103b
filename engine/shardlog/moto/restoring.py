"""Items of moto's tables as they were, put back where a request fails after it has changed some.

moto takes back less than it changes: not tables that a transaction names by ARN, not what a batch or a statement had
done before it failed, and nothing at all where the log refuses what moto has decided.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Set
from typing import Any, NamedTuple

from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table


def have_one_key(one: Item, other: Item) -> bool:
    """Whether two items are of the same key, in one table."""
    return (one.hash_key, one.range_key) == (other.hash_key, other.range_key)


def put_back(table: Table | None, old: Item | None, new: Item | None) -> None:
    """Make a table what it was before a write: `new`, each at its own key, is out, and `old` is in."""
    if table is None:
        return
    if new is not None and (old is None or not have_one_key(old, new)):
        _take_out(table, new)
    if old is None:
        return
    if old.range_key is None:
        table.items[old.hash_key] = old  # type: ignore[assignment]  # moto's own type is that of the other case
    else:
        table.items[old.hash_key][old.range_key] = old


def _take_out(table: Table, item: Item) -> None:
    if item.range_key is None:
        table.items.pop(item.hash_key, None)
    else:
        table.items[item.hash_key].pop(item.range_key, None)


class ItemBefore(NamedTuple):
    """A key of a table, and a copy of the item that is there, if there is one."""

    table_name: str
    blank: Item
    """An item that has the key and nothing else."""
    item: Item | None

    @property
    def place(self) -> tuple[str, DynamoType, DynamoType | None]:
        """What no other item has."""
        return self.table_name, self.blank.hash_key, self.blank.range_key


def item_before(table: Table, attributes: dict[str, Any]) -> ItemBefore | None:
    """What is at the key that some attributes hold; None where they do not hold all of it."""
    if any(name not in attributes for name in table.table_key_attrs):
        return None
    key = {name: attributes[name] for name in table.table_key_attrs}
    hash_key = DynamoType(key[table.hash_key_attr])
    range_key = None if table.range_key_attr is None else DynamoType(key[table.range_key_attr])
    found = copy.deepcopy(table.get_item(hash_key, range_key))
    return ItemBefore(table.name, Item(hash_key, range_key, key), found)


def restore(backend: DynamoDBBackend, before: Iterable[ItemBefore], kept: Set[object]) -> None:
    """Put items back, but not into tables whose stream has recorded what was done to them: `kept` are their shards."""
    for found in before:
        table = backend.tables.get(found.table_name)
        if table is not None and table.stream_shard not in kept:
            put_back(table, found.item, found.blank)


class TablesBefore:
    """All items of all tables, where nobody can tell beforehand what will change.

    For what replaces items: one that is changed in place changes here, too.
    """

    def __init__(self, backend: DynamoDBBackend) -> None:
        self._backend = backend
        self._items = {name: _items_of(table) for name, table in backend.tables.items()}

    def restore(self, kept: Set[object]) -> None:
        """Put all back, but not in tables whose stream has recorded it."""
        for name, items in self._items.items():
            table = self._backend.tables.get(name)
            if table is not None and table.stream_shard not in kept:
                table.items = items


def _items_of(table: Table) -> defaultdict[Any, Any]:
    if not table.has_range_key:
        return copy.copy(table.items)
    return defaultdict(dict, {key: dict(items) for key, items in table.items.items()})

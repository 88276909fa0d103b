"""Which stream of a store holds the changes of a table: names for tables, which are unique per region and account only.

A table's stream has the table's own name, if no other table of that name (of another region or account), and no
program, had it first; else the name has region and account in front, cut and with a hash where it would be too long.
"""

from __future__ import annotations

import hashlib
from typing import Final

from shardlog.api import Store
from shardlog.errors import StreamNotFound

_CHARACTERS_MAX: Final = 255
_HASH_CHARACTERS: Final = 16


def stream_name(store: Store, table_arn: str) -> str:
    """The name of the stream for a table."""
    table = table_arn.rpartition("/")[2]
    if table not in (".", "..") and _is_for(store, table, table_arn):
        return table
    return qualified_name(table_arn)


def qualified_name(table_arn: str) -> str:
    """A name that no other table's stream has."""
    _, _, _, region, account, resource = table_arn.split(":", 5)
    name = f"{region}.{account}.{resource.partition('/')[2]}"
    if len(name) <= _CHARACTERS_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: _CHARACTERS_MAX - _HASH_CHARACTERS - 1]}-{digest}"


def _is_for(store: Store, name: str, table_arn: str) -> bool:
    """Whether a name is free, or has this table's earlier streams."""
    try:
        return store.stream(name).describe().table_arn == table_arn
    except StreamNotFound:
        return True

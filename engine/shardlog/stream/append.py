"""From changes to a request that can be committed: checked, routed to shards, encoded. No lock is held here.

`check_rows` has a fast form that says whether all is right, and a plain one that finds the offending record; the plain
one is the definition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final

from shardlog.errors import InvalidArgument, StreamDisabled
from shardlog.format import values
from shardlog.format.commit import encode_entry
from shardlog.format.record import ROW_FIELDS, Row, encode_batch
from shardlog.model import EVENT_NAMES, INSERT, REMOVE, Appended, Change
from shardlog.options import APPEND_BYTES_MAX, StreamOptions
from shardlog.stream.state import StreamState

_ROUTES_KEPT: Final = 65_536


_ONLY_CHANGES: Final = frozenset({Change})


@dataclass(slots=True)
class EncodedBatch:
    """The records of one shard, ready to be written. `positions` are their indexes within the append."""

    shard: int
    positions: Sequence[int]
    entry: bytes
    body: bytes


@dataclass(slots=True)
class Request:
    """One append on its way. `rows` stay, because another state may have to route them again."""

    rows: list[Row]
    producer: tuple[str, int] | None
    state_version: int = -1
    batches: list[EncodedBatch] = field(default_factory=list)
    body_bytes: int = 0
    result: Appended | None = None
    error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has its outcome."""
        return self.result is not None or self.error is not None

    def outcome(self) -> Appended:
        """The result, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.result is not None
        return self.result

    def sequences(self, first_sequences: Sequence[int]) -> list[int]:
        """Sequence numbers in the order of the rows, given the first one of each batch."""
        if len(self.batches) == 1:
            return list(range(first_sequences[0], first_sequences[0] + len(self.rows)))
        sequences = [0] * len(self.rows)
        for batch, first in zip(self.batches, first_sequences, strict=True):
            for sequence, position in enumerate(batch.positions, first):
                sequences[position] = sequence
        return sequences


class Router:
    """Which open shard a record goes to, in one state; remembers the keys it has seen."""

    def __init__(self, state: StreamState) -> None:
        self.state = state
        self._partition_key = state.options.partition_key
        self._routes: dict[bytes, int] = {}
        self.levels_max = values.LEVELS_MAX if state.options.table_arn is None else values.TYPED_LEVELS_MAX
        """How deep images may be nested."""

    def group(self, rows: list[Row]) -> list[tuple[int, list[Row], Sequence[int]]]:
        """Rows by shard number, in order, with their indexes."""
        shards = self.state.open_shards
        if len(shards) == 1:
            return [(shards[0].number, rows, range(len(rows)))]
        groups: dict[int, tuple[list[Row], list[int]]] = {}
        for position, row in enumerate(rows):
            shard = self._shard_of(row[1], position)
            group = groups.get(shard)
            if group is None:
                group = groups[shard] = ([], [])
            group[0].append(row)
            group[1].append(position)
        return [(shard, grouped, positions) for shard, (grouped, positions) in sorted(groups.items())]

    def _shard_of(self, keys: dict[str, Any], position: int) -> int:
        try:
            key = partition_bytes(keys if self._partition_key is None else keys[self._partition_key])
        except (TypeError, ValueError, OverflowError, RecursionError):
            values.check_image(keys, "keys", position)
            raise
        shard = self._routes.get(key)
        if shard is None:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            digest = hashlib.md5(key, usedforsecurity=False).digest()
            shard = self._routes[key] = self.state.shard_of_digest(digest)
        return shard


def partition_bytes(key: object) -> bytes:
    """The bytes whose MD5 routes: text as UTF-8 and bytes as they are, as Kinesis does; else a canonical encoding."""
    if type(key) is str:
        return key.encode()
    if type(key) is bytes:
        return key
    return values.encode_for_routing(key)


def new_request(changes: Iterable[Change], options: StreamOptions, producer: tuple[str, int] | None) -> Request:
    """A checked request, not yet routed. Raises InvalidArgument that names the record's position and the field."""
    given = changes if type(changes) is list else list(changes)
    if not _ONLY_CHANGES.issuperset(map(type, given)):
        for position, change in enumerate(given):
            if not isinstance(change, Change):
                raise InvalidArgument(
                    f"record {position}: expected a Change, found a {type(change).__name__}", position=position
                )
    rows = [change.row for change in given]
    if rows:
        check_rows(rows, options)
        if not (options.carries_new and options.carries_old):
            new, old = options.carries_new, options.carries_old
            rows = [[row[0], row[1], row[2] if new else None, row[3] if old else None, *row[4:]] for row in rows]
    return Request(rows, producer)


def encode_request(request: Request, router: Router) -> None:
    """Route and encode a request for the router's state. Raises InvalidArgument, StreamDisabled."""
    if router.state.closed:
        raise StreamDisabled(f"stream {router.state.name} is disabled: it takes no more records")
    batches = []
    for shard, rows, positions in router.group(request.rows) if request.rows else ():
        body = encode_batch(rows, positions, router.levels_max)
        batches.append(EncodedBatch(shard, positions, encode_entry(shard, len(rows), body), body))
    size = sum(len(batch.body) for batch in batches)
    if size > APPEND_BYTES_MAX:
        raise InvalidArgument(f"expected an append of at most {APPEND_BYTES_MAX} bytes, found {size}")
    request.batches, request.body_bytes, request.state_version = batches, size, router.state.version


def check_rows(rows: list[Row], options: StreamOptions) -> None:
    """Keys follow the schema, images hold their keys, and what the view type carries is there.

    Raises InvalidArgument that names the record's position and the field.
    """
    if not _are_right(rows, options):
        for position, row in enumerate(rows):
            _check_row(row, position, options)


def _are_right(rows: list[Row], options: StreamOptions) -> bool:
    """Whether all rows are right and have the same key names; one pass, while a row is in the processor's cache."""
    needs_new, needs_old = options.carries_new, options.carries_old
    try:
        names = options.key_names or tuple(rows[0][1])
        if not names or not (options.partition_key is None or options.partition_key in names):
            return False
        count = len(names)
        key_of = itemgetter(*names)
        for code, keys, new, old in rows:
            key = key_of(keys)
            if type(keys) is not dict or len(keys) != count:
                return False
            if new is None:
                if needs_new and code != REMOVE:
                    return False
            elif key_of(new) != key:
                return False
            if old is None:
                if needs_old and code != INSERT:
                    return False
            elif key_of(old) != key:
                return False
    except (KeyError, TypeError, AttributeError, ValueError):
        return False  # ValueError: a row with optional fields
    return True


def _check_row(row: Row, position: int, options: StreamOptions) -> None:
    code, keys, new, old = row[:4]
    if type(keys) is not dict or not keys:
        found = "an empty dict" if keys == {} else "None" if keys is None else f"a {type(keys).__name__}"
        raise _refused(position, "keys", f"a dict of key attributes, found {found}")
    names = options.key_names
    if names is not None and keys.keys() != set(names):
        raise _refused(position, "keys", f"exactly the key names {list(names)}, found {list(keys)}")
    if options.partition_key is not None and options.partition_key not in keys:
        raise _refused(position, "keys", f"the partition key {options.partition_key!r}, found {list(keys)}")
    carried = (options.carries_new and code != REMOVE, options.carries_old and code != INSERT)
    for name, image, is_carried in zip(ROW_FIELDS[2:4], (new, old), carried, strict=True):
        if image is None:
            if is_carried:
                event = EVENT_NAMES[code]
                raise _refused(
                    position, name, f"the image that view type {options.view_type} carries of {event}, found None"
                )
            continue
        if type(image) is not dict:
            raise _refused(position, name, f"a dict, found a {type(image).__name__}")
        for key, value in keys.items():
            if key not in image:
                raise _refused(
                    position, f"{name}.{key}", "the image to hold its key attributes, found none of the name"
                )
            if image[key] != value:
                raise _refused(position, f"{name}.{key}", f"the key's value {value!r:.60}, found {image[key]!r:.60}")


def _refused(position: int, field_name: str, expectation: str) -> InvalidArgument:
    return InvalidArgument(
        f"record {position}, field {field_name}: expected {expectation}", position=position, field=field_name
    )

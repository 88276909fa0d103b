"""What moto does to items, recorded: from pairs of items to appends.

moto tells a table's *recorded shard* of each write as (item before, item after). A write that changed nothing gives no
record. What belongs together is gathered in a *unit*: an update that moto carries out in two writes becomes one record,
and a transaction's records become one append per stream, after moto has decided that it is not cancelled. Where the log
refuses (a full disk), moto's table is put back and the request fails: a table never holds what its stream does not.

One lock orders writes to tables and their records alike. It is held by `hooks` around each operation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import Item
from moto.dynamodb.models.table import Table

from shardlog.api import Store, Stream
from shardlog.errors import ShardlogError, StreamDisabled, StreamNotFound
from shardlog.model import Change
from shardlog.moto.images import image_of
from shardlog.moto.naming import stream_name
from shardlog.moto.triggers import invoke_functions
from shardlog.options import ShardingPolicy

RETENTION: Final = timedelta(hours=24)

_log = logging.getLogger("shardlog")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How tables' streams are made."""

    durability: str = "fsync"
    segment_bytes: int = 4 << 20
    """Preallocated; small, because test suites make many tables."""


@dataclass(slots=True)
class _Write:
    """One write, as moto told it."""

    shard: RecordedShard
    old: Item | None
    new: Item | None
    change: Change | None
    """None: it changed nothing."""


@dataclass(slots=True)
class Unit:
    """Writes that are recorded together, or not at all."""

    writes: list[_Write] = field(default_factory=list)


class RecordedShard:
    """Stands in for moto's StreamShard: it belongs to one table, and is shared by moto's copies of that table."""

    def __init__(self, recorder: Recorder, table: Table, stream: Stream) -> None:
        self.account_id = table.account_id
        self.stream = stream
        self.key_names = tuple(table.table_key_attrs)
        self._recorder = recorder
        self._region = table.region_name
        self._table_name = table.name

    @property
    def table(self) -> Table | None:
        """The table that moto has under this name now: after a cancelled transaction it is a copy."""
        backend: DynamoDBBackend = dynamodb_backends[self.account_id][self._region]
        found = backend.tables.get(self._table_name)
        return found if found is not None and found.stream_shard is self else None  # type: ignore[comparison-overlap]

    def add(self, old: Item | None, new: Item | None) -> None:
        """An item changed."""
        self._recorder.add(self, old, new)

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordedShard:
        """The same: a copy of a table has the same stream."""
        return self


class Recorder:
    """Records the writes of one process into a store. `observe` is told of each append: records, seconds."""

    def __init__(self, store: Store, settings: StreamSettings, observe: Callable[[int, float], None]) -> None:
        self.store = store
        self.lock = threading.RLock()
        self._settings = settings
        self._observe = observe
        self._local = threading.local()

    def new_shard(self, _account_id: str, table: Table) -> RecordedShard:
        """The shard of a table whose stream is being enabled: makes the stream, and gives the table its label."""
        assert table.stream_specification is not None
        name = stream_name(self.store, table.table_arn)
        self.disable(name)  # of a table that was forgotten without being deleted
        stream = self.store.create_stream(
            name,
            view_type=table.stream_specification["StreamViewType"],
            key_names=table.table_key_attrs,
            partition_key=table.hash_key_attr,
            retention=RETENTION,
            durability=self._settings.durability,
            segment_bytes=self._settings.segment_bytes,
            sharding=ShardingPolicy.dynamodb(),
            table_arn=table.table_arn,
        )
        table.latest_stream_label = stream.label
        return RecordedShard(self, table, stream)

    def disable(self, name: str) -> None:
        """Disable a stream, if there is one that is not."""
        try:
            self.store.disable_stream(name)
        except (StreamNotFound, StreamDisabled):
            return

    def disable_all(self) -> None:
        """Disable the streams of all tables: at the start of a process there are none."""
        for name in sorted({name for name, _ in self.store.names()}):
            try:
                if self.store.stream(name).describe().table_arn is not None:
                    self.disable(name)
            except ShardlogError as error:
                _log.error("stream %s stays as it is: %s", name, error)

    def add(self, shard: RecordedShard, old: Item | None, new: Item | None) -> None:
        """Record a write, or take it into the unit that is open in this thread."""
        write = _Write(shard, old, new, _change_of(shard, old, new, getattr(self._local, "identity", None)))
        unit: Unit | None = getattr(self._local, "unit", None)
        if unit is not None:
            unit.writes.append(write)
        else:
            self._append([write])

    @contextmanager
    def unit(self) -> Iterator[Unit]:
        """Writes of this thread within are recorded at the end, together; if it raises, not at all."""
        outer: Unit | None = getattr(self._local, "unit", None)
        unit = self._local.unit = Unit()
        try:
            yield unit
        finally:
            self._local.unit = outer
        if outer is not None:
            outer.writes += unit.writes
        else:
            self._append(unit.writes)

    @contextmanager
    def made_by(self, identity: str) -> Iterator[None]:
        """Writes of this thread within are a service's own."""
        self._local.identity = identity
        try:
            yield
        finally:
            self._local.identity = None

    def join(self, unit: Unit) -> None:
        """Make one write of all that a unit holds about one item: from its first state to its last."""
        if len(unit.writes) > 1:
            first, last = unit.writes[0], unit.writes[-1]
            identity = getattr(self._local, "identity", None)
            change = _change_of(last.shard, first.old, last.new, identity)
            unit.writes[:] = [_Write(last.shard, first.old, last.new, change)]

    def _append(self, writes: list[_Write]) -> None:
        """One append per stream. What cannot be appended is taken back in the tables."""
        by_shard: dict[int, list[_Write]] = {}
        for write in writes:
            if write.change is not None:
                by_shard.setdefault(id(write.shard), []).append(write)
        waiting = list(by_shard.values())
        while waiting:
            started = time.monotonic()
            shard = waiting[0][0].shard
            try:
                appended = shard.stream.append([write.change for write in waiting[0] if write.change is not None])
            except ShardlogError:
                for write in reversed([write for group in waiting for write in group]):
                    put_back(write.shard.table, write.old, write.new)
                raise
            waiting.pop(0)
            self._observe(len(appended.sequences), time.monotonic() - started)
            invoke_functions(shard.table, shard.stream, appended.sequences)


def put_back(table: Table | None, old: Item | None, new: Item | None) -> None:
    """Make an item of a table what it was before a write."""
    item = old if old is not None else new
    if table is None or item is None:
        return
    if item.range_key is None:
        if old is None:
            table.items.pop(item.hash_key, None)
        else:
            table.items[item.hash_key] = old  # type: ignore[assignment]  # moto's own type is that of the other case
    elif old is None:
        table.items[item.hash_key].pop(item.range_key, None)
    else:
        table.items[item.hash_key][item.range_key] = old


def _change_of(shard: RecordedShard, old: Item | None, new: Item | None, identity: str | None) -> Change | None:
    old_image, new_image = image_of(old), image_of(new)
    if old_image == new_image:
        return None
    image = new_image if new_image is not None else old_image
    assert image is not None
    keys = {name: image[name] for name in shard.key_names}
    if old_image is None:
        return Change("INSERT", keys, new_image, None, identity)
    if new_image is None:
        return Change("REMOVE", keys, None, old_image, identity)
    return Change("MODIFY", keys, new_image, old_image, identity)

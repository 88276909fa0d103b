"""What moto does to items, recorded: from pairs of items to appends.

moto tells a table's *recorded shard* of each write as (item before, item after). A write that changed nothing gives no
record. What belongs together is gathered in a *unit*: an update that moto carries out in two writes becomes one record,
and a transaction's records become one append per stream, after moto has decided that it is not cancelled. Where there
is no image of an item, or the log refuses (a full disk), moto's table is put back and the request fails: a table never
holds what its stream does not. Functions are invoked when all of a unit is recorded, and what they do wrong is logged.

One lock orders writes to tables and their records alike. It is held by `hooks` around each operation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from moto.dynamodb.exceptions import MockValidationException
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import Item
from moto.dynamodb.models.table import Table

from shardlog.api import Store, Stream
from shardlog.errors import ShardlogError, StreamDisabled, StreamNotFound
from shardlog.model import Change
from shardlog.moto.images import image_of
from shardlog.moto.naming import stream_name
from shardlog.moto.restoring import have_one_key, put_back
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
    """Writes that are recorded together, or not at all: per stream, one append."""

    writes: list[_Write] = field(default_factory=list)
    recorded: set[RecordedShard] = field(default_factory=set)
    """Whose append was acknowledged; the log has no way back."""


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

    def new_shard(self, table: Table, view_type: str) -> RecordedShard:
        """The shard of a table whose stream is being enabled: makes the stream, and gives the table its label."""
        name = stream_name(self.store, table.table_arn)
        self.disable(name)  # of a table that was forgotten without being deleted
        stream = self.store.create_stream(
            name,
            view_type=view_type,
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

    def close_stream(self, table: Table) -> None:
        """Disable a table's stream: first in the store, then in the table."""
        shard: object = table.stream_shard
        if isinstance(shard, RecordedShard):
            self.disable(shard.stream.name)
        table.stream_shard = None

    def close_streams(self, tables: Iterable[Table]) -> None:
        """Disable the streams of tables that are about to be gone; what cannot be is logged."""
        for table in tables:
            try:
                self.close_stream(table)
            except ShardlogError as error:
                _log.error("the stream of table %s stays as it is: %s", table.name, error)

    def release_tables(self) -> None:
        """Let moto's tables go on without streams: nobody records them any more."""
        with self.lock:
            for table in _live_tables():
                shard: object = table.stream_shard
                if isinstance(shard, RecordedShard):
                    table.stream_shard = None
                    table.stream_specification = {"StreamEnabled": False}

    def add(self, shard: RecordedShard, old: Item | None, new: Item | None) -> None:
        """Record a write, or take it into the unit that is open in this thread.

        Raises what moto answers as ValidationException where an item has no image; the table is as it was.
        """
        if old is not None and new is not None and not have_one_key(old, new):
            old = None  # moto looked it up by a condition's key, not by the item's own
        try:
            change = _change_of(shard, old, new, getattr(self._local, "identity", None))
        except Exception as error:  # whatever is wrong with the item, it must not stay
            put_back(shard.table, old, new)
            raise MockValidationException(f"One or more parameter values were invalid: {error}") from error
        write = _Write(shard, old, new, change)
        unit: Unit | None = getattr(self._local, "unit", None)
        if unit is not None:
            unit.writes.append(write)
        else:
            self._append(Unit([write]))

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
            self._append(unit)

    @contextmanager
    def unit_or(self, restore: Callable[[Set[object]], None]) -> Iterator[Unit]:
        """A unit; where it fails, `restore` is told whose records are in the log all the same."""
        gathered: Unit | None = None
        try:
            with self.unit() as gathered:
                yield gathered
        except BaseException:
            restore(gathered.recorded if gathered is not None else set())
            raise

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

    def _append(self, unit: Unit) -> None:
        """One append per stream, then their functions. What cannot be appended is taken back in the tables."""
        changes: dict[RecordedShard, list[Change]] = {}
        for write in unit.writes:
            if write.change is not None:
                changes.setdefault(write.shard, []).append(write.change)
        appended: list[tuple[RecordedShard, Sequence[int]]] = []
        try:
            for shard, found in changes.items():
                appended.append((shard, self._append_to(shard, found)))
                unit.recorded.add(shard)
        except Exception:
            for write in reversed(unit.writes):
                if write.shard not in unit.recorded:
                    put_back(write.shard.table, write.old, write.new)
            raise
        finally:
            for shard, sequences in appended:
                _invoke(shard, sequences)

    def _append_to(self, shard: RecordedShard, changes: list[Change]) -> Sequence[int]:
        started = time.monotonic()
        sequences = shard.stream.append(changes).sequences
        self._observe(len(sequences), time.monotonic() - started)
        return sequences


def _invoke(shard: RecordedShard, sequences: Sequence[int]) -> None:
    try:
        invoke_functions(shard.table, shard.stream, sequences)
    except Exception:  # noqa: BLE001 - a function is the client's, and the write is durable
        _log.exception("a function of the stream %s failed", shard.stream.name)


def _live_tables() -> Iterator[Table]:
    for by_region in list(dynamodb_backends.values()):
        for backend in list(by_region.values()):
            yield from list(backend.tables.values())


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

"""Where a stream's groups come from: their environment, opened once per process and closed with the stream."""

from __future__ import annotations

import logging
from collections.abc import Collection

from shardlog.consumer import Consumers, Group, LeaseTable, open_consumers, open_consumers_to_read
from shardlog.consumer.assignment import View
from shardlog.consumer.group import positions_of
from shardlog.consumer.source import Source, Start
from shardlog.errors import InvalidArgument, ReadOnly
from shardlog.files.protocol import LockFile
from shardlog.format import names
from shardlog.stream.open_stream import OpenStream

_log = logging.getLogger("shardlog")


def open_group(source: Source, stream: OpenStream, name: str, start: Start, read_only: bool) -> Group:
    """A group, made where there is none and the store is open to write."""
    table = LeaseTable(_consumers(stream, read_only), name)
    if read_only:
        table.view()
    else:
        table.create(lambda: 0 if start == "TRIM_HORIZON" else source.sequence_of(start), stream.clock.wall_us())

    def open_lock() -> LockFile:
        if read_only:
            raise ReadOnly(f"stream {source.name}: a worker moves checkpoints; the store was opened to read")
        return stream.files.open_lock(f"{stream.path}/{names.CONSUMERS}/{names.LOCK}")

    return Group(source, table, open_lock)


def group_names(stream: OpenStream, read_only: bool) -> list[str]:
    """The names of all groups of a stream."""
    if not stream.files.exists(f"{stream.path}/{names.CONSUMERS}"):
        return []
    with _consumers(stream, read_only).read() as rows:
        return sorted(rows.groups())


def held_from(stream: OpenStream, groups: Collection[str]) -> int:
    """The first sequence number that one of some groups has not checkpointed. A group that is gone holds nothing."""
    state = stream.state()
    first = stream.tail().next_sequence
    consumers = _consumers(stream, read_only=False)
    for name in groups:
        with consumers.read() as rows:
            known = rows.group(name)
            view = None if known is None else View(known, rows.leases(name), {})
        if view is None:
            _log.warning("%s: retention holds for group %s, which does not exist", stream.path, name)
        else:
            first = min([first, *positions_of(view, state.description.shards).values()])
    return first


def _consumers(stream: OpenStream, read_only: bool) -> Consumers:
    def make() -> Consumers:
        if read_only and not stream.files.exists(f"{stream.path}/{names.CONSUMERS}"):
            raise InvalidArgument(f"stream {stream.path}: expected groups of consumers, found none")
        if stream.is_private:
            return open_consumers_to_read(stream.files, stream.path)
        return open_consumers(stream.files, stream.path, stream.lock_timeout)

    return stream.attached(Consumers, make)

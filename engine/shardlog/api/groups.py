"""Where a stream's groups come from: their environment, opened once per process and closed with the stream."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection

from shardlog.consumer import GENERATION_BITS, Consumers, Group, LeaseTable, open_consumers, open_consumers_to_read
from shardlog.consumer.assignment import View
from shardlog.consumer.group import first_of, positions_of
from shardlog.consumer.source import Source, Start
from shardlog.errors import InvalidArgument, ReadOnly
from shardlog.files.protocol import LockFile
from shardlog.format import names
from shardlog.index.lmdb_files import DATA_FILE
from shardlog.stream.open_stream import OpenStream

_log = logging.getLogger("shardlog")


def open_group(source: Source, stream: OpenStream, name: str, start: Start, read_only: bool) -> Group:
    """A group, made where there is none and the store is open to write."""
    consumers = _consumers(stream, read_only)
    table = LeaseTable(consumers, name, is_read_only=read_only)
    if read_only:
        table.view()
    else:
        generation = random.SystemRandom().getrandbits(GENERATION_BITS)
        table.create(lambda: first_of(source, start), stream.clock.wall_us(), generation)

    def open_lock() -> LockFile:
        if read_only:
            raise ReadOnly(f"stream {source.name}: a worker moves checkpoints; the store was opened to read")
        lock = stream.files.open_lock(f"{stream.path}/{names.CONSUMERS}/{names.LOCK}")
        consumers.close_after_fork(lock)
        return lock

    return Group(source, table, open_lock)


def group_names(stream: OpenStream, read_only: bool) -> list[str]:
    """The names of all groups of a stream."""
    if not stream.files.exists(f"{stream.path}/{names.CONSUMERS}"):
        return []
    with _consumers(stream, read_only).read() as rows:
        return sorted(rows.groups())


def copy_consumers(stream: OpenStream, read_only: bool, directory: str) -> None:
    """Copy groups, leases and checkpoints into another directory of a stream, durably; nothing where there are none."""
    if stream.files.exists(f"{stream.path}/{names.CONSUMERS}/{DATA_FILE}"):
        _consumers(stream, read_only).copy_to(f"{directory}/{names.CONSUMERS}")


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

"""`shardlog salvage`: everything that can still be read of a store, copied into a new one. The source is not touched.

Reading the damaged files is the engine's (`shardlog.check.salvage`); owned here is the new store: the same streams,
labels and options, records appended commit by commit in their order and with their times, producers' positions at the
end. Sequence numbers are given anew. The new store is synced once, at the end: until then it is worth nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

from shardlog import InvalidArgument, Stream
from shardlog.api import Store, open_store
from shardlog.check.identity import StoreIdentity
from shardlog.check.salvage import Lost, Salvage, SalvagedCommit
from shardlog.clock import wall_us_of
from shardlog.files.posix import PosixFile, PosixFiles
from shardlog.files.protocol import File, Site
from shardlog.format import names
from shardlog.options import SEGMENT_BYTES_DEFAULT
from shardlog.stream.open_stream import Surroundings
from shardlog.stream.state import StreamState
from shardlog_tools.arguments import Subparsers, add_store_argument
from shardlog_tools.output import DONE, FAILED, USED_WRONGLY, CommandFailed, Output, Progress

_COMMITS_LOOKED_AT: Final = 1000
"""Where a stream's options are lost, the images that so many commits carry tell its view type."""
_LOCK_TIMEOUT_SECONDS: Final = 10.0
_VIEW_TYPES: Final = {
    (False, False): "KEYS_ONLY",
    (True, False): "NEW_IMAGE",
    (False, True): "OLD_IMAGE",
    (True, True): "NEW_AND_OLD_IMAGES",
}


@dataclass
class Totals:
    """What became of one stream."""

    name: str
    label: str
    records: int = 0
    refused: int = 0
    lost: list[Lost] = field(default_factory=list)
    options_known: bool = True


class _Replayed:
    """A clock that says the time of the record that is being copied."""

    def __init__(self) -> None:
        self.now_us = 0

    def wall_us(self) -> int:
        return self.now_us

    def boot_us(self) -> int:
        return self.now_us


class _UnsyncedFile(PosixFile):
    def sync(self, site: Site) -> None:
        """Not each commit: `_sync_all` does it once."""


class _UnsyncedFiles(PosixFiles):
    """Files of a store that nobody counts on yet."""

    def open(self, path: str) -> File:
        return _UnsyncedFile(os.open(path, os.O_RDWR | os.O_CLOEXEC), path)

    def create(self, path: str) -> File:
        return _UnsyncedFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path)


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "salvage",
        help="copy what is good of a damaged store into a new one",
        description="Copy everything that can still be read of a store, whether its streams open or not, into a new "
        "store. The source is not touched. Records keep their order and times; their sequence numbers are given anew.",
    )
    add_store_argument(parser)
    parser.add_argument("dest", metavar="DEST", help="the new store's directory, which must not exist or be empty")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Copy; returns the exit status: 1 where something is missing in the copy."""
    files = PosixFiles()
    source = os.path.abspath(args.store)
    if not os.path.isdir(source):
        raise CommandFailed(f"{source}: expected a store, found none", USED_WRONGLY)
    if os.path.lexists(args.dest) and not (os.path.isdir(args.dest) and not os.listdir(args.dest)):
        raise CommandFailed(f"{args.dest}: expected nothing there, or an empty directory", USED_WRONGLY)
    streams = [(path, Salvage(files, path)) for path in StoreIdentity(files, source).streams]
    progress = output.progress(None)
    clock = _Replayed()
    totals = []
    with open_store(
        os.path.abspath(args.dest), True, False, Surroundings(_UnsyncedFiles(), clock, _LOCK_TIMEOUT_SECONDS)
    ) as store:
        for index, (path, salvage) in enumerate(streams):
            name, label = path.rsplit("/", 2)[1:]
            is_newest = all(other.rsplit("/", 2)[1] != name for other, _ in streams[index + 1 :])
            totals.append(_copy(store, salvage, Totals(name, label), clock, is_newest, progress))
    _sync_all(args.dest)
    progress.clear()
    _show(args, totals, output)
    return FAILED if any(each.lost or each.refused for each in totals) else DONE


def _copy(
    store: Store, salvage: Salvage, totals: Totals, clock: _Replayed, is_newest: bool, progress: Progress
) -> Totals:
    """Copy one stream."""
    items = salvage.read()
    looked_at = list(islice(items, _COMMITS_LOOKED_AT))
    state = salvage.known.state
    totals.options_known = state is not None
    clock.now_us = state.created_us if state is not None else wall_us_of(names.created_at_of(totals.label))
    stream = _new_stream(store, totals.name, state, looked_at)
    for item in _clean(chain(looked_at, items), totals):
        clock.now_us = max(clock.now_us, item.timestamp_us)
        _append(stream, item, totals)
        progress.show(totals.records, totals.records, "records")
    for producer, position in salvage.known.producers.items():
        stream.append([], producer=producer, position=position)
    last = salvage.known.state
    if not is_newest or (last is not None and last.closed):
        store.disable_stream(totals.name)
    stream.close()
    return totals


def _new_stream(store: Store, name: str, state: StreamState | None, looked_at: list[SalvagedCommit | Lost]) -> Stream:
    if state is None:
        changes = [change for item in looked_at if isinstance(item, SalvagedCommit) for change in item.changes]
        view_type = _VIEW_TYPES[
            any(change.new is not None for change in changes), any(change.old is not None for change in changes)
        ]
        return store.create_stream(name, view_type=view_type, retention=None, segment_bytes=SEGMENT_BYTES_DEFAULT)
    options = state.options
    return store.create_stream(
        name,
        view_type=options.view_type,
        key_names=options.key_names,
        partition_key=options.partition_key,
        shards=_shard_count(state),
        retention=options.retention,
        retention_bytes=options.retention_bytes,
        durability=options.durability,
        sharding=options.sharding,
        segment_bytes=options.segment_bytes,
    )


def _shard_count(state: StreamState) -> int:
    """As many shards as are open, or were when the stream was disabled."""
    last_end = max((shard.end_sequence or 0 for shard in state.shards), default=0)
    return len(state.open_shards) or sum(shard.end_sequence == last_end for shard in state.shards) or 1


def _clean(items: Iterator[SalvagedCommit | Lost], totals: Totals) -> Iterator[SalvagedCommit]:
    for item in items:
        if isinstance(item, Lost):
            totals.lost.append(item)
        else:
            yield item


def _append(stream: Stream, item: SalvagedCommit, totals: Totals) -> None:
    """Append a commit whole; where a record of it is refused, each by itself."""
    try:
        stream.append(item.changes)
        totals.records += len(item.changes)
        return
    except InvalidArgument:
        if len(item.changes) == 1:
            totals.refused += 1
            return
    for change in item.changes:
        _append(stream, SalvagedCommit(item.first_sequence, item.timestamp_us, [change]), totals)


def _sync_all(path: str) -> None:
    """Make a whole directory durable."""
    for directory, _, files in os.walk(path, topdown=False):
        for name in [*files, "."]:
            descriptor = os.open(os.path.join(directory, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _show(args: argparse.Namespace, totals: list[Totals], output: Output) -> None:
    if output.as_json:
        output.object({"source": args.store, "dest": args.dest, "streams": list(map(_as_json, totals))})
        return
    for each in totals:
        output.line(f"{each.name} {each.label}: {each.records:,} records copied")
        if not each.options_known:
            output.line("  its options are lost: guessed from the records; one shard, kept for ever")
        if each.refused:
            output.line(f"  {each.refused:,} records were refused, because they break the stream's own rules")
        for lost in each.lost:
            output.line(f"  lost: sequence numbers {lost.first} to {lost.next} (exclusive): {lost.reason}")
    output.say(f"{args.dest}: sequence numbers differ from those in {args.store}, which was not touched")


def _as_json(each: Totals) -> dict[str, Any]:
    return {
        "name": each.name,
        "label": each.label,
        "records": each.records,
        "refused": each.refused,
        "options_known": each.options_known,
        "lost": [{"first": lost.first, "next": lost.next, "reason": lost.reason} for lost in each.lost],
    }

"""`shardlog salvage`: everything that can still be read of a store, copied into a new one. The source is not touched.

Reading the damaged files is the engine's (`shardlog.check.salvage`); owned here is the new store: the same streams,
labels and options, records appended commit by commit in their order and with their times, producers' positions at the
end. Sequence numbers are given anew. The new store is made under a temporary name and synced once, at the end: it is
there whole or not at all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

from shardlog import InvalidArgument, Stream
from shardlog.api import Store, open_store
from shardlog.check.findings import Finding
from shardlog.check.identity import StoreIdentity, is_store
from shardlog.check.salvage import Lost, Salvage, SalvagedCommit
from shardlog.clock import wall_us_of
from shardlog.files.posix import PosixFile, PosixFiles
from shardlog.files.protocol import File, Site
from shardlog.format import names
from shardlog.options import SEGMENT_BYTES_DEFAULT
from shardlog.stream.open_stream import Surroundings
from shardlog.stream.state import StreamState
from shardlog_tools.arguments import Subparsers
from shardlog_tools.descriptions import finding_as_json
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
    problem: str | None = None
    """Why nothing of it can be read."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing in the copy."""
        return self.options_known and self.problem is None and not self.lost and not self.refused


class _Replayed:
    """A clock that says the time of the record that is being copied."""

    def __init__(self) -> None:
        self.now_us = 0

    def wall_us(self) -> int:
        return self.now_us

    def boot_us(self) -> int:
        return self.now_us

    def awake_us(self) -> int:
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
    parser.add_argument("store", metavar="STORE", help="the store's directory, or that of one of its streams")
    parser.add_argument("dest", metavar="DEST", help="the new store's directory, which must not exist or be empty")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Copy; returns the exit status: 1 where something is missing in the copy."""
    source, dest = os.path.abspath(args.store), os.path.abspath(args.dest)
    streams, unseen = _streams_of(PosixFiles(), source)
    if os.path.lexists(dest) and not (os.path.isdir(dest) and not os.listdir(dest)):
        raise CommandFailed(f"{dest}: expected nothing there, or an empty directory", USED_WRONGLY)
    if os.path.commonpath([os.path.realpath(source), os.path.realpath(dest)]) == os.path.realpath(source):
        raise CommandFailed(f"{dest}: expected a place outside {source}, which is not to be touched", USED_WRONGLY)
    if not streams:
        raise CommandFailed(
            f"{source}: expected streams that can be copied, found none{''.join(f'; {each}' for each in unseen)}"
        )
    os.makedirs(os.path.dirname(dest), exist_ok=True)
    temporary = f"{dest}-{uuid.uuid4().hex}{names.TEMPORARY}"
    try:
        totals = _copy_all(streams, temporary, output)
        _sync_all(temporary)
        os.rename(temporary, dest)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(os.path.dirname(dest))
    _show(args, totals, unseen, output)
    is_whole = not unseen and all(each.is_whole for each in totals)
    return DONE if is_whole else FAILED


def _streams_of(files: PosixFiles, source: str) -> tuple[list[tuple[Salvage, Totals]], list[Finding]]:
    """The streams of a store, by their directories' names, and what cannot be seen; or one, by its log's name."""
    try:
        if is_store(files, source):
            identity = StoreIdentity(files, source)
            streams = [(Salvage(files, path), Totals(*_name_and_label(path))) for path in identity.streams]
            return streams, [finding for finding in identity.findings if finding.code == "read-failed"]
    except InvalidArgument as error:
        raise CommandFailed(str(error), USED_WRONGLY) from error
    salvage = Salvage(files, source)
    state = salvage.known.state
    named = Totals(state.name, state.label) if state is not None else Totals(*_name_and_label(source))
    return [(salvage, named)], []


def _name_and_label(path: str) -> tuple[str, str]:
    return os.path.basename(os.path.dirname(path)), os.path.basename(path)


def _copy_all(streams: list[tuple[Salvage, Totals]], path: str, output: Output) -> list[Totals]:
    """Copy all streams into a new store, not yet synced."""
    progress = output.progress(None)
    clock = _Replayed()
    try:
        with open_store(path, True, False, Surroundings(_UnsyncedFiles(), clock, _LOCK_TIMEOUT_SECONDS)) as store:
            for index, (salvage, totals) in enumerate(streams):
                is_newest = all(other.name != totals.name for _, other in streams[index + 1 :])
                _copy(store, salvage, totals, clock, is_newest, progress)
    finally:
        progress.clear()
    return [totals for _, totals in streams]


def _copy(
    store: Store, salvage: Salvage, totals: Totals, clock: _Replayed, is_newest: bool, progress: Progress
) -> None:
    """Copy one stream."""
    items = salvage.read()
    looked_at = list(islice(items, _COMMITS_LOOKED_AT))
    state = salvage.known.state
    totals.options_known, totals.problem = state is not None, salvage.problem
    if state is not None:
        clock.now_us = state.created_us
    elif names.is_label(totals.label):
        clock.now_us = wall_us_of(names.created_at_of(totals.label))
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
        table_arn=options.table_arn,
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
            _sync(os.path.join(directory, name))


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _show(args: argparse.Namespace, totals: list[Totals], unseen: list[Finding], output: Output) -> None:
    if output.as_json:
        output.object(
            {
                "source": args.store,
                "dest": args.dest,
                "streams": list(map(_as_json, totals)),
                "unseen": list(map(finding_as_json, unseen)),
            }
        )
        return
    for each in totals:
        output.line(f"{each.name} {each.label}: {each.records:,} records copied")
        if each.problem is not None:
            output.line(f"  nothing of it can be read: {each.problem}")
        if not each.options_known:
            output.line("  its options are lost: guessed from the records; one shard, kept for ever")
        if each.refused:
            output.line(f"  {each.refused:,} records were refused, because they break the stream's own rules")
        for lost in each.lost:
            output.line(f"  lost: sequence numbers {lost.first} to {lost.next} (exclusive): {lost.reason}")
    for finding in unseen:
        output.line(str(finding))
    output.say(f"{args.dest}: sequence numbers differ from those in {args.store}, which was not touched")


def _as_json(each: Totals) -> dict[str, Any]:
    return {
        "name": each.name,
        "label": each.label,
        "records": each.records,
        "refused": each.refused,
        "options_known": each.options_known,
        "problem": each.problem,
        "lost": [{"first": lost.first, "next": lost.next, "reason": lost.reason} for lost in each.lost],
    }

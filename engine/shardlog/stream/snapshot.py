"""A snapshot: a copy of one stream, as of one moment, in a store of its own, taken while others append.

One tail says what is in it. Sealed segments get a second name first (a hard link; nothing ever writes to them in
place), so that they cannot expire meanwhile, and are then copied one by one; the active one is copied up to the tail;
MARK is new. The store is made under a temporary name, synced, and renamed: it is there whole or not at all.

So damage to either side leaves the other good. With `links` the links stay: no space, hardly any time, and appends,
expiry, repair and deletion on either side still do not touch the other; but both names stand for the same bytes on the
disk, and what happens to those happens to both.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from shardlog.errors import CorruptLog, InvalidArgument, TrimmedData
from shardlog.files.links import copy, link_or_copy
from shardlog.files.mounts import check_filesystem
from shardlog.files.protocol import Files, Site
from shardlog.format import names
from shardlog.format.identity import encode_identity
from shardlog.index.tail import Tail
from shardlog.index.transaction import SegmentName
from shardlog.log.mark_file import MarkFile, create_mark
from shardlog.log.segments import expired_segments
from shardlog.stream.open_stream import OpenStream
from shardlog.stream.rolling import mark_of

_TRIES: Final = 10
"""Segments may expire while they are linked; then the snapshot begins anew at a later tail."""


def take_snapshot(
    stream: OpenStream, dest: str, *, links: bool = False, copy_consumers: Callable[[str], None] = lambda _: None
) -> None:
    """Copy a stream into a new store at `dest`, which must not exist or be an empty directory.

    Raises InvalidArgument, CorruptLog (the stream's end is damaged: repair or salvage it), StorageFull, StorageFailed.
    """
    files = stream.files
    if os.path.lexists(dest) and not (os.path.isdir(dest) and not os.listdir(dest)):
        raise InvalidArgument(f"{dest}: expected nothing there, or an empty directory")
    parent = os.path.dirname(dest)
    store = os.path.realpath(f"{stream.path}/../../..")
    if os.path.commonpath([store, os.path.realpath(dest)]) == store:
        raise InvalidArgument(f"{dest}: expected a place outside the store {store}")
    _make_directories(files, parent)
    check_filesystem(parent)
    if stream.damage:
        raise stream.damage[0]
    temporary = f"{dest}-{uuid.uuid4().hex}{names.TEMPORARY}"
    files.make_directory(temporary)
    try:
        for attempt in range(_TRIES):
            try:
                _fill(stream, files, temporary, links, copy_consumers)
                break
            except TrimmedData:
                if attempt + 1 == _TRIES:
                    raise
                shutil.rmtree(f"{temporary}/{names.STREAMS}", ignore_errors=True)
                with suppress(FileNotFoundError):
                    files.unlink(f"{temporary}/{names.STORE}")
        files.rename(temporary, dest)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    files.sync_directory(parent, Site.STORE_ENTRY)


def _make_directories(files: Files, path: str) -> None:
    if not files.exists(path):
        _make_directories(files, os.path.dirname(path))
        with suppress(FileExistsError):
            files.make_directory(path)
        files.sync_directory(os.path.dirname(path), Site.STORE_ENTRY)


def _fill(stream: OpenStream, files: Files, store: str, links: bool, copy_consumers: Callable[[str], None]) -> None:
    state = stream.state()
    path = f"{store}/{names.STREAMS}/{state.name}/{state.label}"
    log_path = f"{path}/{names.LOG}"
    for directory in (f"{store}/{names.STREAMS}", os.path.dirname(path), path, log_path, f"{path}/{names.INDEX}"):
        files.make_directory(directory)
    files.open_lock(f"{path}/{names.LOCK}").close()
    copy_consumers(path)  # first: then no checkpoint lies beyond the tail
    tail = stream.tail()
    linked = []
    for segment in _segments(stream, tail):
        name = names.segment_name(*segment)
        source = stream.segments.path_of(*segment)
        try:
            if segment.segment_id == tail.segment_id:
                copy(files, source, f"{log_path}/{name}", tail.offset, Site.SEGMENT_HEADER)
            elif link_or_copy(files, source, f"{log_path}/{name}", Site.SEGMENT_HEADER):
                linked.append(f"{log_path}/{name}")
        except FileNotFoundError:
            raise TrimmedData(f"{source}: the segment is gone; its records have expired") from None
    for name in () if links else linked:
        copy(files, name, name + names.TEMPORARY, None, Site.SEGMENT_HEADER)
        files.rename(name + names.TEMPORARY, name)
    _make_mark(files, path, tail)
    store_uuid = stream.segments.header(tail.segment_first, tail.segment_id).store_uuid
    file = files.create(f"{store}/{names.STORE}")
    try:
        file.pwrite(encode_identity(store_uuid), 0)
        file.sync(Site.STORE_IDENTITY)
    finally:
        file.close()
    for directory in (log_path, path, os.path.dirname(path), f"{store}/{names.STREAMS}", store):
        files.sync_directory(directory, Site.STREAM_ENTRIES)


def _segments(stream: OpenStream, tail: Tail) -> list[SegmentName]:
    """The segments up to the tail, oldest first."""
    segments = [segment for segment in stream.index.segments() if segment.first_sequence <= tail.segment_first]
    if not segments or segments[-1].segment_id != tail.segment_id:
        raise CorruptLog(f"{stream.path}: the index does not know the segment of its own tail")
    if segments[0].first_sequence > tail.trim_horizon and stream.tail().trim_horizon > tail.trim_horizon:
        raise TrimmedData(f"{stream.path}: records have expired since the tail was read")
    return segments[len(expired_segments(segments, tail.trim_horizon)) :]


def _make_mark(files: Files, path: str, tail: Tail) -> None:
    """A MARK that says that everything up to the tail is synced, as it is in the copy."""
    create_mark(files, f"{path}/{names.MARK}", Site.STREAM_MARK)
    mark = MarkFile(files.open(f"{path}/{names.MARK}"))
    try:
        mark.write_numbers(mark_of(tail))
    finally:
        mark.close()

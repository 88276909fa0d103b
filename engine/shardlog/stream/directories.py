"""Creating, finding and removing the directories of streams. Under the store's GATE; what is open is `open_stream`'s.

A new stream's directory is made under a temporary name, synced, and renamed: it exists whole or not at all. Deleting
renames first, so that a crash leaves a name that nobody takes for a stream.
"""

from __future__ import annotations

import os
import uuid
from typing import Final

from shardlog.clock import wall_us_of
from shardlog.files.protocol import Files, Site
from shardlog.format import names
from shardlog.format.segment import Predecessor, SegmentHeader
from shardlog.log.mark_file import create_mark
from shardlog.log.writer import NewSegment, footer_reserve, new_segment_bytes
from shardlog.options import StreamOptions
from shardlog.stream.state import StreamState, encode_state, new_state

_FIRST_SEGMENT_ID: Final = 1
_FIRST_SEQUENCE: Final = 1
_MILLISECOND_US: Final = 1000


def labels(files: Files, base: str) -> list[str]:
    """Labels of the incarnations of a stream, oldest first; `base` is the directory of its name."""
    if not files.exists(base):
        return []
    return sorted(name for name in files.names(base) if names.is_label(name))


def create_stream_directory(
    files: Files, streams: str, name: str, options: StreamOptions, shard_count: int, store_uuid: bytes, now_us: int
) -> str:
    """Create a stream; returns its label."""
    base = f"{streams}/{name}"
    for directory in (streams, base):
        if not files.exists(directory):
            files.make_directory(directory)
        # Also the name of one that was there: whoever made it may have been killed before this.
        files.sync_directory(os.path.dirname(directory), Site.STREAM_ENTRY)
    remove_leftovers(files, base)
    for newest in labels(files, base)[-1:]:
        # Labels sort by creation, whatever the clock did since.
        now_us = max(now_us, wall_us_of(names.created_at_of(newest)) + _MILLISECOND_US)
    state = new_state(name, now_us, options, shard_count)
    path = f"{base}/{state.label}"
    temporary = path + names.TEMPORARY
    _fill(files, temporary, state, store_uuid)
    files.rename(temporary, path)
    files.sync_directory(base, Site.STREAM_ENTRY)
    return state.label


def _fill(files: Files, path: str, state: StreamState, store_uuid: bytes) -> None:
    log_path = f"{path}/{names.LOG}"
    files.make_directory(path)
    files.make_directory(log_path)
    files.make_directory(f"{path}/{names.INDEX}")
    files.open_lock(f"{path}/{names.LOCK}").close()
    header = SegmentHeader(
        segment_id=_FIRST_SEGMENT_ID,
        first_sequence=_FIRST_SEQUENCE,
        created_us=state.created_us,
        store_uuid=store_uuid,
        stream_uuid=uuid.uuid4().bytes,
        records_before=0,
        timestamp_before_us=0,
        predecessor=Predecessor(0, 0, _FIRST_SEQUENCE, 0),
        snapshot=encode_state(state),
    )
    wanted = state.options.segment_bytes
    size = new_segment_bytes(files, log_path, wanted, header.header_bytes + footer_reserve(wanted))
    NewSegment(files, log_path, header, size).name()
    create_mark(files, f"{path}/{names.MARK}", Site.STREAM_MARK)
    files.sync_directory(path, Site.STREAM_ENTRIES)


def remove_stream_directory(files: Files, base: str, label: str) -> None:
    """Remove one incarnation, and the directory of the name with the last one."""
    doomed = f"{base}/{label}{names.DELETED}"
    files.rename(f"{base}/{label}", doomed)
    files.sync_directory(base, Site.STREAM_REMOVED)
    _remove_tree(files, doomed)
    if not files.names(base):
        files.remove_directory(base)


def remove_leftovers(files: Files, base: str) -> None:
    """Remove what a crash left of streams that were never created, or already deleted."""
    leftovers = [name for name in files.names(base) if name.endswith((names.TEMPORARY, names.DELETED))]
    if leftovers:
        # Whoever renamed it may have been killed before this: the stream must not come back without its files.
        files.sync_directory(base, Site.STREAM_REMOVED)
    for name in leftovers:
        _remove_tree(files, f"{base}/{name}")


def _remove_tree(files: Files, path: str) -> None:
    for name in files.names(path):
        try:
            files.unlink(f"{path}/{name}")
        except IsADirectoryError:
            _remove_tree(files, f"{path}/{name}")
    files.remove_directory(path)

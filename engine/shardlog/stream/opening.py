"""Opening a stream's directory: whether the index can be trusted, recovery if not, and what recovery puts right.

Under GATE, "does anybody hold LIVE?" decides. Somebody does: the index is sound. Nobody does: the index on disk is
discarded, however it was closed, and made anew from the log; an LMDB file that was never synced opens and walks without
error after a power cut, and points into the past. Bytes that the scan adopts beyond MARK are written again and synced
before they are published, because page cache and disk may differ after an earlier failed sync.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from shardlog.errors import CorruptLog, StorageFailed
from shardlog.files.gate import LIVE, gate_held
from shardlog.files.posix import translated
from shardlog.files.protocol import Files, LockFile, Site
from shardlog.format import names
from shardlog.format.checksum import crc32c
from shardlog.format.mark import Mark
from shardlog.index.environment import Index, IndexContent
from shardlog.index.tail import CLOSED, MUST_ROLL, Tail
from shardlog.index.transaction import SegmentName
from shardlog.log.mark_file import MarkFile, open_mark
from shardlog.log.recovery import LogEnd, add_counts, find_log_end
from shardlog.log.segments import expired_segments, read_segment_header
from shardlog.log.writer import ActiveSegment, footer_reserve, remove_expired
from shardlog.stream.lineage import fold
from shardlog.stream.rolling import UNSYNCED_NUMBERS_MAX, mark_of
from shardlog.stream.state import Snapshot, decode_state, encode_state, positions_of

_log = logging.getLogger("shardlog")


@dataclass(slots=True)
class OpenedStream:
    """What opening yields. `is_private`: the index was made for this process alone, and is not the stream's."""

    lock: LockFile
    index: Index
    mark: MarkFile
    stream_uuid: bytes
    is_private: bool = False
    damage: tuple[CorruptLog, ...] = ()

    def close(self) -> None:
        """Close everything, LIVE last: until then nobody may take the index for abandoned."""
        self.index.close()
        self.mark.close()
        self.lock.close()


Checkpointed = Callable[[Files, str], int]
"""The last number that a consumer of the stream in a directory has handled; 0: none."""


def nothing_checkpointed(*_: object) -> int:
    """Of a stream without consumers."""
    return 0


def open_to_write(files: Files, path: str, lock_timeout: float, checkpointed: Checkpointed) -> OpenedStream:
    """Open a stream's directory, recovering it if nobody has it open. Raises CorruptLog, StoreLocked."""
    lock = files.open_lock(f"{path}/{names.LOCK}")
    try:
        with gate_held(lock, path, lock_timeout):
            mark = open_mark(files, path)
            if lock.is_held_elsewhere(LIVE):
                index, uuid = _join(files, path)
            else:
                index, uuid = _recover(files, path, mark, checkpointed)
            if not lock.try_shared(LIVE):
                raise StorageFailed(f"{path}/{names.LOCK}: expected LIVE to be shared, found it held alone")
        return OpenedStream(lock, index, mark, uuid)
    except BaseException:
        lock.close()
        raise


def open_to_read(files: Files, path: str, lock_timeout: float, checkpointed: Checkpointed) -> OpenedStream:
    """Open a stream's directory without changing anything in it.

    Shares the index if somebody has it open; else makes one of its own in a temporary directory, and serves a damaged
    log as far as it goes.
    """
    lock_path = f"{path}/{names.LOCK}"
    if not files.exists(lock_path):
        # A copy without it: nobody has it open, and it is not for a reader to make one.
        return _read_alone(files, path, files.open_lock_to_read(os.devnull), checkpointed)
    try:
        lock = files.open_lock(lock_path)
    except StorageFailed:
        # A medium that cannot be written has no writers.
        return _read_alone(files, path, files.open_lock_to_read(lock_path), checkpointed)
    try:
        with gate_held(lock, path, lock_timeout):
            if lock.is_held_elsewhere(LIVE):
                return _read_along(files, path, lock)
            return _read_alone(files, path, lock, checkpointed)
    except BaseException:
        lock.close()
        raise


def _read_along(files: Files, path: str, lock: LockFile) -> OpenedStream:
    index, uuid = _join(files, path)
    if not lock.try_shared(LIVE):
        raise StorageFailed(f"{path}/{names.LOCK}: expected LIVE to be shared, found it held alone")
    return OpenedStream(lock, index, MarkFile(files.open(f"{path}/{names.MARK}")), uuid)


def _join(files: Files, path: str) -> tuple[Index, bytes]:
    log_path = f"{path}/{names.LOG}"
    index = Index(f"{path}/{names.INDEX}")
    tail = index.tail()
    file = files.open_to_read(f"{log_path}/{names.segment_name(tail.segment_first, tail.segment_id)}")
    try:
        return index, read_segment_header(file).stream_uuid
    finally:
        file.close()


def _read_alone(files: Files, path: str, lock: LockFile, checkpointed: Checkpointed) -> OpenedStream:
    try:
        mark_file = MarkFile(files.open_to_read(f"{path}/{names.MARK}"))
        mark, _ = mark_file.read()
    except FileNotFoundError:
        mark_file, mark = MarkFile(files.open_to_read(os.devnull)), None
    end = find_log_end(files, f"{path}/{names.LOG}", mark, checkpointed(files, path))
    snapshot = decode_state(end.snapshot)
    content = _index_content(files, path, end, snapshot, mark, False)
    with (
        translated("make an index in", tempfile.gettempdir()),
        tempfile.TemporaryDirectory(prefix="shardlog-index-", ignore_cleanup_errors=True) as directory,
    ):
        # Open, it does without its names: whatever becomes of this process, nothing is left behind.
        index = Index.make(directory, content)
    return OpenedStream(lock, index, mark_file, end.header.stream_uuid, True, tuple(end.damage))


def _recover(files: Files, path: str, mark_file: MarkFile, checkpointed: Checkpointed) -> tuple[Index, bytes]:
    log_path = f"{path}/{names.LOG}"
    _remove_temporary(files, log_path)
    # A stream or segment may have its name from somebody who was killed before that was synced.
    files.sync_directory(os.path.dirname(path), Site.FOUND_ENTRIES)
    files.sync_directory(log_path, Site.FOUND_ENTRIES)
    mark, unsynced = mark_file.read()
    end = find_log_end(files, log_path, mark, checkpointed(files, path))
    if end.damage:
        raise end.damage[0]
    if end.torn_end > end.offset:
        _set_aside(files, path, end)
    _adopt(files, log_path, end, mark)
    snapshot = decode_state(end.snapshot)
    for segment in expired_segments(end.segments, fold(snapshot.state, end.controls).trim_horizon):
        remove_expired(files, f"{log_path}/{names.segment_name(*segment)}")
    index_path = f"{path}/{names.INDEX}"
    if not files.exists(index_path):
        files.make_directory(index_path)
    content = _index_content(files, path, end, snapshot, mark, unsynced)
    if content.tail.next_sequence > end.next_sequence:
        # What MARK says of numbers may be in the page cache only, and what follows from it is about to be told.
        mark_file.write_numbers(mark_of(content.tail))
    if unsynced:
        mark_file.set_unsynced(False)
    return Index.make(index_path, content), end.header.stream_uuid


def _next_sequence(mark: Mark | None, end: LogEnd) -> int:
    """The number after the end of the log: after a failed sync MARK may have skipped some there."""
    if mark is None or (mark.segment_id, mark.offset) != (end.header.segment_id, end.offset):
        return end.next_sequence
    return max(end.next_sequence, mark.next_sequence)


def _remove_temporary(files: Files, log_path: str) -> None:
    for name in files.names(log_path):
        if name.endswith(names.TEMPORARY):
            files.unlink(f"{log_path}/{name}")


def _set_aside(files: Files, path: str, end: LogEnd) -> None:
    """Keep a copy of the bytes of a torn tail, with a line in the manifest that says what they are."""
    segment = names.segment_name(end.header.first_sequence, end.header.segment_id)
    source = files.open_to_read(f"{path}/{names.LOG}/{segment}")
    try:
        content = source.pread(end.torn_end - end.offset, end.offset)
    finally:
        source.close()
    lost = f"{path}/{names.LOST_AND_FOUND}"
    if not files.exists(lost):
        files.make_directory(lost)
    files.sync_directory(path, Site.LOST_AND_FOUND_ENTRY)
    target = f"{segment}-{end.offset:012d}-{crc32c(content):08x}.torn"
    manifest = json.dumps(
        {"file": target, "segment": segment, "offset": end.offset, "bytes": len(content), "what": "torn tail",
         "next_sequence": end.next_sequence}
    )  # fmt: skip
    for name, body in ((target, content), (target + ".json", manifest.encode() + b"\n")):
        if not files.exists(f"{lost}/{name}"):
            _write_whole(files, f"{lost}/{name}", body)
    files.sync_directory(lost, Site.LOST_AND_FOUND_ENTRY)
    _log.warning("%s: %d bytes of a torn tail were set aside in %s", path, len(content), names.LOST_AND_FOUND)


def _write_whole(files: Files, path: str, content: bytes) -> None:
    temporary = path + names.TEMPORARY
    if files.exists(temporary):
        files.unlink(temporary)
    file = files.create(temporary)
    try:
        file.pwrite(content, 0)
        file.sync(Site.LOST_AND_FOUND)
    finally:
        file.close()
    files.rename(temporary, path)


def _adopt(files: Files, log_path: str, end: LogEnd, mark: Mark | None) -> None:
    """Write again, and sync, what lies between MARK and the end."""
    header = end.header
    here = mark is not None and mark.segment_id == header.segment_id
    start = mark.offset if mark and here else 0
    if start >= end.offset:
        return
    file = files.open(f"{log_path}/{names.segment_name(header.first_sequence, header.segment_id)}")
    try:
        ActiveSegment(file, header.segment_id, 0).rewrite(start, end.offset, Site.ADOPTED)
    finally:
        file.close()


def _index_content(
    files: Files, path: str, end: LogEnd, snapshot: Snapshot, mark: Mark | None, unsynced: bool
) -> IndexContent:
    state = fold(snapshot.state, end.controls)
    header = end.header
    file = files.open_to_read(f"{path}/{names.LOG}/{names.segment_name(header.first_sequence, header.segment_id)}")
    try:
        size = file.size()
    finally:
        file.close()
    jumped = end.next_sequence + (UNSYNCED_NUMBERS_MAX if unsynced else 0)
    next_sequence = max(jumped, _next_sequence(mark, end))  # MARK may tell of an earlier jump, which is not made twice
    must_roll = end.sealed or end.torn_end > end.offset or next_sequence > end.next_sequence
    expired = expired_segments(end.segments, state.trim_horizon)
    oldest = end.segments[len(expired)][0]
    counts = dict(snapshot.counts)
    for shard, (records, body_bytes) in end.counts.items():
        counts[shard] = add_counts(counts.get(shard), records, body_bytes)
    counts = {shard: count for shard, count in counts.items() if shard in state.by_number}
    tail = Tail(
        flags=(MUST_ROLL if must_roll else 0) | (CLOSED if state.closed else 0),
        segment_id=header.segment_id,
        offset=end.offset,
        limit=max(0, size - footer_reserve(state.options.segment_bytes)),  # a sealed segment was cut short
        next_sequence=next_sequence,
        durable_sequence=next_sequence,
        records=end.records,
        commits=mark.commits + 1 if mark else 1,
        last_crc=max(end.last_crc, 0),
        timestamp_us=end.timestamp_us,
        segment_first=header.first_sequence,
        segment_created_us=header.created_us,
        checkpoint_offset=end.checkpoint,
        indexed_offset=end.indexed_offset,
        state_version=state.version,
        rolling_id=max(segment_id for _, segment_id in end.segments),
        trim_horizon=state.trim_horizon,
    )
    return IndexContent(
        tail=tail,
        state=encode_state(state),
        segments=[SegmentName(*segment) for segment in end.segments if segment[0] >= oldest],
        positions=end.positions,
        producers={**snapshot.producers, **positions_of(end.controls)}.items(),
        counts=counts,
    )

"""Going on behind damage: a new segment after one whose end cannot be trusted. That one is not touched.

The same steps as when a segment rolls: a temporary name, the header, preallocated, synced, named, the directory synced,
MARK. The header's predecessor field ends the damaged segment *behind* the damage, so that readers meet it; where MARK
says that a whole segment is missing, it names that one.
"""

from __future__ import annotations

from dataclasses import replace

from shardlog.clock import Clock
from shardlog.consumer import highest_checkpoint
from shardlog.files.protocol import Files
from shardlog.format import names
from shardlog.format.mark import Mark
from shardlog.format.segment import Predecessor, SegmentHeader
from shardlog.log.mark_file import open_mark
from shardlog.log.recovery import LogEnd, add_counts, find_log_end
from shardlog.log.writer import NewSegment, footer_reserve, new_segment_bytes
from shardlog.stream.lineage import fold
from shardlog.stream.rolling import UNSYNCED_NUMBERS_MAX
from shardlog.stream.state import decode_state, encode_state, positions_of


def go_on_behind(files: Files, stream: str, clock: Clock) -> bool:
    """Make the new segment, if opening would find the log's end damaged; whether it was needed. Under GATE."""
    log_path = f"{stream}/{names.LOG}"
    mark_file = open_mark(files, stream)
    try:
        mark, unsynced = mark_file.read()
        end = find_log_end(files, log_path, mark, highest_checkpoint(files, stream))
        if not end.damage:
            return False
        for name in files.names(log_path):
            if name.endswith(names.TEMPORARY):
                files.unlink(f"{log_path}/{name}")
        header = _header(end, mark, unsynced, clock)
        wanted = decode_state(header.snapshot).state.options.segment_bytes
        size = new_segment_bytes(files, log_path, wanted, header.header_bytes + footer_reserve(wanted))
        segment = NewSegment(files, log_path, header, size)
        segment.name()
        commits = mark.commits + 1 if mark else 1
        mark_file.write(Mark(commits, header.segment_id, header.header_bytes, header.first_sequence, segment.crc))
        mark_file.sync()
        return True
    finally:
        mark_file.close()


def _header(end: LogEnd, mark: Mark | None, unsynced: bool, clock: Clock) -> SegmentHeader:
    snapshot = decode_state(end.snapshot)
    state = fold(snapshot.state, end.controls)
    counts = dict(snapshot.counts)
    for shard, (records, body_bytes) in end.counts.items():
        counts[shard] = add_counts(counts.get(shard), records, body_bytes)
    last_first, last_id = end.segments[-1]
    predecessor = Predecessor(last_id, end.offset, end.next_sequence, max(end.last_crc, 0))
    newest_id = max(segment_id for _, segment_id in end.segments)
    if mark is not None and mark.segment_id > newest_id:
        newest_id = mark.segment_id
        predecessor = Predecessor(mark.segment_id, mark.offset, mark.next_sequence, mark.last_crc)
    next_sequence = max(end.next_sequence, predecessor.next_sequence)
    first_sequence = max(next_sequence, last_first + 1) + (UNSYNCED_NUMBERS_MAX if unsynced else 0)
    producers = {**snapshot.producers, **positions_of(end.controls)}
    return replace(
        end.header,
        segment_id=newest_id + 1,
        first_sequence=first_sequence,
        created_us=clock.wall_us(),
        records_before=end.records,
        timestamp_before_us=end.timestamp_us,
        predecessor=replace(predecessor, next_sequence=next_sequence),
        snapshot=encode_state(state, producers.items(), {n: c for n, c in counts.items() if n in state.by_number}),
    )

"""Stores that no engine would write: blocks, footers and headers with right checksums and wrong contents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from shardlog.files.posix import PosixFiles
from shardlog.format import names
from shardlog.format.commit import encode_block, encode_entry, seed_of
from shardlog.format.segment import Footer, Predecessor, SegmentHeader, encode_header
from shardlog.log.recovery import LogEnd, find_log_end
from shardlog.log.segments import list_segments, read_segment_header
from shardlog.log.writer import ActiveSegment
from shardlog.stream.state import StreamState, decode_state, encode_state


def stream_path(store: Path) -> Path:
    """The directory of the only stream of a store."""
    (path,) = (store / "streams").glob("*/*")
    return path


def log_paths(store: Path) -> list[Path]:
    """Its segment files, oldest first."""
    return sorted((stream_path(store) / "log").glob("*.seg"))


def log_end(store: Path) -> LogEnd:
    """Where its log ends."""
    return find_log_end(PosixFiles(), str(stream_path(store) / "log"), None)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    """Write over a part of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def add_block(store: Path, shard: int, body: bytes, count: int, **changes: Any) -> None:
    """One more commit at the end of the log, of one batch."""
    end = log_end(store)
    fields: dict[str, Any] = {
        "seed": seed_of(end.header.stream_uuid, end.header.segment_id),
        "record_count": count,
        "first_sequence": end.next_sequence,
        "durable_sequence": end.next_sequence,
        "records_before": end.records,
        "timestamp_us": end.timestamp_us,
        "previous_crc": end.last_crc,
    }
    block, _ = encode_block([encode_entry(shard, count, body)], [body], **{**fields, **changes})
    overwrite(log_paths(store)[-1], end.offset, block)


def add_segment(
    store: Path, *, state: StreamState | None = None, predecessor: dict[str, Any] | None = None, **changes: Any
) -> None:
    """One more segment, empty, behind the last one."""
    end = log_end(store)
    snapshot = decode_state(end.snapshot)
    header = replace(
        end.header,
        segment_id=end.header.segment_id + 1,
        first_sequence=end.next_sequence,
        records_before=end.records,
        timestamp_before_us=end.timestamp_us,
        predecessor=replace(
            Predecessor(end.header.segment_id, end.offset, end.next_sequence, end.last_crc), **(predecessor or {})
        ),
        snapshot=encode_state(state or snapshot.state, snapshot.producers.items(), snapshot.counts),
    )
    header = replace(header, **changes)
    name = names.segment_name(header.first_sequence, header.segment_id)
    (stream_path(store) / "log" / name).write_bytes(encode_header(header)[0])


def state_of(store: Path) -> StreamState:
    """The state in the newest header."""
    return decode_state(header_of(store).snapshot).state


def header_of(store: Path) -> SegmentHeader:
    """The newest header."""
    file = PosixFiles().open_to_read(str(log_paths(store)[-1]))
    try:
        return read_segment_header(file)
    finally:
        file.close()


def seal_again(store: Path, footer: Footer) -> None:
    """Another footer for the first segment, which is sealed."""
    log = stream_path(store) / "log"
    files = PosixFiles()
    second = list_segments(files, str(log))[1]
    file = files.open_to_read(str(log / names.segment_name(*second)))
    header = read_segment_header(file)
    file.close()
    before = header.predecessor
    target = files.open(str(log_paths(store)[0]))
    ActiveSegment(target, before.segment_id, seed_of(header.stream_uuid, before.segment_id)).seal(
        before.end,
        footer,
        next_sequence=before.next_sequence,
        durable_sequence=before.next_sequence,
        records=header.records_before,
        timestamp_us=header.timestamp_before_us,
        crc=before.last_crc,
    )
    target.close()


def seal_last(store: Path, footer: Footer) -> None:
    """A footer for the last segment, as by a writer that died before it named a successor."""
    end = log_end(store)
    target = PosixFiles().open(str(log_paths(store)[-1]))
    ActiveSegment(target, end.header.segment_id, seed_of(end.header.stream_uuid, end.header.segment_id)).seal(
        end.offset,
        footer,
        next_sequence=end.next_sequence,
        durable_sequence=end.next_sequence,
        records=end.records,
        timestamp_us=end.timestamp_us,
        crc=end.last_crc,
    )
    target.close()


def spoil_snapshots(log: Path) -> None:
    """Each header's snapshot becomes something else, under a right checksum."""
    files = PosixFiles()
    for segment in sorted(log.iterdir()):
        file = files.open_to_read(str(segment))
        header = read_segment_header(file)
        file.close()
        overwrite(segment, 0, encode_header(replace(header, snapshot=b"\xc1" * len(header.snapshot)))[0])

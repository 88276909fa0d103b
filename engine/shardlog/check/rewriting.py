"""Segments and identity files written anew: always a new file that takes the old one's name, never in place.

A snapshot of the stream may hold the old file under another name.
"""

from __future__ import annotations

import uuid

from shardlog.check.blocks import BlockScan
from shardlog.check.mark import mark_problems
from shardlog.check.quarantine import copy_pieces, keep_copy
from shardlog.check.segments import End, Place, end_of, footer_problem, own_end, read_header
from shardlog.check.subject import Subject
from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.protocol import File, Files, Site
from shardlog.format import names
from shardlog.format.commit import seed_of
from shardlog.format.identity import STORE_BYTES_MAX, decode_identity, encode_identity
from shardlog.format.mark import (
    FLAG_OFFSET,
    MARK_BYTES,
    Mark,
    decode_flag,
    decode_mark,
    encode_flag,
    encode_slot,
    slot_offset,
)
from shardlog.format.segment import Footer, SparsePosition, encode_header
from shardlog.log.segments import list_segments
from shardlog.log.walk import Span
from shardlog.log.writer import ActiveSegment


def rewrite_segment(files: Files, stream: str, name: str) -> None:
    """Write a segment anew with its header mended and, if it is sealed, a fresh footer. Nothing if it is sound.

    Raises CorruptLog where its header cannot be mended after all.
    """
    log_path = f"{stream}/{names.LOG}"
    places = [
        Place(*segment, f"{log_path}/{names.segment_name(*segment)}") for segment in list_segments(files, log_path)
    ]
    index = next((index for index, place in enumerate(places) if place.path == f"{log_path}/{name}"), None)
    if index is None:
        return
    place = places[index]
    read_header(files, place, None)
    if place.header is None:
        raise CorruptLog(f"{place.path}: expected a header that can be put right, found none", segment=place.path)
    end = _end(files, places, index, place.header.stream_uuid)
    source = files.open_to_read(place.path)
    try:
        seed = seed_of(place.header.stream_uuid, place.segment_id)
        if place.problem is None and footer_problem(source, place.segment_id, seed, end.offset, None) is None:
            return
        keep_copy(files, stream, place.path, 0, None, {"what": "a segment as it was before it was written anew"})
        temporary = place.path + names.TEMPORARY
        if files.exists(temporary):
            files.unlink(temporary)
        target = files.create(temporary)
        try:
            _fill(files, stream, place, end, source, target)
        finally:
            target.close()
    finally:
        source.close()
    files.rename(temporary, place.path)
    files.sync_directory(log_path, Site.SEGMENT_ENTRY)


def _end(files: Files, places: list[Place], index: int, stream_uuid: bytes) -> End:
    if index + 1 == len(places):
        return own_end(files, places[index], None, stream_uuid)
    read_header(files, places[index + 1], stream_uuid)
    return end_of(files, places[index], places[index + 1], stream_uuid)


def _fill(files: Files, stream: str, place: Place, end: End, source: File, target: File) -> None:
    """Write header, blocks and, of a sealed segment, a footer into a new file, and sync it."""
    header = place.header
    assert header is not None
    content, _ = encode_header(header)
    target.pwrite(content, 0)
    if not end.is_sealed:
        copy_pieces(source, target, header.header_bytes, source.size(), header.header_bytes)
        target.truncate(max(source.size(), header.header_bytes))
        target.sync(Site.SEGMENT_HEADER)
        return
    copy_pieces(source, target, header.header_bytes, end.offset, header.header_bytes)
    seed = seed_of(header.stream_uuid, place.segment_id)
    span = Span(header.header_bytes, end.offset, seed, header.crc, place.first_sequence, end.next_sequence)
    # What it finds is in the report already.
    scan = BlockScan(Subject(stream, files), source, place.path, place.segment_id, span)
    scan.records, scan.timestamp_us = header.records_before, header.timestamp_before_us
    scan.run()
    ActiveSegment(target, place.segment_id, seed).seal(
        end.offset,
        Footer(
            positions=[SparsePosition(*row) for row in scan.rows],
            shard_records={shard: count[0] for shard, count in scan.counts.items()},
            first_timestamp_us=scan.rows[0][2] if scan.rows else None,
            last_timestamp_us=scan.timestamp_us if scan.rows else None,
        ),
        next_sequence=end.next_sequence,
        durable_sequence=end.next_sequence,
        records=scan.records or header.records_before,
        timestamp_us=scan.timestamp_us,
        crc=scan.last_crc if scan.last_crc is not None else (end.last_crc or 0),
    )


def rewrite_mark(files: Files, stream: str, distrusted: Mark | None) -> None:
    """Write MARK anew: with the position that it has if that can be read and is trusted, else with none.

    What it does not tell is taken for the worse: without a position or its flag numbers jump.
    """
    path = f"{stream}/{names.MARK}"
    mark, unsynced = None, True
    if files.exists(path):
        file = files.open_to_read(path)
        try:
            content = file.pread(MARK_BYTES + 1, 0)
        finally:
            file.close()
        mark = decode_mark(content)
        if not mark_problems(content) and (mark is None or mark != distrusted):
            return
        keep_copy(files, stream, path, 0, None, {"what": "MARK as it was before it was written anew"})
        mark = None if mark == distrusted else mark
        unsynced = mark is None or decode_flag(content)
    new = bytearray(MARK_BYTES)
    new[FLAG_OFFSET : FLAG_OFFSET + len(encode_flag(unsynced))] = encode_flag(unsynced)
    if mark is not None:
        start = slot_offset(mark)
        new[start : start + len(encode_slot(mark))] = encode_slot(mark)
    _replace(files, path, bytes(new), Site.STREAM_MARK)
    files.sync_directory(stream, Site.STREAM_ENTRIES)


def restore_identity(files: Files, store: str, store_uuid: bytes | None) -> None:
    """Write STORE anew, unless it is sound."""
    path = f"{store}/{names.STORE}"
    if files.exists(path):
        file = files.open_to_read(path)
        try:
            decode_identity(file.pread(STORE_BYTES_MAX, 0))
            return
        except (CorruptLog, UnsupportedVersion):
            pass
        finally:
            file.close()
        keep_copy(files, store, path, 0, None, {"what": "STORE as it was before it was written anew"})
    _replace(files, path, encode_identity(store_uuid or uuid.uuid4().bytes), Site.STORE_IDENTITY)
    files.sync_directory(store, Site.STORE_ENTRY)


def _replace(files: Files, path: str, content: bytes, site: Site) -> None:
    temporary = path + names.TEMPORARY
    if files.exists(temporary):
        files.unlink(temporary)
    file = files.create(temporary)
    try:
        file.pwrite(content, 0)
        file.sync(site)
    finally:
        file.close()
    files.rename(temporary, path)

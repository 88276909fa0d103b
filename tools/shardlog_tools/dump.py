"""`shardlog dump`: what is in one segment file, byte range by byte range; it never writes.

Owns the presentation of `segment_parts`, as lines for people and as JSON Lines. Where something does not check out, it
says so and goes on behind it; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Iterator
from typing import Any

import msgpack

from shardlog.clock import datetime_of
from shardlog.errors import CorruptLog
from shardlog.format.commit import CONTROL_SHARD, Batch, CommitHeader
from shardlog.format.control import decode_controls
from shardlog.format.record import BatchContext, StoredBatch
from shardlog_tools.arguments import Subparsers
from shardlog_tools.json_values import to_json
from shardlog_tools.output import DONE, FAILED, Output
from shardlog_tools.segment_parts import Commit, Damage, Header, Part, SealedFooter, Trailer, Unused, segment_parts


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "dump",
        help="show what is in a segment file",
        description="Show what is in a segment file: header, commits, footer, damage. Never writes; the file's stream "
        "may be in use.",
    )
    parser.add_argument("segment", metavar="SEGMENT", help="a file STORE/streams/NAME/LABEL/log/*.seg")
    parser.add_argument("--records", action="store_true", help="decode the records, too")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Show the file; returns the exit status."""
    commits = records = damages = 0
    for part in segment_parts(args.segment):
        if isinstance(part, Damage):
            damages += 1
        fields = _fields(part, args.records)
        if isinstance(part, Commit):
            commits += 1
            records += sum(batch["records"] for batch in fields["batches"] if batch["shard"] is not None)
            damages += sum("undecodable" in batch for batch in fields["batches"])
        if output.as_json:
            output.line(to_json(fields))
        else:
            for line in _words(fields):
                output.line(line)
    if not output.as_json:
        output.line(f"{commits:,} commits, {records:,} change records, {damages:,} damaged places")
    return FAILED if damages else DONE


def _fields(part: Part, with_records: bool) -> dict[str, Any]:
    """A part as JSON."""
    match part:
        case Header():
            return _header_fields(part)
        case Commit():
            batches = [_batch_fields(part.header, batch, body, with_records) for batch, body in part.batches]
            return {"part": "commit", **_block_fields(part.header), "batches": batches}
        case SealedFooter():
            footer = part.content
            return {
                "part": "footer",
                **_block_fields(part.header),
                "positions": len(footer.positions),
                "shard_records": {str(shard): count for shard, count in footer.shard_records.items()},
                "first_timestamp": _time(footer.first_timestamp_us),
                "last_timestamp": _time(footer.last_timestamp_us),
            }
        case Trailer():
            return {"part": "trailer", "offset": part.offset, "footer_offset": part.footer_offset}
        case Damage():
            return {"part": "damage", "offset": part.first, "end": part.next, "reason": part.reason}
        case Unused():
            return {"part": "unused", "offset": part.first, "end": part.next}


def _header_fields(part: Header) -> dict[str, Any]:
    header = part.content
    before = header.predecessor
    try:
        state = msgpack.unpackb(header.snapshot, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        state = f"does not decode: {error}"
    return {
        "part": "segment",
        "offset": 0,
        "end": header.header_bytes,
        "segment": header.segment_id,
        "first_sequence": header.first_sequence,
        "records_before": header.records_before,
        "created": _time(header.created_us),
        "store_uuid": str(uuid.UUID(bytes=header.store_uuid)),
        "stream_uuid": str(uuid.UUID(bytes=header.stream_uuid)),
        "crc": _crc(header.crc),
        "predecessor": {
            "segment": before.segment_id,
            "end": before.end,
            "next_sequence": before.next_sequence,
            "last_crc": _crc(before.last_crc),
        }
        if before.segment_id
        else None,
        "state": state,
    }


def _block_fields(header: CommitHeader) -> dict[str, Any]:
    return {
        "offset": header.offset,
        "end": header.end,
        "first_sequence": header.first_sequence,
        "next_sequence": header.next_sequence,
        "durable_sequence": header.durable_sequence,
        "records_before": header.records_before,
        "timestamp": _time(header.timestamp_us),
        "crc": _crc(header.crc),
        "previous_crc": _crc(header.previous_crc),
    }


def _batch_fields(header: CommitHeader, batch: Batch, body: bytes | None, with_records: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "shard": None if batch.shard == CONTROL_SHARD else batch.shard,
        "records": batch.records,
        "first_sequence": batch.first_sequence,
        "bytes": batch.body_bytes,
        "crc": _crc(batch.body_crc),
        "damaged": body is None,
    }
    if body is None or not with_records:
        return fields
    try:
        fields["content"] = list(_content(header, batch, body))
    except (CorruptLog, ValueError) as error:  # its checksum is right, so this is how it was written
        fields["undecodable"] = str(error)
    return fields


def _content(header: CommitHeader, batch: Batch, body: bytes) -> Iterator[dict[str, Any]]:
    if batch.shard == CONTROL_SHARD:
        for number, control in enumerate(decode_controls(body, batch.records)):
            yield {"sequence": batch.first_sequence + number, **control}
        return
    context = BatchContext("", header.timestamp_us, "")
    for record in StoredBatch(body, batch.records, batch.first_sequence, context).decoded_records():
        yield {
            "sequence": record.sequence,
            "event": record.event,
            "keys": record.keys,
            "new": record.new_image,
            "old": record.old_image,
        }


def _words(fields: dict[str, Any]) -> Iterator[str]:
    """A part as lines for people."""
    place = f"{fields['offset']:>12,}  "
    indent = " " * len(place)
    match fields["part"]:
        case "segment":
            yield f"{place}segment {fields['segment']}, from sequence {fields['first_sequence']}, {fields['created']}"
            yield f"{indent}store {fields['store_uuid']}, stream {fields['stream_uuid']}, crc {fields['crc']}"
            before = fields["predecessor"]
            yield indent + (
                f"after segment {before['segment']}, which ends at {before['end']:,} "
                f"before sequence {before['next_sequence']}, crc {before['last_crc']}"
                if before
                else "the first of its stream"
            )
            yield f"{indent}state {json.dumps(fields['state'], default=str)}"
        case "commit":
            yield f"{place}commit {_block_words(fields)}"
            for batch in fields["batches"]:
                shard = "control" if batch["shard"] is None else f"shard {batch['shard']}"
                state = ", DAMAGED" if batch["damaged"] else ""
                yield (
                    f"{indent}  {shard}: {batch['records']:,} records from {batch['first_sequence']}, "
                    f"{batch['bytes']:,} bytes, crc {batch['crc']}{state}"
                )
                if "undecodable" in batch:
                    yield f"{indent}    DOES NOT DECODE: {batch['undecodable']}"
                for record in batch.get("content", ()):
                    yield f"{indent}    {to_json(record)}"
        case "footer":
            yield f"{place}footer {_block_words(fields)}"
            counts = ", ".join(f"{shard}: {count:,}" for shard, count in fields["shard_records"].items())
            yield f"{indent}  {fields['positions']:,} positions; records per shard: {counts or 'none'}"
        case "trailer":
            yield f"{place}trailer, the footer is at {fields['footer_offset']:,}"
        case "damage":
            yield f"{place}DAMAGE up to {fields['end']:,}: {fields['reason']}"
        case "unused":
            yield f"{place}unused up to {fields['end']:,}"


def _block_words(fields: dict[str, Any]) -> str:
    return (
        f"[{fields['first_sequence']}, {fields['next_sequence']}), {fields['timestamp']}, durable below "
        f"{fields['durable_sequence']}, {fields['records_before']:,} records before, crc {fields['crc']} "
        f"after {fields['previous_crc']}"
    )


def _crc(crc: int) -> str:
    return f"{crc:08x}"


def _time(timestamp_us: int | None) -> str | None:
    if timestamp_us is None:
        return None
    try:
        return datetime_of(timestamp_us).isoformat()
    except OverflowError:
        return f"{timestamp_us} us since 1970"

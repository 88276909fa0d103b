"""The deep check: every byte and every record by a second implementation.

Checksums by `crcmod`, records by `msgpack`; what these make of the bytes is compared with what the engine's own decoder
makes of them, so that a mistake in one cannot hide itself. Then the records are held against the stream's rules: event
and images, key schema, and whether the partition key lies in the shard's hash range. Slow (about a tenth of the speed).
"""

from __future__ import annotations

import struct
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import msgpack

from shardlog.check.subject import Subject
from shardlog.clock import EPOCH
from shardlog.errors import CorruptLog, InvalidArgument
from shardlog.files.protocol import File
from shardlog.format import values
from shardlog.format.checksum import crc32c_independent
from shardlog.format.commit import CONTROL_SHARD, ENTRY_BYTES, HEADER_BYTES, Batch, CommitHeader
from shardlog.format.record import BatchContext, Row, StoredBatch
from shardlog.model import EVENT_NAMES, INSERT, REMOVE
from shardlog.stream.append import Router, check_rows
from shardlog.stream.state import StreamState

_CRC_OFFSET: Final = HEADER_BYTES - 4
_CONTEXT: Final = BatchContext("", 0, "")
_NAIVE_EPOCH: Final = datetime(1970, 1, 1)  # naive on purpose
_INT64 = struct.Struct("<q")

Problem = tuple[str, str]
"""A code and a message."""


class DeepCheck:
    """Checks the batches of one segment."""

    def __init__(self, subject: Subject, file: File) -> None:
        self._router: Router | None = None
        self._subject = subject
        self._file = file

    def follow(self, state: StreamState | None) -> None:
        """The stream's state from here on; None: not known."""
        self._router = None if state is None else Router(state)

    def check_header(self, path: str, header: CommitHeader, seed: int) -> None:
        """The header's checksum once more."""
        content = self._file.pread(HEADER_BYTES + header.batch_count * ENTRY_BYTES, header.offset)
        crc = crc32c_independent(content[HEADER_BYTES:], crc32c_independent(content[:_CRC_OFFSET], seed))
        if crc != header.crc:
            self._subject.add(
                "second-opinion", path, f"crcmod computes the header checksum {crc:#010x}, not {header.crc:#010x}",
                offset=header.offset,
            )  # fmt: skip

    def problem_of(self, batch: Batch, body: bytes) -> Problem | None:
        """What is wrong with a batch whose checksum is right by the first implementation."""
        crc = crc32c_independent(body)
        if crc != batch.body_crc:
            return "second-opinion", f"crcmod computes the batch checksum {crc:#010x}, not {batch.body_crc:#010x}"
        if batch.shard == CONTROL_SHARD:
            return None
        try:
            records = StoredBatch(body, batch.records, batch.first_sequence, _CONTEXT).decoded_records()
            first = [record.row for record in records]
        except (CorruptLog, ValueError, InvalidOperation, OverflowError) as error:
            return "batch-undecodable", str(error)
        try:
            second = _decode_independently(body)
        except (ValueError, ArithmeticError, msgpack.UnpackException) as error:
            return "second-opinion", f"msgpack does not decode the batch: {error!r}"
        if not (_encodes_to(first, body) and _encodes_to(second, body)) and not is_same(first, second):
            return "second-opinion", "msgpack decodes other records than msgspec"
        return self._broken_rule(first, batch.shard)

    def _broken_rule(self, rows: list[Row], shard: int) -> Problem | None:
        for code, _, new, old, *_ in rows:
            if (code == INSERT and old is not None) or (code == REMOVE and new is not None):
                return "record-invalid", f"an {EVENT_NAMES[code]} with the image that it cannot have"
        router = self._router
        if router is None:
            return None
        try:
            check_rows(rows, router.state.options)
        except InvalidArgument as error:
            return "record-invalid", str(error)
        if {number for number, _, _ in router.group(rows)} != {shard}:
            return "record-invalid", f"records of shard number {shard} belong to another one"
        return None


def _encodes_to(rows: list[Row], body: bytes) -> bool:
    """Whether rows are what a body was made of, in one pass in C. What fails here (a NaN) may still be the same."""
    try:
        return values.encode(rows) == body
    except (TypeError, ValueError, OverflowError, RecursionError):
        return False


def is_same(one: Any, other: Any) -> bool:
    """Whether two decoded values are the same, types included; NaN is NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, set):
        return sorted(map(values.encode, one)) == sorted(map(values.encode, other))
    if isinstance(one, float | Decimal):
        return repr(one) == repr(other)
    return bool(one == other)


def _decode_independently(body: bytes) -> list[Row]:
    rows: list[Row] = msgpack.unpackb(body, ext_hook=_extension, strict_map_key=False)
    return rows


def _extension(code: int, content: bytes) -> Any:
    if code == values.DECIMAL:
        return Decimal(content.decode("ascii"))
    if code == values.SET:
        return set(msgpack.unpackb(content, ext_hook=_extension))
    if code in (values.AWARE_DATETIME, values.NAIVE_DATETIME):
        epoch = EPOCH if code == values.AWARE_DATETIME else _NAIVE_EPOCH
        return epoch + timedelta(microseconds=_INT64.unpack(content)[0])
    raise ValueError(f"extension type {code} is not one of format version 1")

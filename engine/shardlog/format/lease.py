"""Rows of the consumers' environment: groups, leases and workers.

A row is a key and a value in LMDB, which has no checksums of its own, so each value starts with one over key and rest:

    value    crc u32 (little-endian, CRC-32C of key + content), content
    content  MessagePack array, its first element the row's VERSION

    key                               content after the version
    "g" group                         generation, start sequence, created (us since 1970)
    "l" group NUL shard id            owner or nil, instance, counter, taken, start, checkpoint or nil, is_finished,
                                      wanted_by or nil
    "w" group NUL worker              instance, counter, lease duration (us), process id

Sequence numbers of a lease: reading begins at `start`; `checkpoint` is the last one that was handled.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Final

import msgpack
import ormsgpack

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c

VERSION: Final = 1
GROUP: Final = b"g"
LEASE: Final = b"l"
WORKER: Final = b"w"

_CRC = struct.Struct("<I")
_SEPARATOR: Final = b"\0"


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group. `generation` differs from that of any group of the same name before."""

    generation: int
    start: int
    created_us: int


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease on one shard.

    `counter` grows with each take, renewal and release. `taken` is the counter at which the owner took it: together
    with `instance`, which is unlike any other worker's, the fencing token of its checkpoints. `wanted_by` names the
    worker that asks to have it handed over.
    """

    owner: str | None
    instance: int
    counter: int
    taken: int
    start: int
    checkpoint: int | None
    is_finished: bool
    wanted_by: str | None

    @property
    def next_sequence(self) -> int:
        """Where reading goes on."""
        return self.start if self.checkpoint is None else max(self.start, self.checkpoint + 1)

    def at(self, checkpoint: int) -> LeaseRow:
        """The same, its checkpoint moved. Much faster than `dataclasses.replace`: it is written for each batch."""
        return LeaseRow(
            self.owner,
            self.instance,
            self.counter,
            self.taken,
            self.start,
            checkpoint,
            self.is_finished,
            self.wanted_by,
        )


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker that takes part in a group, with or without leases. `counter` grows with each renewal."""

    instance: int
    counter: int
    lease_us: int
    process: int


Row = GroupRow | LeaseRow | WorkerRow
_ROW_TYPES: Final[dict[bytes, type[Row]]] = {GROUP: GroupRow, LEASE: LeaseRow, WORKER: WorkerRow}
_FIELDS: Final = {row_type: attrgetter(*(field.name for field in fields(row_type))) for row_type in _ROW_TYPES.values()}


def row_key(kind: bytes, group: str, name: str = "") -> bytes:
    """The key of a row."""
    return kind + group.encode() + (_SEPARATOR + name.encode() if kind != GROUP else b"")


def parse_key(key: bytes) -> tuple[bytes, str, str]:
    """Kind, group, and the shard id or worker's name. Raises CorruptLog."""
    kind, (group, separator, name) = key[:1], key[1:].partition(_SEPARATOR)
    if kind not in (GROUP, LEASE, WORKER) or bool(separator) is (kind == GROUP) or not group:
        raise CorruptLog(f"consumers: expected the key of a group, lease or worker, found {key!r:.80}")
    try:
        return kind, group.decode(), name.decode()
    except UnicodeDecodeError as error:
        raise CorruptLog(f"consumers: expected a key in UTF-8, found {key!r:.80}") from error


def encode_row(key: bytes, row: Row) -> bytes:
    """The value of a row."""
    content = ormsgpack.packb((VERSION, *_FIELDS[type(row)](row)))
    return _CRC.pack(crc32c(key + content)) + content


def decode_row(key: bytes, value: bytes) -> Row:
    """The row of a value. Raises CorruptLog where it is not what was written, UnsupportedVersion."""
    found = _checked(key, value)
    row_type: type[Row] = _ROW_TYPES[parse_key(key)[0]]
    try:
        return row_type(*found)
    except TypeError as error:
        raise CorruptLog(f"consumers: row {key!r}: expected the fields of a {row_type.__name__}: {error}") from error


def _checked(key: bytes, value: bytes) -> list[Any]:
    content = value[_CRC.size :]
    if len(value) <= _CRC.size or _CRC.pack(crc32c(key + content)) != value[: _CRC.size]:
        raise CorruptLog(f"consumers: row {key!r}: expected a value that matches its checksum")
    try:
        found = msgpack.unpackb(content)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptLog(f"consumers: row {key!r}: expected MessagePack: {error}") from error
    if type(found) is not list or not found:
        raise CorruptLog(f"consumers: row {key!r}: expected an array, found {found!r:.80}")
    if found[0] != VERSION:
        raise UnsupportedVersion(f"consumers: row {key!r}: expected version {VERSION}, found {found[0]!r}")
    return list(found[1:])

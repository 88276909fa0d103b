"""Rows of the consumers' environment, read from LMDB's file without LMDB, which trusts every page.

The newest of the two meta pages gives the root; the tree is walked as far as its pages make sense, and of each leaf the
rows are kept whose checksum agrees. Where no root can be followed, all leaf pages of the file are looked at, and of
several versions of a row the one that makes consumers repeat the most is kept: they are promised at least once. Nobody
owns a lease that was read like this.

    page (4096 bytes)   number u64, pad u16, flags u16, lower u16, upper u16, then offsets of the nodes u16 each
    leaf node           value length u32, flags u16, key length u16, key, value
    branch node         page number u48 (low 32, flags' place the high 16), key length u16, key
    meta page           header, magic u32, version u32, address u64, map size u64, two databases of 48 bytes (free,
                        main; a database's last u64 is its root), last page u64, transaction u64

(LMDB 0.9, `mdb.c`.)
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import lmdb

from shardlog.check.quarantine import keep_copy
from shardlog.consumer.environment import MAP_BYTES, check_sound
from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.posix import translated
from shardlog.files.protocol import Files, Site
from shardlog.format import names
from shardlog.format.lease import GROUP, GroupRow, LeaseRow, Row, WorkerRow, decode_row, encode_row, parse_key, row_key
from shardlog.index.lmdb_files import DATA_FILE, LMDB_0_9

_PAGE_BYTES: Final = 4096
_MAGIC: Final = 0xBEEFC0DE
_BRANCH: Final = 0x01
_LEAF: Final = 0x02
_PAGE = struct.Struct("<QHHHH")
_NODE = struct.Struct("<IHH")
_META = struct.Struct("<16xII16x48x40xQQQ")
_DEPTH_MAX: Final = 8
_FILE_BYTES_MAX: Final = MAP_BYTES


def kept_rows(content: bytes) -> dict[bytes, Row]:
    """What can be kept of an environment's file, by key."""
    rows: dict[bytes, Row] = {}
    root = _root(content)
    pages = list(_leaves(content, root, _DEPTH_MAX)) if root is not None else []
    for number in pages or range(2, len(content) // _PAGE_BYTES):
        for key, value in _nodes(content, number):
            try:
                row = decode_row(key, value)
            except (CorruptLog, UnsupportedVersion):
                continue
            known = rows.get(key)
            rows[key] = row if known is None else _safer(known, row)
    kept = {key: _unowned(row) for key, row in rows.items() if not isinstance(row, WorkerRow)}
    for key, row in list(kept.items()):
        group = row_key(GROUP, parse_key(key)[1])
        if isinstance(row, LeaseRow) and group not in kept:
            kept[group] = GroupRow(0, row.start, 0)  # lost; what was checkpointed is in the leases
    return kept


def rebuild_consumers(files: Files, stream: str) -> None:
    """Write the environment's file anew with what can be kept of it, the old one goes to lost+found. Under GATE."""
    path = f"{stream}/{names.CONSUMERS}"
    data = f"{path}/{DATA_FILE}"
    content = read_data(files, data)
    if not problems_of(path, content):
        return
    keep_copy(files, stream, data, 0, None, {"what": "leases and checkpoints as they were before they were rebuilt"})
    temporary = data + names.TEMPORARY
    if files.exists(temporary):
        files.unlink(temporary)
    file = files.create(temporary)
    try:
        file.pwrite(_environment_of(kept_rows(content)), 0)
        file.sync(Site.LOST_AND_FOUND)
    finally:
        file.close()
    files.rename(temporary, data)
    files.sync_directory(path, Site.LOST_AND_FOUND_ENTRY)


def problems_of(path: str, content: bytes) -> list[str]:
    """What is wrong with an environment that nobody has open: its structure, else its rows."""
    try:
        check_sound(path)
    except CorruptLog as error:
        return [str(error)]
    root = _root(content)
    problems: list[str] = []
    groups: set[str] = set()
    owners: set[str] = set()
    for number in _leaves(content, root, _DEPTH_MAX) if root is not None else ():
        for key, value in _nodes(content, number):
            try:
                row = decode_row(key, value)
                (groups if isinstance(row, GroupRow) else owners).add(parse_key(key)[1])
            except CorruptLog as error:
                problems.append(str(error))
            except UnsupportedVersion:
                continue
    return problems + [f"consumers: the row of group {group} is missing" for group in sorted(owners - groups)]


def read_data(files: Files, data: str) -> bytes:
    """All of an environment's file."""
    file = files.open_to_read(data)
    try:
        return file.pread(min(file.size(), _FILE_BYTES_MAX), 0)
    finally:
        file.close()


def _root(content: bytes) -> int | None:
    """The root of the newest meta page that makes sense; None: there is none, or the tree is empty."""
    found: list[tuple[int, int]] = []
    for number in (0, 1):
        page = content[number * _PAGE_BYTES : (number + 1) * _PAGE_BYTES]
        if len(page) >= _META.size:
            magic, version, root, _, transaction = _META.unpack_from(page)
            if magic == _MAGIC and version == 1:
                found.append((transaction, root))
    root = max(found, default=(0, 0))[1]
    return root if 2 <= root < len(content) // _PAGE_BYTES else None


def _leaves(content: bytes, number: int, depth: int) -> Iterator[int]:
    """Numbers of the leaf pages below a page."""
    header = _header(content, number)
    if header is None or depth == 0:
        return
    flags, offsets = header
    if flags == _LEAF:
        yield number
    elif flags == _BRANCH:
        for offset in offsets:
            low, high, _ = _NODE.unpack_from(content, number * _PAGE_BYTES + offset)
            yield from _leaves(content, low | high << 32, depth - 1)


def _header(content: bytes, number: int) -> tuple[int, tuple[int, ...]] | None:
    """Flags and node offsets of a page that may be one of a tree."""
    start = number * _PAGE_BYTES
    if not 2 * _PAGE_BYTES <= start <= len(content) - _PAGE_BYTES:
        return None
    told, _, flags, lower, upper = _PAGE.unpack_from(content, start)
    if told != number or flags not in (_BRANCH, _LEAF) or not _PAGE.size <= lower <= upper <= _PAGE_BYTES:
        return None
    offsets = struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", content, start + _PAGE.size)
    return flags, tuple(offset for offset in offsets if upper <= offset <= _PAGE_BYTES - _NODE.size)


def _nodes(content: bytes, number: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a leaf page that lie in it."""
    header = _header(content, number)
    if header is None or header[0] != _LEAF:
        return
    page = content[number * _PAGE_BYTES : (number + 1) * _PAGE_BYTES]
    for offset in header[1]:
        value_bytes, flags, key_bytes = _NODE.unpack_from(page, offset)
        start = offset + _NODE.size
        if flags == 0 and start + key_bytes + value_bytes <= _PAGE_BYTES:
            yield page[start : start + key_bytes], page[start + key_bytes : start + key_bytes + value_bytes]


def _safer(known: Row, other: Row) -> Row:
    """Of two versions of a row, the one after which more is repeated."""
    if isinstance(known, LeaseRow) and isinstance(other, LeaseRow):
        return min(known, other, key=lambda row: (row.is_finished, row.next_sequence))
    if isinstance(known, GroupRow) and isinstance(other, GroupRow):
        return min(known, other, key=lambda row: row.start)
    return other


def _unowned(row: Row) -> Row:
    return replace(row, owner=None, instance=0, wanted_by=None) if isinstance(row, LeaseRow) else row


def _environment_of(rows: dict[bytes, Row]) -> bytes:
    """The file of an environment that holds these rows."""
    with translated("make an environment in", tempfile.gettempdir()), tempfile.TemporaryDirectory() as directory:
        environment = lmdb.open(directory, map_size=MAP_BYTES, lib_version=LMDB_0_9)
        with environment, environment.begin(write=True) as transaction:
            for key, row in rows.items():
                transaction.put(key, encode_row(key, row))
        with open(os.path.join(directory, DATA_FILE), "rb") as file:
            return file.read()

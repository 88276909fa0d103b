"""Rows of the consumers' environment: they come back, and nothing else comes back in their place."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.format.drawn import thorough

from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format.checksum import crc32c
from shardlog.format.lease import (
    GROUP,
    LEASE,
    VERSION,
    WORKER,
    GroupRow,
    LeaseRow,
    Row,
    WorkerRow,
    decode_row,
    encode_row,
    parse_key,
    row_key,
)

names = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=20)
numbers = st.integers(min_value=0, max_value=2**64 - 1)
groups = st.builds(GroupRow, numbers, numbers, numbers)
leases = st.builds(
    LeaseRow,
    st.none() | names,
    numbers,
    numbers,
    numbers,
    numbers,
    st.none() | st.integers(min_value=0, max_value=2**63),
    st.booleans(),
    st.none() | names,
)
workers = st.builds(WorkerRow, numbers, numbers, numbers, numbers)
kinds_and_rows = (
    st.tuples(st.just(GROUP), groups) | st.tuples(st.just(LEASE), leases) | st.tuples(st.just(WORKER), workers)
)

EXAMPLES: list[tuple[bytes, Row]] = [
    (row_key(GROUP, "billing"), GroupRow(7, 1001, 1_767_225_600_000_000)),
    (row_key(LEASE, "billing", "shardId-1"), LeaseRow("worker", 5, 9, 3, 1001, 2000, False, "other")),
    (row_key(LEASE, "billing", "shardId-2"), LeaseRow(None, 0, 9, 3, 1001, None, True, None)),
    (row_key(WORKER, "billing", "worker"), WorkerRow(5, 9, 30_000_000, 4711)),
]


def sealed(key: bytes, content: object) -> bytes:
    """A value of any content, with the checksum that belongs to it."""
    packed = content if isinstance(content, bytes) else msgpack.packb(content)
    return crc32c(key + packed).to_bytes(4, "little") + packed


@given(kind_and_row=kinds_and_rows, group=names, name=names)
@thorough
def test_a_row_comes_back(kind_and_row: tuple[bytes, Row], group: str, name: str) -> None:
    """Equal, under a key that tells what it is."""
    kind, row = kind_and_row
    key = row_key(kind, group, name)
    assert decode_row(key, encode_row(key, row)) == row
    assert parse_key(key) == (kind, group, "" if kind == GROUP else name)


@pytest.mark.parametrize(("key", "row"), EXAMPLES)
def test_no_changed_bit_gives_another_row(key: bytes, row: Row) -> None:
    """Every bit of the value, and of the key that it is found under."""
    value = encode_row(key, row)
    for at in range(8 * len(value)):
        changed = bytearray(value)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptLog):
            decode_row(key, bytes(changed))
    for at in range(8 * len(key)):
        elsewhere = bytearray(key)
        elsewhere[at // 8] ^= 1 << at % 8
        with pytest.raises(CorruptLog):
            decode_row(bytes(elsewhere), value)


@pytest.mark.parametrize(("key", "row"), EXAMPLES)
def test_a_row_that_is_cut_or_goes_on_is_corrupt(key: bytes, row: Row) -> None:
    """At every length, and with anything behind it."""
    value = encode_row(key, row)
    for wrong in [*(value[:length] for length in range(len(value))), value + b"\0", value + value]:
        with pytest.raises(CorruptLog):
            decode_row(key, wrong)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_row_of_a_later_version_is_unsupported(version: object) -> None:
    """Its checksum is right, whatever other fields it has: a newer release wrote it."""
    key, _ = EXAMPLES[0]
    with pytest.raises(UnsupportedVersion, match=f"expected version {VERSION}"):
        decode_row(key, sealed(key, [version, "and", "more"]))


@pytest.mark.parametrize(
    "content",
    [b"", b"\xc1", b"\x93\x01", b"\x01\x01", 7, None, {}, [], "text", [VERSION], [VERSION, 1], [VERSION] * 20],
    ids=repr,
)
def test_what_is_no_row_is_corrupt(content: object) -> None:
    """Though its checksum is right: no MessagePack, no array, not the fields of a row."""
    for key, _ in EXAMPLES:
        with pytest.raises(CorruptLog):
            decode_row(key, sealed(key, content))


@pytest.mark.parametrize("key", [b"", b"g", b"x", b"xgroup", b"ggroup\0name", b"lgroup", b"l\0name", b"w\xff\0name"])
def test_what_is_no_key_is_corrupt(key: bytes) -> None:
    """An unknown kind, a name missing or one too many, no UTF-8."""
    with pytest.raises(CorruptLog):
        parse_key(key)


def test_a_lease_goes_on_behind_its_checkpoint() -> None:
    """Or where it starts, whichever is later: a checkpoint may be older than a start."""
    _, lease = EXAMPLES[1]
    assert isinstance(lease, LeaseRow)
    assert lease.next_sequence == 2001
    assert LeaseRow(None, 0, 0, 0, 1001, None, False, None).next_sequence == 1001
    assert LeaseRow(None, 0, 0, 0, 1001, 5, False, None).next_sequence == 1001

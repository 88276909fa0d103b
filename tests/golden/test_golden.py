"""The bytes of format version 1, pinned: whoever changes one of them changes the format.

Each file holds the hexadecimal digits of one thing. What this release writes must be these bytes, and it must read them
as the values below; both, so that neither side can change alone. A change on purpose needs a new version, golden bytes
of its own beside these, and a way to read these for as long as stores of version 1 exist.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from shardlog.files.protocol import File
from shardlog.format import control
from shardlog.format.commit import (
    COMMIT,
    CONTROL_SHARD,
    FOOTER,
    HEADER_BYTES,
    encode_block,
    encode_entry,
    seed_of,
)
from shardlog.format.control import decode_controls, encode_controls
from shardlog.format.identity import decode_identity, encode_identity
from shardlog.format.lease import (
    GROUP,
    LEASE,
    WORKER,
    GroupRow,
    LeaseRow,
    Row,
    WorkerRow,
    decode_row,
    encode_row,
    row_key,
)
from shardlog.format.mark import (
    BLOCK_BYTES,
    FLAG_OFFSET,
    MARK_BYTES,
    Mark,
    decode_flag,
    decode_mark,
    encode_flag,
    encode_slot,
    slot_offset,
)
from shardlog.format.record import BatchContext, StoredBatch, encode_batch
from shardlog.format.segment import (
    TRAILER_BYTES,
    Footer,
    Predecessor,
    SegmentHeader,
    SparsePosition,
    decode_footer,
    decode_header,
    decode_trailer,
    encode_footer,
    encode_header,
    encode_trailer,
)
from shardlog.format.token import Token, decode_token, encode_token
from shardlog.log.walk import Span, Steps
from shardlog.options import ShardingPolicy, StreamOptions
from shardlog.stream.state import KnownGap, Shard, StreamState, decode_state, encode_state

STORE_UUID = bytes(range(16))
STREAM_UUID = bytes(range(16, 32))
SEGMENT_ID = 3
FIRST = 1001
TIME_US = 1_767_225_600_123_456  # 2026-01-01T00:00:00.123456Z
SEED = seed_of(STREAM_UUID, SEGMENT_ID)

STATE = StreamState(
    name="users",
    label="2026-01-01T00:00:00.123",
    created_us=TIME_US,
    options=StreamOptions(
        view_type="NEW_AND_OLD_IMAGES",
        key_names=("id", "at"),
        partition_key="id",
        durability="fsync",
        segment_bytes=64 << 20,
        retention=timedelta(hours=24),
        retention_bytes=1 << 40,
        sharding=ShardingPolicy(roll_every=timedelta(hours=4)),
    ),
    shards=(
        Shard(0, 1_767_225_600_123, (), 0, 1 << 128, 1, 500),
        Shard(1, 1_767_225_700_000, ("shardId-00000001767225600123-00000000",), 0, 1 << 127, 501, None),
        Shard(2, 1_767_225_700_000, ("shardId-00000001767225600123-00000000",), 1 << 127, 1 << 128, 501, None),
    ),
    version=2,
    closed=False,
    next_shard=3,
    trim_horizon=17,
    gaps=(KnownGap(20, 30, 1, "a damaged sector"),),
)
PRODUCERS = {"importer": 2**63 - 1, "é": 0}
COUNTS = {0: (499, 65_536), 1: (300, 2**40), 2: (200, 7)}

ROWS = [
    [1, {"id": "a", "at": 1}, {"id": "a", "at": 1}, None],
    [
        2,
        {"id": "a", "at": 1},
        {
            "id": "a",
            "at": 1,
            "none": None,
            "bools": [True, False],
            "integers": [0, 127, 128, 65_536, 2**32, 2**64 - 1, -1, -33, -(2**63)],
            "floats": [0.5, -0.0, float("inf")],
            "text": "é\U0001f600" + "x" * 32,
            "bytes": b"\x00\xff",
            "list": [[], [1]],
            "map": {"": {"in": "deep"}},
            "decimals": [Decimal("1.10"), Decimal("-0"), Decimal("1E+5"), Decimal("NaN")],
            "set": {3, 1, 2, "b", "a", b"a", None},
            "aware": datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC),
            "naive": datetime(1969, 12, 31, 23, 59, 59, 999_999),
        },
        {"id": "a", "at": 1},
    ],
    [3, {"id": "a", "at": 1}, None, {"id": "a", "at": 1}],
]
CONTROLS = [
    {"kind": control.POSITION, "producer": "importer", "position": 2**63 - 1},
    {"kind": control.RESHARD, "parents": [0], "children": [[bytes(16), b"\x7f" + b"\xff" * 15]], "created_ms": 5},
    {"kind": control.TRIM, "horizon": 17},
    {"kind": control.GAP, "first": 20, "next": 30, "segment_id": 1, "reason": "a damaged sector"},
    {
        "kind": control.CONFIGURE,
        "retention_seconds": 86_400.0,
        "retention_bytes": None,
        "sharding": ShardingPolicy().as_fields(),
    },
    {"kind": control.CHECKPOINT, "snapshot": b"snapshot", "positions": [[1001, 4096, TIME_US, 990]]},
    {"kind": control.CLOSE, "at_us": TIME_US},
]
HEADER = SegmentHeader(
    segment_id=SEGMENT_ID,
    first_sequence=FIRST,
    created_us=TIME_US,
    store_uuid=STORE_UUID,
    stream_uuid=STREAM_UUID,
    records_before=990,
    timestamp_before_us=TIME_US - 1,
    predecessor=Predecessor(2, 65_536, 1001, 0xDEADBEEF),
    snapshot=encode_state(STATE, PRODUCERS.items(), COUNTS),
)
FOOTER_VALUE = Footer(
    [SparsePosition(FIRST, 4096, TIME_US, 990), SparsePosition(2**40, 2**33, TIME_US + 1, 2**40)],
    {1: 3, 2: 1},
    TIME_US,
    TIME_US + 1,
)
MARKS = [Mark(6, SEGMENT_ID, 4096, 1001, 0xDEADBEEF), Mark(7, SEGMENT_ID, 8192, 1012, 0xFEEDBEEF, 4096)]
LEASE_ROWS: list[tuple[bytes, Row]] = [
    (row_key(GROUP, "billing"), GroupRow(7, 1001, 1_767_225_600_000_000)),
    (row_key(LEASE, "billing", "shardId-1"), LeaseRow("worker", 5, 9, 3, 1001, 2000, False, "other")),
    (row_key(LEASE, "billing", "shardId-2"), LeaseRow(None, 0, 9, 3, 1001, None, True, None)),
    (row_key(WORKER, "billing", "worker"), WorkerRow(5, 9, 30_000_000, 4711)),
]
TOKEN = Token(STREAM_UUID, 2, 1001, TIME_US)


def _commit() -> tuple[bytes, int]:
    bodies = [encode_batch(ROWS, range(3)), encode_batch(ROWS[:1], [3]), encode_controls(CONTROLS)]
    counts = [(1, 3), (2, 1), (CONTROL_SHARD, len(CONTROLS))]
    return encode_block(
        [encode_entry(shard, records, body) for (shard, records), body in zip(counts, bodies, strict=True)],
        bodies,
        seed=SEED,
        record_count=sum(records for _, records in counts),
        first_sequence=FIRST,
        durable_sequence=FIRST,
        records_before=990,
        timestamp_us=TIME_US,
        previous_crc=encode_header(HEADER)[1],
    )


def _footer_and_trailer() -> bytes:
    block, previous_crc = _commit()
    end = HEADER.header_bytes + len(block)
    footer, _ = encode_block(
        [],
        [encode_footer(FOOTER_VALUE)],
        seed=SEED,
        record_count=0,
        first_sequence=1012,
        durable_sequence=1012,
        records_before=994,
        timestamp_us=TIME_US,
        previous_crc=previous_crc,
        block_type=FOOTER,
    )
    return footer + encode_trailer(end, SEGMENT_ID)


WRITTEN: dict[str, Callable[[], bytes]] = {
    "segment header": lambda: encode_header(HEADER)[0],
    "commit": lambda: _commit()[0],
    "footer and trailer": _footer_and_trailer,
    "record body": lambda: encode_batch(ROWS, range(3)),
    "control batch": lambda: encode_controls(CONTROLS),
    "state snapshot": lambda: encode_state(STATE, PRODUCERS.items(), COUNTS),
    "mark slots": lambda: b"".join(map(encode_slot, MARKS)),
    "mark flags": lambda: encode_flag(False) + encode_flag(True),
    "iterator token": lambda: encode_token(TOKEN).encode(),
    "lease rows": lambda: b"".join(encode_row(key, row) for key, row in LEASE_ROWS),
    "store identity": lambda: encode_identity(STORE_UUID),
}


def _golden(name: str) -> bytes:
    path = Path(__file__).with_name(name.replace(" ", "_") + ".hex")
    # The zeros that pad a segment header to 4 KiB are not spelled out.
    return bytes.fromhex(path.read_text(encoding="ascii").replace("zeros to 4096", ""))


def _padded(name: str, content: bytes) -> bytes:
    return content.ljust(BLOCK_BYTES, b"\0") if name == "segment header" else content


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written(name: str) -> None:
    """Byte for byte what version 1 has been since its first release."""
    golden, written = _padded(name, _golden(name)), WRITTEN[name]()
    differing = [at for at, (one, other) in enumerate(zip(golden, written, strict=False)) if one != other]
    assert written == golden, (
        f"{name}: {len(written)} bytes instead of {len(golden)}, the first difference at {differing[:1]}; "
        f"written was {written.rstrip(bytes(1)).hex()}"
    )


def test_a_record_body_is_read() -> None:
    """Every type of value, equal and of the same type."""
    stored = StoredBatch(_golden("record body"), 3, FIRST, BatchContext("shard", TIME_US, "0123456789abcdef"))
    for records in (stored.records(FIRST, FIRST + 3), stored.decoded_records()):
        assert [record.event for record in records] == ["INSERT", "MODIFY", "REMOVE"]
        for record, (_, keys, new, old) in zip(records, ROWS, strict=True):
            # The text of a value tells NaN, -0.0 and the zeros of a Decimal; that of a set depends on its making.
            for found, expected in ((record.keys, keys), (record.new_image, new), (record.old_image, old)):
                assert _told(found) == _told(expected)


def _told(image: dict[str, object] | None) -> object:
    if image is None:
        return None
    return [
        (name, sorted(map(repr, value)) if isinstance(value, set) else repr(value)) for name, value in image.items()
    ]


def test_a_control_batch_is_read() -> None:
    """Every kind of version 1."""
    assert decode_controls(_golden("control batch"), len(CONTROLS)) == CONTROLS


def test_a_state_snapshot_is_read() -> None:
    """State, positions and counts."""
    assert decode_state(_golden("state snapshot")) == (STATE, PRODUCERS, COUNTS)


def test_marks_are_read() -> None:
    """Both slots and both flags, each in its block."""
    slots, flags = _golden("mark slots"), _golden("mark flags")
    slot_bytes, flag_bytes = len(slots) // 2, len(flags) // 2
    content = bytearray(MARK_BYTES)
    for number, mark in enumerate(MARKS):
        at = slot_offset(mark)
        content[at : at + slot_bytes] = slots[number * slot_bytes : (number + 1) * slot_bytes]
        for unsynced in (False, True):
            content[FLAG_OFFSET : FLAG_OFFSET + flag_bytes] = flags[unsynced * flag_bytes : (unsynced + 1) * flag_bytes]
            assert (decode_mark(bytes(content)), decode_flag(bytes(content))) == (mark, unsynced)


def test_a_token_is_read() -> None:
    """Whoever kept one over an upgrade goes on where it was."""
    assert decode_token(_golden("iterator token").decode()) == TOKEN


def test_lease_rows_are_read() -> None:
    """One line each: a group, a lease that is held and wanted, a finished one, a worker; and their keys."""
    lines = Path(__file__).with_name("lease_rows.hex").read_text(encoding="ascii").split()
    assert [decode_row(key, bytes.fromhex(line)) for (key, _), line in zip(LEASE_ROWS, lines, strict=True)] == [
        row for _, row in LEASE_ROWS
    ]
    assert [key for key, _ in LEASE_ROWS] == [
        b"gbilling",
        b"lbilling\0shardId-1",
        b"lbilling\0shardId-2",
        b"wbilling\0worker",
    ]


def test_an_identity_is_read() -> None:
    """The store's uuid."""
    assert decode_identity(_golden("store identity")) == STORE_UUID


class _Segment:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def pread(self, length: int, offset: int) -> bytes:
        return self._content[offset : offset + length]


def test_a_segment_is_read() -> None:
    """Header, commit, footer and trailer one after the other: a chain of checksums from first to last."""
    content = _padded("segment header", _golden("segment header")) + _golden("commit") + _golden("footer and trailer")
    header = decode_header(content)
    assert (header.segment_id, header.first_sequence, header.created_us) == (SEGMENT_ID, FIRST, TIME_US)
    assert (header.store_uuid, header.stream_uuid) == (STORE_UUID, STREAM_UUID)
    assert (header.records_before, header.timestamp_before_us) == (990, TIME_US - 1)
    assert header.predecessor == HEADER.predecessor
    assert header.snapshot == _golden("state snapshot")
    file: File = _Segment(content)  # type: ignore[assignment]  # it has what is needed
    span = Span(header.header_bytes, len(content) - TRAILER_BYTES, SEED, header.crc, FIRST, 1012)
    commit, footer = Steps(file, span, bodies=True)
    assert (commit.header.type, commit.header.timestamp_us, commit.header.durable_sequence) == (COMMIT, TIME_US, FIRST)
    assert [(batch.shard, batch.records, batch.first_sequence) for batch in commit.batches()] == [
        (1, 3, 1001),
        (2, 1, 1004),
        (CONTROL_SHARD, len(CONTROLS), 1005),
    ]
    bodies = [commit.body(batch) for batch in commit.batches()]
    assert (bodies[0], bodies[2]) == (_golden("record body"), _golden("control batch"))
    assert (footer.header.type, footer.header.offset) == (FOOTER, decode_trailer(content[-TRAILER_BYTES:], SEGMENT_ID))
    assert decode_footer(footer.content()) == FOOTER_VALUE
    assert footer.header.end == len(content) - TRAILER_BYTES
    assert content[footer.header.offset + HEADER_BYTES :][: footer.header.length] == footer.content()

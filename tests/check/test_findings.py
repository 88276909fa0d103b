"""Every code is constructed once, and nothing is found where nothing is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lmdb.verify
import pytest
from tests.check.damage import (
    NAME,
    SEGMENT_BYTES,
    Original,
    append_some,
    flips,
)
from tests.check.forged import (
    add_block,
    add_segment,
    log_end,
    log_paths,
    overwrite,
    seal_again,
    seal_last,
    state_of,
    stream_path,
)

import shardlog
import shardlog.check.store
from shardlog import Change, InvalidArgument, ShardDescription, StorageFailed, Store
from shardlog.check import deep, fsck, plan_repair
from shardlog.check.findings import CODES, Code, table
from shardlog.check.plan import CannotRepair, LeaveToOpening
from shardlog.consumer import Consumers
from shardlog.files.gate import GATE
from shardlog.files.posix import PosixFile, PosixFiles
from shardlog.format import values
from shardlog.format.commit import CONTROL_SHARD
from shardlog.format.control import encode_controls
from shardlog.format.identity import encode_identity
from shardlog.format.lease import LeaseRow
from shardlog.format.mark import encode_slot, slot_offset
from shardlog.format.segment import Footer
from shardlog.log.mark_file import MarkFile
from shardlog.testing.clock import ManualClock
from shardlog.testing.images import materialise, read_image

DESIGN = Path(__file__).parents[2] / "engine" / "DESIGN.md"

Damage = Callable[[Path, pytest.MonkeyPatch], Any]
"""Does damage to a store; may return a context within which the check is made."""

WHILE_IT_LASTS = {"index-damaged", "index-wrong", "checkpoint-ahead", "second-opinion"}
"""Found in a stream in use, or by a broken library: there is nothing to plan."""

CONSTRUCTIONS: dict[str, Damage] = {}


def constructs(code: str) -> Callable[[Damage], Damage]:
    def note(damage: Damage) -> Damage:
        CONSTRUCTIONS[code] = damage
        return damage

    return note


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_can_be_found(code: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its construction is found as what the table says, and nothing that the check finds is unknown to the table."""
    with CONSTRUCTIONS[code](path, monkeypatch) or nullcontext():
        report = fsck(path, deep=True)
    found = {finding.code: finding for finding in report.findings}
    assert code in found, list(map(str, report.findings))
    assert found[code].severity == CODES[code].severity
    assert found[code].message
    assert set(found) <= set(CODES)
    status = report.exit_status
    assert (status == 0) == report.clean
    assert bool(status & 8) == any(CODES[name].is_operational for name in found)
    assert bool(status & 64) == bool(report.lost)


def test_every_code_is_constructed() -> None:
    """No code without a construction, and no construction of a code that does not exist."""
    assert set(CONSTRUCTIONS) == set(CODES)


@constructs("store-identity-missing")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (path / "STORE").unlink()


@constructs("store-identity-damaged")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (path / "STORE").write_bytes((path / "STORE").read_bytes().upper())


@constructs("store-identity-foreign")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (path / "STORE").write_bytes(encode_identity(b"0123456789abcdef"))


@constructs("version-unsupported")
def _(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("shardlog.format.identity.STORE_FORMAT", 2)
    content = encode_identity(b"0123456789abcdef")
    patch.undo()
    (path / "STORE").write_bytes(content)


@constructs("stream-unfinished")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (path / "streams" / NAME / "2026-01-01T00:00:00.000.tmp").mkdir()


@constructs("stream-half-deleted")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (path / "streams" / NAME / "2026-01-01T00:00:00.000.deleted").mkdir()


@constructs("stream-renamed")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (path / "streams" / NAME).rename(path / "streams" / "other")


@constructs("unknown-name")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (stream_path(path) / "log" / "notes.txt").write_text("mine")


@constructs("lock-missing")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (stream_path(path) / "LOCK").unlink()


@constructs("log-missing")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(stream_path(path) / "log")


@constructs("headers-lost")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    for segment in log_paths(path):
        overwrite(segment, 0, b"\xff" * 4096)


@constructs("temporary-left")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (stream_path(path) / "log" / "00000000000000000500-00000009.seg.tmp").touch()


@constructs("segment-expired")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(path)
    clock = ManualClock()
    with shardlog.open(path, clock=clock) as store:
        stream = store.create_stream(NAME, segment_bytes=SEGMENT_BYTES, retention=timedelta(hours=1))
        append_some(stream, 70, 90)
        kept = {segment: segment.read_bytes() for segment in log_paths(path)[:-1]}
        clock.advance(timedelta(hours=2))
        stream.append([Change.insert(keys={"id": 0}, new={"id": 0})])
        assert stream.expire(force=True).segments
    for segment, content in kept.items():
        segment.write_bytes(content)


@constructs("segment-misnamed")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    first, second, _ = log_paths(path)
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])


@constructs("segment-misplaced")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    log_paths(path)[0].rename(str(log_paths(path)[0]) + ".misplaced")


@constructs("segment-foreign")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    shutil.copy(log_paths(path)[0], stream_path(path) / "log" / "00000000000000000500-00000009.seg")


@constructs("segment-disorder")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    add_segment(path, segment_id=1, first_sequence=10_000)


@constructs("header-flipped")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    content = log_paths(path)[1].read_bytes()
    overwrite(log_paths(path)[1], 200, bytes([content[200] ^ 1]))


@constructs("header-damaged")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    overwrite(log_paths(path)[1], 100, b"\xff" * 100)


@constructs("block-damaged")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    overwrite(log_paths(path)[0], 4100, b"\xff" * 20)


@constructs("batch-damaged")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    content = log_paths(path)[0].read_bytes()
    place = content.index(b"text")
    overwrite(log_paths(path)[0], place, b"TEXT")


@constructs("batch-undecodable")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    add_block(path, 0, b"\x91\x93\x01\x02\x03", 1)


@constructs("block-inconsistent")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    add_block(path, CONTROL_SHARD, encode_controls([{"kind": "position", "producer": "q", "position": 1}]), 1,
              records_before=7, timestamp_us=5)  # fmt: skip


@constructs("footer-damaged")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    size = log_paths(path)[0].stat().st_size
    overwrite(log_paths(path)[0], size - 20, b"\xff")


@constructs("footer-wrong")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    seal_again(path, Footer([], {0: 1}, None, None))


@constructs("footer-unfinished")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    seal_last(path, Footer([], {0: 1}, None, None))


@constructs("second-opinion")
def _(path: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deep, "crc32c_independent", lambda content, seed=0: 0)


@constructs("record-invalid")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    add_block(path, 0, values.encode([[1, {"id": 1}, {"id": 1}, {"id": 1}]]), 1)


@constructs("segment-missing")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    log_paths(path)[1].unlink()


@constructs("join-broken")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    add_segment(path, predecessor={"last_crc": 1})


@constructs("mark-missing")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    (stream_path(path) / "MARK").unlink()


@constructs("mark-damaged")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    overwrite(stream_path(path) / "MARK", 12, b"\xff")


@constructs("mark-wrong")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    file = MarkFile(PosixFiles().open_to_read(str(stream_path(path) / "MARK")))
    mark, _ = file.read()
    file.close()
    assert mark is not None
    wrong = replace(mark, last_crc=1, commits=mark.commits + 1)
    overwrite(stream_path(path) / "MARK", slot_offset(wrong), encode_slot(wrong))


@constructs("torn-tail")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    overwrite(log_paths(path)[-1], log_end(path).offset, b"half a commit")


@constructs("unsynced")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    file = MarkFile(PosixFiles().open(str(stream_path(path) / "MARK")))
    file.set_unsynced(True)
    file.close()


@constructs("unpublished")
def _(path: Path, _patch: pytest.MonkeyPatch) -> Any:
    @contextmanager
    def in_use() -> Iterator[None]:
        with shardlog.open(path) as store:
            tail = store.stream(NAME)._stream.tail()
            overwrite(log_paths(path)[-1], tail.offset, b"half a commit")
            yield

    return in_use()


@constructs("index-stale")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    shardlog.open(path).stream(NAME).close()
    overwrite(stream_path(path) / "index" / "data.mdb", 0, b"\xff" * 4096)


@constructs("index-damaged")
def _(path: Path, patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(lmdb.verify, "verify", lambda _: ["a page is reachable twice"])
    store = shardlog.open(path)
    store.stream(NAME)
    return store


@constructs("index-wrong")
def _(path: Path, _patch: pytest.MonkeyPatch) -> Any:
    store = shardlog.open(path)
    with store.stream(NAME)._stream.index.write() as transaction:
        transaction.put_producers([("p", 4711)])
        transaction.commit()
    return store


@constructs("consumers-damaged")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    with shardlog.open(path) as store:
        store.stream(NAME).group("g")
    data = stream_path(path) / "consumers" / "data.mdb"
    content = data.read_bytes()
    checksum = content.rindex(b"gg") + 2  # behind the key
    overwrite(data, checksum, bytes([content[checksum] ^ 1]))


@constructs("checkpoint-ahead")
def _(path: Path, _patch: pytest.MonkeyPatch) -> Any:
    store = shardlog.open(path)
    stream = store.stream(NAME)
    stream.group("g")
    row = LeaseRow(None, 0, 1, 1, 1, 10**9, False, None)
    stream._stream.attachment(Consumers).update(
        lambda rows: rows.put_lease("g", stream.describe().shards[0].shard_id, row)
    )
    return store


@constructs("ranges-broken")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    state = state_of(path)
    add_segment(path, state=replace(state, shards=state.shards[:1]))


@constructs("parent-broken")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    state = state_of(path)
    child = replace(state.shards[0], parent_ids=("shardId-00000000000000000000-00000009",), first_sequence=9)
    add_segment(path, state=replace(state, shards=(child, *state.shards[1:])))


@constructs("shard-unknown")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    add_block(path, 99, values.encode([[1, {"id": 1}, {"id": 1}, None]]), 1)


@constructs("state-wrong")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    add_segment(path, state=replace(state_of(path), closed=True))


@constructs("known-gap")
def _(path: Path, _patch: pytest.MonkeyPatch) -> None:
    overwrite(log_paths(path)[0], 4100, b"\xff" * 20)
    plan_repair(fsck(path)).apply()


@constructs("read-failed")
def _(path: Path, patch: pytest.MonkeyPatch) -> None:
    broken = str(log_paths(path)[0])
    pread = PosixFile.pread

    def failing(file: PosixFile, length: int, offset: int) -> bytes:
        if file._path == broken and offset:
            raise StorageFailed("input/output error (made up)")
        return pread(file, length, offset)

    patch.setattr(PosixFile, "pread", failing)


@constructs("locked")
def _(path: Path, patch: pytest.MonkeyPatch) -> Any:
    @contextmanager
    def being_opened() -> Iterator[None]:
        patch.setattr(shardlog.check.store, "LOCK_TIMEOUT_SECONDS", 0.05)
        lock = PosixFiles().open_lock(str(stream_path(path) / "LOCK"))
        assert lock.try_exclusive(GATE)
        try:
            yield
        finally:
            lock.close()

    return being_opened()


# The table


def test_the_table_has_a_row_for_each_code() -> None:
    """It is in the documentation as it is rendered here, and no other row is there."""
    rows = table().splitlines()
    assert len(rows) == len(CODES) + 2
    assert all(row.count("|") == 6 for row in rows)
    written = DESIGN.read_text().splitlines()
    start = written.index(rows[0])
    assert written[start : start + len(rows) + 1] == [*rows, ""]


def test_the_table_says_what_a_repair_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan has an action for each error that the table says can be repaired, and says so of all others."""
    for name, code in CODES.items():
        if code.severity == "note" or code.is_operational or name in WHILE_IT_LASTS:
            continue
        shutil.rmtree(path)
        materialise(read_image(str(path.parent / "small")), str(path))
        CONSTRUCTIONS[name](path, monkeypatch)
        findings = [finding for finding in fsck(path, deep=True).findings if finding.code == name]
        actions = [type(action) for action in plan_repair(fsck(path, deep=True)).actions]
        is_hopeless = code.repair in ("-", "none: salvage")
        assert findings, name
        assert (CannotRepair in actions) == is_hopeless, (name, actions)
        assert is_hopeless or set(actions) - {CannotRepair, LeaveToOpening}, (name, actions)


def test_codes_that_lose_records_are_errors() -> None:
    """A note never stands for lost records, nor for something that could not be checked."""
    for code in CODES.values():
        assert isinstance(code, Code)
        if code.loses_records or code.is_operational:
            assert code.severity == "error"


# What is not wrong


def busy_stream(store: Store) -> None:
    """All that a stream can go through."""
    clock = store._surroundings.clock
    assert isinstance(clock, ManualClock)
    stream = store.create_stream(
        NAME, segment_bytes=SEGMENT_BYTES, shards=3, retention=timedelta(hours=1), durability="os"
    )
    for _ in range(4):
        append_some(stream, 20, 90)
        clock.advance(timedelta(minutes=20))
        shards = sorted((each for each in stream.describe().shards if each.end_sequence is None), key=_range_of)
        stream.split_shard(shards[0].shard_id, sum(shards[0].hash_range) // 2)
        stream.merge_shards(shards[1].shard_id, shards[2].shard_id)
        stream.roll_shard(stream.describe().shards[-1].shard_id)
        stream.sync()
        stream.expire(force=True)
    stream.set_retention(None)
    for number in range(4):
        stream.append([Change.insert(keys={"id": number}, new={"id": number})], producer=f"q{number}", position=number)


def _range_of(shard: ShardDescription) -> tuple[int, int]:
    return shard.hash_range


@pytest.mark.parametrize("read_only", [False, True])
def test_nothing_is_found_in_a_store_in_use(place: Path, read_only: bool) -> None:
    """Resharding, expiry, producers, level "os": no finding while the stream is open, and none when it is closed."""
    shutil.rmtree(place, ignore_errors=True)
    with shardlog.open(place, clock=ManualClock()) as store:
        busy_stream(store)
        with shardlog.open(place, read_only=read_only) as other:
            other.stream(NAME)
            assert fsck(place, deep=True).findings == ()
    assert fsck(place, deep=True).findings == ()
    with shardlog.open(place) as store:
        store.disable_stream(NAME)
        assert fsck(place, deep=True).findings == ()


def test_a_large_segment_with_checkpoints_is_clean(place: Path) -> None:
    """Checkpoints in the log say what the records before them make of the state."""
    shutil.rmtree(place, ignore_errors=True)
    with shardlog.open(place) as store:
        stream = store.create_stream(NAME, shards=2, retention=None, durability="os")
        text = "x" * 1000
        for first in range(0, 6000, 100):
            numbers = range(first, first + 100)
            changes = [Change.insert(keys={"id": number}, new={"id": number, "text": text}) for number in numbers]
            stream.append(changes, producer="p", position=first)
        assert stream._stream.tail().checkpoint_offset
        assert fsck(place).findings == ()
    assert fsck(place, deep=True).findings == ()


def test_a_check_changes_nothing(path: Path) -> None:
    """Not one byte, and no file more, in a store that is damaged everywhere and in one that is not open."""
    overwrite(log_paths(path)[0], 4100, b"\xff" * 20)
    overwrite(log_paths(path)[-1], log_end(path).offset, b"half a commit")
    before = read_image(str(path))
    fsck(path, deep=True)
    assert read_image(str(path)) == before


def test_a_check_of_a_stream_in_use_changes_nothing(path: Path) -> None:
    """Not one byte but in LMDB's table of readers."""
    with shardlog.open(path) as store:
        store.stream(NAME)
        before = dict(read_image(str(path)))
        assert fsck(path).clean
        after = dict(read_image(str(path)))
    assert {name for name in after if after[name] != before.get(name)} <= {
        name for name in after if name.endswith("lock.mdb")
    }


def test_one_stream_can_be_checked(path: Path, small: Original) -> None:
    """A stream's directory is complete in itself, also moved elsewhere."""
    assert fsck(stream_path(path)).findings == ()
    elsewhere = path.parent / "elsewhere"
    shutil.rmtree(elsewhere, ignore_errors=True)
    shutil.copytree(stream_path(path), elsewhere / "streams" / NAME / stream_path(path).name)
    report = fsck(elsewhere)
    assert [finding.code for finding in report.findings] == ["store-identity-missing"]


@pytest.mark.parametrize("what", ["nothing", "file", "directory"])
def test_what_is_no_store_is_refused(tmp_path: Path, what: str) -> None:
    """InvalidArgument that names the path."""
    path = tmp_path / "it"
    if what == "file":
        path.write_text("text")
    elif what == "directory":
        path.mkdir()
    with pytest.raises(InvalidArgument, match="it"):
        fsck(path)


def test_progress_is_told(path: Path) -> None:
    """Bytes behind the check, growing to the whole."""
    told: list[tuple[int, int]] = []
    fsck(path, progress=lambda behind, total: told.append((behind, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == sum(segment.stat().st_size for segment in log_paths(path))


def test_gaps_are_forgotten_behind_the_horizon(place: Path) -> None:
    """What a repair recorded about a segment goes when the segment expires."""
    shutil.rmtree(place, ignore_errors=True)
    clock = ManualClock()
    with shardlog.open(place, clock=clock) as store:
        append_some(store.create_stream(NAME, segment_bytes=SEGMENT_BYTES, retention=timedelta(hours=1)), 70, 90)
    overwrite(log_paths(place)[0], 4100, b"\xff" * 20)
    plan_repair(fsck(place)).apply()
    with shardlog.open(place, clock=clock) as store:
        stream = store.stream(NAME)
        assert len(stream._stream.state().gaps) == 1
        clock.advance(timedelta(hours=2))
        stream.append([Change.insert(keys={"id": 0}, new={"id": 0})])
        stream.expire(force=True)
        assert stream._stream.state().gaps == ()
    assert fsck(place, deep=True).findings == ()


def test_control_records_that_cannot_be_folded_are_told(path: Path) -> None:
    """A kind that this release does not know is an unsupported version, not a crash."""
    add_block(path, CONTROL_SHARD, encode_controls([{"kind": "later", "value": 1}]), 1)
    assert "version-unsupported" in {finding.code for finding in fsck(path).findings}


def test_flipped_headers_leave_their_segment_readable(small: Original, place: Path) -> None:
    """A flipped bit in a header costs no record, and the check says so."""
    for case in flips(small, small.segments[1], range(0, 600, 97)):
        materialise(case.image, str(place))
        report = fsck(place)
        assert [finding.code for finding in report.findings] == ["header-flipped"], case.story
        assert report.lost == []

"""Plans and repairs: what they keep, what they refuse, and that an interrupted one is simply run again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.check.damage import NAME, Original, append_some, flips, rows_of
from tests.check.forged import add_segment, log_end, log_paths, overwrite, spoil_snapshots, state_of, stream_path

import shardlog
from shardlog import Change, CorruptLog, Gap, StorageFailed, StorageFull, StoreLocked
from shardlog.check import fsck, plan_repair
from shardlog.check.findings import stream_of
from shardlog.check.plan import CannotRepair, GoOnBehind, LeaveToOpening, RecordGaps, SetTailAside
from shardlog.check.repair import RepairPlan, apply_plan
from shardlog.clock import SystemClock
from shardlog.files.posix import PosixFiles
from shardlog.stream.open_stream import Surroundings
from shardlog.testing.failing import FailingFiles, Fault, Killed
from shardlog.testing.images import materialise, read_image

Damage = Callable[[Path], object]


def damage_block(path: Path) -> None:
    """A commit in the middle of the first segment."""
    overwrite(log_paths(path)[0], 6000, b"\xff" * 20)


def damage_last_block(path: Path) -> None:
    """The last commit of all, which MARK says was durable."""
    content = log_paths(path)[-1].read_bytes()
    overwrite(log_paths(path)[-1], content[: log_end(path).offset].rindex(b"SLOG"), b"\xff" * 30)


def damage_last_header(path: Path) -> None:
    """The header of the last segment, beyond mending."""
    overwrite(log_paths(path)[-1], 0, b"\xff" * 500)


def remove_last_segment(path: Path) -> None:
    """The segment that MARK names."""
    log_paths(path)[-1].unlink()


def remove_middle_segment(path: Path) -> None:
    """One that others follow."""
    log_paths(path)[1].unlink()


def swap_segments(path: Path) -> None:
    """The last two under each other's names."""
    _, second, third = log_paths(path)
    contents = second.read_bytes(), third.read_bytes()
    second.write_bytes(contents[1])
    third.write_bytes(contents[0])


def flip_header(path: Path) -> None:
    """One bit of a header."""
    overwrite(log_paths(path)[1], 4000, b"\x01")


def spoil_footer(path: Path) -> None:
    """The end of a sealed segment."""
    overwrite(log_paths(path)[0], log_paths(path)[0].stat().st_size - 40, b"\xff" * 40)


def spoil_mark(path: Path) -> None:
    """Both positions."""
    overwrite(stream_path(path) / "MARK", 0, b"\xff" * 10)
    overwrite(stream_path(path) / "MARK", 4096, b"\xff" * 10)


def remove_identity(path: Path) -> None:
    """STORE."""
    (path / "STORE").unlink()


def tear_tail(path: Path) -> None:
    """Half a commit that nobody was told of."""
    overwrite(log_paths(path)[-1], log_end(path).offset, b"half a commit")


def everything(path: Path) -> None:
    """All of it at once."""
    for damage in (tear_tail, damage_block, flip_header, spoil_footer, damage_last_block, spoil_mark, remove_identity):
        damage(path)


DAMAGES = (
    damage_block,
    damage_last_block,
    damage_last_header,
    remove_last_segment,
    remove_middle_segment,
    swap_segments,
    flip_header,
    spoil_footer,
    spoil_mark,
    remove_identity,
    tear_tail,
    everything,
)


def surroundings(files: FailingFiles) -> Surroundings:
    return Surroundings(files, SystemClock(), 10.0)


def repaired(path: Path) -> RepairPlan:
    plan = plan_repair(fsck(path))
    plan.apply()
    return plan


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_repair_can_be_killed_at_every_step(path: Path, damage: Damage, small: Original) -> None:
    """Run again from a new check, it ends where an undisturbed one does: clean, with the same records readable."""
    damage(path)
    damaged = read_image(str(path))
    expected, _ = rows_of(path)
    kept = [row for row in expected if isinstance(row, tuple)]
    counting = FailingFiles(PosixFiles())
    apply_plan(plan_repair(fsck(path)), surroundings(counting))
    steps = counting.changes
    assert steps > 0
    for step in range(1, steps + 1):
        materialise(damaged, str(path))
        files = FailingFiles(PosixFiles(), Fault(Killed, nth=step))
        with pytest.raises(Killed):
            apply_plan(plan_repair(fsck(path)), surroundings(files))
        repaired(path)
        report = fsck(path)
        assert report.clean, (step, steps, list(map(str, report.findings)))
        rows, error = rows_of(path)
        assert error is None
        found = [row for row in rows if isinstance(row, tuple)]
        assert set(map(repr, kept)) <= set(map(repr, found)) <= set(map(repr, small.rows))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (damage_last_block, StorageFull),
        (swap_segments, StorageFailed),
        (tear_tail, StorageFull),
        (spoil_footer, StorageFull),
    ],
)
def test_a_full_disk_stops_a_repair_and_harms_nothing(path: Path, damage: Damage, error: type[Exception]) -> None:
    """Whatever cannot be written: the error is told, all that could be read still can be, and later it goes through."""
    damage(path)
    damaged = read_image(str(path))
    kept = {repr(row) for row in rows_of(path)[0] if isinstance(row, tuple)}
    counting = FailingFiles(PosixFiles())
    apply_plan(plan_repair(fsck(path)), surroundings(counting))
    told = 0
    for step in range(1, counting.changes + 1):
        materialise(damaged, str(path))
        files = FailingFiles(PosixFiles(), Fault(lambda: error("made up"), nth=step))
        try:
            apply_plan(plan_repair(fsck(path)), surroundings(files))
        except error:
            told += 1
        assert kept <= {repr(row) for row in rows_of(path)[0]}, step
        repaired(path)
        assert fsck(path).clean, step
        assert kept <= {repr(row) for row in rows_of(path)[0]}, step
    assert told > counting.changes // 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_plan_can_be_applied_twice(path: Path, damage: Damage) -> None:
    """The second time it finds everything done and changes nothing that counts."""
    damage(path)
    plan = repaired(path)
    before = {name: content for name, content in read_image(str(path), without="index").items() if "MARK" not in name}
    plan.apply()
    after = {name: content for name, content in read_image(str(path), without="index").items() if "MARK" not in name}
    assert after == before
    assert fsck(path).clean


@pytest.mark.parametrize("damage", DAMAGES[:-2])
def test_no_segment_file_is_changed(path: Path, damage: Damage) -> None:
    """What was in the log is there after a repair, byte for byte: under its name, another name, or in lost+found."""
    damage(path)
    before = {segment.read_bytes().rstrip(b"\0") for segment in log_paths(path)}
    repaired(path)
    kept = [*log_paths(path), *(stream_path(path) / "lost+found").glob("*")]
    after = [file.read_bytes() for file in kept]
    for content in before:
        assert any(other.startswith(content) for other in after)


def test_what_is_taken_out_has_a_manifest(path: Path) -> None:
    """The copy in lost+found is the damaged bytes, and says where they were and why they are there."""
    damage_block(path)
    (finding,) = fsck(path).findings
    assert finding.offset is not None
    assert finding.end is not None
    content = log_paths(path)[0].read_bytes()[finding.offset : finding.end]
    repaired(path)
    (manifest,) = (stream_path(path) / "lost+found").glob("*.json")
    about = json.loads(manifest.read_text())
    assert (manifest.parent / about["file"]).read_bytes() == content
    assert (about["source"], about["offset"], about["bytes"]) == (log_paths(path)[0].name, finding.offset, len(content))
    assert "block-damaged" in about["reason"]


def test_a_plan_is_told_before_it_is_applied(path: Path) -> None:
    """Planning changes nothing; every action says in words what it will do, and is told when it is done."""
    damage_last_block(path)
    damage_block(path)
    before = read_image(str(path))
    plan = plan_repair(fsck(path))
    assert read_image(str(path)) == before
    assert plan.changes_anything
    assert [type(action) for action in plan.actions][-2:] == [GoOnBehind, RecordGaps]
    told: list[object] = []
    plan.apply(told.append)
    assert told == list(plan.actions)
    assert all(str(stream_path(path)) in str(action) for action in plan.actions)


def test_a_sound_store_has_an_empty_plan(path: Path) -> None:
    """Nothing to do, and applying that does nothing."""
    before = read_image(str(path))
    plan = repaired(path)
    assert plan.actions == ()
    assert not plan.changes_anything
    assert read_image(str(path)) == before


@pytest.mark.parametrize("disabled", [False, True])
def test_a_torn_tail_is_set_aside(path: Path, small: Original, disabled: bool) -> None:
    """A clean store, and yet there is something to do: its bytes go to lost+found, and the note with them."""
    if disabled:
        with shardlog.open(path) as store:
            store.disable_stream(NAME)
    tear_tail(path)
    report = fsck(path)
    assert report.clean
    plan = plan_repair(report)
    assert [type(action) for action in plan.actions] == [SetTailAside]
    plan.apply()
    assert fsck(path, deep=True).findings == ()
    kept = [file.read_bytes() for file in (stream_path(path) / "lost+found").iterdir() if file.suffix != ".json"]
    assert [content.rstrip(b"\0") for content in kept] == [b"half a commit"]
    assert tuple(rows_of(path)[0]) == small.rows


def test_what_opening_does_is_left_to_it(path: Path) -> None:
    """The plan shows what the next opening will do by itself."""
    (stream_path(path) / "log" / "00000000000000000500-00000009.seg.tmp").touch()
    plan = plan_repair(fsck(path))
    assert [type(action) for action in plan.actions] == [LeaveToOpening]
    assert not plan.changes_anything


def three_streams(place: Path) -> dict[str, Path]:
    """A store of streams a, b and c; the first segment of each."""
    shutil.rmtree(place, ignore_errors=True)
    with shardlog.open(place) as store:
        for name in ("a", "b", "c"):
            append_some(store.create_stream(name, segment_bytes=16384, retention=None), 60, 90)
    return {name: min((place / "streams" / name).glob("*/log/*.seg")) for name in ("a", "b", "c")}


@pytest.mark.parametrize("told", [True, False])
def test_a_stream_that_cannot_be_repaired_keeps_no_other_from_it(place: Path, told: bool) -> None:
    """Its snapshots are spoilt since the check: it is told as failed, and left; the others are clean."""
    segments = three_streams(place)
    for segment in segments.values():
        overwrite(segment, 6000, b"\xff" * 20)
    plan = plan_repair(fsck(place))
    spoil_snapshots(segments["a"].parent)
    assert any(isinstance(action, CannotRepair) for action in plan_repair(fsck(place)).actions)
    failures: list[tuple[str, Exception]] = []
    if told:
        plan.apply(failed=lambda *failure: failures.append(failure))
        assert [(path, type(error)) for path, error in failures] == [(str(segments["a"].parent.parent), CorruptLog)]
    else:
        with pytest.raises(CorruptLog):
            plan.apply()
    left = fsck(place)
    assert {stream_of(finding.path) for finding in left.findings if finding.severity == "error"} == {
        str(segments["a"].parent.parent)
    }
    with shardlog.open(place) as store:
        for name in ("b", "c"):
            assert len([row for row in store.stream(name).read(on_damage="gap") if isinstance(row, Gap)]) == 1


def test_a_stream_in_use_is_not_repaired(path: Path) -> None:
    """StoreLocked, with nothing done, whoever has it open: also where another stream of the store could be repaired."""
    damage_block(path)
    with shardlog.open(path) as store:
        store.stream(NAME)
        report = fsck(path)
        assert not report.clean
        before = read_image(str(path))
        with pytest.raises(StoreLocked, match="open"):
            plan_repair(report).apply()
        after = read_image(str(path))
        assert set(after) == set(before)
    assert fsck(path).findings[0].severity == "error"
    repaired(path)
    assert fsck(path).clean


def test_readers_and_writers_go_on_behind_a_damaged_end(path: Path, small: Original) -> None:
    """Opening to write raises CorruptLog before the repair; afterwards it appends, and readers meet the damage once."""
    damage_last_block(path)
    with shardlog.open(path) as store, pytest.raises(CorruptLog):
        store.stream(NAME)
    (lost,) = fsck(path).lost
    repaired(path)
    with shardlog.open(path) as store:
        stream = store.stream(NAME)
        appended = stream.append([Change.insert(keys={"id": 1}, new={"id": 1})]).sequences[0]
        assert appended >= lost[2]
        with pytest.raises(CorruptLog) as caught:
            list(stream.read())
        assert caught.value.sequences == lost[1:]
        assert [record.sequence for record in stream.read(caught.value.sequences[1])] == [appended]
        gaps = [record for record in stream.read(on_damage="gap") if isinstance(record, Gap)]
        assert [(gap.first, gap.next) for gap in gaps] == [lost[1:]]
        assert [(gap.first, gap.next) for gap in stream._stream.state().gaps] == [lost[1:]]
        append_some(stream, 60, 90)  # and rolls
        assert fsck(path, deep=True).clean
    assert [row[0] for row in small.rows if row[0] < lost[1]] == [
        row[0] for row in rows_of(path)[0] if isinstance(row, tuple) and row[0] < lost[1]
    ]


def test_what_a_repair_made_may_be_lost_as_well(path: Path) -> None:
    """The segment behind a damaged header is gone, with the gap that it told of: the next repair records both places.

    What lies between them was told of the one segment, and after the repair of the other: never clean again.
    """
    with shardlog.open(path) as store:
        stream = store.stream(NAME)
        stream.split_shard(stream.describe().shards[-1].shard_id)
    damage_last_header(path)
    repaired(path)
    remove_last_segment(path)
    repaired(path)
    assert fsck(path, deep=True).clean
    with shardlog.open(path) as store:
        append_some(store.stream(NAME), 60, 90)


def test_a_lost_segment_before_a_damaged_header_is_told(path: Path) -> None:
    """Though only that header would name it: the numbers that are missing lie in a gap, and the check tells of them."""
    third = log_paths(path)[2]
    overwrite(third, 0, b"\xff" * 500)
    repaired(path)
    log_paths(path)[1].unlink()
    with shardlog.open(path, read_only=True) as store:
        gaps = [(row.first, row.next) for row in store.stream(NAME).read(on_damage="gap") if isinstance(row, Gap)]
    lost = [(first, end) for _, first, end in fsck(path).lost]
    assert any(first < int(third.name[:20]) for first, _ in gaps)
    assert all(any(first <= gap[0] and gap[1] <= end for first, end in lost) for gap in gaps if gap[0] < gap[1])
    repaired(path)
    assert fsck(path, deep=True).clean


def split_thrice(path: Path, *, rolls: bool = False) -> int:
    """Split a shard, then one of its children, then one of theirs; where the commit of the second split starts."""
    with shardlog.open(path) as store:
        stream = store.stream(NAME)
        stream.split_shard(stream.describe().shards[-1].shard_id)
        start = stream._stream.tail().offset
        for _ in range(2):
            stream.split_shard(stream.describe().shards[-1].shard_id)
        if rolls:
            append_some(stream, 60, 90)
    return start


def test_a_lost_split_that_others_follow_wants_salvage(path: Path) -> None:
    """Without it nobody knows what the later ones split: the plan says that it cannot, and harms nothing."""
    overwrite(log_paths(path)[-1], split_thrice(path) + 60, b"\xff" * 20)
    before = read_image(str(path))
    plan = repaired(path)
    assert any(isinstance(action, CannotRepair) for action in plan.actions)
    assert not any(isinstance(action, GoOnBehind | RecordGaps) for action in plan.actions)
    after = read_image(str(path))
    assert {name: after[name] for name in before} == before


def test_a_lost_split_is_known_from_the_next_segment(path: Path) -> None:
    """In a sealed segment: what follows it there cannot be judged, and the next header tells the state."""
    last = log_paths(path)[-1]
    overwrite(last, split_thrice(path, rolls=True) + 60, b"\xff" * 20)
    assert [finding.code for finding in fsck(path, deep=True).findings] == ["block-damaged"]
    repaired(path)
    assert fsck(path, deep=True).clean


@pytest.mark.parametrize("byte", [0, 5, 20, 40, 63, 64, 72, 79, 80, 100, 120])
def test_a_split_that_one_bit_spoils_is_known(path: Path, byte: int) -> None:
    """In header, directory or body: the checksum tells which bit it was, and the shards are what they were."""
    start = split_thrice(path)
    with shardlog.open(path, read_only=True) as store:
        wanted = store.stream(NAME).describe().shards
    content = log_paths(path)[-1].read_bytes()
    overwrite(log_paths(path)[-1], start + byte, bytes([content[start + byte] ^ 16]))
    report = fsck(path)
    assert [finding.code for finding in report.findings if finding.severity == "error"]
    with shardlog.open(path, read_only=True) as store:
        assert store.stream(NAME).describe().shards == wanted
    repaired(path)
    assert fsck(path, deep=True).clean
    with shardlog.open(path) as store:
        assert store.stream(NAME).describe().shards == wanted
        append_some(store.stream(NAME), 60, 90)


def test_numbers_of_a_lost_end_are_not_used_again(path: Path) -> None:
    """Without MARK nobody knows how many records the last, flipped commit had: numbers go on behind all it could."""
    end = log_end(path)
    (stream_path(path) / "MARK").unlink()
    rows, _ = rows_of(path)
    last = [row for row in rows if isinstance(row, tuple)][-1]
    content = log_paths(path)[-1].read_bytes()
    start = content[: end.offset].rindex(b"SLOG")
    overwrite(log_paths(path)[-1], start + 16, bytes([content[start + 16] ^ 4]))  # the record count
    report = fsck(path)
    assert any(first <= last[0] < end_sequence for _, first, end_sequence in report.lost)
    repaired(path)
    with shardlog.open(path) as store:
        stream = store.stream(NAME)
        assert stream.append([Change.insert(keys={"id": 1}, new={"id": 1})]).sequences[0] > last[0]
        assert any(isinstance(row, Gap) and row.first <= last[0] < row.next for row in stream.read(on_damage="gap"))
    assert fsck(path).clean


def test_a_stream_without_headers_cannot_be_repaired(tiny: Original, place: Path) -> None:
    """The plan says so, and that salvage can; applying it does no harm."""
    materialise(tiny.image, str(place))
    overwrite(log_paths(place)[0], 0, b"\xff" * 4096)
    report = fsck(place)
    assert report.exit_status & 64
    plan = plan_repair(report)
    assert any(isinstance(action, CannotRepair) for action in plan.actions)
    assert not plan.changes_anything
    before = read_image(str(place))
    plan.apply()
    assert read_image(str(place)) == before


def test_an_only_header_is_mended(tiny: Original, place: Path) -> None:
    """A stream of one segment whose header has a flipped bit does not open, and is whole after a repair."""
    for case in flips(tiny, tiny.segments[0], range(0, 700, 41)):
        materialise(case.image, str(place))
        with shardlog.open(place) as store, pytest.raises(CorruptLog):
            store.stream(NAME)
        repaired(place)
        rows, error = rows_of(place)
        assert error is None, case.story
        assert tuple(rows) == tiny.rows, case.story
        assert fsck(place, deep=True).clean


def test_errors_of_the_engine_itself_are_not_repaired(path: Path) -> None:
    """A state that does not follow from the log was not made by a disk: there is no repair that could be right."""
    state = state_of(path)
    add_segment(path, state=type(state)(**{**vars(state), "closed": True}))
    plan = plan_repair(fsck(path))
    assert any(isinstance(action, CannotRepair) and "state-wrong" in str(action) for action in plan.actions)


def test_several_streams_are_repaired_at_once(place: Path) -> None:
    """Each with its own gaps; what is not damaged is not touched."""
    segments = three_streams(place)
    for name in ("a", "c"):
        overwrite(segments[name], 6000, b"\xff" * 20)
    untouched = {path: path.read_bytes() for path in (place / "streams/b").glob("*/log/*.seg")}
    report = fsck(place)
    assert len(report.lost) == 2
    repaired(place)
    assert fsck(place).clean
    assert {path: path.read_bytes() for path in (place / "streams/b").glob("*/log/*.seg")} == untouched
    with shardlog.open(place) as store:
        for name in ("a", "b", "c"):
            gaps = [row for row in store.stream(name).read(on_damage="gap") if isinstance(row, Gap)]
            assert len(gaps) == (name != "b")


def test_producers_go_on_after_a_repair(path: Path) -> None:
    """Positions outside the damaged range are kept."""
    with shardlog.open(path) as store:
        before = store.stream(NAME).position("p")
    damage_block(path)
    damage_last_block(path)
    repaired(path)
    with shardlog.open(path) as store:
        position = store.stream(NAME).position("p")
        assert position is not None
        assert before is not None
        assert before - 8 <= position <= before

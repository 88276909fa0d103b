"""The power is cut in the middle of a repair: run again, it ends where an undisturbed one does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.check.damage import Original, original_of, rows_of, three_segments
from tests.check.test_repair import DAMAGES, damage_block, everything, spoil_mark, swap_segments, tear_tail
from tests.crash.rig import same_uuids
from tests.support.tally import Figure, Tally

from shardlog.check import fsck, plan_repair
from shardlog.check.repair import apply_plan
from shardlog.clock import SystemClock
from shardlog.files.protocol import Site
from shardlog.stream.open_stream import Surroundings
from shardlog.testing.crash_states import Strategy, crash_states
from shardlog.testing.images import materialise, read_image, scratch_directory
from shardlog.testing.operations import Image, Recording
from shardlog.testing.recording import RecordingFiles

HARNESS = "crash states of copies and repairs"
SHORT, SHORT_ONE_IN = Strategy(pending_for_pairs=3, random_choices=2), 4
LONG = Strategy()
LOCK_SECONDS = 10.0

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A directory in memory."""
    with scratch_directory() as path:
        yield Path(path)


@pytest.fixture(scope="module")
def sound(scratch: Path) -> Original:
    """A store of three segments."""
    return original_of(scratch / "sound", three_segments)


@dataclass(frozen=True)
class Repair:
    """A repair and what it did to the disk. `kept`: the records that can be read before it; `segments`: its files."""

    recording: Recording
    kept: frozenset[str]
    segments: frozenset[bytes]


def repair_of(sound: Original, damage: Damage, path: Path, skipped: frozenset[Site] = frozenset()) -> Repair:
    """Damage a store and repair it."""
    materialise(sound.image, str(path))
    damage(path)
    damaged = read_image(str(path), without="index")
    rows, _ = rows_of(path)
    files = RecordingFiles(str(path), base=damaged, skipped=skipped)
    with same_uuids():
        apply_plan(plan_repair(fsck(path)), Surroundings(files, SystemClock(), LOCK_SECONDS))
    # A torn tail is not all kept in its place: that is what its copy is for.
    segments = frozenset() if damage in (tear_tail, everything) else segments_in(damaged)
    return Repair(files.recording(), records_in(rows), segments)


def records_in(rows: Iterable[object]) -> frozenset[str]:
    """The records among them."""
    return frozenset(repr(row) for row in rows if isinstance(row, tuple))


def segments_in(image: Image) -> frozenset[bytes]:
    """What is in segment files, and in lost+found, but for zeros at their ends."""
    return frozenset(
        content.rstrip(b"\0")
        for path, content in image.items()
        if content and ("/log/" in path or "lost+found" in path)
    )


def broken_repairs(
    repair: Repair, sound: Original, path: Path, strategy: Strategy, one_in: int, tally: Tally
) -> Iterator[str]:
    """What is wrong after a power cut within the repair, or right after it, and the repair of that."""
    operations = repair.recording.operations
    judged = set()
    for state in crash_states(repair.recording, strategy):
        is_done = state.point == len(operations)
        if (state.digest, is_done) in judged:
            continue
        judged.add((state.digest, is_done))
        there = segments_in(state.image)
        if any(not any(now.startswith(before) for now in there) for before in repair.segments):
            yield f"a segment is neither in its place nor in lost+found\n{state.story(repair.recording)}"
        if not is_done and (int.from_bytes(state.digest[:4]) - strategy.seed) % one_in:
            continue
        tally.add(Figure.JUDGEMENTS, "repairs")
        found = judge(repair, sound, state.image, path, is_done)
        if found:
            yield f"{found}\n{state.story(repair.recording)}"


def judge(repair: Repair, sound: Original, image: Image, path: Path, is_done: bool) -> str | None:
    """What is wrong with what a power cut left, before and after another repair."""
    materialise(image, str(path))
    report = fsck(path)
    if is_done and not report.clean:
        return f"the repair was done, and this is found: {list(map(str, report.findings))}"
    plan_repair(report).apply()
    again = fsck(path)
    if not again.clean:
        return f"not clean after the second repair: {list(map(str, again.findings))}"
    rows, error = rows_of(path)
    found = records_in(rows)
    if error is not None or not repair.kept <= found or not found <= records_in(sound.rows):
        return f"after the second repair: {error}, missing {sorted(repair.kept - found)[:3]}"
    return None


def check(sound: Original, damage: Damage, path: Path, strategy: Strategy, one_in: int, tally: Tally) -> None:
    """No repair is broken, of one in so many."""
    found = [*broken_repairs(repair_of(sound, damage, path), sound, path, strategy, one_in, tally)]
    tally.add(Figure.LOSSES, "repairs", len(found))
    assert not found, found[0]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_repair_survives_power_cuts(sound: Original, scratch: Path, damage: Damage, seed: int, tally: Tally) -> None:
    """Run again from a new check it ends clean, with the same records readable; when it returned it is durable.

    And whatever it was at: each file of the log is there as it was, or whole in lost+found.
    """
    check(sound, damage, scratch / "place", replace(SHORT, seed=seed), SHORT_ONE_IN, tally)


@pytest.mark.torture
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_repair_survives_any_power_cut(
    sound: Original, scratch: Path, damage: Damage, seed: int, tally: Tally
) -> None:
    """The same, in every state."""
    check(sound, damage, scratch / "place", replace(LONG, seed=seed), 1, tally)


@pytest.mark.control(HARNESS)
@pytest.mark.parametrize(
    ("damage", "site"),
    [(damage_block, Site.COMMIT), (swap_segments, Site.SEGMENT_ENTRY), (spoil_mark, Site.STREAM_MARK)],
    ids=["gap", "name", "MARK"],
)
def test_without_a_sync_a_repair_is_lost(
    sound: Original, scratch: Path, damage: Damage, site: Site, seed: int, tally: Tally
) -> None:
    """A power cut right after it undoes what it did."""
    path = scratch / "place"
    repair = repair_of(sound, damage, path, frozenset({site}))
    assert next(broken_repairs(repair, sound, path, replace(SHORT, seed=seed), 1, tally), None)

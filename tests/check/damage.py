"""Small stores, every kind of damage to their files, and the judgement of what reading and checking make of it.

A store is an image: the content of each of its files. What must hold of a damaged one: what is read is what was
appended; whatever is missing is told by an error or a gap *and* by a finding; a repair leaves a store that is clean,
opens, takes records, and holds all that could be read before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import shardlog
from shardlog import Change, Gap, Record, ShardlogError, Store, Stream
from shardlog.check import Finding, Report, fsck, plan_repair
from shardlog.format.commit import MAGIC_BYTES
from shardlog.testing.images import materialise, read_image

SEGMENT_BYTES: Final = 16 << 10
NAME: Final = "abc"

Image = dict[str, bytes | None]
Row = tuple[int, Any, Any]
"""Sequence number, keys, new image."""


@dataclass(frozen=True)
class Original:
    """A store before it was damaged, and the records in it."""

    image: Image
    rows: tuple[Row, ...]

    def files(self, *ends: str) -> list[str]:
        """Its files whose paths end so, or hold one of these directories."""
        return [path for path, content in sorted(self.image.items()) if content is not None and path.endswith(ends)]

    @property
    def segments(self) -> list[str]:
        """Its segment files, oldest first."""
        return self.files(".seg")

    @property
    def checked_files(self) -> list[str]:
        """The files in which every bit counts."""
        return [*self.segments, *self.files("/MARK"), *self.files("STORE")]


@dataclass(frozen=True)
class Case:
    """One damage: what was done, the store after it, and what kind of damage it is."""

    story: str
    image: Image
    kind: str = "other"


def original_of(path: Path, fill: Callable[[Store], object]) -> Original:
    """Make a store at a path and take its image."""
    with shardlog.open(path) as store:
        fill(store)
    image = dict(read_image(str(path), without="index"))
    rows, error = rows_of(path)
    assert error is None
    assert fsck(path, deep=True).findings == ()
    return Original(image, tuple(row for row in rows if isinstance(row, tuple)))


def new_stream(store: Store, **options: Any) -> Stream:
    """A stream of small segments that keeps its records."""
    return store.create_stream(NAME, segment_bytes=SEGMENT_BYTES, retention=None, **options)


def append_some(stream: Stream, commits: int, size: int = 60) -> None:
    """Commits of one to five records, every fourth with a producer's position."""
    number = 0
    for commit in range(commits):
        count = commit % 5 + 1
        changes = [
            Change.insert(keys={"id": number + index}, new={"id": number + index, "text": "x" * (commit * 7 % size)})
            for index in range(count)
        ]
        producer: dict[str, Any] = {"producer": "p", "position": commit} if commit % 4 == 0 else {}
        stream.append(changes, **producer)
        number += count


def three_segments(store: Store) -> None:
    """Two sealed segments and an active one, two shards."""
    append_some(new_stream(store, shards=2), 70, 90)


def one_segment(store: Store) -> None:
    """One segment, one shard."""
    append_some(new_stream(store), 7)


def rows_of(path: Path) -> tuple[list[Row | Gap], ShardlogError | None]:
    """What a reader gets who steps over gaps, and the error that ends it."""
    rows: list[Row | Gap] = []
    try:
        with shardlog.open(path, create=False, read_only=True) as store:
            for record in store.stream(NAME).read(on_damage="gap"):
                rows.append(record if isinstance(record, Gap) else _row(record))
    except ShardlogError as error:
        return rows, error
    return rows, None


def settled_findings(report: Report) -> list[Finding]:
    """What was found but for commits under way: while others append, there may be one at any moment."""
    return [finding for finding in report.findings if finding.code != "unpublished"]


def _row(record: Record) -> Row:
    return record.sequence, record.keys, record.new_image


# Kinds of damage


def flips(original: Original, path: str, offsets: range) -> Iterator[Case]:
    """One bit of one byte flipped, at each of some offsets."""
    for offset in offsets:
        content = bytearray(_content(original, path))
        if offset < len(content):
            content[offset] ^= 1 << offset % 8
            story = f"flipped bit {offset % 8} of byte {offset} of {path}"
            yield _changed(original, {path: bytes(content)}, story, "bits flipped")


def truncations(original: Original, path: str, lengths: range) -> Iterator[Case]:
    """Cut to a length."""
    for length in lengths:
        story = f"cut {path} to {length} bytes"
        yield _changed(original, {path: _content(original, path)[:length]}, story, "lengths cut")


def deletions(original: Original) -> Iterator[Case]:
    """Each file removed, and the log's directory with all that is in it."""
    for path, content in original.image.items():
        if content is not None or path.endswith("/log"):
            image = {
                name: kept for name, kept in original.image.items() if name != path and not name.startswith(path + "/")
            }
            yield Case(f"deleted {path}", image, "files deleted")


def swaps(original: Original) -> Iterator[Case]:
    """Two segments under each other's names; one under a third name; one twice."""
    segments = original.segments
    for index, one in enumerate(segments):
        for other in segments[index + 1 :]:
            changed = {one: _content(original, other), other: _content(original, one)}
            for story, files in (
                (f"swapped {one} and {other}", changed),
                (f"{other} in the place of {one}", {one: _content(original, other)}),
                (f"{one} in the place of {other}", {other: _content(original, one)}),
            ):
                yield _changed(original, files, story, "segments swapped")
        directory = one.rpartition("/")[0]
        for stranger in (f"{directory}/{5:020d}-0000000a.seg", f"{directory}/{10**6:020d}-0000000a.seg"):
            story = f"{one} once more as {stranger}"
            yield _changed(original, {stranger: _content(original, one)}, story, "segments swapped")


def spoilt_stretches(original: Original, path: str, seed: int, count: int) -> Iterator[Case]:
    """Stretches of garbage, zeros, or bytes from elsewhere in the file: whole sectors, and a few bytes."""
    rng = random.Random(seed)
    content = _content(original, path)
    for _ in range(count):
        size = rng.choice((3, 64, 512, 4096))
        offset = rng.randrange(len(content)) // 512 * 512 if size >= 512 else rng.randrange(len(content))
        elsewhere = rng.randrange(len(content))
        filler = rng.choice(
            (rng.randbytes(size), bytes(size), content[elsewhere : elsewhere + size].ljust(size, b"\1"))
        )
        spoilt = (content[:offset] + filler + content[offset + size :])[: len(content)]
        story = f"{size} spoilt bytes at {offset} of {path} ({seed})"
        yield _changed(original, {path: spoilt}, story, "stretches spoilt")


def strays(original: Original, path: str) -> Iterator[Case]:
    """Some KiB of a segment written over others, so that blocks come to lie where a block may be expected."""
    content = _content(original, path)
    blocks = [offset for offset in range(0, len(content), 8) if content[offset : offset + 4] == MAGIC_BYTES]
    for target in (512, 2560, 5120):
        for block in blocks[::3]:
            source = block - max(0, blocks[0] - target)
            stretch = content[source : source + 4096]
            spoilt = content[:target] + stretch + content[target + len(stretch) :]
            story = f"copied 4096 bytes at {source} of {path} to {target}"
            yield _changed(original, {path: spoilt[: len(content)]}, story, "stretches spoilt")


def _content(original: Original, path: str) -> bytes:
    content = original.image[path]
    assert content is not None
    return content


def _changed(original: Original, changed: Mapping[str, bytes], story: str, kind: str) -> Case:
    return Case(story, {**original.image, **changed}, kind)


# Judgement


def judge(original: Original, case: Case, path: Path) -> Report:
    """Hold what reading and checking make of a damaged store against the original. Returns the report."""
    materialise(case.image, str(path))
    report = fsck(path)
    rows, error = rows_of(path)
    _expect_truth(original, case, rows)
    if error is None and [row for row in rows if isinstance(row, tuple)] != list(original.rows):
        assert not report.clean, f"{case.story}: reading differs, and the check finds nothing"
        _expect_told(original, case, rows, [(first, end) for _, first, end in report.lost])
    if error is not None:
        assert report.findings, f"{case.story}: reading fails with {error}, and the check finds nothing"
    return report


def judge_repair(original: Original, case: Case, path: Path, report: Report) -> bool:
    """Repair a damaged store and hold it against the original; False where the plan says that it cannot."""
    before, _ = rows_of(path)
    plan = plan_repair(report)
    plan.apply()
    again = fsck(path, deep=True)
    if not again.clean:
        assert any("cannot be repaired" in str(action) for action in plan.actions), (
            f"{case.story}: not clean after the repair: {list(map(str, again.findings))}, "
            f"{list(map(str, plan.actions))}"
        )
        return False
    with shardlog.open(path) as store:
        appended = store.stream(NAME).append([Change.insert(keys={"id": -1}, new={"id": -1})]).sequences[0]
    assert appended > original.rows[-1][0], f"{case.story}: number {appended} is used again"
    rows, error = rows_of(path)
    assert error is None, f"{case.story}: after the repair: {error}"
    assert any(isinstance(row, tuple) and row[0] == appended for row in rows)
    rows = [row for row in rows if isinstance(row, Gap) or row[0] != appended]
    _expect_truth(original, case, rows)
    _expect_told(original, case, rows, [])
    kept = {row[0] for row in rows if isinstance(row, tuple)}
    assert {row[0] for row in before if isinstance(row, tuple)} <= kept, f"{case.story}: the repair lost records"
    assert fsck(path).clean
    return True


def _expect_truth(original: Original, case: Case, rows: list[Row | Gap]) -> None:
    good = {row[0]: row for row in original.rows}
    read = [row for row in rows if isinstance(row, tuple)]
    for row in read:
        assert good.get(row[0]) == row, f"{case.story}: read {row}, which nobody appended"
    sequences = [row[0] for row in read]
    assert sequences == sorted(set(sequences)), f"{case.story}: out of order"


def _expect_told(original: Original, case: Case, rows: list[Row | Gap], lost: list[tuple[int, int]]) -> None:
    """Whatever is missing lies in a gap, and, where they are given, in the ranges that the check says are lost."""
    read = {row[0] for row in rows if isinstance(row, tuple)}
    gaps = [(row.first, row.next) for row in rows if isinstance(row, Gap)]
    for ranges in (gaps, lost) if lost else (gaps,):
        for row in original.rows:
            assert row[0] in read or any(first <= row[0] < end for first, end in ranges), (
                f"{case.story}: record {row[0]} is missing, told are {ranges}"
            )

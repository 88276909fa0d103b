"""What a power cut may leave, case by case."""

from __future__ import annotations

import pytest
from tests.crash.rig import Rig
from tests.crash.workloads import BY_NAME

from shardlog.files.protocol import Site
from shardlog.format import names
from shardlog.testing.disk import ABSENT, WHOLE, ZEROS, Disk, Fate, changed
from shardlog.testing.images import materialise, read_image, scratch_directory
from shardlog.testing.operations import (
    Allocated,
    Created,
    DirectoryMade,
    DirectorySynced,
    Image,
    Marked,
    Opened,
    Operation,
    Outcome,
    Placed,
    Renamed,
    Synced,
    Truncated,
    Unlinked,
    Written,
)
from shardlog.testing.recording import RecordingFiles


def disk_after(*operations: Operation, base: Image | None = None) -> Disk:
    """The disk after some operations."""
    disk = Disk(base or {})
    for operation in operations:
        disk.apply(operation)
    return disk


def files_of(image: Image) -> dict[str, bytes]:
    """The files of an image."""
    return {path: content for path, content in image.items() if content is not None}


def synced(handle: int, outcome: Outcome = Outcome.DONE) -> Operation:
    """A sync of a file."""
    return Synced(handle, Site.COMMIT, outcome)


def directory_synced(path: str = "", outcome: Outcome = Outcome.DONE) -> Operation:
    """A sync of a directory."""
    return DirectorySynced(path, Site.SEGMENT_ENTRY, outcome)


def test_a_file_without_a_durable_name_is_gone() -> None:
    """Syncing the file does not help."""
    disk = disk_after(Created(1, "a"), Written(1, 0, b"x"), synced(1))
    assert files_of(disk.image({}, ABSENT).image) == {}
    assert files_of(disk.image({}, WHOLE).image) == {"a": b"x"}


def test_what_lmdb_has_synced_is_there() -> None:
    """From its mark on, whole, in place of what was there before; whatever else is lost."""
    place = [Marked(Placed("d", None)), Marked(Placed("d/m", b"old")), Marked(Placed("d/m", b"new"))]
    assert files_of(disk_after(*place[:2], Created(1, "a")).image({}, ABSENT).image) == {"d/m": b"old"}
    assert files_of(disk_after(*place, Created(1, "a")).image({}, ABSENT).image) == {"d/m": b"new"}


def test_a_durable_name_says_nothing_about_the_content() -> None:
    """The file may be empty."""
    disk = disk_after(Created(1, "a"), Written(1, 0, b"x"), directory_synced())
    assert files_of(disk.image({}, ABSENT).image) == {"a": b""}


def test_a_rename_is_atomic_and_not_ordered_with_other_names() -> None:
    """The file has the old name, the new one, or (its old one never having been durable) none; never both."""
    disk = disk_after(Created(1, "a"), directory_synced(), Renamed("a", "b"), Created(2, "c"))
    rename, creation = (change.at for change in disk.pending())
    assert set(disk.image({rename: ABSENT}, WHOLE).image) == {"", "a", "c"}
    assert set(disk.image({rename: WHOLE}, ABSENT).image) == {"", "b"}
    assert set(disk.image({creation: WHOLE}, ABSENT).image) == {"", "a", "c"}


def test_a_lost_removal_brings_the_file_back() -> None:
    """With the content that was durable."""
    disk = disk_after(Unlinked("a"), base={"": None, "a": b"old"})
    assert files_of(disk.image({}, ABSENT).image) == {"a": b"old"}
    assert files_of(disk.image({}, WHOLE).image) == {}


def test_what_is_in_a_lost_directory_is_lost() -> None:
    """However often it was synced."""
    disk = disk_after(DirectoryMade("d"), Created(1, "d/a"), synced(1), directory_synced("d"))
    assert files_of(disk.image({}, ABSENT).image) == {}
    disk.apply(directory_synced())
    assert files_of(disk.image({}, ABSENT).image) == {"d/a": b""}


def test_a_file_keeps_its_identity_when_it_is_renamed() -> None:
    """A write through a handle from before goes to the file, whatever it is called."""
    disk = disk_after(Opened(1, "a"), Renamed("a", "b"), directory_synced(), Written(1, 0, b"new"), synced(1),
                      base={"": None, "a": b"old"})  # fmt: skip
    assert files_of(disk.image({}, ABSENT).image) == {"b": b"new"}


def test_writes_reach_the_disk_in_any_order_or_not_at_all() -> None:
    """The second without the first."""
    disk = disk_after(Opened(1, "a"), Written(1, 0, b"1"), Written(1, 1, b"2"), base={"": None, "a": b".."})
    first, second = (change.at for change in disk.pending())
    assert files_of(disk.image({first: ABSENT}, WHOLE).image) == {"a": b".2"}
    assert files_of(disk.image({second: ABSENT}, WHOLE).image) == {"a": b"1."}


def test_size_is_as_uncertain_as_content() -> None:
    """Reserving and cutting take place or not; a write behind the end grows the file, with or without its bytes."""
    disk = disk_after(Opened(1, "a"), Allocated(1, 8), Truncated(1, 2), Written(1, 3, b"x"), base={"": None, "a": b"1"})
    allocation, cut, write = (change.at for change in disk.pending())
    contents = {
        files_of(disk.image({allocation: one, cut: other, write: third}, WHOLE).image)["a"]
        for one in (ABSENT, WHOLE)
        for other in (ABSENT, WHOLE)
        for third in (ABSENT, WHOLE, ZEROS)
    }
    assert contents == {
        b"1", b"1\0\0x", b"1\0\0\0", b"1" + bytes(7), b"1\0\0x" + bytes(4), b"1\0",
    }  # fmt: skip


@pytest.mark.parametrize("start", [0, 1, 500, 511, 512])
def test_a_write_tears_at_the_boundaries_of_sectors(start: int) -> None:
    """At each 512 bytes of the file, not of the write; either part may be the one that is there."""
    disk = disk_after(Opened(1, "a"), Written(1, start, b"n" * 1024), base={"": None, "a": b"o" * 2048})
    (change,) = disk.pending()
    boundaries = {fate.at for fate in change.fates if fate.kind == "first part"}
    assert boundaries == {at for at in (512, 1024, 1536) if start < at < start + 1024}
    for at in boundaries:
        old_before, old_after = b"o" * start, b"o" * (2048 - start - 1024)
        first = files_of(disk.image({change.at: Fate("first part", at)}, WHOLE).image)["a"]
        assert first == old_before + b"n" * (at - start) + b"o" * (start + 1024 - at) + old_after
        last = files_of(disk.image({change.at: Fate("last part", at)}, WHOLE).image)["a"]
        assert last == old_before + b"o" * (at - start) + b"n" * (start + 1024 - at) + old_after


def test_garbage_replaces_only_what_a_write_would_have_changed() -> None:
    """A sector that is written again as it was stays, and so do the bytes around the write."""
    old = b"s" * 512 + b"o" * 600
    spoilt = changed(old, Written(1, 0, b"s" * 512 + b"n" * 500), Fate("garbage", 1))
    assert spoilt[:512] == old[:512]
    assert spoilt[512:1012] not in (b"o" * 500, b"n" * 500)
    assert spoilt[1012:] == old[1012:]
    assert len(spoilt) == len(old)


def test_what_a_failed_sync_left_out_stays_uncertain() -> None:
    """A later sync succeeds without having written it; a later write over it settles it."""
    disk = disk_after(Opened(1, "a"), Written(1, 0, b"new"), synced(1, Outcome.FAILED), Written(1, 3, b"!"), synced(1),
                      base={"": None, "a": b"old."})  # fmt: skip
    assert files_of(disk.image({}, ABSENT).image) == {"a": b"old!"}
    assert files_of(disk.image({}, WHOLE).image) == {"a": b"new!"}
    disk.apply(Written(1, 0, b"new"))
    disk.apply(synced(1))
    assert files_of(disk.image({}, ABSENT).image) == {"a": b"new!"}


def test_a_sync_that_was_left_out_settles_nothing() -> None:
    """That is how its need is shown."""
    disk = disk_after(Opened(1, "a"), Written(1, 0, b"new"), synced(1, Outcome.SKIPPED), base={"": None, "a": b"old"})
    assert files_of(disk.image({}, ABSENT).image) == {"a": b"old"}


@pytest.mark.parametrize("name", ["rolls, os", "endings, fsync", "torn tails", "resharding, fsync", "expiring, fsync"])
def test_the_model_follows_the_file_system(name: str) -> None:
    """Where everything reaches the disk, the model's image is what the directory holds."""
    with scratch_directory() as root:
        rig = Rig(root, frozenset())
        BY_NAME[name].run(rig)
        disk = disk_after(*rig.recorder.recording().operations)
        assert read_image(root, names.INDEX) == disk.image({}, WHOLE).image
        rig.faults.die()
        rig.journal.abandon()


def test_an_image_is_put_into_a_directory_as_it_is() -> None:
    """Holes, empty files and empty directories included."""
    image = {"": None, "d": None, "d/e": None, "d/a": b"x" + bytes(9000), "b": b"", "z": bytes(5)}
    with scratch_directory() as root:
        materialise(image, f"{root}/here")
        assert read_image(f"{root}/here") == image


def test_recording_follows_the_file_system() -> None:
    """What was done through the recording is what the directory holds, names and contents."""
    with scratch_directory() as root:
        files = RecordingFiles(root)
        files.make_directory(f"{root}/d")
        file = files.create(f"{root}/d/a.tmp")
        file.pwrite(b"content", 3)
        file.allocate(20)
        files.rename(f"{root}/d/a.tmp", f"{root}/d/a")
        file.truncate(12)
        file.close()
        files.create(f"{root}/b").close()
        files.unlink(f"{root}/b")
        files.open_lock(f"{root}/LOCK").close()
        disk = disk_after(*files.recording().operations)
        assert read_image(root) == disk.image({}, WHOLE).image

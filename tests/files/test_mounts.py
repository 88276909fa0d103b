"""File systems that do not keep locks and syncs are refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardlog.errors import StorageFailed
from shardlog.files import mounts
from shardlog.files.mounts import OVERRIDE, check_filesystem, filesystem_kind


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mount table in the place of the kernel's."""
    path = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "_MOUNT_TABLE", str(path))
    monkeypatch.delenv(OVERRIDE, raising=False)
    return path


def _line(path: Path, kind: str, *, optional: str = "shared:1 ") -> str:
    device = os.stat(path).st_dev
    return f"36 35 {os.major(device)}:{os.minor(device)} / /mnt\\040- rw,noatime {optional}- {kind} server:/a - b rw\n"


OTHER = "22 35 0:999 / /other rw shared:2 - tmpfs tmpfs rw\n"


@pytest.mark.parametrize(
    "kind",
    [
        "nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs", "fuseblk", "ceph", "virtiofs", "lustre", "glusterfs",
    ],
)  # fmt: skip
def test_remote_file_systems_are_refused(table: Path, tmp_path: Path, kind: str) -> None:
    """The message names path, type and what to do."""
    table.write_text(OTHER + _line(tmp_path, kind))
    with pytest.raises(StorageFailed, match=f"on a {kind} file system") as refusal:
        check_filesystem(str(tmp_path))
    assert str(tmp_path) in str(refusal.value)
    assert OVERRIDE in str(refusal.value)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "f2fs", "zfs", "fusectl", "nfsd"])
def test_local_file_systems_are_not(table: Path, tmp_path: Path, kind: str) -> None:
    """Nor those whose names only begin like a remote one's."""
    table.write_text(OTHER + _line(tmp_path, kind, optional=""))
    assert filesystem_kind(str(tmp_path)) == kind
    check_filesystem(str(tmp_path))


@pytest.mark.parametrize("value", ["1", "0", "", "yes"])
def test_the_refusal_can_be_overridden(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """By 1 and nothing else."""
    table.write_text(_line(tmp_path, "nfs4"))
    monkeypatch.setenv(OVERRIDE, value)
    if value == "1":
        check_filesystem(str(tmp_path))
    else:
        with pytest.raises(StorageFailed):
            check_filesystem(str(tmp_path))


@pytest.mark.parametrize("content", [None, "", OTHER, "nonsense\n", "1 2\n - \n"])
def test_what_the_table_does_not_tell_is_taken_as_local(table: Path, tmp_path: Path, content: str | None) -> None:
    """No table, no line for the device, lines of another form: nothing is refused for want of knowledge."""
    if content is not None:
        table.write_text(content)
    assert filesystem_kind(str(tmp_path)) is None
    check_filesystem(str(tmp_path))


def test_the_kernel_s_table_is_read(tmp_path: Path) -> None:
    """Where tests run there is a table, and a store may live."""
    check_filesystem(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        check_filesystem(str(tmp_path / "missing"))

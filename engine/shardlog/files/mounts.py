"""Which file systems a store may live on.

The promises need a local file system: network ones, 9p and FUSE do not keep locks, mmap or fdatasync as the engine
needs them, and are refused unless SHARDLOG_ALLOW_ANY_FILESYSTEM=1 says that the user knows better.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from shardlog.errors import StorageFailed
from shardlog.files.posix import translated

OVERRIDE = "SHARDLOG_ALLOW_ANY_FILESYSTEM"
_REFUSED = re.compile(r"nfs\d?|cifs|smb\d?|smbfs|9p|fuse(\..*|blk)?|ceph|glusterfs|afs|ncpfs|lustre|virtiofs|beegfs")
_MOUNT_TABLE = "/proc/self/mountinfo"


def check_filesystem(path: str) -> None:
    """Raise StorageFailed where `path` (which exists) lies on a file system that is refused."""
    kind = filesystem_kind(path)
    if kind and _REFUSED.fullmatch(kind) and os.environ.get(OVERRIDE) != "1":
        raise StorageFailed(
            f"{path} is on a {kind} file system, which does not keep the locks and syncs that a store needs; "
            f"use a local one (or set {OVERRIDE}=1 and lose the promises)"
        )


def filesystem_kind(path: str) -> str | None:
    """The type of the file system of a path as the mount table names it (proc_pid_mountinfo(5)); None if unknown."""
    with translated("stat", path):
        device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        table = Path(_MOUNT_TABLE).read_text(errors="replace")
    except OSError:
        return None
    for line in table.splitlines():
        mount, _, filesystem = line.partition(" - ")
        fields = mount.split()
        if len(fields) > 2 and fields[2] == wanted:
            return filesystem.split()[0]
    return None

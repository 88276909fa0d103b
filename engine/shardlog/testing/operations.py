"""What a recording is made of: one value per operation on a file system, and marks that the workload put in between.

Paths are relative to the recorded directory, which itself is "". Operations on an open file name its *handle*, a number
given when it was opened or created, because a file keeps its identity when it is renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shardlog.files.protocol import Site

Image = Mapping[str, bytes | None]
"""What is on a disk: the content of each file by its path, None for each directory."""


class Outcome(StrEnum):
    """What became of a sync."""

    DONE = "done"
    SKIPPED = "skipped"
    """It was left out on purpose, and nothing became durable; the program believes that it was done."""
    FAILED = "failed"
    """It raised. What it should have written may never be, though later syncs succeed (fsync(2), errors)."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An existing file was opened to write."""

    handle: int
    path: str


@dataclass(frozen=True, slots=True)
class Created:
    """A file was created."""

    handle: int
    path: str


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes were written at an offset."""

    handle: int
    offset: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Truncated:
    """A file was cut, or extended, to a length."""

    handle: int
    length: int


@dataclass(frozen=True, slots=True)
class Allocated:
    """Space was reserved for the first `length` bytes of a file, which is at least so long now."""

    handle: int
    length: int


@dataclass(frozen=True, slots=True)
class Synced:
    """Content and size of a file were synced."""

    handle: int
    site: Site
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class DirectoryMade:
    """A directory was made."""

    path: str


@dataclass(frozen=True, slots=True)
class DirectoryRemoved:
    """An empty directory was removed."""

    path: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file or directory got another name, replacing a file of that name."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A file was removed."""

    path: str


@dataclass(frozen=True, slots=True)
class DirectorySynced:
    """The names in a directory were synced."""

    path: str
    site: Site
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Marked:
    """Something that the workload wants to be remembered at this point."""

    mark: object


@dataclass(frozen=True, slots=True)
class Placed:
    """A mark: LMDB, whose files do not go through the file layer, has made a file durable, or a directory (None)."""

    path: str
    content: bytes | None


FileChange = Written | Truncated | Allocated
NameChange = Created | DirectoryMade | DirectoryRemoved | Renamed | Unlinked
Operation = Opened | FileChange | NameChange | Synced | DirectorySynced | Marked


@dataclass(frozen=True, slots=True)
class Recording:
    """Operations in the order in which they happened, upon what was durable before."""

    base: Image
    operations: tuple[Operation, ...]


def shown(operation: Operation) -> str:
    """An operation in one line, for stories about failures."""
    match operation:
        case Opened(handle, path):
            return f"open {path} as #{handle}"
        case Created(handle, path):
            return f"create {path} as #{handle}"
        case Written(handle, offset, content):
            return f"write [{offset}, {offset + len(content)}) of #{handle}"
        case Truncated(handle, length):
            return f"cut #{handle} to {length}"
        case Allocated(handle, length):
            return f"allocate {length} for #{handle}"
        case Synced(handle, site, outcome):
            return f"sync #{handle} ({site}): {outcome}"
        case DirectoryMade(path):
            return f"make the directory {path}"
        case DirectoryRemoved(path):
            return f"remove the directory {path}"
        case Renamed(source, target):
            return f"rename {source} to {target}"
        case Unlinked(path):
            return f"unlink {path}"
        case DirectorySynced(path, site, outcome):
            return f"sync the directory {path or '.'} ({site}): {outcome}"
        case Marked(mark):
            return f"-- {mark!r:.160}"

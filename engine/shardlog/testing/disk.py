"""A model of a disk behind a page cache: what may be on it after a power cut. Pure.

What the model takes for granted, and what it does not:

- A write that was not synced may be absent, whole, torn at any 512-byte boundary of the file (its first part there, or
  its last), or have grown the file without its data: zeros, or garbage. Bytes that a write does not change stay as
  they were, whatever becomes of it; so do the bytes around it.
- Cutting, extending and reserving take place or not, independently of the writes.
- A sync of a file makes its content and size durable, and says nothing about its name.
- A name (made, removed, renamed) is durable after a sync of its directory. A rename takes place or not, in any order
  with data and with other names. A file whose name is lost is gone.
- What LMDB makes durable beside the file layer is there from its mark on, whole.
- Changes to a file before a sync that *failed* may never reach the disk, though later syncs succeed and reads show
  them: they stay a matter of chance until other writes cover them. Names stay pending: they are in a journal, which
  takes the file system down when it fails.

`Disk` takes a recording's operations one by one. At every point `pending` are the changes that a power cut leaves to
chance, and `image` is the disk that comes of a choice for each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, NamedTuple

from shardlog.testing.images import content_digest
from shardlog.testing.operations import (
    Allocated,
    Created,
    DirectoryMade,
    DirectoryRemoved,
    DirectorySynced,
    FileChange,
    Image,
    Marked,
    NameChange,
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

SECTOR_BYTES: Final = 512


class Fate(NamedTuple):
    """What became of a pending change. `at` is the boundary where a write is torn, or the seed of garbage."""

    kind: str
    at: int = 0


ABSENT: Final = Fate("absent")
WHOLE: Final = Fate("whole")
ZEROS: Final = Fate("zeros")
_ROOT: Final = 0


class Pending(NamedTuple):
    """A change that is not durable yet: the index of its operation in the recording, and all that may become of it."""

    at: int
    fates: tuple[Fate, ...]


class DiskState(NamedTuple):
    """An image and what tells it from others."""

    image: Image
    digest: bytes


@dataclass(slots=True)
class _Change:
    """A change to a file's content or to a directory's names (node by name, None: removed)."""

    index: int
    what: FileChange | Mapping[str, int | None]
    fates: tuple[Fate, ...]
    is_durable: bool = False
    is_forsaken: bool = False


@dataclass(slots=True)
class _Node:
    """A file or directory: what is durable, and the changes since, oldest first."""

    content: bytes | None
    names: dict[str, int] = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)
    seen: dict[tuple[Fate, ...], tuple[bytes, bytes]] = field(default_factory=dict)
    """Contents and their digests by the choices that led to them."""


_Tree = tuple[dict[str, bytes | None], list[tuple[str, _Node]]]


class Disk:
    """The disk after some operations of a recording."""

    def __init__(self, base: Image) -> None:
        self._nodes: list[_Node] = [_Node(None)]
        self._handles: dict[int, int] = {}
        self._trees: dict[tuple[Fate, ...], _Tree] = {}
        self._index = 0
        for path in sorted(base):
            if path:
                directory, name = self._parent(path)
                directory.names[name] = self._new_node(base[path])

    def apply(self, operation: Operation) -> None:
        """Take the next operation. What names something that the recording did not see made is passed over."""
        match operation:
            case Opened(handle, path):
                node = self._find(path)
                if node is not None:
                    self._handles[handle] = node
            case Written() | Truncated() | Allocated():
                self._change_file(operation)
            case Synced(handle, _, outcome):
                if handle in self._handles:
                    _settle(self._nodes[self._handles[handle]], outcome)
            case DirectorySynced(path, _, outcome):
                self._trees.clear()
                found = self._find(path)
                if found is not None:
                    _settle(self._nodes[found], outcome)
            case Created() | DirectoryMade() | DirectoryRemoved() | Renamed() | Unlinked():
                self._change_names(operation)
            case Marked(Placed(path, content)):
                self._place(path, content)
        self._index += 1

    def pending(self) -> list[Pending]:
        """The changes that are not durable, in order."""
        found = [
            Pending(change.index, change.fates)
            for node in self._nodes
            for change in node.changes
            if not change.is_durable
        ]
        return sorted(set(found))

    def image(self, choices: Mapping[int, Fate], otherwise: Fate) -> DiskState:
        """The disk when each pending change meets its fate: the chosen one, or `otherwise`."""
        directories, files = self._tree(choices, otherwise)
        image = dict(directories)
        digests = [directory.encode() for directory in directories]
        for path, node in files:
            content, digest = _content_of(node, choices, otherwise)
            image[path] = content
            digests.append(path.encode() + b"\0" + digest)
        return DiskState(image, content_digest(b"\n".join(digests)))

    def _tree(self, choices: Mapping[int, Fate], otherwise: Fate) -> _Tree:
        """Where everything is; remembered while no name changes."""
        fates = tuple(
            _fate(change, choices, otherwise) for node in self._nodes if node.content is None for change in node.changes
        )
        tree = self._trees.get(fates)
        if tree is None:
            directories: dict[str, bytes | None] = {}
            files: list[tuple[str, _Node]] = []

            def visit(node: _Node, path: str) -> None:
                if node.content is not None:
                    files.append((path, node))
                    return
                directories[path] = None
                prefix = path + "/" if path else ""
                for name, child in sorted(_names_of(node, choices, otherwise).items()):
                    visit(self._nodes[child], prefix + name)

            visit(self._nodes[_ROOT], "")
            tree = self._trees[fates] = (directories, files)
        return tree

    def _new_node(self, content: bytes | None) -> int:
        self._nodes.append(_Node(content))
        return len(self._nodes) - 1

    def _find(self, path: str) -> int | None:
        """The node that a running program finds at a path."""
        number: int | None = _ROOT
        for name in path.split("/") if path else ():
            number = _cached_names(self._nodes[number]).get(name) if number is not None else None
        return number

    def _parent(self, path: str) -> tuple[_Node, str]:
        directory, _, name = path.rpartition("/")
        number = self._find(directory)
        if number is None:
            raise ValueError(f"{path}: the directory was never made")
        return self._nodes[number], name

    def _change_file(self, operation: FileChange) -> None:
        number = self._handles.get(operation.handle)
        if number is None:
            return
        node = self._nodes[number]
        node.changes.append(_Change(self._index, operation, _fates_of(operation, _cached_size(node))))
        node.seen.clear()

    def _change_names(self, operation: NameChange) -> None:
        match operation:
            case Created(handle, path):
                directory, name = self._parent(path)
                self._handles[handle] = self._new_node(b"")
                self._name(directory, {name: self._handles[handle]})
            case DirectoryMade(path):
                directory, name = self._parent(path)
                self._name(directory, {name: self._new_node(None)})
            case Unlinked(path) | DirectoryRemoved(path):
                if self._find(path) is not None:
                    directory, name = self._parent(path)
                    self._name(directory, {name: None})
            case Renamed(source, target):
                before, old_name = self._parent(source)
                after, new_name = self._parent(target)
                if before is not after:
                    raise ValueError(f"{source} to {target}: renames between directories are not modelled")
                self._name(before, {old_name: None, new_name: self._find(source)})

    def _place(self, path: str, content: bytes | None) -> None:
        directory, name = self._parent(path)
        found = directory.names.get(name)
        if found is None:
            directory.names[name] = self._new_node(content)
        elif content is not None:
            self._nodes[found].content = content
            self._nodes[found].seen.clear()
        self._trees.clear()

    def _name(self, directory: _Node, names: Mapping[str, int | None]) -> None:
        directory.changes.append(_Change(self._index, names, (ABSENT, WHOLE)))
        self._trees.clear()


def _settle(node: _Node, outcome: Outcome) -> None:
    """What a sync does to the changes of a node."""
    if outcome is Outcome.SKIPPED:
        return
    for change in node.changes:
        if outcome is Outcome.FAILED:
            change.is_forsaken = not (change.is_durable or isinstance(change.what, Mapping))
        elif not change.is_forsaken:
            change.is_durable = True
    # Older changes that may yet be lost keep the later ones from being merged into what is durable.
    settled = 0
    while settled < len(node.changes) and node.changes[settled].is_durable:
        settled += 1
    for change in node.changes[:settled]:
        if isinstance(change.what, Mapping):
            _rename_in(node.names, change.what)
        else:
            node.content = changed(node.content or b"", change.what, WHOLE)
    del node.changes[:settled]
    node.seen.clear()


def _fate(change: _Change, choices: Mapping[int, Fate], otherwise: Fate) -> Fate:
    return WHOLE if change.is_durable else choices.get(change.index, otherwise)


def _content_of(node: _Node, choices: Mapping[int, Fate], otherwise: Fate) -> tuple[bytes, bytes]:
    fates = tuple(_fate(change, choices, otherwise) for change in node.changes)
    found = node.seen.get(fates)
    if found is None:
        content = node.content or b""
        for change, fate in zip(node.changes, fates, strict=True):
            assert not isinstance(change.what, Mapping)
            content = changed(content, change.what, fate)
        found = node.seen[fates] = (content, content_digest(content))
    return found


def _names_of(node: _Node, choices: Mapping[int, Fate], otherwise: Fate) -> dict[str, int]:
    if not node.changes:
        return node.names
    names = dict(node.names)
    for change in node.changes:
        if _fate(change, choices, otherwise) == WHOLE:
            assert isinstance(change.what, Mapping)
            _rename_in(names, change.what)
    return names


def _cached_names(node: _Node) -> dict[str, int]:
    return _names_of(node, {}, WHOLE)


def _cached_size(node: _Node) -> int:
    return len(_content_of(node, {}, WHOLE)[0])


def _rename_in(names: dict[str, int], change: Mapping[str, int | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _fates_of(operation: FileChange, size_before: int) -> tuple[Fate, ...]:
    if not isinstance(operation, Written):
        return (ABSENT, WHOLE)
    start, end = operation.offset, operation.offset + len(operation.content)
    boundaries = range(start // SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES)
    kinds = ("first part", "last part") + (("first part, grown",) if end > size_before else ())
    torn = [Fate(kind, boundary) for kind in kinds for boundary in boundaries]
    return (ABSENT, WHOLE, ZEROS, Fate("garbage", start), *torn)


def changed(content: bytes, operation: FileChange, fate: Fate) -> bytes:
    """A file's content after a change met its fate."""
    if fate == ABSENT:
        return content
    match operation:
        case Truncated(_, length):
            return content[:length].ljust(length, b"\0")
        case Allocated(_, length):
            return content.ljust(length, b"\0")
        case Written(_, start, new):
            return _written(content, start, new, fate)


def _written(content: bytes, start: int, new: bytes, fate: Fate) -> bytes:
    end = start + len(new)
    match fate.kind:
        case "first part":
            new = new[: fate.at - start]
        case "last part":
            new, start = new[fate.at - start :], fate.at
        case "first part, grown":
            new = new[: fate.at - start] + content[fate.at : end].ljust(end - fate.at, b"\0")
        case "zeros":
            new = _spoilt(content, start, new, bytes)
        case "garbage":
            new = _spoilt(content, start, new, random.Random(fate.at).randbytes)
    return content[:start].ljust(start, b"\0") + new + content[start + len(new) :]


def _spoilt(content: bytes, start: int, new: bytes, filler: Callable[[int], bytes]) -> bytes:
    """`new` with other bytes in each sector where it would have changed something."""
    end = start + len(new)
    edges: Sequence[int] = sorted({start, *range(-(-start // SECTOR_BYTES) * SECTOR_BYTES, end, SECTOR_BYTES), end})
    parts: Iterable[bytes] = (
        new[a - start : b - start] if content[a:b] == new[a - start : b - start] else filler(b - a)
        for a, b in pairwise(edges)
    )
    return b"".join(parts)

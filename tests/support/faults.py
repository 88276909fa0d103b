"""Files that fail where a test wants it, and the same for the index: errors, or SIGKILL for the process itself.

A fault is armed for one kind of step; `skip` lets some of its occurrences pass first. It strikes before the step, after
it, or (writes) when half of the bytes are written.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import pytest

from shardlog.api import Store, open_store
from shardlog.clock import Clock, SystemClock
from shardlog.errors import StorageFailed, StorageFull
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import File, LockFile, Site
from shardlog.index.environment import Index
from shardlog.index.tail import ROLLING, Tail
from shardlog.index.transaction import IndexWrite
from shardlog.stream.open_stream import Surroundings

When = Literal["before", "half", "after"]


@dataclass(frozen=True)
class Step:
    """Something that is about to be done to a file."""

    operation: str
    path: str
    site: Site | None = None
    content: bytes = b""
    offset: int = 0

    @property
    def is_segment(self) -> bool:
        """Whether it concerns a segment that has its name."""
        return self.path.endswith(".seg")

    @property
    def is_new_segment(self) -> bool:
        """Whether it concerns a segment that has none yet."""
        return self.path.endswith(".seg.tmp")

    @property
    def is_mark(self) -> bool:
        """Whether it concerns MARK."""
        return self.path.endswith("/MARK")


Wanted = Callable[[Step], bool]


@dataclass
class Fault:
    """What happens at a step."""

    wanted: Wanted
    strike: Callable[[], object]
    when: When = "before"
    skip: int = 0
    times: int = 1
    struck: int = field(default=0)

    def takes(self, step: Step, when: When) -> bool:
        """Whether to strike now."""
        if when != self.when or self.struck >= self.times or not self.wanted(step):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.struck += 1
        return True


class FaultyFiles(PosixFiles):
    """The real file system, with faults. `steps` are the writes and syncs so far."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.steps: list[Step] = []

    def arm(
        self, wanted: Wanted, strike: Callable[[], object], when: When = "before", *, skip: int = 0, times: int = 1
    ) -> Fault:
        """Arm a fault."""
        fault = Fault(wanted, strike, when, skip, times)
        self.faults.append(fault)
        return fault

    def around(self, step: Step, proceed: Callable[[], Any], half: Callable[[], object] | None = None) -> Any:
        """Take a step, with what is armed for it."""
        self.steps.append(step)
        self._strike(step, "before")
        if half is not None and any(fault.when == "half" and fault.wanted(step) for fault in self.faults):
            half()
            self._strike(step, "half")
        result = proceed()
        self._strike(step, "after")
        return result

    def _strike(self, step: Step, when: When) -> None:
        for fault in list(self.faults):
            if fault.takes(step, when):
                fault.strike()

    def open(self, path: str) -> File:
        return _FaultyFile(super().open(path), path, self)

    def open_to_read(self, path: str) -> File:
        return _FaultyFile(super().open_to_read(path), path, self)

    def create(self, path: str) -> File:
        file = self.around(Step("create", path), lambda: super(FaultyFiles, self).create(path))
        return _FaultyFile(file, path, self)

    def open_lock(self, path: str) -> LockFile:
        return self.around(Step("open_lock", path), lambda: super(FaultyFiles, self).open_lock(path))

    def make_directory(self, path: str) -> None:
        self.around(Step("make_directory", path), lambda: super(FaultyFiles, self).make_directory(path))

    def remove_directory(self, path: str) -> None:
        self.around(Step("remove_directory", path), lambda: super(FaultyFiles, self).remove_directory(path))

    def rename(self, source: str, target: str) -> None:
        self.around(Step("rename", target), lambda: super(FaultyFiles, self).rename(source, target))

    def unlink(self, path: str) -> None:
        self.around(Step("unlink", path), lambda: super(FaultyFiles, self).unlink(path))

    def sync_directory(self, path: str, site: Site) -> None:
        self.around(Step("sync_directory", path, site), lambda: super(FaultyFiles, self).sync_directory(path, site))


class _FaultyFile:
    def __init__(self, file: File, path: str, files: FaultyFiles) -> None:
        self._file = file
        self._path = path
        self._files = files

    def pwrite(self, content: bytes, offset: int) -> None:
        self._files.around(
            Step("pwrite", self._path, None, content, offset),
            lambda: self._file.pwrite(content, offset),
            lambda: self._file.pwrite(content[: len(content) // 2], offset),
        )

    def sync(self, site: Site) -> None:
        self._files.around(Step("sync", self._path, site), lambda: self._file.sync(site))

    def allocate(self, length: int) -> None:
        self._files.around(Step("allocate", self._path), lambda: self._file.allocate(length))

    def truncate(self, length: int) -> None:
        self._files.around(Step("truncate", self._path), lambda: self._file.truncate(length))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def kill() -> NoReturn:
    """SIGKILL this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def no_room() -> NoReturn:
    """What the files raise for ENOSPC."""
    raise StorageFull("no space left on device (made up)")


def failing() -> NoReturn:
    """What the files raise for EIO."""
    raise StorageFailed("input/output error (made up)")


def open_with(path: object, files: PosixFiles, *, clock: Clock | None = None, read_only: bool = False) -> Store:
    """`shardlog.open` on other files."""
    return open_store(str(path), not read_only, read_only, Surroundings(files, clock or SystemClock(), 10.0))


IndexStep = Literal["begin", "reserved", "publish", "rolling", "rolled"]
"""The write transaction begins; the rows are in it; it commits records; it commits ROLLING; it commits the new tail."""


class IndexFaults:
    """Faults of the index. Patches its class until the monkeypatch is undone."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.faults: list[Fault] = []
        self.commits = 0
        real = {name: getattr(IndexWrite, name) for name in ("put_tail", "put_segments", "commit")}

        real_write = Index.write

        def begin(index: Index) -> IndexWrite:
            self._strike("begin", "before")
            write = real_write(index)
            self._strike("begin", "after")
            return write

        def put_segments(write: Any, segments: Any) -> None:
            real["put_segments"](write, segments)
            write.step = "rolled"

        def put_tail(write: Any, tail: Tail) -> None:
            real["put_tail"](write, tail)
            if tail.flags & ROLLING:
                write.step = "rolling"
            elif not hasattr(write, "step"):
                self._strike("reserved", "after")

        def commit(write: Any) -> None:
            step = getattr(write, "step", "publish")
            self._strike(step, "before")
            real["commit"](write)
            self.commits += step == "publish"
            self._strike(step, "after")

        for name, function in (
            ("put_segments", put_segments),
            ("put_tail", put_tail),
            ("commit", commit),
        ):
            patch.setattr(IndexWrite, name, function)
        patch.setattr(Index, "write", begin)

    def arm(
        self, step: IndexStep, strike: Callable[[], object], when: When = "before", *, skip: int = 0, times: int = 1
    ) -> Fault:
        """Arm a fault."""
        fault = Fault(lambda found: found.operation == step, strike, when, skip, times)
        self.faults.append(fault)
        return fault

    def _strike(self, step: str, when: When) -> None:
        for fault in list(self.faults):
            if fault.takes(Step(step, "index"), when):
                fault.strike()

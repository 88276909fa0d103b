"""A store on a disk that can be failed at any step: errors, interrupts, a killed program, a cut of the power.

What the store does to its files is recorded, so that at any moment one of the disks that a power cut may leave can be
put in its place. Which one is drawn, like everything else that is left to chance here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final

from hypothesis import strategies as st
from tests.crash.rig import same_uuids

from shardlog.api import Store, open_store
from shardlog.errors import ShardlogError, StorageFailed, StorageFull
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Site
from shardlog.format.names import MARK
from shardlog.stream.open_stream import Surroundings
from shardlog.testing.clock import ManualClock
from shardlog.testing.disk import ABSENT, WHOLE, Disk, Fate
from shardlog.testing.failing import FailingFiles, Fault, Killed, Kind
from shardlog.testing.images import materialise, read_image, scratch_directory
from shardlog.testing.operations import Image, Opened, Operation, Written
from shardlog.testing.recording import RecordingFiles

NEEDING_SPACE: Final = frozenset({Kind.CREATE, Kind.WRITE, Kind.ALLOCATE, Kind.MAKE_DIRECTORY})
SYNCING: Final = frozenset({Kind.SYNC, Kind.SYNC_DIRECTORY})
INDEX: Final = "index"
FATES_MAX: Final = 4
LOCK_SECONDS: Final = 5.0
STALE_INDEX: Final = b"what a power cut may leave of an index" * 256

Draw = Callable[[st.SearchStrategy[int]], int]


class Rig:
    """A directory in memory; the store is at `path` in it. `skipped` syncs are left out, as a control."""

    def __init__(self, skipped: frozenset[Site]) -> None:
        self._stack = ExitStack()
        self._log_level = logging.getLogger("shardlog").level
        logging.getLogger("shardlog").setLevel(logging.CRITICAL)  # torn tails are what this is about
        self._stack.enter_context(same_uuids())
        self.scratch = os.path.realpath(self._stack.enter_context(scratch_directory()))
        self.root = f"{self.scratch}/disk"
        self.path = f"{self.root}/store"
        self.clock = ManualClock()
        self._skipped = skipped
        self._files: FailingFiles
        self._sync_failures: FailingFiles
        self._recorder: RecordingFiles
        self.open_store: Store | None = None
        self.put({"": None})

    @property
    def store(self) -> Store:
        """The store, open."""
        assert self.open_store is not None
        return self.open_store

    @property
    def surroundings(self) -> Surroundings:
        """What is injected into the engine."""
        return Surroundings(self._files, self.clock, LOCK_SECONDS)

    def put(self, image: Image) -> None:
        """Put an image on the disk. It is durable."""
        materialise(image, self.root)
        self._sync_failures = FailingFiles(PosixFiles())
        self._recorder = RecordingFiles(self.root, base=image, inner=self._sync_failures, skipped=self._skipped)
        self._files = FailingFiles(self._recorder)

    def image(self) -> Image:
        """What is on the disk, as programs see it."""
        return read_image(self.root, without=INDEX)

    def open(self) -> None:
        """Open the store to write."""
        self.open_store = open_store(self.path, True, False, self.surroundings)

    def open_to_read(self, path: str = "") -> Store:
        """Open the store, or that at another path, to read, beside whoever else has it open."""
        return open_store(path or self.path, False, True, Surroundings(PosixFiles(), self.clock, LOCK_SECONDS))

    def close(self) -> None:
        """Close the store."""
        store, self.open_store = self.store, None
        store.close()

    def die(self) -> None:
        """SIGKILL: what the program held is let go of, and nothing more is written."""
        self._files.is_dead = True
        store, self.open_store = self.open_store, None
        if store is not None:
            for stream in list(store._streams.values()):
                with suppress(Killed, ShardlogError):
                    stream.close()
            store.close()
        self._files.revive()

    def cut_power(self, draw: Draw) -> str:
        """Put one of the disks in place that a power cut may leave; nobody may have the store open. Tells which."""
        recording = self._recorder.recording()
        disk = Disk(recording.base)
        for operation in recording.operations:
            disk.apply(operation)
        pending = disk.pending()
        whole = _written_whole(recording.operations)
        otherwise = WHOLE if draw(st.integers(0, 1)) == 0 else ABSENT
        choices: dict[int, Fate] = {}
        for _ in range(draw(st.integers(0, min(FATES_MAX, len(pending))))):
            change = pending[draw(st.integers(0, len(pending) - 1))]
            fates = change.fates[:2] if change.at in whole else change.fates
            choices[change.at] = fates[draw(st.integers(0, len(fates) - 1))]
        image, _ = disk.image(choices, otherwise)
        self.put(image)
        if draw(st.integers(0, 1)):
            self._leave_stale_indexes(image)
        return f"{len(pending)} changes pending, {otherwise.kind} but for {choices}"

    @property
    def has_store(self) -> bool:
        """Whether there is a store: a crash may come before that."""
        return os.path.exists(f"{self.path}/STORE")

    def arm(self, kind: str, nth: int, part: int | None) -> Fault | None:
        """Arm a fault that strikes at the nth step of those that it is about; see FAULTS. `part`: within a write."""
        match kind:
            case "kill":
                fault = _Kill(Killed, nth, written=part)
            case "interrupt":
                fault = Fault(KeyboardInterrupt, nth, after=part is not None)
            case "full":
                fault = Fault(lambda: StorageFull("the disk is full (made up)"), nth, NEEDING_SPACE)
            case "unsynced":
                fault = Fault(lambda: StorageFailed("the disk failed (made up)"), nth, SYNCING)
                self._sync_failures.add(fault)
                return fault
            case _:
                return None
        self._files.add(fault)
        return fault

    def disarm(self, fault: Fault | None) -> None:
        """It strikes no more."""
        if fault is not None:
            fault.kinds = frozenset()

    def destroy(self) -> None:
        """Leave nothing behind."""
        self.die()
        logging.getLogger("shardlog").setLevel(self._log_level)
        self._stack.close()

    def _leave_stale_indexes(self, image: Image) -> None:
        for path, content in image.items():
            if content is None and path.endswith("/" + INDEX):
                with open(f"{self.root}/{path}/data.mdb", "wb") as file:
                    file.write(STALE_INDEX)


class _Kill(Fault):
    """A kill within a write, but for those to MARK: they lie within a sector, which is written whole or not."""

    def is_due(self, kind: Kind, path: str, site: Site | None) -> bool:
        """See `Fault`."""
        is_due = Fault.is_due(self, kind, path, site)
        if is_due and path.endswith(f"/{MARK}"):
            self.written = None
        return is_due


def _written_whole(operations: tuple[Operation, ...]) -> set[int]:
    """Writes that are there or not, and never damaged: of a position or the flag in MARK, within a sector that exists.

    The disk knows worse fates than the assumptions about the medium allow. A log has to stand them all; of a position
    in MARK that is garbage nobody can tell whether a bit flipped, so the check has to report it.
    """
    marks: set[int] = set()
    found: set[int] = set()
    for index, operation in enumerate(operations):
        match operation:
            case Opened(handle, path) if path.endswith("/MARK"):
                marks.add(handle)
            case Written(handle) if handle in marks:
                found.add(index)
    return found


FAULTS: Final = ("none", "kill", "interrupt", "full", "unsynced")

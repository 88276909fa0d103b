"""A store whose every operation is recorded, with faults on demand, and a journal that uses it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from unittest import mock

from shardlog.errors import StorageFailed, StorageFull
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Site
from shardlog.options import Durability
from shardlog.testing.clock import ManualClock
from shardlog.testing.failing import FailingFiles, Fault, Killed, Kind
from shardlog.testing.images import scratch_directory
from shardlog.testing.journal import Journal
from shardlog.testing.operations import DirectorySynced, Operation, Outcome, Recording, Synced
from shardlog.testing.oracle import sight_violations
from shardlog.testing.promises import StreamKey, promises_at
from shardlog.testing.recording import RecordingFiles

NEEDING_SPACE = frozenset({Kind.CREATE, Kind.WRITE, Kind.ALLOCATE, Kind.MAKE_DIRECTORY, Kind.RENAME})
SYNCING = frozenset({Kind.SYNC, Kind.SYNC_DIRECTORY})


@contextmanager
def same_uuids(seed: int = 0) -> Iterator[None]:
    """The engine's random identities, the same every time: equal disks are then equal images."""
    rng = random.Random(seed)
    with mock.patch("uuid.uuid4", side_effect=lambda: uuid.UUID(bytes=rng.randbytes(16), version=4)):
        yield


SEGMENT_BYTES = 16 << 10
LARGE = 1300
"""Payload of which three fill half a segment."""


class Rig:
    """`journal` uses a store below `root`. `faults` interrupt it; `sync_faults` make its syncs fail."""

    def __init__(self, root: str, skipped: frozenset[Site]) -> None:
        self.sync_faults = FailingFiles(PosixFiles())
        self.recorder = RecordingFiles(root, inner=self.sync_faults, skipped=skipped)
        self.faults = FailingFiles(self.recorder)
        self.clock = ManualClock()
        self.first = 0
        """Crashes before this operation are those of another workload."""
        self.journal = Journal(self.faults, self.recorder.root, self.clock, self.recorder.mark)

    def kill_and_restart(self) -> None:
        """SIGKILL, and a program that opens the store again: what was acknowledged at any level is there."""
        self.faults.die()
        self.journal.abandon()
        self.restart()

    def restart(self) -> None:
        """Open the store again after the process that used it has died."""
        self.faults.revive()
        self.sync_faults.revive()
        self.journal.abandon()
        promises = promises_at(self.recorder.recording().operations)
        self.journal.open()
        for key in self.journal.streams():
            sight = self.journal.look(key, is_settled=True)
            appends = promises.of_stream(key)
            for append in appends.values():
                append.is_durable = append.state == "acknowledged"
            if key in promises.streams:
                wrong = [*sight_violations(promises.streams[key], appends, sight)]
                assert not wrong, f"after a kill: {wrong}"


def new_stream(rig: Rig, name: str = "stream", durability: Durability = "fsync", shards: int = 2) -> StreamKey:
    """A stream of small segments, a second after whatever there was before."""
    rig.clock.advance(timedelta(seconds=1))
    return rig.journal.create(name, durability=durability, shards=shards, segment_bytes=SEGMENT_BYTES)


Script = Callable[[Rig], None]


@dataclass(frozen=True, slots=True)
class Workload:
    """Something to be recorded."""

    name: str
    run: Script


@dataclass(frozen=True, slots=True)
class Recorded:
    """A workload and what it did; crashes are of interest from operation `first` on."""

    name: str
    recording: Recording
    first: int


def record(workload: Workload, skipped: frozenset[Site] = frozenset()) -> Recorded:
    """Run a workload; its end is as if the process were killed. Where syncs are skipped, that is where it starts."""
    with scratch_directory() as root, same_uuids():
        rig = Rig(root, skipped)
        try:
            workload.run(rig)
        finally:
            rig.faults.die()
            rig.journal.abandon()
        recording = rig.recorder.recording()
        left_out = [index for index, operation in enumerate(recording.operations) if is_skipped(operation)]
        return Recorded(workload.name, recording, max(rig.first, left_out[0] if left_out else 0))


def is_skipped(operation: Operation) -> bool:
    """Whether it is a sync that was left out."""
    return isinstance(operation, Synced | DirectorySynced) and operation.outcome is Outcome.SKIPPED


def killed_at(name: str, script: Script, epilogue: Script, nth: int, written: int | None = None) -> Workload:
    """A script that is killed before its nth change (or within, if that is a write), and what comes after."""

    def run(rig: Rig) -> None:
        def kill() -> Killed:
            rig.first = len(rig.recorder.recording().operations)
            return Killed()

        fault = Fault(kill, nth=nth, written=written)
        rig.faults.add(fault)
        try:
            script(rig)  # which may have expected to be killed just there
        except Killed:
            rig.restart()
        assert fault.seen >= nth, f"{name} has fewer than {nth} changes"
        _go_on(rig)
        epilogue(rig)

    return Workload(f"{name}, killed {'before' if written is None else 'within'} {nth}", run)


def interrupted_at(name: str, script: Script, epilogue: Script, nth: int, after: bool) -> Workload:
    """A script that is interrupted (Ctrl-C) at its nth change, in a program that goes on with the open store."""

    def run(rig: Rig) -> None:
        rig.faults.add(Fault(KeyboardInterrupt, nth=nth, after=after))
        with suppress(KeyboardInterrupt):
            script(rig)
        rig.first = len(rig.recorder.recording().operations)
        _go_on(rig)
        epilogue(rig)

    return Workload(f"{name}, interrupted {'after' if after else 'before'} {nth}", run)


def full_at(name: str, script: Script, epilogue: Script, nth: int) -> Workload:
    """A script that finds the disk full when it needs space for the nth time, in a program that goes on."""

    def run(rig: Rig) -> None:
        rig.faults.add(Fault(lambda: StorageFull("the disk is full"), nth=nth, kinds=NEEDING_SPACE))
        with suppress(StorageFull):
            script(rig)
        rig.first = len(rig.recorder.recording().operations)
        _go_on(rig)
        epilogue(rig)

    return Workload(f"{name}, disk full at {nth}", run)


def unsynced_at(name: str, script: Script, epilogue: Script, nth: int) -> Workload:
    """A script whose nth sync fails; the program closes the store, opens it again and goes on."""

    def run(rig: Rig) -> None:
        rig.sync_faults.add(Fault(lambda: StorageFailed("the disk failed"), nth=nth, kinds=SYNCING))
        with suppress(StorageFailed):
            script(rig)
        rig.first = len(rig.recorder.recording().operations)
        if rig.journal.is_open:
            with suppress(StorageFailed):
                rig.journal.close()
        rig.journal.open()
        for key in rig.journal.streams():
            rig.journal.look(key, is_settled=True)
        epilogue(rig)

    return Workload(f"{name}, sync {nth} fails", run)


def _go_on(rig: Rig) -> None:
    if not rig.journal.is_open:
        rig.journal.open()


def count_of(script: Script, kinds: frozenset[Kind]) -> int:
    """How many operations of some kinds a script makes."""
    with scratch_directory() as root, same_uuids():
        rig = Rig(root, frozenset())
        counter = Fault(Killed, nth=-1, kinds=kinds)
        rig.faults.add(counter)
        script(rig)
        rig.faults.die()
        rig.journal.abandon()
        return counter.seen

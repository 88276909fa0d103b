"""Carrying out a repair plan.

Every action can be taken again: it looks first whether it is still needed, so that a repair which was interrupted is
simply run once more. Per stream GATE is held, and nobody may have it open; the last actions, setting a torn tail aside
and committing the gaps to the state, go the way of every opening and every commit, through an open stream. A stream
that cannot be repaired after all keeps no other from being repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from shardlog.check.consumer_rows import rebuild_consumers
from shardlog.check.findings import Report
from shardlog.check.inventory import MISPLACED
from shardlog.check.plan import (
    Action,
    CannotRepair,
    GoOnBehind,
    KeepCopy,
    LeaveToOpening,
    RebuildConsumers,
    RecordGaps,
    RenameSegment,
    RestoreIdentity,
    RewriteMark,
    RewriteSegment,
    SetAside,
    SetTailAside,
    planned_actions,
)
from shardlog.check.quarantine import keep_copy
from shardlog.check.rewriting import restore_identity, rewrite_mark, rewrite_segment
from shardlog.check.successor import go_on_behind
from shardlog.clock import Clock, SystemClock
from shardlog.errors import CorruptLog, ShardlogError, StorageFailed, StoreLocked
from shardlog.files.gate import LIVE, gate_held
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Files, Site
from shardlog.format import control, names
from shardlog.format.control import Control
from shardlog.index.tail import MUST_ROLL
from shardlog.log.segments import read_segment_header
from shardlog.stream.open_stream import Surroundings, registry
from shardlog.stream.state import KnownGap, StreamState

LOCK_TIMEOUT_SECONDS: Final = 10.0

Told = Callable[[Action], None]
Failed = Callable[[str, Exception], None]
"""Is told the directory of a store or stream whose repair failed, and why."""


def plan_repair(report: Report) -> RepairPlan:
    """The plan for a report. Reads nothing, and changes nothing."""
    return RepairPlan(planned_actions(report))


@dataclass(frozen=True, slots=True)
class RepairPlan:
    """Actions in the order in which they are to be taken; each tells in words what it does."""

    actions: tuple[Action, ...]

    @property
    def changes_anything(self) -> bool:
        """Whether there is anything to be done."""
        return any(not isinstance(action, LeaveToOpening | CannotRepair) for action in self.actions)

    def apply(self, told: Told | None = None, failed: Failed | None = None) -> None:
        """Take the actions. `told` is called with each one that was taken. Run it again if it was interrupted.

        Raises StoreLocked, having done nothing, where somebody has one of the streams open. Where the repair of one
        stream fails, the others are repaired all the same; `failed` is told, or else the first such error is raised
        when the rest is done: StorageFull, StorageFailed, CorruptLog, UnsupportedVersion.
        """
        apply_plan(self, Surroundings(PosixFiles(), SystemClock(), LOCK_TIMEOUT_SECONDS), told, failed)


def apply_plan(
    plan: RepairPlan, surroundings: Surroundings, told: Told | None = None, failed: Failed | None = None
) -> None:
    """`RepairPlan.apply` with its surroundings injected."""
    files = surroundings.files
    todo = [action for action in plan.actions if not isinstance(action, LeaveToOpening | CannotRepair)]
    for stream in {action.stream: None for action in todo if not isinstance(action, RestoreIdentity)}:
        # Nothing is begun unless all can be had; what goes wrong otherwise is told when it is that stream's turn.
        with suppress(StorageFailed, OSError), _stream_held(files, stream, surroundings.lock_timeout):
            pass
    first: Exception | None = None
    for path, group in groupby(todo, _directory):
        try:
            _apply_to(path, list(group), surroundings, told)
        except (ShardlogError, OSError) as error:
            first = first or error
            if failed is not None:
                failed(path, error)
    if first is not None and failed is None:
        raise first


def _apply_to(path: str, actions: list[Action], surroundings: Surroundings, told: Told | None) -> None:
    """Take the actions for one store's identity, or for one stream."""
    files = surroundings.files
    is_store = isinstance(actions[0], RestoreIdentity)
    with (_held if is_store else _stream_held)(files, path, surroundings.lock_timeout):
        for action in actions:
            if not isinstance(action, SetTailAside | RecordGaps):
                _take(files, action, surroundings.clock)
                _tell(told, action)
    for action in actions:
        if isinstance(action, SetTailAside | RecordGaps):
            _settle(action.stream, action.gaps if isinstance(action, RecordGaps) else (), surroundings)
            _tell(told, action)


def _directory(action: Action) -> str:
    if isinstance(action, RestoreIdentity):
        return action.store
    assert not isinstance(action, LeaveToOpening | CannotRepair)
    return action.stream


def _tell(told: Told | None, action: Action) -> None:
    if told is not None:
        told(action)


@contextmanager
def _held(files: Files, path: str, lock_timeout: float) -> Iterator[None]:
    """Hold the GATE of a store or stream."""
    lock = files.open_lock(f"{path}/{names.LOCK}")
    try:
        with gate_held(lock, path, lock_timeout):
            yield
    finally:
        lock.close()


@contextmanager
def _stream_held(files: Files, stream: str, lock_timeout: float) -> Iterator[None]:
    """Hold a stream's GATE while nobody has it open. Raises StoreLocked."""
    lock = files.open_lock(f"{stream}/{names.LOCK}")
    try:
        with gate_held(lock, stream, lock_timeout):
            if lock.is_held_elsewhere(LIVE):
                raise StoreLocked(f"{stream}: expected nobody to have the stream open, found somebody; close it first")
            yield
    finally:
        lock.close()


def _take(files: Files, action: Action, clock: Clock) -> None:
    match action:
        case RestoreIdentity(store, store_uuid):
            restore_identity(files, store, store_uuid)
        case RenameSegment(stream, source, target):
            _rename(files, f"{stream}/{names.LOG}", source, target)
        case SetAside(stream, name):
            _set_aside(files, stream, name)
        case RewriteSegment(stream, name):
            rewrite_segment(files, stream, name)
        case KeepCopy(stream, name, offset, end, reason):
            path = f"{stream}/{names.LOG}/{name}"
            if files.exists(path):
                keep_copy(files, stream, path, offset, end, {"what": "damaged bytes", "reason": reason})
        case RebuildConsumers(stream):
            rebuild_consumers(files, stream)
        case GoOnBehind(stream):
            go_on_behind(files, stream, clock)
        case RewriteMark(stream, distrusted):
            rewrite_mark(files, stream, distrusted)


def _rename(files: Files, log_path: str, source: str, target: str) -> None:
    if not files.exists(f"{log_path}/{source}") or files.exists(f"{log_path}/{target}"):
        return  # done already
    if target.endswith(MISPLACED) and _true_name(files, f"{log_path}/{source}") + MISPLACED != target:
        return  # done already, and another file has the name now
    files.rename(f"{log_path}/{source}", f"{log_path}/{target}")
    files.sync_directory(log_path, Site.SEGMENT_ENTRY)


def _true_name(files: Files, path: str) -> str:
    """The name that a segment's header tells; empty where there is none."""
    file = files.open_to_read(path)
    try:
        header = read_segment_header(file)
        return names.segment_name(header.first_sequence, header.segment_id)
    except CorruptLog:
        return ""
    finally:
        file.close()


def _set_aside(files: Files, stream: str, name: str) -> None:
    """A copy first, whole and synced, then the file's own name goes."""
    path = f"{stream}/{names.LOG}/{name}"
    if files.exists(path):
        keep_copy(files, stream, path, 0, None, {"what": "a segment that does not belong into this log"})
        files.unlink(path)
        files.sync_directory(f"{stream}/{names.LOG}", Site.SEGMENT_ENTRY)


def _settle(path: str, gaps: tuple[KnownGap, ...], surroundings: Surroundings) -> None:
    """Open a stream, go on in a new segment if recovery wants that, and commit gaps to its state, if there are any."""
    stream = registry().acquire(path, False, surroundings)
    try:
        stream.commits.roll(lambda tail: bool(tail.flags & MUST_ROLL))
        if gaps:
            stream.commits.change(lambda state, _: _unknown_gaps(state, gaps), may_use_reserve=True)
    finally:
        registry().release(stream)


def _unknown_gaps(state: StreamState, gaps: tuple[KnownGap, ...]) -> list[Control]:
    return [
        {"kind": control.GAP, **gap._asdict()}
        for gap in gaps
        if gap not in state.gaps and max(gap.next, gap.first + 1) > state.trim_horizon
    ]

"""A machine with a disk whose power is cut again and again while processes append to a stream on it.

What the processes tell lives outside that disk. After each cut they are killed, the disk is mounted again, and what is
on it is held against all that was promised since the first cut.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from tests.faults.devices import LoopDisk, cut_power
from tests.faults.history import Event, History, sealed_next
from tests.faults.puppet import examine_store
from tests.faults.writer import Plan, Writer, telling_trouble
from tests.support.background import LIMIT_SECONDS
from tests.support.children import Channel, Child, Children

from shardlog.files.posix import PosixFile, PosixFiles
from shardlog.files.protocol import Site

Moment = Literal["appending", "a step", "opening", "closed", "opened again"]
MOMENTS: Final[tuple[Moment, ...]] = get_args(Moment)

WRITERS_MAX: Final = 4

_STEPS: Final = {
    PosixFile: ("pwrite", "sync", "allocate", "truncate"),
    PosixFiles: ("create", "rename", "unlink", "make_directory", "sync_directory"),
}
"""What changes a disk, in the seam to it."""
# Opening takes about as many steps after a crash; creating a store and a stream takes some more.
_COUNTS_MAX: Final[dict[Moment, int]] = {
    "appending": 50,
    "a step": 120,
    "opening": 12,
    "closed": 50,
    "opened again": 50,
}
_NUMBERS_PER_CUT: Final = 1000
_DELAY_MAX_SECONDS: Final = 0.002


@dataclass(frozen=True)
class Cut:
    """When the power goes: before so many steps of a process, or after so many acknowledgements, of one or of all."""

    moment: Moment
    count: int
    writers: int
    delay_seconds: float = 0.0

    @classmethod
    def drawn(cls, source: random.Random, moment: Moment | None = None) -> Cut:
        """One at random."""
        chosen = moment if moment is not None else source.choice(MOMENTS)
        writers = 1 if chosen == "opening" else source.randint(1, WRITERS_MAX)
        count = source.randint(1, _COUNTS_MAX[chosen])
        return cls(chosen, count, writers, source.random() * _DELAY_MAX_SECONDS)


class Machine:
    """The machine, one stream on it, and the stream's history. Every cut may be the next one's beginning."""

    def __init__(self, disk: LoopDisk, children: Children, plan: Plan) -> None:
        self.history = History(plan.level)
        self.cuts = 0
        self._disk = disk
        self._children = children
        self._plan = plan
        self._store = disk.path / "store"

    def start_stream(self) -> None:
        """Create the stream, whole and synced, before the first cut."""
        self.history.judge(self._examine())

    def survive(self, cut: Cut, left_out: frozenset[Site] = frozenset()) -> list[str]:
        """One cut; which promises it broke. Syncs that are left out break some."""
        self.cuts += 1
        writers = [
            self._children.start(
                write_until, str(self._store), self._plan_of(index), str(self._disk.path), cut, left_out
            )
            for index in range(cut.writers)
        ]
        told: dict[Child, list[Event]] = {writer: [] for writer in writers}
        _listen(told, lambda: _is_time(cut, list(told.values())))
        if cut.moment == "appending":
            time.sleep(cut.delay_seconds)
        cut_power(str(self._disk.path))  # a second cut changes nothing
        for writer, events in told.items():
            os.kill(writer.pid, signal.SIGKILL)
            events += writer.rest()
        self._children.end_all()
        for events in told.values():
            self.history.hear(events)
        self._disk.restart()
        synced_next = sealed_next(self._store)
        self.history.judge(self._examine(), power_cut=True, synced_next=synced_next)
        violations, self.history.violations = self.history.violations, []
        wrong = [failure for failure in self.history.failures if failure[1] != "StorageFailed"]
        self.history.failures = []
        return violations + [f"{what} raised {kind}: {message}" for what, kind, message in wrong]

    def _plan_of(self, index: int) -> Plan:
        first = self.cuts * _NUMBERS_PER_CUT
        return replace(self._plan, who=f"writer{index}", first=first, appends=_NUMBERS_PER_CUT)

    def _examine(self) -> list[Event]:
        plan = replace(self._plan, who="examiner", first=self.cuts * _NUMBERS_PER_CUT, appends=2)
        return examine_store(self._children, self._store, plan)


def write_until(channel: Channel, path: str, plan: Plan, disk: str, cut: Cut, left_out: frozenset[Site]) -> None:
    """Append by a plan until the power goes, which for some moments this process sees to itself, if it is the first."""
    leave_out_syncs(left_out)
    cuts_itself = plan.who == "writer0" and cut.moment != "appending"

    def power_goes() -> None:
        cut_power(disk)
        channel.send(("power cut",))
        time.sleep(LIMIT_SECONDS)  # until killed

    def run() -> None:
        writer = Writer(channel, path, plan)
        if cuts_itself and cut.moment in ("a step", "opening"):
            before_step(cut.count, power_goes)
        if not writer.open():
            return
        if not cuts_itself or cut.moment in ("a step", "opening"):
            writer.appends(range(plan.first, plan.first + plan.appends))
            return
        writer.appends(range(plan.first, plan.first + cut.count))
        writer.close()
        if cut.moment == "opened again":
            writer.open()
        power_goes()

    telling_trouble(channel, run)


def leave_out_syncs(sites: frozenset[Site]) -> None:
    """In this process nothing is synced any more at some sites."""
    sync_file, sync_directory = PosixFile.sync, PosixFiles.sync_directory

    def sync(self: PosixFile, site: Site) -> None:
        if site not in sites:
            sync_file(self, site)

    def sync_entries(self: PosixFiles, path: str, site: Site) -> None:
        if site not in sites:
            sync_directory(self, path, site)

    PosixFile.sync = sync  # type: ignore[method-assign]
    PosixFiles.sync_directory = sync_entries  # type: ignore[method-assign]


def before_step(nth: int, act: Callable[[], None]) -> None:
    """Do something before the nth change that this process makes to a disk."""
    steps = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == nth:
                act()
            return real(*arguments)

        return step

    for owner, names in _STEPS.items():
        for name in names:
            setattr(owner, name, counting(getattr(owner, name)))


def _is_time(cut: Cut, told: list[list[Event]]) -> bool:
    """Whether the parent has heard enough."""
    if cut.moment == "appending":
        heard = [event[0] for events in told for event in events]
        return heard.count("acknowledged") >= cut.count
    return told[0][-1:] == [("power cut",)]


def _listen(told: dict[Child, list[Event]], is_enough: Callable[[], bool]) -> None:
    """Take down what children tell, until it is enough or nobody tells any more."""
    talking = dict.fromkeys(told)
    while talking and not is_enough():
        ready, _, _ = select.select([child._connection for child in talking], [], [], LIMIT_SECONDS)
        if not ready:
            return
        for child in [child for child in talking if child._connection in ready]:
            try:
                told[child].append(child.receive())
            except (EOFError, ConnectionResetError):
                del talking[child]

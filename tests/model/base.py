"""The machine's ground: one store, its model, and what is done when an operation is stopped in the middle.

Every operation that changes something goes through `attempt`, which may strike it with a fault: the program killed
before or within a step, interrupted, the disk full, a sync that fails. After a kill, the power may be cut, too, and
recovery may be killed in its turn. Then the store is opened again and the model settles what became of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant
from tests.model.plain import Appending, Deleting, Pending, Sight, expect
from tests.model.reference import StreamModel
from tests.model.rig import FAULTS, Rig
from tests.model.sights import sight_of, sights_of
from tests.model.store_model import StoreModel

import shardlog
from shardlog import StorageFailed, StorageFull, Stream
from shardlog.files.protocol import Site
from shardlog.testing.failing import Killed

Key = tuple[str, str]
Value = TypeVar("Value")

STEPS_MAX: Final = 24
"""Faults strike at one of so many steps; most operations have fewer, then nothing happens to them."""
PART_BYTES_MAX: Final = 1500
NO_SITES: Final[frozenset[Site]] = frozenset()


class Base(RuleBasedStateMachine):
    """A store and its model. `counts` has what was done, over all examples; `skipped` syncs are left out (controls)."""

    def __init__(self, counts: Counter[str] | None = None, skipped: frozenset[Site] = NO_SITES) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter() if counts is None else counts
        self.rig = Rig(skipped)
        self.model = StoreModel()
        self.rig.open()
        self.counts["examples"] += 1

    def teardown(self) -> None:
        """Nothing is left behind."""
        self.rig.destroy()

    @property
    def is_open(self) -> bool:
        """Whether the store is open."""
        return self.rig.open_store is not None

    def opened(self, model: StreamModel) -> Stream:
        """The stream of a model."""
        return self.rig.store.stream(model.name, model.label)

    def chosen_stream(self, data: st.DataObject) -> StreamModel:
        """Any of the streams."""
        return chosen(data, [self.model.streams[key] for key in sorted(self.model.streams)])

    @invariant()
    def everything_is_as_the_model_has_it(self) -> None:
        """All streams, all records, all positions."""
        if not self.is_open:
            return
        found = self.rig.store.names()
        expect(sorted(found) == sorted(self.model.streams), f"streams {found}, expected {sorted(self.model.streams)}")
        for model in self.model.streams.values():
            model.check(sight_of(self.opened(model)))

    # Operations, whole and stopped

    def attempt(
        self, data: st.DataObject, operation: Callable[[], Value], pending: Pending | None, target: Key | None = None
    ) -> tuple[bool, Value | None]:
        """Run an operation, with a fault or none. Whether it returned, and what; if not, what became of it is settled.

        Errors that the operation has to raise by itself go through.
        """
        kind = chosen(data, FAULTS) if data.draw(st.integers(0, 2)) == 2 else "none"
        nth = data.draw(st.integers(1, STEPS_MAX)) if kind != "none" else 0
        part = data.draw(st.none() | st.integers(0, PART_BYTES_MAX)) if kind != "none" else None
        fault = self.rig.arm(kind, nth, part)
        try:
            result = operation()
        except Killed:
            self._struck(kind, nth, pending)
            self.rig.die()
            self.crash(data, pending, target)
        except KeyboardInterrupt:
            self._struck(kind, nth, pending)
            self._settle_in_place(pending, target)
        except StorageFull:
            expect(kind == "full", "StorageFull, and nobody made the disk full")
            self._struck(kind, nth, pending)
            # An append that says so appended nothing.
            self._settle_in_place(None if isinstance(pending, Appending) else pending, target)
        except StorageFailed:
            expect(kind == "unsynced", "StorageFailed, and nobody made a sync fail")
            self._struck(kind, nth, pending)
            self._after_failure(data, pending, target)
        else:
            self.rig.disarm(fault)
            return True, result
        finally:
            self.rig.disarm(fault)
        return False, None

    def _settle_in_place(self, pending: Pending | None, target: Key | None) -> None:
        """The program goes on. At level "os" a change that was stopped may show before it is synced: it syncs it."""
        self._settle(sights_of(self.rig.store), pending, target)
        if isinstance(pending, Appending):
            return
        for key, model in self.model.streams.items():
            if key == target or isinstance(pending, Deleting):
                self.opened(model).sync()
                model.took_sync()

    def crash(self, data: st.DataObject, pending: Pending | None = None, target: Key | None = None) -> None:
        """The program is dead: cut the power, or do not; open the store again and settle."""
        was_cut = data.draw(st.booleans()) and self._cut_power(data)
        if data.draw(st.integers(0, 3)) == 3:
            was_cut = self._killed_recovery(data) or was_cut
        if self.is_open:
            self._settle(sights_of(self.rig.store), pending, target, after_power_cut=was_cut)
            return
        before = self._looked_at_from_outside(data)
        self.rig.open()
        sights = sights_of(self.rig.store)
        self._compare(before, sights)
        self._settle(sights, pending, target, after_power_cut=was_cut)

    def close(self) -> None:
        """Close the store: everything is durable then."""
        self.rig.close()
        for model in self.model.streams.values():
            model.took_sync()

    def _cut_power(self, data: st.DataObject) -> bool:
        note(self.rig.cut_power(data.draw))
        self.counts["power cuts"] += 1
        return True

    def _killed_recovery(self, data: st.DataObject) -> bool:
        """Kill the program while it opens the store; whether the power was cut, too. It may also get through."""
        nth = data.draw(st.integers(1, STEPS_MAX))
        fault = self.rig.arm("kill", nth, None)
        try:
            self.rig.open()
            sights_of(self.rig.store)
        except Killed:
            self._struck("kill", nth, "recovery")
            self.rig.die()
            return data.draw(st.booleans()) and self._cut_power(data)
        finally:
            self.rig.disarm(fault)
        return False

    def _after_failure(self, data: st.DataObject, pending: Pending | None, target: Key | None) -> None:
        """A sync failed: the program looks, closes the store and opens it again, or dies of it."""
        told: dict[Key, int] = {}
        if self.is_open and data.draw(st.booleans()):
            keys = sorted(set(self.rig.store.names()) & self.model.streams.keys())
            told = {key: self.rig.store.stream(*key).next_sequence for key in keys}
        if data.draw(st.booleans()):
            self.rig.die()
            self.crash(data, pending, target)
        else:
            with suppress(StorageFailed):
                if self.is_open:
                    self.rig.close()
            self.rig.open()
            self._settle(sights_of(self.rig.store), pending, target)
        for key in told.keys() & self.model.streams.keys():
            self.model.streams[key].told(told[key])

    def _looked_at_from_outside(self, data: st.DataObject) -> dict[Key, Sight] | None:
        """After a crash and before the recovery: the check finds nothing wrong, and readers see what will be there."""
        if not self.rig.has_store or not data.draw(st.booleans()):
            return None
        report = shardlog.fsck(self.rig.path, deep=True)
        expect(report.clean, f"nothing is damaged, and the check finds {list(map(str, report.findings))}")
        with self.rig.open_to_read() as store:
            return sights_of(store)

    @staticmethod
    def _compare(before: dict[Key, Sight] | None, after: dict[Key, Sight]) -> None:
        if before is None:
            return
        expect(before.keys() == after.keys(), f"a reader saw {before.keys()}, after the recovery: {after.keys()}")
        for key, sight in before.items():
            one, other = ((found.rows, found.gaps, found.positions, found.state) for found in (sight, after[key]))
            expect(one == other, f"{key}: a reader saw\n{one}\nafter the recovery there is\n{other}")

    def _settle(
        self, sights: dict[Key, Sight], pending: Pending | None, target: Key | None, *, after_power_cut: bool = False
    ) -> None:
        self.model.settle(sights, pending, target, after_power_cut=after_power_cut)

    def _struck(self, kind: str, nth: int, what: object) -> None:
        note(f"{kind} at step {nth} of {type(what).__name__ if not isinstance(what, str) else what}")
        self.counts[f"{kind} faults"] += 1


def chosen(data: st.DataObject, choices: Sequence[Value]) -> Value:
    """One of some."""
    return choices[data.draw(st.integers(0, len(choices) - 1))]

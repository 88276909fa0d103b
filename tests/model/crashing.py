"""Rules that close the store and open it again, kill its program, and cut the power."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.model.base import Base
from tests.model.sights import sights_of

from shardlog import StorageFailed, StorageFull


class Crashing(Base):
    """The program ends, in order or not, and begins again."""

    @precondition(lambda self: self.is_open)
    @rule(data=st.data())
    def close_store(self, data: st.DataObject) -> None:
        """Closed, everything is durable."""
        store = self.rig.store
        done, _ = self.attempt(data, lambda: self._close(store.close), None)
        if done:
            for model in self.model.streams.values():
                model.took_sync()

    def _close(self, close: object) -> None:
        """A failed or interrupted close is made again, as a program would; the store is of no use in between."""
        assert callable(close)
        try:
            close()
        except (KeyboardInterrupt, StorageFailed, StorageFull):
            with suppress(StorageFailed, StorageFull):
                close()
            self.rig.open_store = None
            self.rig.open()
            raise
        self.rig.open_store = None

    @precondition(lambda self: not self.is_open)
    @rule(data=st.data(), power=st.booleans())
    def open_again(self, data: st.DataObject, power: bool) -> None:
        """What was there is there; a power cut while the store is closed takes nothing."""
        if power:
            self._cut_power(data)
        done, _ = self.attempt(data, self._open, None)
        if done:
            self._settle(sights_of(self.rig.store), None, None)

    def _open(self) -> None:
        """Open the store and all its streams; a failure leaves it closed, and a program tries again."""
        try:
            self.rig.open()
            sights_of(self.rig.store)
        except (KeyboardInterrupt, StorageFailed, StorageFull):
            self._go_on()
            raise

    def _go_on(self) -> None:
        if self.is_open:
            with suppress(StorageFailed, StorageFull):
                self.rig.close()
        self.rig.open()

    @precondition(lambda self: self.is_open)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """What was acknowledged outlives the program; what is durable outlives the machine."""
        self.rig.die()
        self.counts["kills"] += 1
        self.crash(data)

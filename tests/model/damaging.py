"""Rules that damage a file of the closed store, look what reading and checking make of it, and repair it.

What must hold: whatever is read is what the model has; what is missing lies in a gap, or an error of the engine stands
for it; the check reports all that does not read right. A repair leaves a clean store that takes records, gives no
number again and loses nothing that could be read before; or its plan says that it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from tests.model.base import STEPS_MAX, Base, Key, chosen
from tests.model.plain import Sight, expect, is_within
from tests.model.reference import StreamModel
from tests.model.sights import sight_of, sights_of

import shardlog
from shardlog import Change, CorruptLog, ShardlogError, Store
from shardlog.check import Report
from shardlog.check.repair import apply_plan
from shardlog.testing.failing import Killed
from shardlog.testing.operations import Image

KINDS: Final = ("bit", "byte", "zeros", "cut", "gone")
ZEROS_BYTES: Final = 512
OUTCOMES: Final = ("mended", "opened", "repaired", "repaired", "repaired")


@dataclass
class Findings:
    """What a reader got of a damaged store: whole sights, and errors in the place of others."""

    sights: dict[Key, Sight] = field(default_factory=dict)
    errors: dict[Key, ShardlogError] = field(default_factory=dict)


class Damaging(Base):
    """Files are damaged while nobody has the store open."""

    @precondition(lambda self: not self.is_open and self.rig.has_store and self.model.streams)
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """No damage makes reading lie, and none that matters goes unseen."""
        original = self.rig.image()
        damaged = self._damaged(data, original)
        if damaged is None:
            return
        self.rig.put(damaged)
        self.counts["damage"] += 1
        report = shardlog.fsck(self.rig.path)
        found = self._read_all()
        self._judge(report, found)
        match chosen(data, OUTCOMES):
            case "mended":
                self.rig.put(original)
            case "opened":
                self._use(found)
                self.rig.put(original)
            case _:
                self._repair(data, report, found, original)

    def _damaged(self, data: st.DataObject, original: Image) -> Image | None:
        """The image with one file damaged; None where that changes nothing."""
        paths = sorted(path for path, content in original.items() if content)
        path = chosen(data, paths)
        content = original[path]
        assert content is not None
        kind = chosen(data, KINDS)
        size = max(1, len(content.rstrip(b"\0"))) if data.draw(st.integers(0, 3)) else len(content)
        offset = data.draw(st.integers(0, size - 1))
        changed = bytearray(content)
        match kind:
            case "bit":
                changed[offset] ^= 1 << data.draw(st.integers(0, 7))
            case "byte":
                changed[offset] ^= data.draw(st.integers(1, 255))
            case "zeros":
                end = min(len(content), offset + ZEROS_BYTES)
                changed[offset:end] = bytes(end - offset)
            case "cut":
                del changed[offset:]
            case _:
                note(f"{path} is gone")
                return {name: kept for name, kept in original.items() if name != path}
        note(f"{kind} at {offset} of {len(content)} bytes of {path}")
        return {**original, path: bytes(changed)} if changed != content else None

    def _read_all(self) -> Findings:
        """What a reader gets who steps over gaps; whatever stops it is an error of the engine."""
        found = Findings()
        try:
            store = self.rig.open_to_read()
        except ShardlogError as error:
            found.errors = dict.fromkeys(self.model.streams, error)
            return found
        with store:
            for key in self.model.streams:
                self._read_one(store, key, found)
        return found

    def _read_one(self, store: Store, key: Key, found: Findings) -> None:
        try:
            stream = store.stream(*key)
            sight = found.sights[key] = sight_of(stream)
        except ShardlogError as error:
            found.errors[key] = error
            return
        if sight.gaps:
            with pytest.raises(CorruptLog):
                list(stream.read())

    def _judge(self, report: Report, found: Findings) -> None:
        for key, error in found.errors.items():
            expect(bool(report.findings), f"{key} does not read, and the check finds nothing: {error}")
        for key, sight in found.sights.items():
            model = self.model.streams[key]
            self._expect_truth(model, sight)
            missing = _missing(model, sight)
            lost = _lost(report, key)
            for sequence in missing:
                expect(is_within(sequence, sight.gaps), f"{key}: {sequence} is missing, gaps are {sight.gaps}")
                expect(is_within(sequence, lost), f"{key}: {sequence} is missing, the check tells of {lost}")
            is_right = not missing and (sight.state, sight.positions) == (model.state, model.positions())
            expect(is_right or not report.clean, f"{key} does not read right, and the check finds nothing: {sight}")

    def _expect_truth(self, model: StreamModel, sight: Sight) -> None:
        good = {row.sequence: row for row in model.rows()}
        sequences = [row.sequence for row in sight.rows]
        expect(sequences == sorted(set(sequences)), f"{model.name}: out of order: {sequences}")
        for row in sight.rows:
            # Without its control record nobody knows which records have expired.
            is_expired = row.sequence < model.state.horizon and sight.state.horizon < model.state.horizon
            expect(is_expired or good.get(row.sequence) == row, f"{model.name}: nobody appended {row}")

    def _use(self, found: Findings) -> None:
        """Open the damaged store as if nothing were wrong: it refuses, or works and gives no number again."""
        try:
            self.rig.open()
            for key, model in self.model.streams.items():
                stream = self.rig.store.stream(*key)
                self._expect_truth(model, sight_of(stream))
                if model.is_enabled and stream.describe().status == "ENABLED":
                    keys = {"id": "after"}
                    sequences = stream.append([Change.modify(keys, old=keys, new=keys)]).sequences
                    expect(sequences[0] > model.highest, f"{key}: number {sequences[0]} again: {model.highest}")
        except ShardlogError as error:
            note(f"opened: {error}")
        finally:
            self.rig.die()

    def _repair(self, data: st.DataObject, report: Report, found: Findings, original: Image) -> None:
        plan = shardlog.plan_repair(report)
        nth = data.draw(st.integers(1, STEPS_MAX)) if data.draw(st.booleans()) else 0
        fault = self.rig.arm("kill" if nth else "none", nth, None)
        try:
            apply_plan(plan, self.rig.surroundings)
        except Killed:
            self.rig.disarm(fault)
            self._struck("kill", nth, "repair")
            self.rig.die()
            if data.draw(st.booleans()):
                self._cut_power(data)
            plan = shardlog.plan_repair(shardlog.fsck(self.rig.path))
            apply_plan(plan, self.rig.surroundings)
        finally:
            self.rig.disarm(fault)
        again = shardlog.fsck(self.rig.path, deep=True)
        if not again.clean:
            told = [str(action) for action in plan.actions]
            cannot = any("cannot be repaired" in action for action in told)
            expect(cannot, f"not clean after the repair: {list(map(str, again.findings))}; {told}")
            self.rig.put(original)
            return
        self.counts["repairs"] += 1
        self.rig.open()
        after = sights_of(self.rig.store)
        expect(sorted(after) == sorted(self.model.streams), f"after the repair there are {sorted(after)}")
        for key, sight in after.items():
            model = self.model.streams[key]
            if key in found.sights:
                before = {row.sequence for row in found.sights[key].rows if row.sequence >= sight.state.horizon}
                kept = {row.sequence for row in sight.rows}
                expect(before <= kept, f"{key}: the repair lost {sorted(before - kept)}")
            self._expect_truth(model, sight)
            model.forget(sight, _lost(report, key))


def _lost(report: Report, key: Key) -> list[tuple[int, int]]:
    """The ranges of a stream that the check says are lost."""
    return [(first, end) for path, first, end in report.lost if path.endswith("/".join(key))]


def _missing(model: StreamModel, sight: Sight) -> list[int]:
    """Numbers of records that should be there and are not."""
    seen = {row.sequence for row in sight.rows}
    return [row.sequence for row in model.rows() if row.sequence not in seen]

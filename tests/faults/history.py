"""What the children of a test told, and whether a store that was opened afterwards is what they were promised.

A `History` may span several crashes of one store: what was found after one of them was there to stay.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from tests.faults.bodies import AT_LAST, VIEWS
from tests.faults.writer import RECORDS_PER_APPEND, Name

from shardlog.format.names import parse_segment_name

Append = tuple[str, int]
Event = tuple[Any, ...]
View = list[tuple[int, Name]]

_NOT_THERE: Final[dict[int, int]] = {}


@dataclass
class History:
    """What is known of a stream. `violations` are promises broken so far."""

    level: str = "fsync"
    begun: set[Append] = field(default_factory=set)
    acknowledged: dict[Append, list[int] | None] = field(default_factory=dict)
    """Sequence numbers; None where they were not told."""
    outcomes: dict[Append, set[str]] = field(default_factory=dict)
    known: dict[int, Name] = field(default_factory=dict)
    """What sequence numbers stand for: of all that was acknowledged or read."""
    seen: set[int] = field(default_factory=set)
    """Numbers that somebody read."""
    durable_next: int = 0
    """Level "os": everything below was synced."""
    may_expire_before: int = 0
    """Everything below may be gone, from the first record on."""
    may_be_gone: set[Append] = field(default_factory=set)
    """Appends that may be gone with them, of those whose numbers were not told."""
    horizon: int = 0
    """Everything below is gone."""
    steps: dict[str, set[str]] = field(default_factory=dict)
    """Steps in the life of the stream that were begun, and that were done."""
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    """What failed, with which error, and its message."""
    violations: list[str] = field(default_factory=list)

    def copy(self) -> Self:
        """The same, to go on with."""
        return copy.deepcopy(self)

    def hear(self, events: Iterable[Event]) -> dict[str, View]:
        """Take in what one child told, in its order. Returns what it found where it looked around."""
        views: dict[str, View] = {}
        own_next = 0
        for event in events:
            match event:
                case "begun", who, number:
                    self.begun.add((who, number))
                case "acknowledged", who, number, sequences:
                    self._acknowledge((who, number), sequences)
                    own_next = max([own_next, *(sequence + 1 for sequence in sequences or ())])
                case ("duplicate" | "refused" | "unknown") as outcome, who, number:
                    self._note((who, number), outcome)
                case ("synced" | "closed",):
                    self.durable_next = max(self.durable_next, own_next)
                case "failed", what, kind, message:
                    self.failures.append((what, kind, message))
                case ("begun to" | "done") as how, what:
                    self.steps.setdefault(how, set()).add(what)
                    if (how, what) == ("done", "delete"):
                        self._forget_all()
                case "may expire", sequence:
                    self.may_expire_before = sequence
                    self.may_be_gone = {append for append in self.outcomes if append not in self.acknowledged}
                case "expired", horizon:
                    self.horizon = horizon
                case "trouble", text:
                    self.violations.append(text)
                case "found", view, records:
                    views.setdefault(view, []).extend(records)
        for sequence, name in views.get("on the way", ()):
            self._learn(sequence, name)
            self.seen.add(sequence)
        return views

    def judge(
        self,
        examination: Sequence[Event],
        *,
        power_cut: bool = False,
        synced_next: int = 0,
    ) -> None:
        """Hold what was found after a crash against all that was promised; then it becomes part of the history.

        `power_cut`: what level "os" had not synced may be missing from some number on; below `synced_next` everything
        was synced.
        """
        numbers_before = max(self.known, default=0)
        start = next((index for index, event in enumerate(examination) if event[0] == "begun"), len(examination))
        views = self.hear(examination[:start])
        found = views.get(VIEWS[-1])
        if found is None:
            self.violations.append(f"the store could not be examined: {self.failures[-3:]}")
            return
        for view in VIEWS:
            if views.get(view, []) != found:
                self.violations.append(f"{view}: expected {_brief(found)}, found {_brief(views.get(view, []))}")
        if self._may_be_removed() and not found:
            self._forget_all()
            numbers_before = 0
        self._forget_expired(found)
        if power_cut and self.level == "os":
            self._forget_unsynced(found, max(self.durable_next, synced_next))
        self._check(found)
        at_last = self.hear(examination[start:]).get(AT_LAST)
        if at_last is None:
            self.violations.append(f"nothing could be appended: {self.failures[-3:]}")
            at_last = found
        self._check(at_last)
        added = at_last[len(found) :]
        if at_last[: len(found)] != found:
            self.violations.append(f"appends changed what was there: {_brief(found)}, now {_brief(at_last)}")
        if added and added[0][0] <= numbers_before:
            self.violations.append(f"number {added[0][0]} was given out although {numbers_before} was before")
        for sequence, name in at_last:
            self._learn(sequence, name)
            self.seen.add(sequence)
        self.durable_next = max([self.durable_next, *(sequence + 1 for sequence, _ in at_last)])

    def _note(self, append: Append, outcome: str) -> None:
        before = self.outcomes.setdefault(append, set())
        if outcome == "duplicate" and not before & {"unknown", "acknowledged"}:
            self.violations.append(f"append {append} is called a duplicate after {before or 'nothing'}")
        before.add(outcome)

    def _acknowledge(self, append: Append, sequences: list[int] | None) -> None:
        self._note(append, "acknowledged")
        self.acknowledged[append] = sequences
        for index, sequence in enumerate(sequences or ()):
            self._learn(sequence, (*append, index))

    def _learn(self, sequence: int, name: Name) -> None:
        if self.known.setdefault(sequence, name) != name:
            self.violations.append(f"number {sequence} was {self.known[sequence]} and is {name}")

    def _may_be_removed(self) -> bool:
        return "delete" in self.steps.get("begun to", set()) - self.steps.get("done", set())

    def _forget_all(self) -> None:
        """The stream was removed with all that was in it; its successor counts from 1 again."""
        for known in (self.begun, self.acknowledged, self.outcomes, self.known, self.seen):
            known.clear()
        self.durable_next = 0

    def _forget_expired(self, found: View) -> None:
        """What is old may be missing, up to some number, and must be where expiry was done. Numbers stay known."""
        first = found[0][0] if found else self.may_expire_before
        if first < self.horizon:
            self.violations.append(f"number {first} is there, and everything below {self.horizon} had expired")
        for append, sequences in list(self.acknowledged.items()):
            if sequences and max(sequences) < min(first, self.may_expire_before):
                del self.acknowledged[append]
                self.outcomes[append] = {"unknown"}
        self.seen = {sequence for sequence in self.seen if sequence >= min(first, self.may_expire_before)}

    def _forget_unsynced(self, found: View, durable_next: int) -> None:
        """Level "os" after a power cut: what was not synced may be missing, from one number on. Numbers stay known."""
        kept_next = max(durable_next, found[-1][0] + 1 if found else 0)
        for append, sequences in list(self.acknowledged.items()):
            if sequences and min(sequences) >= kept_next:
                del self.acknowledged[append]
                self.outcomes[append] = {"unknown"}
        self.seen = {sequence for sequence in self.seen if sequence < kept_next}

    def _check(self, view: View) -> None:
        """A view holds all that was promised, and nothing that was not."""
        if any(first >= second for (first, _), (second, _) in pairwise(view)):
            self.violations.append(f"numbers do not grow: {[sequence for sequence, _ in view]}")
        rows: dict[Append, dict[int, int]] = {}
        for sequence, (who, number, index) in view:
            row = rows.setdefault((who, number), {})
            if index in row:
                self.violations.append(f"record {(who, number, index)} is there twice")
            row[index] = sequence
            if self.known.get(sequence, (who, number, index)) != (who, number, index):
                self.violations.append(f"number {sequence} was {self.known[sequence]}, found {(who, number, index)}")
        for append, row in rows.items():
            if len(row) != RECORDS_PER_APPEND:
                self.violations.append(f"append {append} is there in part: {sorted(row)}")
            if append not in self.begun:
                self.violations.append(f"append {append} is there, and was never made or is removed")
            if self.outcomes.get(append) == {"refused"}:
                self.violations.append(f"append {append} was refused, and is there")
        for append, wanted in self.acknowledged.items():
            there = [sequence for _, sequence in sorted(rows.get(append, _NOT_THERE).items())]
            if not there or (wanted is not None and there != wanted):
                self.violations.append(f"append {append} was acknowledged as {wanted}, found {there}")
        for append, outcomes in self.outcomes.items():
            if "duplicate" in outcomes and append not in rows and append not in self.may_be_gone:
                self.violations.append(f"append {append} was called a duplicate, and is not there")
        lost = self.seen - {sequence for sequence, _ in view}
        if lost:
            self.violations.append(f"numbers {sorted(lost)} had been read, and are gone")


def sealed_next(store: Path) -> int:
    """Below the last segment's first number everything is in segments that were sealed, and so synced."""
    segments = [parse_segment_name(path.name) for path in store.glob("streams/*/*/log/*")]
    return max((segment[0] for segment in segments if segment), default=0)


def _brief(view: View) -> str:
    return f"{len(view)} records up to {view[-1] if view else None}"

"""What a repair will do, as values: a pure function of a report.

No action changes a segment file, or cuts it: what is damaged stays where it is, is copied to `lost+found`, and is
recorded as a gap in the stream's state. Where a segment's ends can be made whole, a new file takes its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from shardlog.check.findings import CODES, Finding, Report, StreamFacts, stream_of
from shardlog.check.inventory import MISPLACED
from shardlog.format import names
from shardlog.format.mark import Mark
from shardlog.stream.state import KnownGap

_GAP_CODES: Final = frozenset(code.name for code in CODES.values() if code.repair == "a known gap")
_OF_ANOTHER_CODES: Final = frozenset({"segment-misnamed", "segment-foreign"})
_REWRITE_CODES: Final = frozenset({"header-flipped", "footer-damaged", "footer-wrong"})
_MARK_CODES: Final = frozenset({"mark-missing", "mark-damaged", "mark-wrong"})
_IDENTITY_CODES: Final = frozenset({"store-identity-missing", "store-identity-damaged"})
_LEFT_TO_OPENING: Final = frozenset({"temporary-left", "unsynced", "segment-expired"})
_REASON_LENGTH_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class RestoreIdentity:
    """Write STORE anew. `store_uuid` None: no stream tells it, so any will do."""

    store: str
    store_uuid: bytes | None

    def __str__(self) -> str:
        return f"{self.store}: write STORE anew, the old one goes to {names.LOST_AND_FOUND}"


@dataclass(frozen=True, slots=True)
class RenameSegment:
    """Give a segment file another name, unless one of that name exists."""

    stream: str
    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.stream}: rename {self.source} to {self.target}"


@dataclass(frozen=True, slots=True)
class SetAside:
    """Move a file that does not belong into the log to lost+found."""

    stream: str
    name: str

    def __str__(self) -> str:
        return f"{self.stream}: move {self.name} to {names.LOST_AND_FOUND}"


@dataclass(frozen=True, slots=True)
class RewriteSegment:
    """Write a segment anew, with its header and footer put right, as a new file of the same name."""

    stream: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.stream}: write {self.name} anew with sound header and footer, "
            f"the old file goes to {names.LOST_AND_FOUND}"
        )


@dataclass(frozen=True, slots=True)
class KeepCopy:
    """Copy bytes `[offset, end)` of a segment to lost+found, with a manifest."""

    stream: str
    name: str
    offset: int
    end: int
    reason: str

    def __str__(self) -> str:
        size = self.end - self.offset
        return f"{self.stream}: copy {size} bytes at {self.offset} of {self.name} to {names.LOST_AND_FOUND}"


@dataclass(frozen=True, slots=True)
class GoOnBehind:
    """Where the end of the log is damaged: make a new segment, in which the stream goes on."""

    stream: str

    def __str__(self) -> str:
        return f"{self.stream}: go on in a new segment behind the damage"


@dataclass(frozen=True, slots=True)
class SetTailAside:
    """Open the stream once, and go on in a new segment: what follows the log's end is kept in lost+found, as ever."""

    stream: str

    def __str__(self) -> str:
        return f"{self.stream}: set the torn tail aside in {names.LOST_AND_FOUND}, and go on in a new segment"


@dataclass(frozen=True, slots=True)
class RewriteMark:
    """Write MARK anew, with the position that it has, if that can be read and is not the `distrusted` one."""

    stream: str
    distrusted: Mark | None

    def __str__(self) -> str:
        return f"{self.stream}: write {names.MARK} anew, the old one goes to {names.LOST_AND_FOUND}"


@dataclass(frozen=True, slots=True)
class RebuildConsumers:
    """Write the consumers' environment anew, of the rows that are good."""

    stream: str

    def __str__(self) -> str:
        return (
            f"{self.stream}: rebuild {names.CONSUMERS} of the rows that are good, the old file goes to "
            f"{names.LOST_AND_FOUND}"
        )


@dataclass(frozen=True, slots=True)
class RecordGaps:
    """Commit the damaged ranges to the stream's state, so that they are known from now on."""

    stream: str
    gaps: tuple[KnownGap, ...]

    def __str__(self) -> str:
        ranges = [f"{gap.first} to {gap.next}" for gap in self.gaps if gap.first < gap.next]
        lost = f"sequence numbers {', '.join(ranges)} are lost" if ranges else "no record is lost"
        return f"{self.stream}: record {len(self.gaps)} damaged places in the stream's state; {lost}"


@dataclass(frozen=True, slots=True)
class LeaveToOpening:
    """Nothing to do: the next opening does it."""

    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True, slots=True)
class CannotRepair:
    """Nothing that a repair can do; `shardlog salvage` copies what is good."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: cannot be repaired ({self.why})"


Action = (
    RestoreIdentity
    | RenameSegment
    | SetAside
    | RewriteSegment
    | KeepCopy
    | GoOnBehind
    | RewriteMark
    | RebuildConsumers
    | SetTailAside
    | RecordGaps
    | LeaveToOpening
    | CannotRepair
)


def planned_actions(report: Report) -> tuple[Action, ...]:
    """The actions for a report, in the order in which they are to be taken."""
    actions: list[Action] = []
    if any(finding.code in _IDENTITY_CODES for finding in report.findings):
        uuids = [facts.store_uuid for facts in report.streams if facts.store_uuid is not None]
        actions.append(RestoreIdentity(report.path, max(set(uuids), key=uuids.count) if uuids else None))
    for facts in report.streams:
        own = [finding for finding in report.findings if stream_of(finding.path) == facts.path]
        actions += _stream_actions(facts, own)
    return tuple(actions)


def _stream_actions(facts: StreamFacts, findings: list[Finding]) -> Iterable[Action]:
    stream = facts.path
    renames, found_ids = _renames(facts, findings)
    yield from renames
    headless = {os.path.basename(finding.path) for finding in findings if finding.code == "header-damaged"}
    rewritten = {
        os.path.basename(finding.path): None
        for finding in findings
        if finding.severity == "error" and finding.code in _REWRITE_CODES
    }
    for name in rewritten:
        if name not in headless:  # its footer is part of the known gap that its header will be
            yield RewriteSegment(stream, name)
    damages = [
        finding
        for finding in findings
        if finding.severity == "error"
        and finding.segment_id not in found_ids
        and (finding.code in _GAP_CODES or (finding.code in _OF_ANOTHER_CODES and finding.sequences is not None))
    ]
    copied = [finding for finding in damages if finding.code not in _OF_ANOTHER_CODES]
    if facts.last_is_damaged:  # opening would set it aside, but for the damage
        copied += [finding for finding in findings if finding.code == "torn-tail"]
    for finding in copied:
        if finding.offset is not None and finding.end is not None and finding.offset < finding.end:
            reason = f"{finding.code}: {finding.message}"
            yield KeepCopy(stream, os.path.basename(finding.path), finding.offset, finding.end, reason)
    is_lost = any(finding.code in ("headers-lost", "log-missing") for finding in findings) or not facts.is_state_known
    marks = {finding.code for finding in findings if finding.code in _MARK_CODES}
    if marks and not is_lost:
        yield RewriteMark(stream, facts.mark if "mark-wrong" in marks else None)
    if any(finding.code == "consumers-damaged" for finding in findings):
        yield RebuildConsumers(stream)
    if facts.last_is_damaged and not is_lost:
        yield GoOnBehind(stream)
    elif not is_lost and any(finding.code == "torn-tail" for finding in findings):
        yield SetTailAside(stream)
    gaps = tuple(_gap_of(finding) for finding in damages)
    if gaps and not is_lost:
        yield RecordGaps(stream, gaps)
    for finding in findings:
        if finding.code in _LEFT_TO_OPENING:
            yield LeaveToOpening(finding.path, f"{finding.message} ({CODES[finding.code].repair})")
        elif finding.severity == "error" and CODES[finding.code].repair in ("-", "none: salvage"):
            yield CannotRepair(finding.path, f"{finding.code}: {finding.message}")
    if not facts.is_state_known:
        yield CannotRepair(stream, "what changed its shards is lost in the damage, and what came later depends on it")


def _gap_of(finding: Finding) -> KnownGap:
    first, end = finding.sequences or (0, 0)
    return KnownGap(first, end, finding.segment_id or 0, f"{finding.code}: {finding.message}"[:_REASON_LENGTH_MAX])


def _renames(facts: StreamFacts, findings: list[Finding]) -> tuple[list[Action], set[int]]:
    """Misnamed segments go to their names by way of a parking name, so that two can change places.

    Also returns the ids of the segments that get their names.
    """
    stream = facts.path
    sources = {source for source, _ in facts.misnamed}
    taken = set(facts.segments) - sources
    actions: list[Action] = []
    targets: list[str] = []
    for source, target in facts.misnamed:
        if target in taken or target in targets:
            actions.append(SetAside(stream, source))
        else:
            targets.append(target)
            actions.append(RenameSegment(stream, source, target + MISPLACED))
    for finding in findings:
        name = os.path.basename(finding.path)
        if finding.code == "segment-misplaced":
            targets.append(name.removesuffix(MISPLACED))
        elif finding.code == "segment-foreign" and name not in sources:
            actions.append(SetAside(stream, name))
    actions += [RenameSegment(stream, target + MISPLACED, target) for target in targets]
    parsed = (names.parse_segment_name(target) for target in targets)
    return actions, {segment[1] for segment in parsed if segment}

"""What a check finds: values with stable codes, and the report of them.

A note is nothing to repair: a torn tail, a stale index, bytes that a live writer has not published; a store that has
only notes is clean. `CODES` is the one table of all codes; `table` renders it for the documentation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from shardlog.format.mark import Mark

Severity = Literal["note", "error"]

CLEAN: Final = 0
CORRECTED: Final = 1
ERRORS_LEFT: Final = 4
OPERATIONAL: Final = 8
USAGE: Final = 16
RECORDS_LOST: Final = 64


@dataclass(frozen=True, slots=True)
class Code:
    """What a code stands for. `repair`: what a repair does about it."""

    name: str
    severity: Severity
    meaning: str
    repair: str = "-"
    loses_records: bool = False
    """The sequence numbers of such a finding are acknowledged records that cannot be read any more."""
    is_operational: bool = False
    """It says that something could not be checked, not that it is wrong."""

    @property
    def exit_status(self) -> int:
        """What it adds to the exit status, where records are lost by it."""
        if self.severity == "note":
            return CLEAN
        return (OPERATIONAL if self.is_operational else ERRORS_LEFT) + (RECORDS_LOST if self.loses_records else CLEAN)


_GAP: Final = "a known gap"
_REWRITE: Final = "the segment is written anew"
_SALVAGE: Final = "none: salvage"

_TABLE: Final = (
    Code("store-identity-missing", "error", "there is no STORE file", "STORE is written anew"),
    Code("store-identity-damaged", "error", "STORE is not what was written", "STORE is written anew"),
    Code("store-identity-foreign", "note", "the stream was created in another store"),
    Code("stream-unfinished", "note", "left by an interrupted creation", "the next creation removes it"),
    Code("stream-half-deleted", "note", "left by an interrupted deletion", "the next creation removes it"),
    Code("stream-renamed", "note", "the log says that the stream has another name or label"),
    Code("unknown-name", "note", "a file or directory that the engine does not know"),
    Code("lock-missing", "note", "there is no LOCK file", "opening makes it"),
    Code("log-missing", "error", "there is no log directory, or no segment in it", _SALVAGE),
    Code("headers-lost", "error", "not one segment header of the stream can be read", _SALVAGE, loses_records=True),
    Code("temporary-left", "note", "a file that was never finished", "opening removes it"),
    Code("segment-expired", "note", "a segment behind the trim horizon is still there", "opening removes it"),
    Code("segment-misnamed", "error", "a file is that of another segment", "the file gets its name",
         loses_records=True),
    Code("segment-misplaced", "error", "a segment on its way to its name, left by an interrupted repair",
         "the file gets its name"),
    Code("segment-foreign", "error", "a segment of another stream, or a second copy of one",
         "the file goes to lost+found"),
    Code("segment-disorder", "error", "ids or first sequence numbers of the segments do not grow", _SALVAGE),
    Code("header-flipped", "error", "one bit of a segment header, or its padding, is not what was written", _REWRITE),
    Code("header-damaged", "error", "a segment header is not what was written", _GAP, loses_records=True),
    Code("block-damaged", "error", "bytes where a commit should be do not check out", _GAP, loses_records=True),
    Code("batch-damaged", "error", "the body of a batch is not what was written", _GAP, loses_records=True),
    Code("batch-undecodable", "error", "a checksum is right, and the records do not decode", _GAP, loses_records=True),
    Code("block-inconsistent", "error", "a commit's counts or times do not continue those before it"),
    Code("footer-damaged", "error", "the end of a sealed segment, its footer, is not what was written", _REWRITE),
    Code("footer-wrong", "error", "a footer does not say what the blocks say", _REWRITE),
    Code("footer-unfinished", "note", "the last segment was being sealed when its writer died",
         "the next append seals it again"),
    Code("second-opinion", "error", "the second implementation of the checksum or the decoder disagrees (deep)"),
    Code("record-invalid", "error", "a record breaks the rules for records (deep)"),
    Code("version-unsupported", "error", "sound bytes of a format version that this release does not know",
         is_operational=True),
    Code("segment-missing", "error", "a segment should be there and is not", _GAP, loses_records=True),
    Code("join-broken", "error", "a segment does not continue the one before it", _GAP, loses_records=True),
    Code("mark-missing", "error", "there is no MARK file", "MARK is written anew"),
    Code("mark-damaged", "error", "MARK is not what was written", "MARK is written anew"),
    Code("mark-wrong", "error", "MARK points to where no block ends", "MARK is written anew"),
    Code("torn-tail", "note", "a commit was being written when the machine stopped",
         "the stream is opened once, which sets it aside"),
    Code("unpublished", "note", "bytes behind the published end of a stream in use"),
    Code("unsynced", "note", 'level "os": appends may have been lost; numbers will jump', "opening makes them jump"),
    Code("index-stale", "note", "the index does not agree with the log; it is discarded at the next opening"),
    Code("index-damaged", "error", "the index of a stream in use is not sound", "close the stream everywhere"),
    Code("index-wrong", "error", "the index of a stream in use does not agree with the log",
         "close the stream everywhere"),
    Code("consumers-damaged", "error", "leases and checkpoints are not what was written",
         "rebuilt of the rows that are good"),
    Code("checkpoint-ahead", "error", "a consumer has handled a record that a stream in use does not hold",
         "close the stream everywhere"),
    Code("ranges-broken", "error", "the open shards do not partition the hash range", _SALVAGE),
    Code("parent-broken", "error", "a shard's parents are neither there nor expired, or overlap it in time", _SALVAGE),
    Code("shard-unknown", "error", "a batch belongs to no shard that was open then", _GAP, loses_records=True),
    Code("state-wrong", "error", "a snapshot is not what the control records before it make of the state", _SALVAGE),
    Code("known-gap", "note", "damage that a repair has recorded"),
    Code("read-failed", "error", "the disk or the system refuses to read", is_operational=True),
    Code("locked", "error", "somebody is opening or repairing the stream", is_operational=True),
)  # fmt: skip

CODES: Final = {code.name: code for code in _TABLE}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found. `offset` and `end` are bytes of the file `path`; `sequences` is half-open.

    `segment_id` is the segment concerned, which may be one that is missing.
    """

    code: str
    severity: Severity
    path: str
    offset: int | None
    sequences: tuple[int, int] | None
    message: str
    end: int | None = None
    segment_id: int | None = None

    @property
    def loses_records(self) -> bool:
        """Whether the records of `sequences` cannot be read."""
        return (
            self.severity == "error"
            and CODES[self.code].loses_records
            and self.sequences is not None
            and self.sequences[0] < self.sequences[1]
        )

    def __str__(self) -> str:
        place = self.path if self.offset is None else f"{self.path} at {self.offset}"
        lost = "" if self.sequences is None else f" [sequence numbers {self.sequences[0]} to {self.sequences[1]}]"
        return f"{self.severity}: {self.code}: {place}: {self.message}{lost}"


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a check learned about a stream beside its findings: what a repair plan needs."""

    path: str
    store_uuid: bytes | None
    in_use: bool
    last_is_damaged: bool
    """Opening it to write would raise CorruptLog."""
    misnamed: tuple[tuple[str, str], ...] = ()
    """Names of segment files, and the names that their headers tell."""
    segments: tuple[str, ...] = ()
    """Names of all segment files."""
    mark: Mark | None = None
    """MARK's position."""
    is_state_known: bool = True
    """Whether the control records that are left tell the stream's state."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `path` is what was checked: a store, or one stream's directory."""

    path: str
    findings: tuple[Finding, ...]
    streams: tuple[StreamFacts, ...]
    is_store: bool

    @property
    def clean(self) -> bool:
        """Whether there are no errors; notes do not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def lost(self) -> list[tuple[str, int, int]]:
        """Records that were acknowledged and cannot be read: stream directory, first, next; joined where they meet."""
        ranges: list[tuple[str, int, int]] = []
        for path, first, end in sorted(
            (stream_of(finding.path), *finding.sequences)
            for finding in self.findings
            if finding.loses_records and finding.sequences
        ):
            if ranges and ranges[-1][0] == path and first <= ranges[-1][2]:
                ranges[-1] = (path, ranges[-1][1], max(end, ranges[-1][2]))
            else:
                ranges.append((path, first, end))
        return ranges

    @property
    def exit_status(self) -> int:
        """As the command's: a sum of 4 errors left, 8 something could not be checked, 64 acknowledged records lost."""
        errors = [CODES[finding.code] for finding in self.findings if finding.severity == "error"]
        return (
            (ERRORS_LEFT if any(not code.is_operational for code in errors) else CLEAN)
            + (OPERATIONAL if any(code.is_operational for code in errors) else CLEAN)
            + (RECORDS_LOST if self.lost else CLEAN)
        )


def stream_of(path: str) -> str:
    """The stream's directory of a path in it (or in its log directory)."""
    directory, found, _ = path.rpartition("/log/")
    if found:
        return directory
    directory, found, _ = path.rpartition("/consumers/")
    return directory if found else path.removesuffix("/log").removesuffix("/MARK").removesuffix("/index")


def table(codes: Iterable[Code] = _TABLE) -> str:
    """The codes as a Markdown table."""
    rows = [
        f"| `{code.name}` | {code.severity} | {code.exit_status} | {code.meaning} | {code.repair} |" for code in codes
    ]
    head = ["| code | severity | exit status | what was found | what a repair does |", "|---|---|---|---|---|"]
    return "\n".join([*head, *rows])

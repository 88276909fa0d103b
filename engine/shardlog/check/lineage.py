"""Phase: whether the stream's state is what its log makes of it.

State, producers' positions and counts are folded from one segment header's snapshot over the control records that
follow, and held against every later snapshot: the next segment's header, and the checkpoints on the way. Behind damage
the fold cannot be trusted, and is taken up again at the next snapshot. At the end the open shards must partition the
hash range, and every parent must be there or have expired.
"""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

from shardlog.check.blocks import BlockScan
from shardlog.check.deep import DeepCheck
from shardlog.check.subject import Subject
from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.protocol import File
from shardlog.format import control
from shardlog.format.commit import CommitHeader
from shardlog.format.control import Control
from shardlog.format.segment import SegmentHeader
from shardlog.log.recovery import add_counts
from shardlog.model import HASH_RANGE_END
from shardlog.stream.lineage import fold
from shardlog.stream.state import Counts, Shard, Snapshot, StreamState, decode_state, positions_of


class Lineage:
    """The state as folded so far. `state` None: not known yet."""

    def __init__(self, subject: Subject) -> None:
        self.state: StreamState | None = None
        self.producers: dict[str, int] = {}
        self.counts: Counts = {}
        self._subject = subject
        self._is_complete = False
        """Every control record since a snapshot was read."""
        self._deep: DeepCheck | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the state is known for sure."""
        return self._is_complete and self.state is not None

    def enter(self, path: str, header: SegmentHeader) -> None:
        """Take up the snapshot of a segment's header, and hold it against the fold."""
        try:
            snapshot = decode_state(header.snapshot)
        except CorruptLog as error:
            self._subject.add("state-wrong", path, str(error), offset=0)
            self.lose()
            return
        self._compare(path, 0, snapshot, self.producers, self.counts)
        self.state, self.producers, self.counts = snapshot.state, snapshot.producers, snapshot.counts
        self._is_complete = True

    def follow(self, scan: BlockScan, file: File) -> None:
        """Have a scan tell what it sees."""
        scan.take_controls = self._take
        scan.producers = self.producers
        if self._subject.is_deep:
            self._deep = scan.deep = DeepCheck(self._subject, file)
        self._tell(scan)

    def leave(self, scan: BlockScan) -> None:
        """Add what a scan counted."""
        if scan.is_damaged:
            self.lose()
        for shard, (records, body_bytes) in scan.counts.items():
            self.counts[shard] = add_counts(self.counts.get(shard), records, body_bytes)
        if self.state is not None:
            self.counts = counts_of(self.state, self.counts)

    def lose(self) -> None:
        """Something was not read: what follows can be compared again behind the next snapshot."""
        self._is_complete = False

    def finish(self) -> None:
        """Judge the shards of the last state."""
        if self.state is None or not self._is_complete:
            return
        for code, problem in shard_problems(self.state):
            self._subject.add(code, self._subject.path, problem)

    def _tell(self, scan: BlockScan) -> None:
        if self.state is not None and self._is_complete:
            scan.open_shards = frozenset(shard.number for shard in self.state.open_shards)
        else:
            scan.open_shards = None
        if self._deep is not None:
            self._deep.follow(self.state if self._is_complete else None)

    def _take(self, scan: BlockScan, header: CommitHeader, controls: list[tuple[int, Control]]) -> None:
        if scan.is_damaged:
            self.lose()
        for sequence, record in controls:
            if record["kind"] == control.CHECKPOINT:
                self._check_checkpoint(scan, header, sequence, record)
        if self.state is not None:
            try:
                self.state = fold(self.state, controls)
                self.producers.update(positions_of(controls))
            except UnsupportedVersion as error:
                self._subject.add("version-unsupported", scan.path, str(error), offset=header.offset)
                self.lose()
            except (CorruptLog, KeyError, TypeError, ValueError) as error:
                if self._is_complete:
                    self._subject.add("state-wrong", scan.path, f"control records: {error!r}", offset=header.offset)
                self.state = None  # what they change was lost in damage: the next snapshot tells
                self.lose()
        self._tell(scan)

    def _check_checkpoint(self, scan: BlockScan, header: CommitHeader, sequence: int, record: Control) -> None:
        try:
            snapshot = decode_state(record["snapshot"])
            rows = list(map(tuple, record["positions"]))
        except (CorruptLog, KeyError, TypeError) as error:
            self._subject.add("state-wrong", scan.path, f"checkpoint {sequence}: {error!r}", offset=header.offset)
            return
        counts = dict(self.counts)
        for shard, (records, body_bytes) in scan.counts.items():
            counts[shard] = add_counts(counts.get(shard), records, body_bytes)
        self._compare(scan.path, header.offset, snapshot, self.producers, counts)
        if not scan.is_damaged and rows != scan.rows:
            self._subject.add(
                "state-wrong", scan.path, f"the position rows of checkpoint {sequence} are not those of the blocks",
                offset=header.offset,
            )  # fmt: skip

    def _compare(self, path: str, offset: int, snapshot: Snapshot, producers: dict[str, int], counts: Counts) -> None:
        if not self._is_complete or self.state is None:
            return
        differing = [
            field.name
            for field in fields(StreamState)
            if getattr(self.state, field.name) != getattr(snapshot.state, field.name)
        ]
        differing += ["producers"] if producers != snapshot.producers else []
        differing += ["counts"] if counts_of(self.state, counts) != counts_of(self.state, snapshot.counts) else []
        if differing:
            self._subject.add(
                "state-wrong", path, f"expected what the control records make of the state, found other values of "
                f"{', '.join(differing)}", offset=offset,
            )  # fmt: skip


def counts_of(state: StreamState, counts: Counts) -> Counts:
    """The counts of the shards that have not expired."""
    return {shard: count for shard, count in counts.items() if shard in state.by_number}


def shard_problems(state: StreamState) -> list[tuple[str, str]]:
    """What is wrong with the shards of a state: code and message."""
    problems = []
    if not state.closed:
        bounds = [(shard.hash_first, shard.hash_next) for shard in state.open_shards]
        is_whole = (
            bool(bounds)
            and bounds[0][0] == 0
            and bounds[-1][1] == HASH_RANGE_END
            and all(one[1] == other[0] for one, other in pairwise(bounds))
        )
        if not is_whole:
            problems.append(("ranges-broken", f"expected open shards that partition [0, 2^128), found {bounds}"))
    elif state.open_shards:
        problems.append(("ranges-broken", f"the stream is disabled, and {len(state.open_shards)} shards are open"))
    by_id = {shard.shard_id: shard for shard in state.shards}
    for child in state.shards:
        for parent_id in child.parent_ids:
            problem = _parent_problem(state, child, by_id.get(parent_id))
            if problem is not None:
                problems.append(("parent-broken", f"shard {child.shard_id}, parent {parent_id}: {problem}"))
    return problems


def _parent_problem(state: StreamState, child: Shard, parent: Shard | None) -> str | None:
    if parent is None:
        if child.first_sequence <= state.trim_horizon + 1:  # the record that closed the parent is between
            return None  # expired
        return f"it is not there, and its records up to {child.first_sequence} have not expired"
    if parent.end_sequence is None or parent.end_sequence >= child.first_sequence:
        return f"expected it to end before {child.first_sequence}, found {parent.end_sequence}"
    if not (parent.hash_first < child.hash_next and child.hash_first < parent.hash_next):
        return "their hash ranges do not meet"
    return None

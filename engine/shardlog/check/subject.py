"""What is examined: one stream's directory, held still as far as that can be, and the findings about it.

Nobody has the stream open: GATE is held over the examination, and the log alone says where it ends. Somebody has it
open: LIVE is shared, so that the index stays sound, and a copy of the index is taken *first*; its tail says where the
log ends, and its trim horizon is asked for again at the end, because segments may expire meanwhile. Nothing is written,
but for the reader's slot that LMDB keeps in `lock.mdb`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import lmdb.verify

from shardlog.check.findings import CODES, Finding
from shardlog.errors import Closed, ShardlogError, StorageFailed
from shardlog.files.gate import LIVE, gate_held
from shardlog.files.protocol import Files, LockFile
from shardlog.format import names
from shardlog.index.environment import Index
from shardlog.index.tail import Tail
from shardlog.stream.open_stream import registry
from shardlog.stream.state import KnownGap

Progress = Callable[[int], None]
"""Is told how many bytes of the log are behind the check."""

_DATA = "data.mdb"


@dataclass(slots=True)
class LiveIndex:
    """The index of a stream in use, as it was when the examination began. `copy` None: it is not sound."""

    path: str
    problems: list[str]
    copy: Index | None
    tail: Tail | None

    def tail_now(self) -> Tail | None:
        """The tail as published now; None where nobody can tell any more."""
        shared = registry().shared(self.path)
        if shared is not None:
            with suppress(Closed):
                return shared.index.tail()
        if self.copy is None:
            return None
        with _opened(self.path) as index:
            return index.tail()


@dataclass(slots=True)
class Subject:
    """One stream's directory under examination. `live` None: nobody has it open."""

    path: str
    files: Files
    is_deep: bool = False
    progress: Progress | None = None
    live: LiveIndex | None = None
    gaps: tuple[KnownGap, ...] = ()
    """Damage that a repair has recorded already."""
    findings: list[Finding] = field(default_factory=list)
    behind: int = 0

    @property
    def log_path(self) -> str:
        """Where the segments are."""
        return f"{self.path}/{names.LOG}"

    def add(
        self,
        code: str,
        path: str,
        message: str,
        *,
        offset: int | None = None,
        end: int | None = None,
        sequences: tuple[int, int] | None = None,
        segment_id: int | None = None,
    ) -> None:
        """Take down a finding; one about a segment is a note where a known gap covers it."""
        if segment_id is not None and self._is_known(segment_id, sequences):
            message, code = f"{code}: {message}", "known-gap"
        self.findings.append(Finding(code, CODES[code].severity, path, offset, sequences, message, end, segment_id))

    def passed(self, size: int) -> None:
        """So many more bytes of the log are behind the check."""
        self.behind += size
        if self.progress is not None:
            self.progress(self.behind)

    def _is_known(self, segment_id: int, sequences: tuple[int, int] | None) -> bool:
        """Whether known gaps cover all of the numbers, one of which is of this segment.

        Another may be of its neighbour: what is missing between them is told of either.
        """
        if sequences is None:
            return any(gap.segment_id == segment_id for gap in self.gaps)
        first, end = sequences
        touching = [gap for gap in self.gaps if gap.first <= end and first <= max(gap.next, gap.first)]
        reached = first
        for gap in sorted(touching):
            if gap.first <= reached:
                reached = max(reached, gap.next)
        return reached >= end and any(gap.segment_id == segment_id for gap in touching)


@contextmanager
def examined(subject: Subject, lock_timeout: float) -> Iterator[None]:
    """Hold the stream still while it is examined. Raises StoreLocked, StorageFailed."""
    with ExitStack() as stack:
        path, files = subject.path, subject.files
        lock_path = f"{path}/{names.LOCK}"
        if not files.exists(lock_path):
            subject.add(
                "lock-missing", lock_path, "expected the file whose bytes are the stream's locks, found nothing"
            )
            yield
            return
        lock, can_gate = _open_lock(files, lock_path)
        stack.callback(lock.close)
        gate = ExitStack()
        stack.enter_context(gate)
        if can_gate:
            gate.enter_context(gate_held(lock, path, lock_timeout))
        if lock.is_held_elsewhere(LIVE):
            lock.try_shared(LIVE)
            subject.live = _copied_index(path, stack)
            gate.close()
        yield


def _open_lock(files: Files, path: str) -> tuple[LockFile, bool]:
    """The lock file, and whether GATE can be taken: not on a medium that cannot be written."""
    try:
        return files.open_lock(path), True
    except StorageFailed:
        return files.open_lock_to_read(path), False


@contextmanager
def _opened(path: str) -> Iterator[Index]:
    index = Index(f"{path}/{names.INDEX}")
    try:
        yield index
    finally:
        index.close()


def _copied_index(path: str, stack: ExitStack) -> LiveIndex:
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="shardlog-check-"))
    shared = registry().shared(path)
    try:
        if shared is not None:
            shared.commits.copy_index(directory)
        else:
            with _opened(path) as index:
                index.copy_to(directory)
        problems: list[str] = lmdb.verify.verify(f"{directory}/{_DATA}")  # type: ignore[no-untyped-call]
        if problems:
            return LiveIndex(path, problems, None, None)
        copy = Index(directory)
    except (ShardlogError, lmdb.verify.VerifyError) as error:
        return LiveIndex(path, [str(error)], None, None)
    stack.callback(copy.close)
    try:
        return LiveIndex(path, [], copy, copy.tail())
    except ShardlogError as error:
        return LiveIndex(path, [str(error)], None, None)

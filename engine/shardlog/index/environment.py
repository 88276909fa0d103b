"""The index's LMDB environment.

Derived from the log and never synced: it is made anew whenever nobody has the stream open, so it must only survive the
death of a process. Its write transaction is the lock between the processes that append; the kernel releases it when its
holder dies. One environment per process and file: `stream.open_stream` sees to that. Nothing here opens `lock.mdb` by
path once LMDB has, because closing it would drop the process's locks on it. `index.transaction` has the rows.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import lmdb

from shardlog.errors import Closed, ShardlogError
from shardlog.files.posix import translated
from shardlog.format.segment import SparsePosition
from shardlog.index.lmdb_files import LMDB_0_9, READERS_MAX, Translated, allocate_lock_file, storage_error
from shardlog.index.tail import Tail
from shardlog.index.transaction import IndexRead, IndexWrite, SegmentName

MAP_BYTES: Final = 1 << 30


class IndexContent(NamedTuple):
    """All that an index holds."""

    tail: Tail
    state: bytes
    segments: Iterable[SegmentName]
    positions: Iterable[SparsePosition]
    producers: Iterable[tuple[str, int]]
    counts: dict[int, tuple[int, int]]


class Index:
    """An open environment."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._environment: lmdb.Environment | None = None
        self._is_closed = False
        # Closing while another thread is inside LMDB would crash the interpreter: reads hold this, writers are waited
        # for by their owner.
        self._reading = threading.Lock()
        self._translated = Translated(self._storage_error)
        with translated("open the index", path), self._translated:
            self._environment = lmdb.open(
                path,
                map_size=MAP_BYTES,
                max_readers=READERS_MAX,
                sync=False,
                metasync=False,
                lib_version=LMDB_0_9,
            )
            self._environment.reader_check()

    @classmethod
    def make(cls, path: str, content: IndexContent) -> Index:
        """Make the index anew in the directory `path`; nobody may have it open. Raises StorageFull, StorageFailed."""
        with translated("clear the directory", path):
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
        allocate_lock_file(path)
        index = cls(path)
        try:
            with index.write() as transaction:
                transaction.put_tail(content.tail)
                transaction.put_state(content.state)
                transaction.put_segments(content.segments)
                transaction.put_positions(content.positions)
                transaction.put_producers(content.producers)
                transaction.add_counts(content.counts)
                transaction.commit()
        except BaseException:
            index.close()
            raise
        return index

    def close(self) -> None:
        """Close it; twice is harmless."""
        self._is_closed = True
        with self._reading:
            if self._environment is not None:
                environment, self._environment = self._environment, None
                environment.close()

    def abandon(self) -> None:
        """Forget it in a forked child: LMDB environments do not survive a fork, not even to be closed."""
        self._reading = threading.Lock()
        if self._environment is not None:
            _abandoned.append(self._environment)
            self._environment = None

    @contextmanager
    def read(self) -> Iterator[IndexRead]:
        """A read transaction; keep it short, a long one makes the file grow."""
        with self._translated, self._reading, self._open().begin() as transaction:
            yield IndexRead(transaction)

    def write(self) -> IndexWrite:
        """A write transaction, the lock between processes: a context manager, aborted at its end unless committed."""
        environment = self._open()
        with self._translated:
            return IndexWrite(environment.begin(write=True), self._translated)

    def tail(self) -> Tail:
        """The tail row as published now."""
        with self.read() as rows:
            return rows.tail()

    def state(self) -> tuple[bytes, int]:
        """The state and its version."""
        with self.read() as rows:
            return rows.state(), rows.tail().state_version

    def segments(self) -> list[SegmentName]:
        """All segments, oldest first."""
        with self.read() as rows:
            return rows.segments()

    def segment_at(self, sequence: int) -> SegmentName | None:
        """The last segment that starts at or before a sequence number."""
        with self.read() as rows:
            return rows.segment_at(sequence)

    def segment_after(self, first_sequence: int) -> SegmentName | None:
        """The segment after the one that starts at `first_sequence`."""
        with self.read() as rows:
            return rows.segment_after(first_sequence)

    def position_at(self, sequence: int) -> SparsePosition | None:
        """The last indexed block of the active segment that starts at or before a sequence number."""
        with self.read() as rows:
            return rows.position_at(sequence)

    def position_before_time(self, first: int, end: int, wanted_us: int) -> SparsePosition | None:
        """The last indexed block of the active segment that is older than a time, among those in `[first, end)`."""
        with self.read() as rows:
            return rows.position_before_time(first, end, wanted_us)

    def positions(self) -> list[SparsePosition]:
        """All indexed blocks of the active segment, in order."""
        with self.read() as rows:
            return rows.positions()

    def producer_position(self, producer: str) -> int | None:
        """A producer's last committed position."""
        with self.read() as rows:
            return rows.producer_position(producer)

    def counts(self) -> dict[int, tuple[int, int]]:
        """Records and bytes of bodies per shard number, since the stream was created."""
        with self.read() as rows:
            return rows.counts()

    def copy_to(self, directory: str) -> None:
        """Copy what is published now into an empty directory, while others go on writing."""
        with self._translated, self._reading:
            self._open().copy(directory)

    def check_readers(self) -> None:
        """Free the slots of readers that died, which would make the file grow."""
        with self._translated:
            self._open().reader_check()

    def _open(self) -> lmdb.Environment:
        if self._environment is None:
            raise Closed(f"{self._path}: the stream was closed")
        return self._environment

    def _storage_error(self, error: lmdb.Error) -> ShardlogError:
        path = self._path
        if self._is_closed:
            return Closed(f"{path}: the stream was closed")  # by another thread, under our hands
        return storage_error("index", path, MAP_BYTES, error)


# Environments inherited through a fork: referenced for ever, so that they are never closed.
_abandoned: list[lmdb.Environment] = []

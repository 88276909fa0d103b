"""The consumers' LMDB environment of one stream: rows, in transactions that are durable when they return.

Leases and checkpoints are the only truth outside the log, so unlike the index it is synced, and each value carries its
own checksum (`format.lease`). Any number of processes use it at once. Writes of several threads gather into one
transaction, and so share its sync.

LOCK, next to LMDB's files, tells who is there: one byte is shared by every process that has the environment open; one
byte each, at an offset that nobody else draws, is held by each worker, so that a dead one shows at once. Whoever finds
nobody there verifies the file before LMDB maps it: LMDB trusts its pages, and a damaged one would end the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import lmdb
import lmdb.verify

from shardlog.errors import Closed, CorruptLog, InvalidArgument, ShardlogError, StoreLocked
from shardlog.files.posix import translated
from shardlog.files.protocol import Files, LockFile
from shardlog.format import names
from shardlog.format.lease import (
    GROUP,
    LEASE,
    WORKER,
    GroupRow,
    LeaseRow,
    Row,
    WorkerRow,
    decode_row,
    encode_row,
    parse_key,
    row_key,
)
from shardlog.index.lmdb_files import DATA_FILE, LMDB_0_9, READERS_MAX, Translated, allocate_lock_file, storage_error
from shardlog.stream.gathering import Gathering

MAP_BYTES: Final = 256 << 20
OPEN: Final = 0
"""The byte of LOCK that whoever has the environment open shares."""

_PAUSE_SECONDS: Final = 0.005

Result = TypeVar("Result")
AnyRow = TypeVar("AnyRow", bound=Row)


class Rows:
    """A transaction's view of the rows."""

    def __init__(self, transaction: lmdb.Transaction, decoded: dict[bytes, tuple[bytes, Row]]) -> None:
        self._transaction = transaction
        self._decoded = decoded
        self.is_changed = False

    def group(self, group: str) -> GroupRow | None:
        """A group."""
        return self._get(row_key(GROUP, group), GroupRow)

    def lease(self, group: str, shard_id: str) -> LeaseRow | None:
        """The lease on a shard."""
        return self._get(row_key(LEASE, group, shard_id), LeaseRow)

    def worker(self, group: str, worker: str) -> WorkerRow | None:
        """A worker."""
        return self._get(row_key(WORKER, group, worker), WorkerRow)

    def groups(self) -> dict[str, GroupRow]:
        """All groups, by name."""
        return {parse_key(key)[1]: row for key, row in self._all(GROUP, GroupRow)}

    def leases(self, group: str) -> dict[str, LeaseRow]:
        """All leases of a group, by shard id."""
        return {parse_key(key)[2]: row for key, row in self._all(row_key(LEASE, group), LeaseRow)}

    def workers(self, group: str) -> dict[str, WorkerRow]:
        """All workers of a group, by name."""
        return {parse_key(key)[2]: row for key, row in self._all(row_key(WORKER, group), WorkerRow)}

    def check(self) -> None:
        """Decode every row; raises CorruptLog."""
        for key, value in self._transaction.cursor():
            decode_row(bytes(key), bytes(value))

    def put_group(self, group: str, row: GroupRow) -> None:
        """Write a group."""
        self._put(row_key(GROUP, group), row)

    def put_lease(self, group: str, shard_id: str, row: LeaseRow) -> None:
        """Write a lease."""
        self._put(row_key(LEASE, group, shard_id), row)

    def put_worker(self, group: str, worker: str, row: WorkerRow) -> None:
        """Write a worker."""
        self._put(row_key(WORKER, group, worker), row)

    def remove(self, kind: bytes, group: str, name: str = "") -> None:
        """Remove a row, if it is there."""
        key = row_key(kind, group, name)
        self.is_changed |= self._transaction.delete(key)
        self._decoded.pop(key, None)

    def _get(self, key: bytes, row_type: type[AnyRow]) -> AnyRow | None:
        value = self._transaction.get(key)
        return None if value is None else self._decode(key, bytes(value), row_type)

    def _all(self, prefix: bytes, row_type: type[AnyRow]) -> Iterator[tuple[bytes, AnyRow]]:
        with self._transaction.cursor() as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not bytes(key).startswith(prefix):
                    return
                yield bytes(key), self._decode(bytes(key), bytes(value), row_type)

    def _decode(self, key: bytes, value: bytes, row_type: type[AnyRow]) -> AnyRow:
        known = self._decoded.get(key)
        if known is None or known[0] != value:
            known = self._decoded[key] = value, decode_row(key, value)
        row = known[1]
        assert isinstance(row, row_type)
        return row

    def _put(self, key: bytes, row: Row) -> None:
        value = encode_row(key, row)
        self._transaction.put(key, value)
        self._decoded[key] = value, row  # for as long as this value is there: so it may be rolled back
        self.is_changed = True


class _Update(Generic[Result]):
    """One thread's change, on its way into a transaction."""

    __slots__ = ("error", "is_done", "operation", "result")

    body_bytes: Final = 0

    def __init__(self, operation: Callable[[Rows], Result]) -> None:
        self.operation = operation
        self.is_done = False
        self.error: Exception | None = None
        self.result: Result | None = None


class Consumers:
    """An open environment. Closed and forked together with the open stream that it belongs to."""

    def __init__(self, path: str, lock: LockFile, copy: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self._path = path
        self._lock = lock
        self._copy = copy
        self._locks: weakref.WeakSet[LockFile] = weakref.WeakSet()
        self._decoded: dict[bytes, tuple[bytes, Row]] = {}
        self._translated = Translated(self._storage_error)
        # Closing while another thread is inside LMDB would crash the interpreter.
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._gathering: Gathering[_Update[Any]] = Gathering(self._commit)
        self._environment: lmdb.Environment | None = None
        with self._translated:
            self._environment = lmdb.open(
                copy.name if copy else path,
                map_size=MAP_BYTES,
                max_readers=READERS_MAX,
                readonly=copy is not None,
                lock=copy is None,
                lib_version=LMDB_0_9,
            )
            if copy is None:
                self._environment.reader_check()

    @contextmanager
    def read(self) -> Iterator[Rows]:
        """What is committed now. Keep it short."""
        with self._translated, self._reading, self._open().begin() as transaction:
            yield Rows(transaction, self._decoded)

    def update(self, operation: Callable[[Rows], Result]) -> Result:
        """Run `operation` in a write transaction; durable when it returns.

        It shares the transaction with those of other threads: where it raises, it must not have put anything before.
        It may run twice, if the first transaction was interrupted before it committed.
        """
        update = _Update(operation)
        self._gathering.submit([update])
        if update.error is not None:
            raise update.error
        return update.result  # type: ignore[return-value]

    def is_alive(self, instance: int) -> bool:
        """Whether the worker that drew `instance` still holds its byte."""
        self._open()
        return self._lock.is_held_elsewhere(instance)

    def close_after_fork(self, lock: LockFile) -> None:
        """Close a worker's lock in a forked child: there it would outlive the worker, which would pass for alive."""
        self._locks.add(lock)

    def check_rows(self) -> None:
        """Raise CorruptLog where a row is not what was written: a damaged key would hide it from its group."""
        with self.read() as rows:
            rows.check()

    def copy_to(self, directory: str) -> None:
        """Copy what is committed now into a directory, made if need be, while others go on writing; durably."""
        with translated("make", directory):
            os.makedirs(directory, exist_ok=True)
        with self._translated, self._reading:
            self._open().copy(directory, compact=True)
        _sync(f"{directory}/{DATA_FILE}", directory, os.path.dirname(directory))

    def close(self) -> None:
        """Close it; twice is harmless."""
        with self._reading, self._writing:
            if self._environment is not None:
                environment, self._environment = self._environment, None
                environment.close()
                self._lock.close()
                if self._copy is not None:
                    self._copy.cleanup()

    def abandon(self) -> None:
        """Forget it in a forked child: LMDB environments do not survive a fork, not even to be closed."""
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._gathering.abandon()
        for lock in (self._lock, *self._locks):
            lock.close()
        if self._environment is not None:
            _abandoned.append(self._environment)
            self._environment = None

    def _commit(self, updates: list[_Update[Any]]) -> None:
        try:
            with self._translated, self._writing:
                transaction = self._open().begin(write=True)
                try:
                    rows = Rows(transaction, self._decoded)
                    for update in updates:
                        _run(update, rows)
                    if rows.is_changed:
                        transaction.commit()
                except KeyboardInterrupt:
                    is_committed = _is_over(transaction)
                    for update in updates:
                        update.is_done = is_committed
                    raise
                finally:
                    transaction.abort()  # of what is committed: nothing
        except ShardlogError as error:
            for update in updates:
                update.error = error
        for update in updates:
            update.is_done = True

    def _open(self) -> lmdb.Environment:
        if self._environment is None:
            raise Closed(f"{self._path}: the stream was closed")
        return self._environment

    def _storage_error(self, error: lmdb.Error) -> ShardlogError:
        return storage_error("consumers", self._path, MAP_BYTES, error)


def _run(update: _Update[Any], rows: Rows) -> None:
    try:
        update.result, update.error = update.operation(rows), None
    except ShardlogError as error:
        update.error = error


def _is_over(transaction: lmdb.Transaction) -> bool:
    """Whether `commit` had its effect, wherever it was interrupted."""
    try:
        transaction.id()
    except lmdb.Error:
        return True
    return False


def open_consumers(files: Files, stream_path: str, timeout_seconds: float) -> Consumers:
    """Open the environment of a stream's directory, and make it if there is none.

    Raises CorruptLog where it is damaged, StoreLocked, StorageFull, StorageFailed.
    """
    path = f"{stream_path}/{names.CONSUMERS}"
    with translated("make", path):
        os.makedirs(path, exist_ok=True)
    lock = files.open_lock(f"{path}/{names.LOCK}")
    try:
        if not _enter(lock, path, timeout_seconds):
            return Consumers(path, lock)
        check_sound(path)
        allocate_lock_file(path)
        consumers = Consumers(path, lock)
        try:
            consumers.check_rows()
            _sync(path, stream_path)
            lock.try_shared(OPEN)
        except BaseException:
            consumers.close()
            raise
        return consumers
    except BaseException:
        lock.close()
        raise


def open_consumers_to_read(files: Files, stream_path: str) -> Consumers:
    """Open a copy of the environment of a stream that nobody has open. Raises InvalidArgument where there is none."""
    path = f"{stream_path}/{names.CONSUMERS}"
    if not files.exists(f"{path}/{DATA_FILE}"):
        raise InvalidArgument(f"{path}: expected groups of consumers, found none")
    check_sound(path)
    copy = tempfile.TemporaryDirectory(prefix="shardlog-")
    try:
        with translated("copy", path):
            shutil.copyfile(f"{path}/{DATA_FILE}", f"{copy.name}/{DATA_FILE}")
        consumers = Consumers(path, files.open_lock_to_read(f"{path}/{names.LOCK}"), copy)
        try:
            consumers.check_rows()
        except BaseException:
            consumers.close()
            raise
        return consumers
    except BaseException:
        copy.cleanup()
        raise


def check_sound(path: str) -> None:
    """Raise CorruptLog where LMDB's file is not sound. Nobody may have it open."""
    data = f"{path}/{DATA_FILE}"
    if not os.path.exists(data) or os.path.getsize(data) == 0:
        return
    try:
        problems = lmdb.verify.verify(data)  # type: ignore[no-untyped-call]
    except (lmdb.verify.VerifyError, OSError) as error:
        problems = [error]
    if problems:
        raise CorruptLog(f"{data}: leases and checkpoints are damaged: {problems[0]}; fsck --repair keeps what is good")


def _enter(lock: LockFile, path: str, timeout_seconds: float) -> bool:
    """Wait to be let in; whether nobody else is there, which the lock says until it is shared."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        if lock.try_exclusive(OPEN):
            return True
        if lock.try_shared(OPEN):
            return False
        if time.monotonic() > deadline:
            raise StoreLocked(f"{path}: another process is opening it; waited {timeout_seconds:g} s")
        time.sleep(_PAUSE_SECONDS)


def _sync(*paths: str) -> None:
    """Make files, and names in directories, durable; LMDB syncs what it writes itself."""
    for path in paths:
        with translated("sync", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


# Environments inherited through a fork: referenced for ever, so that they are never closed.
_abandoned: list[lmdb.Environment] = []

"""Installing the hooks into moto, and taking them out.

One installation per process, and one process per store: at its start the streams of all tables are disabled, because
tables live in memory and there are none yet, and two processes would do that to each other. A lock on the store's
directory, which ends with the process, keeps the second one out.
"""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

import shardlog
from shardlog.api import Store
from shardlog.clock import Clock, SystemClock
from shardlog.errors import InvalidArgument, StoreLocked
from shardlog.moto.versions import check_moto
from shardlog.server.catalogue import Catalogue
from shardlog.server.operations import StreamsApi

_installed = threading.Lock()


class Installed:
    """The hooks, until `uninstall`. A context manager."""

    def __init__(self, store: Store, delete_expired: Callable[[], int], undo: ExitStack) -> None:
        self.store = store
        self._delete_expired = delete_expired
        self._undo = undo

    def delete_expired_items(self) -> int:
        """Delete the items whose time to live is over, as the service does now and then; returns how many."""
        return self._delete_expired()

    def uninstall(self) -> None:
        """Take the hooks out and close the store. Twice is harmless."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()


def install(path: str | os.PathLike[str], *, durability: str = "fsync", clock: Clock | None = None) -> Installed:
    """Record the streams of moto's tables in a store, which is made where there is none, until uninstalled.

    `durability`: "os" is enough for tests, and faster. `clock` is for tests, too.

    Raises InvalidArgument where moto is not of a tested version or this is installed already, StoreLocked where another
    process records into the store.
    """
    check_moto()
    undo = ExitStack()
    try:
        store = undo.enter_context(shardlog.open(path, clock=clock))
        return install_into(store, clock or SystemClock(), durability, undo, observe_append=lambda *_: None)
    except BaseException:
        undo.close()
        raise


def install_into(
    store: Store,
    clock: Clock,
    durability: str,
    undo: ExitStack,
    *,
    observe_append: Callable[[int, float], None],
    observe_page: Callable[[str, int, float], None] = lambda *_: None,
) -> Installed:
    """`install` into an open store; what takes it out is put on `undo`."""
    check_moto()
    # Only now: without the extra there is no moto to import, and with another version its insides may differ.
    from shardlog.moto.expiring import delete_expired
    from shardlog.moto.hooks import patches
    from shardlog.moto.recording import Recorder, StreamSettings
    from shardlog.moto.tokens import Tokens

    if not _installed.acquire(blocking=False):
        raise InvalidArgument("moto: streams are recorded by this process already; uninstall that first")
    undo.callback(_installed.release)
    _lock_store(store.path, undo)
    recorder = Recorder(store, StreamSettings(durability=durability), observe_append)
    recorder.disable_all()
    api = StreamsApi(Catalogue(store, clock), clock, observe_page)
    for patch in patches(recorder, api, Tokens(clock), lambda: str(uuid.uuid4())):
        undo.enter_context(patch)
    undo.callback(recorder.release_tables)
    return Installed(store, lambda: delete_expired(recorder, clock), undo)


def _lock_store(path: str, undo: ExitStack) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    undo.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreLocked(f"{path}: another process records tables' changes into this store") from None

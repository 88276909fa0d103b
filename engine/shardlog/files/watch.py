"""Waiting for a file to be written, by any process, without polling.

One thread per watched file sleeps in inotify(7) and wakes everybody who waits in this process. Once a second it looks
by itself, and wakes them where what they wait for is not as it was: a hundred who wait cost what one thread costs.
Where inotify is not to be had (its instances are limited), it looks at the file's state instead, every 50 ms.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from shardlog.errors import ShardlogError
from shardlog.files.posix import translated

_IN_MODIFY: Final = 0x2
_IN_NONBLOCK: Final = os.O_NONBLOCK
_IN_CLOEXEC: Final = os.O_CLOEXEC
_EVENT_BYTES: Final = 4096
_POLL_MS: Final = 50
_OVERLOOKED_MS: Final = 1000
"""So often it looks without being told: a writer may die after publishing, before it writes to the file."""
_TICK_NS: Final = 20_000_000
"""Times of files are this coarse, or finer: two writes may leave the same one."""

_log = logging.getLogger("shardlog")


class Watch:
    """Wakes those who wait whenever the file is written. Starts its thread when somebody first waits.

    `look`: a value that differs whenever there is something new for them; as it is, always. Where it raises, they are
    woken to find out.
    """

    def __init__(self, path: str, look: Callable[[], object] = object) -> None:
        self._path = path
        self._look = look
        self._looked_at: object = None
        self._condition = threading.Condition()
        self._turn = 0
        self._callbacks: set[Callable[[], None]] = set()
        self._closed = False
        self._stop = -1
        self._thread: threading.Thread | None = None

    def turn(self) -> int:
        """A number that grows with every write seen. Ask for it *before* looking whether there is something new."""
        with self._condition:
            if self._thread is None and not self._closed:
                self._start()
            return self._turn

    def wait(self, turn: int, timeout_seconds: float | None) -> bool:
        """Wait until there is a later turn; False after the timeout or when closed."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        with self._condition:
            while self._turn == turn and not self._closed:
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return False
                self._condition.wait(remaining)
            return not self._closed

    def add_callback(self, callback: Callable[[], None]) -> None:
        """Call `callback` from the watching thread at every later turn, and when closed."""
        with self._condition:
            self._callbacks.add(callback)

    def remove_callback(self, callback: Callable[[], None]) -> None:
        """Stop calling it."""
        with self._condition:
            self._callbacks.discard(callback)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """End the thread and all waiting; twice is harmless."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is not None:
            os.eventfd_write(self._stop, 1)
            thread.join()
            os.close(self._stop)
        self.announce()

    def abandon(self) -> None:
        """Forget it in a forked child, where the thread does not run and the lock may be held for ever."""
        self._condition = threading.Condition()
        self._closed = True
        self._thread = None

    def _start(self) -> None:
        with translated("watch", self._path):
            self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        descriptor = _inotify(self._path)
        if descriptor < 0:
            _log.warning("inotify cannot watch %s; looking at it every %d ms instead", self._path, _POLL_MS)
        run = self._poll if descriptor < 0 else lambda: self._listen(descriptor)
        self._thread = threading.Thread(target=run, name="shardlog-watch", daemon=True)
        self._thread.start()

    def _listen(self, descriptor: int) -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        try:
            while True:
                events = poll.poll(_OVERLOOKED_MS)
                if any(ready == self._stop for ready, _ in events):
                    return
                if events:
                    with suppress(BlockingIOError):
                        os.read(descriptor, _EVENT_BYTES)
                    self.announce()
                elif self._has_news():
                    self.announce()
        finally:
            os.close(descriptor)

    def _has_news(self) -> bool:
        """Whether something is new since it last looked."""
        before = self._looked_at
        try:
            self._looked_at = self._look()
        except ShardlogError:
            return True
        return self._looked_at != before

    def _poll(self) -> None:
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        seen = -1
        while not poll.poll(_POLL_MS):
            try:
                written_ns = os.stat(self._path).st_mtime_ns
            except FileNotFoundError:
                written_ns = 0  # the stream was deleted: whoever waits has to look
            if written_ns != seen:
                # So young a time may come to stand for another write: look again.
                seen = -1 if abs(time.time_ns() - written_ns) < _TICK_NS else written_ns
                self.announce()

    def announce(self) -> None:
        """Wake everybody who waits, as a write would."""
        with self._condition:
            self._turn += 1
            self._condition.notify_all()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()


def _inotify(path: str) -> int:
    """A descriptor that is readable when the file was written; -1 where there is none to be had."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if descriptor >= 0 and library.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
        os.close(descriptor)
        return -1
    return int(descriptor)

"""Ending a wait from anywhere: another thread, a signal handler, the thread that watches the log."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Bell:
    """eventfd(2) takes no lock that the thread which a signal interrupts may hold.

    It is closed when nobody knows it any more: who rings may do so at any time, and must not write to what has become
    another file.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def ring(self) -> None:
        """End the present wait, or the next."""
        with suppress(BlockingIOError):  # it was rung 2^64 times
            os.eventfd_write(self._descriptor, 1)

    def wait(self, timeout_us: int) -> None:
        """Wait until it rings, for so long at most; one thread at a time."""
        self._poll.poll(max(0, -(-timeout_us // 1000)))
        with suppress(BlockingIOError):
            os.eventfd_read(self._descriptor)

    def __del__(self) -> None:
        os.close(self._descriptor)


@contextmanager
def called_at_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` when SIGTERM comes, where this is the main thread: only there can signals be caught."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)

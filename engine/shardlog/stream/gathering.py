"""Who commits, and what: the queue of a group commit, led by one of those who wait in it.

The first to come leads: it takes all that is queued, up to 64 MiB, and commits it; what comes meanwhile waits. When the
commit is done, those in it are woken, and the first that came since leads next. So a thread sleeps until its own
requests have their outcome or it is its turn to lead, and nobody is woken to find that there is nothing to do.

Ctrl-C may strike between any two steps, and who is interrupted must not leave a queue that waits for it for ever. So
whoever comes ends with `_leave`, however it ends. Each step moves a ticket by adding it to where it goes before taking
it from where it was, and `_leave` can be taken again from the start at any of its own steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from shardlog.options import APPEND_BYTES_MAX


class Gathered(Protocol):
    """What can be queued."""

    @property
    def is_done(self) -> bool:
        """Whether it has its outcome."""
        ...

    @property
    def body_bytes(self) -> int:
        """What it adds to a commit."""
        ...


Item = TypeVar("Item", bound=Gathered)


class _Ticket(Generic[Item]):
    """Requests of one caller, what it sleeps on, and (when it leads) the tickets that it commits."""

    __slots__ = ("has_left", "requests", "size", "taken", "wake")

    def __init__(self, requests: Sequence[Item]) -> None:
        self.requests = requests
        self.size = requests[0].body_bytes if len(requests) == 1 else sum(request.body_bytes for request in requests)
        self.taken: list[_Ticket[Item]] = []
        self.has_left = False
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def is_done(self) -> bool:
        for request in self.requests:  # noqa: SIM110 - `all` of a generator takes three times as long
            if not request.is_done:
                return False
        return True

    def rouse(self) -> None:
        """Wake whoever sleeps on it; twice is harmless."""
        if self.wake.locked():
            self.wake.release()


class Gathering(Generic[Item]):
    """The queue. `commit` gives every request that it is handed its outcome, unless it is interrupted."""

    def __init__(self, commit: Callable[[list[Item]], None]) -> None:
        self._commit = commit
        self._pending: deque[_Ticket[Item]] = deque()
        self._mutex = threading.Lock()
        self._leader: _Ticket[Item] | None = None
        """Who commits now. None only while nobody is pending."""

    def submit(self, requests: Sequence[Item]) -> None:
        """Have requests committed, by this thread or another; returns when they have their outcomes."""
        ticket = _Ticket(requests)
        try:
            with self._mutex:
                self._pending.append(ticket)
                if self._leader is None:
                    self._leader = ticket
            while self._leader is not ticket and not ticket.is_done:
                ticket.wake.acquire()
                if not ticket.is_done:
                    with self._mutex:
                        pass  # who rouses us to lead holds it until all is handed over
            if self._leader is ticket:
                self._take(ticket)
                self._commit([request for taken in ticket.taken for request in taken.requests])
        finally:
            try:
                self._leave(ticket)
            except BaseException:
                self._leave(ticket)
                raise

    def abandon(self) -> None:
        """Forget everything, in a forked child."""
        self._pending.clear()
        self._mutex = threading.Lock()
        self._leader = None

    def _take(self, leader: _Ticket[Item]) -> None:
        size = 0
        with self._mutex:
            while self._pending and (not leader.taken or size + self._pending[0].size <= APPEND_BYTES_MAX):
                leader.taken.append(self._pending[0])
                size += self._pending[0].size
                self._pending.popleft()

    def _leave(self, own: _Ticket[Item]) -> None:
        """Leave the queue; who leads hands the lead on, and what an interrupted commit left without outcome with it."""
        if own.is_done and self._leader is not own:
            return
        own.has_left = True
        with self._mutex:
            if own in self._pending:
                self._pending.remove(own)
            if self._leader is not own:
                return
            for ticket in reversed(own.taken):
                if ticket.is_done:
                    ticket.rouse()
                elif not ticket.has_left and ticket not in self._pending:
                    self._pending.appendleft(ticket)
            successor = self._pending[0] if self._pending else None
            if successor is not None:
                successor.rouse()
            self._leader = successor

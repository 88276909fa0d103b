"""Who commits, and what: the queue of a group commit, led by one of those who wait in it.

The first to come leads: it takes all that is queued, up to 64 MiB, and commits it; what comes meanwhile waits. When the
commit is done, those in it are woken, and the first that came since leads next. So a thread sleeps until its own
requests have their outcome or it is its turn to lead, and nobody is woken to find that there is nothing to do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from shardlog.options import APPEND_BYTES_MAX
from shardlog.stream.append import Request


class _Ticket:
    """Requests of one caller, and what it sleeps on."""

    __slots__ = ("leads", "requests", "size", "wake")

    def __init__(self, requests: list[Request]) -> None:
        self.requests = requests
        self.size = sum(request.body_bytes for request in requests)
        self.leads = False
        self.wake = threading.Lock()
        self.wake.acquire()

    @property
    def is_done(self) -> bool:
        return all(request.is_done for request in self.requests)


class Gathering:
    """The queue. `commit` gives every request that it is handed its outcome, unless it is interrupted."""

    def __init__(self, commit: Callable[[list[Request]], None]) -> None:
        self._commit = commit
        self._pending: deque[_Ticket] = deque()
        self._mutex = threading.Lock()
        self._is_led = False

    def submit(self, requests: list[Request]) -> None:
        """Have requests committed, by this thread or another; returns when they have their outcomes."""
        ticket = _Ticket(requests)
        with self._mutex:
            self._pending.append(ticket)
            ticket.leads = not self._is_led
            self._is_led = True
        if not ticket.leads:
            self._sleep(ticket)
        if ticket.leads:
            self._lead(ticket)

    def abandon(self) -> None:
        """Forget everything, in a forked child."""
        self._pending.clear()
        self._mutex = threading.Lock()
        self._is_led = False

    def _sleep(self, ticket: _Ticket) -> None:
        try:
            ticket.wake.acquire()
        except BaseException:  # interrupted: leave the queue, and do not take the lead along
            with self._mutex:
                if ticket in self._pending:
                    self._pending.remove(ticket)
            if ticket.leads:
                self._pass_on()
            raise

    def _lead(self, own: _Ticket) -> None:
        taken: list[_Ticket] = []
        try:
            self._take(taken)
            self._commit([request for ticket in taken for request in ticket.requests])
        finally:
            # An interrupted commit leaves requests without outcome: they wait for the next leader, but for our own.
            undone = [ticket for ticket in taken if not ticket.is_done and ticket is not own]
            with self._mutex:
                self._pending.extendleft(reversed(undone))
            for ticket in taken:
                if ticket is not own and ticket not in undone:
                    ticket.wake.release()
            self._pass_on()

    def _take(self, taken: list[_Ticket]) -> None:
        size = 0
        with self._mutex:
            while self._pending and (not taken or size + self._pending[0].size <= APPEND_BYTES_MAX):
                ticket = self._pending.popleft()
                size += ticket.size
                taken.append(ticket)

    def _pass_on(self) -> None:
        with self._mutex:
            if not self._pending:
                self._is_led = False
                return
            successor = self._pending[0]
            successor.leads = True
        successor.wake.release()

"""One connection, guarded: heads that are too large or too slow, and readers that do not read, are cut off.

uvicorn's own protocol waits for ever for the rest of a head; this adds what it lacks, and nothing else.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shardlog.server.http import Limits


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with limits on heads and on answers that nobody takes."""

    def __init__(self, limits: Limits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._head_bytes = 0
        self._head_timer: TimerHandle | None = None
        self._stall_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the time."""
        self._head_arrived()
        self._caught_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts bytes while a head is incomplete."""
        is_in_head = self._head_timer is not None
        super().data_received(data)
        if is_in_head and self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes_max and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._head_arrived()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._limits.stall_seconds, self._cut_off)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._caught_up()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self._cut_off)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _caught_up(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _cut_off(self) -> None:
        """Time is over: what was not sent is dropped, or it would be kept for ever."""
        self._head_timer = self._stall_timer = None
        self.transport.abort()

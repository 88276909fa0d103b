"""One connection, guarded: heads that are too large or too slow, and readers that do not read, are cut off.

uvicorn's own protocol waits for ever for the rest of a head, and, over TLS, half a minute for a client to agree that
the connection ends; this adds what it lacks, and nothing else. At every moment one of these is so: a request is under
way (the application limits it), uvicorn's timer for idle connections runs, the time for a head runs, or the connection
is closing.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle
from contextlib import suppress
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shardlog.server.http import Limits

REFUSED_MAX: Final = 64
"""So many connections beyond the limit are told 503, if they ask for something; more are cut off as they come."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with limits on heads, on answers that nobody takes, and on how long ending takes."""

    def __init__(self, limits: Limits, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._head_bytes = 0
        self._head_timer: TimerHandle | None = None
        self._stall_timer: TimerHandle | None = None
        self._end_timer: TimerHandle | None = None
        self._is_stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first head."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections_max + REFUSED_MAX:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the time."""
        self._head_arrived()
        self._caught_up()
        if self._end_timer is not None:
            self._end_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts bytes while a head is incomplete. Bytes that begin no request do not make a connection busy."""
        if self.transport.is_closing():
            return  # TLS gives what came before the end
        is_in_head = self._head_timer is not None
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_timer is None:
            if self._is_idle():
                self._await_head()  # a bare CRLF, say: uvicorn has stopped its own timer, and no head has begun
        elif is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes_max:
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

    def on_response_complete(self) -> None:
        """An answer was given to the transport."""
        super().on_response_complete()
        if self._is_stopping and self.transport.is_closing():
            self._end_soon()

    def shutdown(self) -> None:
        """The server stops: ends the connection, after the request that is under way if there is one."""
        self._is_stopping = True
        if not self.transport.is_closing():
            super().shutdown()
        if self._is_idle():
            self._end_soon()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        if self._stall_timer is None:
            self._stall_timer = self.loop.call_later(self._limits.stall_seconds, self._cut_off)

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._caught_up()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

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

    def _end_soon(self) -> None:
        """Over TLS closing asks the client, and one that pools its connections does not look."""
        self._end_timer = self.loop.call_later(self._limits.end_seconds, self._end)

    def _end(self) -> None:
        with suppress(AttributeError):  # asyncio's TLS transport forgets what it is over when it is closed twice
            if self.transport.get_write_buffer_size() > 0:
                self._end_soon()
                return
        self.transport.abort()

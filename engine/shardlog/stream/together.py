"""Appends of asyncio tasks, committed together: many tasks share a sync, and none blocks the loop."""

from __future__ import annotations

import asyncio
import weakref

from shardlog.model import Appended
from shardlog.stream.append import Request, encode_request
from shardlog.stream.open_stream import OpenStream

_Waiting = tuple[Request, "asyncio.Future[Appended]"]


class AsyncAppends:
    """What the tasks of each event loop wait for. One thread at a time commits what has gathered meanwhile."""

    def __init__(self, stream: OpenStream) -> None:
        self._stream = stream
        self._waiting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, list[_Waiting]] = (
            weakref.WeakKeyDictionary()
        )
        self._committers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = (
            weakref.WeakKeyDictionary()
        )

    async def append(self, request: Request) -> Appended:
        """Commit a request. Cancelling the caller does not take it back."""
        encode_request(request, self._stream.commits.router)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = loop.create_future()
        self._waiting.setdefault(loop, []).append((request, future))
        if loop not in self._committers:
            self._committers[loop] = loop.create_task(self._commit(loop))
        return await future

    async def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while waiting := self._waiting.pop(loop, []):
                await asyncio.to_thread(self._stream.append_many, [request for request, _ in waiting])
                for request, future in waiting:
                    if future.done():
                        continue  # its task was cancelled
                    if request.error is not None:
                        future.set_exception(request.error)
                    else:
                        future.set_result(request.outcome())
        finally:
            self._committers.pop(loop, None)

"""A server in a thread of the test's process, whose insides can be looked at."""

from __future__ import annotations

import gc
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support.background import Background, wait_until

from shardlog.server.running import Settings, _Server, serve


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[_Server, int]]:
    """The server, and its port."""
    servers: list[_Server] = []
    addresses: list[str] = []
    original = _Server.startup

    async def startup(self: _Server, sockets: list[socket.socket] | None = None) -> None:
        servers.append(self)
        await original(self, sockets)

    thresholds, files = gc.get_threshold(), resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_Server, "startup", startup)
        running = Background(serve, settings, addresses.append)
        wait_until(lambda: addresses or not running.is_running)
    try:
        yield servers[0], int(addresses[0].rpartition(":")[2])
    finally:
        for server in servers:
            server.should_exit = True
        running.result()
        gc.set_threshold(*thresholds)
        resource.setrlimit(resource.RLIMIT_NOFILE, files)

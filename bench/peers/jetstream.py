"""NATS JetStream: a message per change, published without waiting in between; a commit ends when all are acknowledged.

A server of its own with a file store, and `sync_interval: always` where the server knows that: then each message is
synced before it is acknowledged. Where it does not (Debian 12 has 2.9, which does not), the server syncs every two
minutes, and so is *not* as durable as the others: what it acknowledged may be lost in a power cut. The `setting` says
which it is. Nor is a commit all or none: it has no transactions here.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import nats
from nats.js.api import StorageType

from bench.peers import program
from shardlog import Change
from shardlog.format.values import encode

_ALWAYS: Final = "sync_interval: always"
_START_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.01
_SUBJECT: Final = "changes"
_PENDING_MAX: Final = 4_000
_ACKNOWLEDGED_SECONDS: Final = 60.0


class JetStream:
    """A server, an event loop and one connection."""

    name = "NATS JetStream"
    untimed_seconds = 0.0

    def __init__(self, directory: str) -> None:
        path = Path(directory, "nats")
        path.mkdir()
        self._loop = asyncio.new_event_loop()
        self._process: subprocess.Popen[bytes] | None = None
        if self._start(path, _ALWAYS):
            self.setting = _ALWAYS
        elif self._start(path, ""):
            self.setting = "NOT synced before it acknowledges: this server only syncs every 2 minutes"
        else:
            raise OSError("nats-server does not start with a file store")
        self._loop.run_until_complete(self._connect(path))

    def commit(self, changes: list[Change]) -> None:
        self._loop.run_until_complete(self._publish(changes))

    def close(self) -> None:
        with suppress(Exception):
            self._loop.run_until_complete(self._client.close())
        self._loop.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _start(self, path: Path, sync: str) -> bool:
        """Start the server; False if it does not know the setting."""
        config = path / "nats.conf"
        config.write_text(
            f'host: 127.0.0.1\nport: -1\nports_file_dir: "{path}"\njetstream {{\n store_dir: "{path}"\n {sync}\n}}\n'
        )
        server = program("nats-server") or "nats-server"
        if subprocess.run([server, "-t", "-c", config], capture_output=True, check=False).returncode:
            return False
        self._process = subprocess.Popen([server, "-c", config, "-l", os.path.join(path, "log")])
        return True

    async def _connect(self, path: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not (ports := list(path.glob("*.ports"))):
            if time.monotonic() > deadline:
                raise OSError("nats-server did not start")
            await asyncio.sleep(_PAUSE_SECONDS)
        (url,) = json.loads(ports[0].read_text())["nats"]
        self._client = await nats.connect(url, pending_size=64 << 20)
        self._jetstream = self._client.jetstream(publish_async_max_pending=_PENDING_MAX)
        await self._jetstream.add_stream(name=_SUBJECT, subjects=[_SUBJECT], storage=StorageType.FILE)

    async def _publish(self, changes: list[Change]) -> None:
        publish = self._jetstream.publish_async
        futures = [await publish(_SUBJECT, encode(change.row)) for change in changes]
        await asyncio.wait_for(asyncio.gather(*futures), _ACKNOWLEDGED_SECONDS)

"""Redis Streams: an XADD per change, the commit's in one pipelined MULTI/EXEC, `appendfsync always`.

A server of its own on a Unix socket; with `appendfsync always` it writes and fsyncs its append-only file before it
replies. Snapshots are off. Through `redis` with `hiredis` where that is installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from typing import Final

import redis

from bench.peers import program
from shardlog import Change
from shardlog.format.values import encode

_START_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.01
_STREAM: Final = "changes"


class RedisStreams:
    """A server and one connection."""

    name = "Redis Streams"
    setting = "appendfsync always, MULTI/EXEC"
    untimed_seconds = 0.0

    def __init__(self, directory: str) -> None:
        path = os.path.join(directory, "redis")
        os.mkdir(path)
        # Not beside the data: the path of a socket may have 107 bytes only (unix(7)).
        self._socket_directory = tempfile.mkdtemp(prefix="redis-")
        socket = os.path.join(self._socket_directory, "socket")
        options = {
            "port": "0",
            "unixsocket": socket,
            "dir": path,
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "loglevel": "warning",
            "logfile": os.path.join(path, "log"),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([program("redis-server") or "redis-server", *words])
        self._client = redis.Redis(unix_socket_path=socket)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.close()
                raise OSError("redis-server did not start")
            time.sleep(_PAUSE_SECONDS)

    def commit(self, changes: list[Change]) -> None:
        with self._client.pipeline(transaction=True) as pipeline:
            for change in changes:
                pipeline.execute_command("XADD", _STREAM, "*", b"b", encode(change.row))
            pipeline.execute()

    def close(self) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._socket_directory)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

"""Child processes of tests, started by forking `tests.support.child_server`, and the channel to talk to them."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.support.background import LIMIT_SECONDS

ROOT = Path(__file__).resolve().parents[2]
MESSAGE_BYTES_MAX = 1 << 20


class Channel:
    """Messages, any pickled values, in both directions. What was sent survives the sender's SIGKILL."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(LIMIT_SECONDS)

    def send(self, message: object) -> None:
        """Send a message."""
        self._connection.send(pickle.dumps(message))

    def receive(self) -> Any:
        """The next message. Raises EOFError where the other side has ended."""
        content = self._connection.recv(MESSAGE_BYTES_MAX)
        if not content:
            raise EOFError
        return pickle.loads(content)

    def rest(self) -> list[Any]:
        """All messages until the other side ends."""
        messages = []
        while True:
            try:
                messages.append(self.receive())
            except (EOFError, ConnectionResetError):
                return messages

    def close(self) -> None:
        """Close this side."""
        self._connection.close()


class Child(Channel):
    """A child process, and the channel to it."""

    def __init__(self, connection: socket.socket, pid: int, children: Children) -> None:
        super().__init__(connection)
        self.pid = pid
        self._children = children
        self._status: int | None = None

    def wait(self) -> int:
        """Its exit status, as subprocess tells it: -9 when it was killed."""
        if self._status is None:
            self._status = int(self._children.ask(b"wait %d" % self.pid))
        return self._status

    def kill(self) -> None:
        """SIGKILL it, and wait until it is dead."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)
            assert self.wait() == -signal.SIGKILL


class Children:
    """Starts children. A context manager: at its end the server and all children are gone."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(LIMIT_SECONDS)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.child_server", str(theirs.fileno())],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split()])},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self._started: list[Child] = []

    def start(self, function: Callable[..., object], *arguments: object) -> Child:
        """Run `function(channel, *arguments)` in a child. The function must be importable by name."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self._control, [pickle.dumps((function, arguments))], [theirs.fileno()])
        theirs.close()
        child = Child(ours, int(self._control.recv(64)), self)
        self._started.append(child)
        return child

    def ask(self, request: bytes) -> bytes:
        """The server's answer to a request."""
        self._control.send(request)
        return self._control.recv(64)

    def end_all(self) -> None:
        """Kill who is still there."""
        for child in self._started:
            child.close()
            if child._status is None:
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
        self._started.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()
        self._control.close()
        assert self._server.wait(LIMIT_SECONDS) == 0

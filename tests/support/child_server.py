"""A process that forks children for tests: they start in milliseconds, with everything imported, and with one thread.

Requests come over a socket (its descriptor is the first argument), one message each: `wait <pid>` answers the exit
status; anything else is a pickled (function, arguments), comes with the child's end of its channel, and answers
the pid.
"""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import sys
import traceback

from tests.support.children import MESSAGE_BYTES_MAX, Channel

_IMPORTED_FIRST = ("asyncio", "pytest", "shardlog", "tests.support.faults", "tests.support.history")


def _serve(control: socket.socket) -> None:
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES_MAX, 1)
        if not request:
            return
        if request.startswith(b"wait "):
            _, status = os.waitpid(int(request[5:]), 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _run(request, Channel(socket.socket(fileno=descriptors[0])))
        os.close(descriptors[0])
        control.send(str(pid).encode())


def _run(request: bytes, channel: Channel) -> None:
    status = 1
    try:
        function, arguments = pickle.loads(request)
        function(channel, *arguments)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    for name in _IMPORTED_FIRST:
        importlib.import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])))

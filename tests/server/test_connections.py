"""Connections: how they are kept, how they end, how many there are, and the files of TLS."""

from __future__ import annotations

import json
import re
import resource
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.server.certificates import write_certificate
from tests.server.in_process import serving
from tests.support.background import LIMIT_SECONDS, wait_until
from tests.tools.commands import command_of

import shardlog
from shardlog import Change
from shardlog.errors import InvalidArgument
from shardlog.server.connections import REFUSED_MAX, GuardedProtocol
from shardlog.server.http import Limits
from shardlog.server.running import CONNECTIONS_LEAST, FILES_RESERVED, Settings, _Server, connections_within

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(params=["the fastest", "asyncio's own"])
def _loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop: their TLS differs."""
    if request.param == "asyncio's own":
        monkeypatch.setitem(sys.modules, "uvloop", None)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) as connection:
        yield connection


def answer(connection: socket.socket) -> bytes:
    """One answer, head and body."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(1)  # there may be another answer behind it
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = re.findall(rb"content-length: (\d+)", head)
    while len(body) < int(length):
        body += connection.recv(int(length) - len(body))
    return head + b"\r\n\r\n" + body


def is_ended(connection: socket.socket) -> bool:
    """Waits for the server to end a connection on which nothing is to be read."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def only_connection(server: _Server) -> GuardedProtocol:
    wait_until(lambda: len(server.server_state.connections) == 1)
    (found,) = server.server_state.connections
    assert isinstance(found, GuardedProtocol)
    return found


# How they end


@pytest.mark.usefixtures("_loop")
def test_a_stop_does_not_wait_for_pooled_connections(tmp_path: Path) -> None:
    """Over TLS, too, where an end is agreed upon, and a client that pools its connections does not look.

    The server may take a minute for requests under way; there are none, so it ends long before.
    """
    certfile, keyfile = write_certificate(tmp_path / "certificate")
    context = ssl.create_default_context(cafile=str(certfile))
    settings = Settings(
        path=str(tmp_path / "store"),
        port=0,
        certfile=str(certfile),
        keyfile=str(keyfile),
        limits=Limits(stop_seconds=60),
    )
    with ExitStack() as stack, serving(settings) as (_, port):
        for requests in (1, 0):  # one that was used, one that was opened only
            plain = stack.enter_context(connected(port))
            connection = stack.enter_context(context.wrap_socket(plain, server_hostname="localhost"))
            for _ in range(requests):
                connection.sendall(HEALTH)
                assert b"healthy" in answer(connection)


@pytest.mark.usefixtures("_loop")
@pytest.mark.parametrize("is_secure", [False, True])
def test_a_stop_waits_for_who_still_reads(tmp_path: Path, is_secure: bool) -> None:
    """What was asked before the stop is answered, and can be read to its end, however slowly; then the server ends."""
    with shardlog.open(tmp_path / "store") as store:
        stream = store.create_stream("large")
        stream.append([Change.insert(keys={"id": n}, new={"id": n, "t": "x" * 300_000}) for n in range(3)])
        description = stream.describe()
        token = stream.iterator(description.shards[0].shard_id, "TRIM_HORIZON")
    body = json.dumps({"ShardIterator": f"{description.arn}|1|{token}"}).encode()
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDBStreams_20120810.GetRecords\r\nContent-Length: %d\r\n\r\n"
    )
    certfile, keyfile = map(str, write_certificate(tmp_path / "certificate"))
    settings = Settings(
        path=str(tmp_path / "store"),
        port=0,
        certfile=certfile if is_secure else None,
        keyfile=keyfile if is_secure else None,
        limits=Limits(end_seconds=0.05, stop_seconds=60),
    )
    count = 12
    with ExitStack() as stack, serving(settings) as (server, port):
        connection = stack.enter_context(socket.socket())
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(LIMIT_SECONDS)
        connection.connect(("127.0.0.1", port))
        if is_secure:
            context = ssl.create_default_context(cafile=certfile)
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname="localhost"))
        protocol = only_connection(server)
        connection.sendall((head % len(body) + body) * count)
        wait_until(lambda: protocol.flow.write_paused)
        server.should_exit = True
        wait_until(lambda: protocol._is_stopping)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        for _ in range(count):
            assert b"x" * 300_000 in answer(connection)
        assert is_ended(connection)


def test_ending_waits_until_all_is_sent(tmp_path: Path) -> None:
    """The time to end a connection begins anew while something waits to be sent; then it is cut off."""

    class Transport:
        waiting = 5
        is_aborted = False

        def get_write_buffer_size(self) -> int:
            self.waiting -= 1
            return self.waiting

        def abort(self) -> None:
            self.is_aborted = True

    settings = Settings(path=str(tmp_path / "store"), port=0, limits=Limits(end_seconds=0.01, stop_seconds=1))
    with serving(settings) as (server, port), connected(port):
        protocol = only_connection(server)
        transport, protocol.transport = protocol.transport, Transport()  # type: ignore[assignment]
        protocol.loop.call_soon_threadsafe(protocol._end_soon)
        wait_until(lambda: protocol.transport.is_aborted)  # type: ignore[attr-defined]
        assert protocol.transport.waiting == 0  # type: ignore[attr-defined]
        protocol.transport = transport


# How long they are kept


@pytest.mark.parametrize("requests", [0, 1])
@pytest.mark.parametrize("content", [b"\r\n", b"\n", b"\r\n\r\n"])
def test_bytes_that_begin_no_request_do_not_keep_a_connection(tmp_path: Path, content: bytes, requests: int) -> None:
    """Before the first request and after one: the time for a head begins, and ends the connection."""
    limits = Limits(head_seconds=0.3, idle_seconds=3600, stop_seconds=1)
    with serving(Settings(path=str(tmp_path / "store"), port=0, limits=limits)) as (_, port), connected(port) as found:
        for _ in range(requests):
            found.sendall(HEALTH)
            assert b"healthy" in answer(found)
        found.sendall(content)
        assert is_ended(found)


def test_line_ends_between_requests(tmp_path: Path) -> None:
    """Are allowed; a connection that goes on is not cut off, neither while a request is under way nor after it."""
    limits = Limits(head_seconds=3600, stop_seconds=1)
    with serving(Settings(path=str(tmp_path / "store"), port=0, limits=limits)) as (server, port):
        with connected(port) as found:
            protocol = only_connection(server)
            for _ in range(3):
                found.sendall(b"\r\n" + HEALTH)
                assert b"healthy" in answer(found)
                wait_until(lambda: protocol.timeout_keep_alive_task is not None)
                assert protocol._head_timer is None
                found.sendall(b"\r\n")
                wait_until(lambda: protocol._head_timer is not None)


# How many there are


def test_connections_beyond_those_that_are_refused(tmp_path: Path) -> None:
    """Are cut off as they come: silent ones take files, too, and the log needs some."""
    limits = Limits(connections_max=5, stop_seconds=1)
    with serving(Settings(path=str(tmp_path / "store"), port=0, limits=limits)) as (server, port):
        with ExitStack() as stack:
            kept = [stack.enter_context(connected(port)) for _ in range(5 + REFUSED_MAX)]
            wait_until(lambda: len(server.server_state.connections) == len(kept))
            for _ in range(20):
                with connected(port) as found:
                    assert is_ended(found)
            kept[0].sendall(HEALTH)
            assert b" 503 " in answer(kept[0])
        wait_until(lambda: not server.server_state.connections)
        with connected(port) as found:
            found.sendall(HEALTH)
            assert b" 200 " in answer(found)


@pytest.mark.parametrize(
    ("files", "wanted", "expected"),
    [
        (1024, 2048, 1024 - FILES_RESERVED),
        (1 << 20, 2048, 2048),
        (resource.RLIM_INFINITY, 2048, 2048),
        (FILES_RESERVED, 2048, CONNECTIONS_LEAST),
        (FILES_RESERVED, 5, 5),
    ],
)
def test_connections_leave_files_to_the_log(files: int, wanted: int, expected: int) -> None:
    """As many as are wanted, but never all the files that the process may have open."""
    assert connections_within(files, wanted) == expected


def test_the_limit_on_open_files_is_raised(tmp_path: Path) -> None:
    """To the highest that the process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 700), hard))
    try:
        with serving(Settings(path=str(tmp_path / "store"), port=0, limits=Limits(stop_seconds=1))):
            assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_low_limit_on_open_files_is_said(tmp_path: Path) -> None:
    """Where it cannot be raised there are fewer connections, and the operator is told."""
    limited = [
        "bash",
        "-c",
        'ulimit -n 300 && exec "$@"',
        "bash",
        *command_of("serve", tmp_path / "store", "--port", 0),
    ]
    with subprocess.Popen(limited, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline().decode()]
        while lines[-1] and "serving" not in lines[-1]:
            lines.append(process.stderr.readline().decode())
        process.terminate()
    assert process.returncode == 0, lines
    assert "44 connections at most, not 2048: the limit on open files is 300" in "".join(lines)


# TLS's files


def test_the_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    """No certificate, no key, another certificate's key, one with a passphrase, the two exchanged."""
    certfile, keyfile = map(str, write_certificate(tmp_path / "right"))
    _, other = map(str, write_certificate(tmp_path / "other"))
    _, hidden = map(str, write_certificate(tmp_path / "hidden", b"open sesame"))
    garbage = tmp_path / "garbage.pem"
    garbage.write_bytes(b"garbage")
    Settings(path="unused", certfile=certfile, keyfile=keyfile).check()
    for given_cert, given_key, named in [
        (str(garbage), keyfile, garbage),
        (certfile, str(garbage), garbage),
        (certfile, other, other),
        (certfile, hidden, hidden),
        (keyfile, certfile, keyfile),
        (certfile, certfile, certfile),
    ]:
        with pytest.raises(InvalidArgument) as raised:
            Settings(path="unused", certfile=given_cert, keyfile=given_key).check()
        assert str(raised.value).startswith(f"{named}: expected ")

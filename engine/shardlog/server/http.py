"""The ASGI application: which request is for whom, its limits, and the bytes of its answer.

| request | answered by |
|---|---|
| POST, target `DynamoDBStreams_20120810.*` | the operations, in a thread of a pool |
| POST, target `DynamoDB_20120810.*` | the database, where there is one, in one thread: it is not made for more |
| `GET /` and `/health` | here |
| `GET /metrics` | the metrics, for loopback and for who has signed where signatures are asked for |
| `POST /_shardlog/*` | the admin calls, for loopback only |

Where signatures are asked for, every POST is verified; `/` and `/health` are everybody's. Nothing that a client sends
may end the server: an exception that nobody expected is logged and answered as InternalServerError.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from shardlog.server import metrics, protocol, signing
from shardlog.server.admin import Admin
from shardlog.server.catalogue import Scope
from shardlog.server.faults import Fault, access_denied, internal, too_large, unknown_operation
from shardlog.server.metrics import Metrics
from shardlog.server.operations import StreamsApi
from shardlog.server.protocol import Answer, Target, answer_of
from shardlog.server.signing import Request

ADMIN_PATH: Final = "/_shardlog/"

_TIMED_OUT: Final = 408
_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405
_PLAIN: Final = "text/plain; charset=utf-8"
_OTHER: Final = "other"

_log = logging.getLogger("shardlog")

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Database = Callable[[Request], Answer]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client may take."""

    body_bytes_max: int = 17 << 20
    """DynamoDB takes 16 MB."""
    body_seconds: float = 30.0
    """Time for a body to arrive."""
    head_bytes_max: int = 64 << 10
    head_seconds: float = 10.0
    """Time for a request's head to arrive, from the connection's first byte, or from its opening."""
    stall_seconds: float = 30.0
    """How long a client may let an answer wait before it takes more of it."""
    idle_seconds: int = 75
    """How long a connection is kept for the next request."""
    connections_max: int = 2048
    stop_seconds: int = 10
    """How long requests under way may take when the server stops."""
    end_seconds: float = 0.5
    """How long a client may take to end a connection when the server stops and has nothing more to send."""


class _Gone(Exception):
    """The client went away, or was too slow, or sent too much: the answer, if there is anybody to read it."""

    def __init__(self, answer: Answer | None) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The ASGI application. `secrets`: secret keys by access key; empty: requests need no signature."""

    api: StreamsApi
    admin: Admin
    metrics: Metrics
    pool: Executor
    limits: Limits
    secrets: Mapping[str, str]
    database: Database | None = None
    database_pool: Executor | None = None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = time.monotonic()
        operation, received = _OTHER, 0
        try:
            body = await self._body(scope, receive)
            received = len(body)
            request = Request(
                scope["method"],
                scope["raw_path"].decode("latin-1"),
                scope["query_string"].decode("latin-1"),
                [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
                body,
            )
            operation, answer = await self._answered(scope, request)
        except _Gone as gone:
            if gone.answer is None:
                return
            answer = gone.answer
            answer.headers.append(("connection", "close"))
        # Before it is sent: who has the answer finds itself counted.
        self.metrics.observe_request(operation, answer.status, time.monotonic() - started, received, len(answer.body))
        await _send(send, answer, is_head=scope["method"] == "HEAD")

    async def _body(self, scope: AsgiScope, receive: Receive) -> bytes:
        limit = self.limits.body_bytes_max
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise _Gone(_fault_answer(too_large(limit)))
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    event = await receive()
                    if event["type"] != "http.request":
                        raise _Gone(None)
                    parts.append(event.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _Gone(_fault_answer(too_large(limit)))
                    if not event.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise _Gone(_plain(_TIMED_OUT, "the body did not arrive in time")) from None

    async def _answered(self, scope: AsgiScope, request: Request) -> tuple[str, Answer]:
        """The operation, for the metrics, and the answer."""
        operation = _OTHER
        try:
            if request.method in ("GET", "HEAD"):
                return operation, await self._get(scope, request)
            if request.method != "POST":
                return operation, _plain(_NOT_ALLOWED, "GET or POST")
            self._verify(request)
            if request.path.startswith(ADMIN_PATH):
                return "admin", await self._administered(scope, request)
            target = protocol.parse_target(request.header("x-amz-target"))
            operation = self._known(target)
            return operation, await self._operated(target, request)
        except Fault as fault:
            return operation, _fault_answer(fault)
        except Exception:  # noqa: BLE001 - a mistake of ours must not end the server
            _log.exception("a request for %s failed", operation)
            return operation, _fault_answer(internal())

    def _verify(self, request: Request) -> None:
        if self.secrets:
            signing.verify(request, self.secrets, datetime.now(UTC))

    async def _get(self, scope: AsgiScope, request: Request) -> Answer:
        if request.path in ("/", "/health"):
            return _plain(protocol.OK, "healthy: shardlog\n")
        if request.path == "/metrics":
            if not _is_from_here(scope):
                self._verify(request)  # the figures name tables, streams and groups
            text = await self._in(self.pool, self.metrics.text)
            return Answer(protocol.OK, [("content-type", metrics.CONTENT_TYPE)], text)
        return _plain(_NOT_FOUND, "not found\n")

    def _known(self, target: Target) -> str:
        """The operation's name if it is one that we count: names that clients make up must not become metrics."""
        if target.service == protocol.STREAMS_SERVICE:
            return target.operation if target.operation in self.api.names else _OTHER
        return target.operation if target.service == protocol.DATABASE_SERVICE and self.database else _OTHER

    async def _operated(self, target: Target, request: Request) -> Answer:
        if target.service == protocol.STREAMS_SERVICE:
            credential = signing.credential_of(request.header("authorization"))
            scope = Scope(credential.region if credential else None)
            return await self._in(self.pool, lambda: self._called(target.operation, request.body, scope))
        if target.service == protocol.DATABASE_SERVICE and self.database is not None and self.database_pool is not None:
            database = self.database
            return await self._in(self.database_pool, lambda: database(request))
        raise unknown_operation(f"this server has no {target.service}")

    def _called(self, operation: str, body: bytes, scope: Scope) -> Answer:
        answer = self.api.call(operation, protocol.decode_members(body), scope)
        return protocol.encode_answer(answer, str(uuid.uuid4()))

    async def _administered(self, scope: AsgiScope, request: Request) -> Answer:
        # A page of some web site in a browser on this machine comes from loopback, too; it tells its origin.
        if not _is_from_here(scope) or request.header("origin") is not None:
            raise access_denied("admin calls are for programs on this machine")
        name = request.path.removeprefix(ADMIN_PATH)
        members = protocol.decode_members(request.body)
        # Where tables are, time to live and expiry touch them: in their own thread.
        answer = await self._in(self.database_pool or self.pool, lambda: self.admin.call(name, members))
        return protocol.encode_answer(answer, str(uuid.uuid4()))

    @staticmethod
    async def _in(pool: Executor, function: Callable[[], Value]) -> Value:
        return await asyncio.get_running_loop().run_in_executor(pool, function)


def is_loopback(host: str) -> bool:
    """Whether an address, or the name localhost, is this machine's own."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_from_here(scope: AsgiScope) -> bool:
    """Whether a request comes from this machine."""
    return is_loopback((scope.get("client") or ("",))[0])


def _fault_answer(fault: Fault) -> Answer:
    return protocol.encode_fault(fault, str(uuid.uuid4()))


def _plain(status: int, text: str) -> Answer:
    answer = answer_of(status, text.encode(), str(uuid.uuid4()))
    return answer._replace(headers=[("content-type", _PLAIN)])


async def _send(send: Send, answer: Answer, is_head: bool) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else answer.body})

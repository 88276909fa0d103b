"""The server as a process: its parts put together, its socket, TLS, its background work, and its end.

Stopping is graceful: no new connections, requests under way are answered, then the store is closed. What was
acknowledged was durable before, so a kill loses nothing either.

Connections and the log share what files the process may have open: as many as it can get, and a number of them is kept
from connections, because a log that cannot open a file has failed.
"""

from __future__ import annotations

import gc
import logging
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

import uvicorn

import shardlog
from shardlog.api import Store
from shardlog.clock import SystemClock
from shardlog.errors import InvalidArgument, ShardlogError
from shardlog.server.admin import Admin
from shardlog.server.catalogue import Catalogue
from shardlog.server.clock import OffsetClock
from shardlog.server.connections import GuardedProtocol
from shardlog.server.http import Application, Database, Limits, is_loopback
from shardlog.server.metrics import Metrics
from shardlog.server.operations import StreamsApi
from shardlog.server.turns import Turns

POOL_THREADS: Final = 4
"""Reading pages is Python's work mostly; more threads only wait for each other."""
SWEEP_SECONDS: Final = 60.0
FILES_RESERVED: Final = 256
"""Of the files that the process may have open: for the log, and for connections that are being refused."""
CONNECTIONS_LEAST: Final = 16
"""Served whatever the limit on files is."""
COLLECTION_THRESHOLDS: Final = (200_000, 20, 20)
"""For the garbage collector of the process, which is the server's own."""

_log = logging.getLogger("shardlog")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to serve a store. `port` 0: any that is free."""

    path: str
    host: str = "127.0.0.1"
    port: int = 8000
    secrets: Mapping[str, str] = field(default_factory=dict)
    certfile: str | None = None
    keyfile: str | None = None
    clock_offset: timedelta = timedelta(0)
    limits: Limits = field(default_factory=Limits)

    def check(self) -> None:
        """Raise InvalidArgument where it must not be served like this."""
        if not self.secrets and not is_loopback(self.host):
            raise InvalidArgument(
                f"host {self.host}: expected a loopback address, or --access-key and --secret-key: without signatures "
                "anybody who reaches this machine could read and write"
            )
        OffsetClock(SystemClock(), self.clock_offset)
        if (self.certfile is None) != (self.keyfile is None):
            raise InvalidArgument("certfile and keyfile go together")
        for name in (self.certfile, self.keyfile):
            if name is not None and not Path(name).is_file():
                raise InvalidArgument(f"{name}: expected a file in PEM format, found none")
        if self.certfile is not None and self.keyfile is not None:
            _check_certificate(self.certfile, self.keyfile)


def _check_certificate(certfile: str, keyfile: str) -> None:
    """Raise InvalidArgument that names the file that is wrong: what reads them does not say which."""
    try:
        # A key with a passphrase would ask the terminal for it.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")
        return
    except OSError as error:  # SSLError is one
        failure = error
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(certfile)
    except OSError as error:
        raise InvalidArgument(f"{certfile}: expected a certificate in PEM format: {error}") from None
    raise InvalidArgument(
        f"{keyfile}: expected the private key of {certfile}, in PEM format without a passphrase: {failure}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """A database beside the streams: how it answers, and its sweep of expired items, which tells how many.

    Both are called in one thread. A sweep that takes long gives way (`turns`).
    """

    answer: Database
    delete_expired: Callable[[], int]
    sweep_seconds: float = SWEEP_SECONDS


MakeTables = Callable[[Store, OffsetClock, Callable[[int, float], None]], AbstractContextManager[Tables]]
"""What makes them, of the store, the clock, and who is told of appends."""


def serve(settings: Settings, ready: Callable[[str], None], make_tables: MakeTables | None = None) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is told the address when connections are taken.

    Raises InvalidArgument, ShardlogError where the store cannot be opened, OSError where the port is taken.
    """
    settings.check()
    # A page is tens of thousands of objects that do not refer to each other: collecting among them halves the speed.
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    clock = OffsetClock(SystemClock(), settings.clock_offset)
    limits = replace(settings.limits, connections_max=_connections_max(settings.limits.connections_max))
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(settings.host, settings.port))
        store = stack.enter_context(shardlog.open(settings.path, clock=clock))
        catalogue = Catalogue(store, clock)
        metrics = Metrics(catalogue)
        tables: Tables | None = None
        if make_tables is not None:
            tables = stack.enter_context(make_tables(store, clock, metrics.observe_append))
        catalogue.streams()  # opened now, so that maintenance looks after them, and problems show
        store.start_maintenance()
        pool = stack.enter_context(ThreadPoolExecutor(POOL_THREADS, "shardlog-streams"))
        table_pool = stack.enter_context(Turns("shardlog-tables"))
        delete_expired = tables.delete_expired if tables else None
        application = Application(
            api=StreamsApi(catalogue, clock, metrics.observe_page),
            admin=Admin(catalogue, clock, delete_expired),
            metrics=metrics,
            pool=pool,
            limits=limits,
            secrets=settings.secrets,
            database=tables.answer if tables else None,
            database_pool=table_pool if tables else None,
        )
        stack.enter_context(_repeated(SWEEP_SECONDS, partial(_forget_streams, catalogue, metrics)))
        if tables is not None:
            sweep = tables.delete_expired
            stack.enter_context(_repeated(tables.sweep_seconds, lambda: table_pool.submit(sweep).result()))
        _run(application, settings, listener, ready)


def _forget_streams(catalogue: Catalogue, metrics: Metrics) -> None:
    catalogue.remove_expired()
    metrics.forget_removed()


def _connections_max(wanted: int) -> int:
    """As many of the connections that are wanted as there can be files for. Raises the process's limit on files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # it stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    found = connections_within(soft, wanted)
    if found < wanted:
        _log.warning("%d connections at most, not %d: the limit on open files is %d (ulimit -n)", found, wanted, soft)
    return found


def connections_within(files_max: int, wanted: int) -> int:
    """How many connections there may be, of so many wanted, where a process may have so many files open."""
    if files_max == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(files_max - FILES_RESERVED, CONNECTIONS_LEAST))


def _run(application: Application, settings: Settings, listener: socket.socket, ready: Callable[[str], None]) -> None:
    limits = application.limits
    scheme = "http" if settings.certfile is None else "https"
    config = uvicorn.Config(
        # Each is what its protocol asks for; the types of the two are spelt differently.
        cast("Any", application),
        http=cast("Any", partial(GuardedProtocol, limits)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who is on loopback must not be what a header says
        limit_concurrency=limits.connections_max,
        timeout_keep_alive=limits.idle_seconds,
        timeout_graceful_shutdown=limits.stop_seconds,
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    _Server(config, partial(ready, f"{scheme}://{shown}:{port}")).run([listener])


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it takes connections, and ends instead of killing itself by the signal."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGTERM and SIGINT end it; a second SIGINT ends it without waiting."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    return listener


@contextmanager
def _repeated(seconds: float, work: Callable[[], object]) -> Generator[None, None, None]:
    """Do some work again and again, in a thread of its own. Its errors are logged."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            try:
                work()
            except ShardlogError as error:
                _log.error("background work failed: %s", error)
            except Exception:  # noqa: BLE001 - it is logged, and the next time may be better
                _log.exception("background work failed")

    thread = threading.Thread(target=run, name="shardlog-background", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        with suppress(RuntimeError):
            thread.join()

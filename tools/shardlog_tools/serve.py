"""`shardlog serve`: the DynamoDB Streams API over a store, and with --dynamodb the tables, too.

Owns the arguments. What serves is `shardlog.server`, which needs the extra `server`, and `shardlog.moto`, which needs
`dynamodb`; both are imported only here, and only when the command runs.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, get_args

from shardlog.options import Durability
from shardlog_tools.arguments import Subparsers, add_store_argument, duration, integer_between, positive_duration
from shardlog_tools.output import DONE, USED_WRONGLY, CommandFailed, Output

if TYPE_CHECKING:
    from shardlog.server.running import MakeTables, Settings

_PORT_MAX: Final = 65_535


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command's arguments."""
    parser = subparsers.add_parser(
        "serve",
        help="serve the DynamoDB Streams API over a store",
        description="Serve the DynamoDB Streams API over a store, which is made where there is none, until SIGTERM or "
        "Ctrl-C. With --dynamodb the same port takes the whole DynamoDB API: tables and items are in memory, their "
        "streams in the store. On loopback any credentials will do; --access-key and --secret-key switch on the "
        "verification of signatures, without which no other address is listened on. GET /health, GET /metrics.",
    )
    add_store_argument(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=integer_between(0, _PORT_MAX), default=8000, help="0: any that is free (default: %(default)s)"
    )
    parser.add_argument("--dynamodb", action="store_true", help="tables, too; needs the extra dynamodb")
    parser.add_argument(
        "--durability",
        choices=get_args(Durability),
        default="fsync",
        help="with --dynamodb: of tables' streams (default: %(default)s)",
    )
    parser.add_argument(
        "--ttl-interval",
        type=positive_duration,
        default="60s",
        metavar="TIME",
        help="with --dynamodb: how often items are deleted whose time to live is over (default: %(default)s)",
    )
    parser.add_argument("--access-key", metavar="KEY", help="take only requests signed with this key")
    parser.add_argument("--secret-key", metavar="SECRET", help="the secret of --access-key")
    parser.add_argument("--certfile", metavar="FILE", help="TLS: the certificate, in PEM format")
    parser.add_argument("--keyfile", metavar="FILE", help="TLS: its private key")
    parser.add_argument(
        "--clock-offset",
        type=duration,
        default="0s",
        metavar="TIME",
        help="for tests: how far the server's clock is ahead (default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, output: Output) -> int:
    """Serve; returns the exit status."""
    try:
        from shardlog.server.running import serve
    except ImportError as error:
        raise CommandFailed(f"serve needs the extra server: pip install 'shardlog[server]' ({error})") from error
    settings = _settings(args)
    make_tables = _make_tables(args) if args.dynamodb else None
    with _log_told(output):
        serve(settings, partial(_say_ready, args, output), make_tables)
    output.say("stopped")
    return DONE


def _settings(args: argparse.Namespace) -> Settings:
    from shardlog.errors import InvalidArgument
    from shardlog.server.running import Settings

    if (args.access_key is None) != (args.secret_key is None):
        raise CommandFailed("--access-key and --secret-key go together", USED_WRONGLY)
    settings = Settings(
        path=args.store,
        host=args.host,
        port=args.port,
        secrets={} if args.access_key is None else {args.access_key: args.secret_key},
        certfile=args.certfile,
        keyfile=args.keyfile,
        clock_offset=args.clock_offset or timedelta(0),
    )
    try:
        settings.check()
    except InvalidArgument as error:
        raise CommandFailed(str(error), USED_WRONGLY) from error
    return settings


def _make_tables(args: argparse.Namespace) -> MakeTables:
    from shardlog.moto.versions import check_moto

    check_moto()
    from shardlog.moto.tables import tables

    return partial(tables, durability=args.durability, sweep_seconds=args.ttl_interval.total_seconds())


def _say_ready(args: argparse.Namespace, output: Output, address: str) -> None:
    if output.as_json:
        output.object({"address": address, "store": args.store})
        output.write_out()
    else:
        what = "DynamoDB and DynamoDB Streams" if args.dynamodb else "DynamoDB Streams"
        output.say(f"serving {what} over {args.store} at {address}")


class _Telling(logging.Handler):
    """What the engine and the server log, as talk."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """One line, and the traceback where there is one."""
        self._output.say(self.format(record))


@contextmanager
def _log_told(output: Output) -> Iterator[None]:
    telling = _Telling(output)
    telling.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("shardlog")
    log.addHandler(telling)
    try:
        yield
    finally:
        log.removeHandler(telling)

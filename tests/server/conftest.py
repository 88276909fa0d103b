from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from tests.server.moto_tables import client
from tests.server.serving import Served, create_table, records_of, summary

import shardlog
import shardlog.moto
from shardlog import Store
from shardlog.moto.installing import Installed
from shardlog.server.catalogue import Catalogue, Scope
from shardlog.server.operations import StreamsApi
from shardlog.testing.clock import ManualClock

EVERYWHERE = Scope()


@pytest.fixture
def clock() -> ManualClock:
    """Stands still."""
    return ManualClock()


@pytest.fixture
def store(store_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A new store with the manual clock."""
    with shardlog.open(store_path, clock=clock) as store:
        yield store


@pytest.fixture
def api(store: Store, clock: ManualClock) -> StreamsApi:
    """The operations over the store."""
    return StreamsApi(Catalogue(store, clock), clock, lambda *_: None)


@pytest.fixture
def call(api: StreamsApi) -> Callable[..., dict[str, Any]]:
    """Calls an operation with members by name."""

    def call(operation: str, scope: Scope = EVERYWHERE, **members: Any) -> dict[str, Any]:
        return api.call(operation, members, scope)

    return call


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with tables, for the tests of a module."""
    with Served(tmp_path_factory.mktemp("tables") / "store", "--dynamodb", "--durability", "os") as served:
        yield served


@pytest.fixture
def installed(store_path: Path, clock: ManualClock) -> Iterator[Installed]:
    """The hooks in moto, and mock_aws."""
    with shardlog.moto.install(store_path, durability="os", clock=clock) as installed, mock_aws():
        yield installed


@pytest.fixture
def database(installed: Installed) -> Any:
    """A client for tables."""
    return client("dynamodb")


@pytest.fixture
def streams(installed: Installed) -> Any:
    """A client for streams."""
    return client("dynamodbstreams")


@pytest.fixture
def recorded(database: Any, streams: Any) -> Callable[[], list[tuple[Any, ...]]]:
    """What the table `users` has recorded."""
    arn = create_table(database)
    return lambda: summary(records_of(streams, arn))

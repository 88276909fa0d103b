from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.children import Children
from tests.support.history import new_stream
from tests.support.long_run import Summary
from tests.support.tally import CONTROL, PROPERTY, Tally

import shardlog
from shardlog import Store, Stream


def pytest_addoption(parser: pytest.Parser) -> None:
    """The long run: `make torture`."""
    parser.addoption("--torture", action="store_true", help="the long forms and the controls, and a summary of all")


def pytest_configure(config: pytest.Config) -> None:
    """Who runs the tests in the background may have SIGINT ignored, in every process below; these tests send it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    is_long = bool(config.getoption("torture"))
    if is_long:
        config.option.markexpr = f"torture or whole or {CONTROL}"
    config.pluginmanager.register(Summary(is_long))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A control's report tells of which harness it is one."""
    for item in items:
        item.user_properties += ((CONTROL, marker.args[0]) for marker in item.iter_markers(CONTROL))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """The figures of a test; those of all are summed up at the end of the run."""
    tally = Tally()
    request.node.user_properties.append((PROPERTY, tally.figures))
    return tally


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "store"


@pytest.fixture
def store(store_path: Path) -> Iterator[Store]:
    """A new store."""
    with shardlog.open(store_path) as store:
        yield store


@pytest.fixture
def stream(store: Store) -> Stream:
    """A new stream of one shard and small segments."""
    return new_stream(store)


@pytest.fixture
def seed() -> int:
    """A new seed for every run, printed; SHARDLOG_TEST_SEED gives one."""
    seed = int(os.environ.get("SHARDLOG_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SHARDLOG_TEST_SEED={seed}")
    return seed


@pytest.fixture(scope="session")
def child_server() -> Iterator[Children]:
    """Forks child processes for the whole run."""
    with Children() as children:
        yield children


@pytest.fixture
def children(child_server: Children) -> Iterator[Children]:
    """Starts child processes that do not outlive the test."""
    yield child_server
    child_server.end_all()

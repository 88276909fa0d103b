from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.history import new_stream

import shardlog
from shardlog import Group, Store, Stream
from shardlog.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still until a test moves it."""
    return ManualClock()


@pytest.fixture
def store(store_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A new store on that clock."""
    with shardlog.open(store_path, clock=clock) as store:
        yield store


@pytest.fixture
def stream(store: Store) -> Stream:
    """A new stream of two shards and small segments."""
    return new_stream(store, shards=2)


@pytest.fixture
def group(stream: Stream) -> Group:
    """A group that begins with the first record."""
    return stream.group("g")

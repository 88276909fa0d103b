from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.retention.aging import Aging

import shardlog
from shardlog import Store
from shardlog.testing.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """The clock of the store."""
    return ManualClock()


@pytest.fixture
def timed_store(store_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A store on a manual clock."""
    with shardlog.open(store_path, clock=clock) as store:
        yield store


@pytest.fixture
def aging(timed_store: Store, clock: ManualClock) -> Aging:
    """A stream of one shard that keeps records for a day."""
    return Aging(timed_store, clock)

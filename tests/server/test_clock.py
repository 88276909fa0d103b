"""The clock that tests move ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shardlog import Store
from shardlog.clock import datetime_of
from shardlog.errors import InvalidArgument
from shardlog.server.admin import Admin
from shardlog.server.catalogue import Catalogue
from shardlog.server.clock import LATEST, OffsetClock
from shardlog.server.faults import Fault
from shardlog.testing.clock import ManualClock


def test_it_is_not_moved_beyond_a_bound(store: Store, clock: ManualClock) -> None:
    """However often: what would pass it is refused, and the clock stays where it was and goes on."""
    moved = OffsetClock(clock)
    admin = Admin(Catalogue(store, moved), moved)
    century = int(timedelta(days=36_500).total_seconds())
    admin.call("clock", {"AdvanceSeconds": century})
    before = admin.call("clock", {})
    for seconds in (century, 1e10, century):
        with pytest.raises(Fault) as raised:
            admin.call("clock", {"AdvanceSeconds": seconds})
        assert raised.value.name == "ValidationException"
        assert "2200-01-01" in raised.value.text
    assert admin.call("clock", {"AdvanceSeconds": 0}) == before
    after = admin.call("clock", {"AdvanceSeconds": 1.5})
    assert after["OffsetSeconds"] == before["OffsetSeconds"] + 1.5


def test_the_bound_itself(clock: ManualClock) -> None:
    """Can be reached, and not passed by a microsecond; an offset to start with is held to it, too."""
    left = LATEST - datetime_of(clock.wall_us())
    moved = OffsetClock(clock, left)
    assert datetime_of(moved.wall_us()) == LATEST == datetime(2200, 1, 1, tzinfo=UTC)
    moved.advance(timedelta(0))
    with pytest.raises(InvalidArgument):
        moved.advance(timedelta(microseconds=1))
    with pytest.raises(InvalidArgument):
        OffsetClock(clock, left + timedelta(microseconds=1))
    with pytest.raises(InvalidArgument):
        moved.advance(timedelta(microseconds=-1))

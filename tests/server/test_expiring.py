"""Time to live where many items expire at once: in appends of a few, between which others have their turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from tests.server.moto_tables import client
from tests.server.serving import Served, create_table, records_of
from tests.support.background import LIMIT_SECONDS, Background, wait_until

from shardlog import Stream
from shardlog.errors import StorageFull
from shardlog.moto import expiring, recording
from shardlog.moto.expiring import ITEMS_PER_APPEND
from shardlog.moto.installing import Installed
from shardlog.server.turns import Turns
from shardlog.testing.clock import ManualClock

COUNT = 2 * ITEMS_PER_APPEND + 50
SPECIFICATION = {"Enabled": True, "AttributeName": "until"}
SWEPT = 1500
WRITERS = 3


@pytest.fixture
def turns() -> Iterator[Turns]:
    """The thread that the tables are in."""
    with Turns("test") as turns:
        yield turns


def fill(database: Any, count: int, until: int, table: str = "users", **more: Any) -> None:
    """Items with numbers as their keys that expire at some time."""
    items = [{"id": {"S": f"{number:04}"}, "until": {"N": str(until)}, **more} for number in range(count)]
    for first in range(0, count, 25):
        puts = [{"PutRequest": {"Item": item}} for item in items[first : first + 25]]
        assert not database.batch_write_item(RequestItems={table: puts})["UnprocessedItems"]


def fill_expired(database: Any, clock: ManualClock, count: int = COUNT, **more: Any) -> None:
    """The same, and their time comes."""
    database.update_time_to_live(TableName="users", TimeToLiveSpecification=SPECIFICATION)
    fill(database, count, clock.wall_us() // 1_000_000 + 60, **more)
    clock.advance(timedelta(minutes=2))


def stream_of(installed: Installed) -> Stream:
    ((name, label),) = installed.store.names()
    return installed.store.stream(name, label)


def ids_left(database: Any) -> set[str]:
    pages = database.get_paginator("scan").paginate(TableName="users")
    return {item["id"]["S"] for page in pages for item in page["Items"]}


def test_a_hundred_items_are_one_append(database: Any, streams: Any, installed: Installed, clock: ManualClock) -> None:
    """Not an append each, not one for all; the service did it, and every item has its REMOVE."""
    arn = create_table(database)
    fill_expired(database, clock)
    before = stream_of(installed).commits
    assert installed.delete_expired_items() == COUNT
    assert stream_of(installed).commits - before == 3
    removed = records_of(streams, arn)[COUNT:]
    assert len({record["dynamodb"]["Keys"]["id"]["S"] for record in removed}) == len(removed) == COUNT
    assert {record["eventName"] for record in removed} == {"REMOVE"}
    assert {record["userIdentity"]["PrincipalId"] for record in removed} == {"dynamodb.amazonaws.com"}
    assert not ids_left(database)


def test_large_items_are_fewer_in_an_append(
    database: Any, installed: Installed, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an append would be larger than the log takes."""
    create_table(database)
    fill_expired(database, clock, 20, text={"S": "x" * 1000})
    monkeypatch.setattr(expiring, "BYTES_PER_APPEND", 4500)
    before = stream_of(installed).commits
    assert installed.delete_expired_items() == 20
    assert stream_of(installed).commits - before == 4


def test_items_with_range_keys(database: Any, installed: Installed, clock: ManualClock) -> None:
    """Each by its whole key; others of the same hash key stay."""
    database.create_table(
        TableName="users",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("id", "at")],
        BillingMode="PAY_PER_REQUEST",
    )
    fill_expired(database, clock, 30, at={"S": "a"})
    fill(database, 30, clock.wall_us() // 1_000_000 + 60, at={"S": "b"})
    assert installed.delete_expired_items() == 30
    assert {item["at"]["S"] for item in database.scan(TableName="users")["Items"]} == {"b"}


@pytest.mark.parametrize("failing", ["append", "image"])
def test_what_is_not_recorded_is_not_deleted(
    database: Any, installed: Installed, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The log refuses, or an item in the midst has no image: all items of that append are there, as they were."""
    create_table(database)
    fill_expired(database, clock, 20)
    before, commits = ids_left(database), stream_of(installed).commits
    with monkeypatch.context() as patched:
        if failing == "append":
            patched.setattr(Stream, "append", Mock(side_effect=StorageFull("no room")))
        else:
            patched.setattr(recording, "image_of", Mock(side_effect=[*[{"id": {"S": "x"}}, None] * 5, ValueError]))
        with pytest.raises(Exception, match=r"no room|invalid"):
            installed.delete_expired_items()
    assert ids_left(database) == before
    assert stream_of(installed).commits == commits
    assert installed.delete_expired_items() == 20


def test_requests_get_in_between(database: Any, installed: Installed, clock: ManualClock, turns: Turns) -> None:
    """A write that waits while a sweep runs is made after one append; the item that it renews is not deleted."""
    create_table(database)
    fill_expired(database, clock)
    last = f"{COUNT - 1:04}"
    until = str(clock.wall_us() // 1_000_000 + 3600)
    lefts: list[int] = []

    def renew() -> None:
        lefts.append(len(ids_left(database)))
        client("dynamodb").put_item(TableName="users", Item={"id": {"S": last}, "until": {"N": until}})

    started = threading.Event()
    turns.submit(started.wait, LIMIT_SECONDS)
    sweep = turns.submit(installed.delete_expired_items)
    known = turns.submit(lambda: None)  # done when the sweep knows the items, before the first append
    known.add_done_callback(lambda _: turns.submit(renew))
    started.set()
    assert sweep.result(LIMIT_SECONDS) == COUNT - 1
    assert lefts == [COUNT - ITEMS_PER_APPEND]
    assert ids_left(database) == {last}


def test_a_table_that_goes_away_in_between(
    database: Any, installed: Installed, clock: ManualClock, turns: Turns
) -> None:
    """Nothing more of it is deleted; the sweep ends."""
    create_table(database)
    fill_expired(database, clock)
    started = threading.Event()
    turns.submit(started.wait, LIMIT_SECONDS)
    sweep = turns.submit(installed.delete_expired_items)
    known = turns.submit(lambda: None)
    known.add_done_callback(lambda _: turns.submit(database.delete_table, TableName="users"))
    started.set()
    assert sweep.result(LIMIT_SECONDS) == ITEMS_PER_APPEND


def test_a_server_answers_while_it_sweeps(tmp_path: Path) -> None:
    """Writes of the same table are answered before the sweep has ended, and it deletes all the same."""
    with Served(tmp_path / "store", "--dynamodb", "--durability", "os") as served:
        database = served.client("dynamodb")
        arn = create_table(database)
        database.update_time_to_live(TableName="users", TimeToLiveSpecification=SPECIFICATION)
        now = datetime.fromisoformat(served.admin("clock")["Now"])
        fill(database, SWEPT, int(now.timestamp()) + 600)
        served.admin("clock", AdvanceSeconds=1200)
        is_over = threading.Event()

        def write() -> None:
            client = served.client("dynamodb")
            number = 0
            while not is_over.is_set():
                client.put_item(TableName="users", Item={"id": {"S": "kept"}, "n": {"N": str(number := number + 1)}})

        writing = [Background(write) for _ in range(WRITERS)]
        wait_until(lambda: "Item" in database.get_item(TableName="users", Key={"id": {"S": "kept"}}))
        deleted = served.admin("time-to-live")["Deleted"]
        is_over.set()
        for writer in writing:
            writer.result()
        assert deleted == SWEPT
        events = [record["eventName"] for record in records_of(served.client("dynamodbstreams"), arn)[SWEPT:]]
        assert events.count("REMOVE") == SWEPT
        last = len(events) - events[::-1].index("REMOVE")
        assert "MODIFY" in events[events.index("REMOVE") : last]
        assert database.scan(TableName="users", Select="COUNT")["Count"] == 1

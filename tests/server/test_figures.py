"""How fast it is: printed, and held against bounds that a busy machine keeps, too.

On a quiet machine: 100 pages of 1000 records a second, and a put costs at most a fifth more than moto alone.
"""

from __future__ import annotations

import http.client
import json
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws
from tests.server.moto_tables import client
from tests.server.serving import LIMIT_SECONDS, Served, create_table

import shardlog
import shardlog.moto
from shardlog import Change
from shardlog.server.attributes import typed_image

PAGES = 20
RECORDS = 1000
PUTS = 300
ROUNDS = 5
PAGES_PER_SECOND_MIN = 25
PUT_COST_MAX = 2.0
TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/users"


def _change(number: int, is_typed: bool) -> Change:
    """A change of six attributes, about 600 bytes of JSON."""
    keys = {"path": f"src/module_{number % 977}/file_{number}.py"}
    old = {**keys, "mode": "100644", "blob": f"{number:016x}", "commit": f"{number * 7:016x}", "version": number}
    new = {**old, "blob": f"{number + 1:016x}", "version": number + 1}
    images = [typed_image(image) if is_typed else image for image in (keys, old, new)]
    return Change.modify(keys=images[0], old=images[1], new=images[2])


def _pages_per_second(served: Served, iterator: str) -> float:
    """One client, one connection."""
    headers = {"X-Amz-Target": "DynamoDBStreams_20120810.GetRecords"}
    count = 0
    started = time.perf_counter()
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=LIMIT_SECONDS)) as connection:
        while True:
            connection.request("POST", "/", json.dumps({"ShardIterator": iterator}), headers)
            body = connection.getresponse().read()
            if b'"eventID"' not in body:
                return count / (time.perf_counter() - started)
            count += 1
            iterator = body.rpartition(b'"NextShardIterator":"')[2].partition(b'"')[0].decode()


@pytest.mark.torture
@pytest.mark.parametrize("per_append", [1, 100])
@pytest.mark.parametrize("is_typed", [True, False])
def test_pages(tmp_path: Path, is_typed: bool, per_append: int) -> None:
    """GetRecords of 1000 records, of a table's stream and of a program's."""
    changes = [_change(number, is_typed) for number in range(PAGES * RECORDS)]
    with shardlog.open(tmp_path / "store") as store:
        stream = store.create_stream("users", durability="os", table_arn=TABLE if is_typed else None)
        for first in range(0, len(changes), per_append):
            stream.append(changes[first : first + per_append])
        description = stream.describe()
        token = stream.iterator(description.shards[0].shard_id, "TRIM_HORIZON")
    with Served(tmp_path / "store") as served:
        best = max(_pages_per_second(served, f"{description.arn}|1|{token}") for _ in range(ROUNDS))
    print(f"{'typed' if is_typed else 'plain'}, {per_append} records per append: {best:.0f} pages/s")
    assert best >= PAGES_PER_SECOND_MIN


def _put_seconds(database: Any) -> float:
    """The best of some rounds, per put."""
    create_table(database)
    best = float("inf")
    for round_number in range(ROUNDS):
        started = time.perf_counter()
        for number in range(PUTS):
            item = {"id": {"S": str(number % 100)}, "n": {"N": f"{round_number}.{number}1"}, "t": {"S": "some text"}}
            database.put_item(TableName="users", Item=item)
        best = min(best, (time.perf_counter() - started) / PUTS)
    return best


@pytest.mark.torture
def test_puts(tmp_path: Path) -> None:
    """PutItem in mock_aws, with moto's own stream and with ours; the disk's syncs are not ours to measure."""
    seconds: dict[str, float] = {}
    for name in ("moto", "shardlog"):
        with ExitStack() as stack:
            if name == "shardlog":
                stack.enter_context(shardlog.moto.install(tmp_path / "store", durability="os"))
            stack.enter_context(mock_aws())
            seconds[name] = _put_seconds(client("dynamodb"))
    print(f"a put: {seconds['moto'] * 1e3:.2f} ms with moto alone, {seconds['shardlog'] * 1e3:.2f} ms with the log")
    assert seconds["shardlog"] < PUT_COST_MAX * seconds["moto"]

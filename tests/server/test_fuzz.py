"""Any request at all, through the whole application but for the socket: an answer, and never a fault of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto import mock_aws

import shardlog
import shardlog.moto
from shardlog import Change
from shardlog.clock import SystemClock
from shardlog.moto.tables import answer
from shardlog.server.admin import Admin
from shardlog.server.catalogue import Catalogue
from shardlog.server.clock import OffsetClock
from shardlog.server.http import Application, Limits
from shardlog.server.metrics import Metrics
from shardlog.server.operations import StreamsApi

CALM = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
OPERATIONS = ["ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"]
MEMBERS = [
    "StreamArn",
    "ShardId",
    "ShardIterator",
    "ShardIteratorType",
    "SequenceNumber",
    "Timestamp",
    "Limit",
    "TableName",
    "ExclusiveStartStreamArn",
    "ExclusiveStartShardId",
    "ShardFilter",
]


class Rig:
    """An application over a store with one stream, called without sockets."""

    def __init__(self, path: Path, with_tables: bool = False) -> None:
        clock = OffsetClock(SystemClock())
        self.store = shardlog.open(path, clock=clock)
        self.stream = self.store.create_stream("users", key_names=["id"])
        self.stream.append([Change.insert(keys={"id": 1}, new={"id": 1})])
        self._pool = ThreadPoolExecutor(2)
        catalogue = Catalogue(self.store, clock)
        metrics = Metrics(catalogue)
        self._application = Application(
            api=StreamsApi(catalogue, clock, metrics.observe_page),
            admin=Admin(catalogue, clock),
            metrics=metrics,
            pool=self._pool,
            limits=Limits(body_bytes_max=100_000),
            secrets={},
            database=answer if with_tables else None,
            database_pool=self._pool if with_tables else None,
        )

    def call(
        self,
        body: bytes = b"",
        headers: list[tuple[bytes, bytes]] | None = None,
        path: bytes = b"/",
        method: str = "POST",
        query: bytes = b"",
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        sent: list[Any] = []
        scope = {
            "type": "http",
            "method": method,
            "raw_path": path,
            "query_string": query,
            "headers": headers or [],
            "client": ("127.0.0.1", 1),
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(event: Any) -> None:
            sent.append(event)

        asyncio.run(self._application(scope, receive, send))
        start, content = sent
        return start["status"], content["body"]

    def members_called(self, operation: str, members: Any) -> tuple[int, Any]:
        """The same for an operation of the streams' API."""
        target = (b"x-amz-target", f"DynamoDBStreams_20120810.{operation}".encode())
        status, body = self.call(json.dumps(members).encode(), [target])
        return status, json.loads(body)

    def close(self) -> None:
        """Close the store."""
        self._pool.shutdown()
        self.store.close()


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("fuzz") / "store")
    yield rig
    rig.close()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@CALM
@given(st.sampled_from(OPERATIONS), st.dictionaries(st.sampled_from(MEMBERS) | st.text(max_size=10), json_values))
def test_any_members(rig: Rig, operation: str, members: dict[str, Any]) -> None:
    """200, or 400 with a name."""
    status, body = rig.members_called(operation, members)
    assert status in (200, 400)
    assert status == 200 or body["__type"].rpartition("#")[2] in ("ValidationException", "SerializationException")


@CALM
@given(st.data())
def test_members_that_are_nearly_right(rig: Rig, data: st.DataObject) -> None:
    """Things that exist, put together in all ways, with a character changed now and then."""
    description = rig.stream.describe()
    shard_id = description.shards[0].shard_id
    token = rig.stream.iterator(shard_id, "TRIM_HORIZON")
    right: dict[str, Any] = {
        "StreamArn": description.arn,
        "ShardId": shard_id,
        "ShardIterator": f"{description.arn}|1|{token}",
        "SequenceNumber": "100000000000000000001",
        "Limit": 1,
        "Timestamp": 1.5,
        "TableName": "users",
        "ExclusiveStartStreamArn": description.arn,
        "ExclusiveStartShardId": shard_id,
        "ShardFilter": {"Type": "CHILD_SHARDS", "ShardId": shard_id},
    }
    kinds = ["TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP"]
    right["ShardIteratorType"] = data.draw(st.sampled_from(kinds))
    chosen = data.draw(st.sets(st.sampled_from(sorted(right)), min_size=1))
    members = {name: right[name] for name in chosen}
    for name in sorted(chosen):
        if isinstance(members[name], str) and data.draw(st.integers(0, 5)) == 0:
            text: str = members[name]
            place = data.draw(st.integers(0, len(text) - 1))
            members[name] = text[:place] + data.draw(st.characters()) + text[place + 1 :]
    status, body = rig.members_called(data.draw(st.sampled_from(OPERATIONS)), members)
    assert status in (200, 400)
    if status == 400:
        name = body["__type"].rpartition("#")[2]
        assert name in ("ValidationException", "ResourceNotFoundException")


HEADERS = [b"x-amz-target", b"authorization", b"host", b"content-length", b"origin"]
PATHS = [b"/", b"/health", b"/metrics", b"/_shardlog/", b"/_shardlog/roll", b"/_shardlog/clock"]
METHODS = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "X"]


@CALM
@given(
    st.binary(max_size=300),
    st.lists(st.tuples(st.sampled_from(HEADERS), st.binary(max_size=60)), max_size=5),
    st.sampled_from(PATHS) | st.binary(max_size=30),
    st.sampled_from(METHODS),
    st.binary(max_size=30),
)
def test_any_request(
    rig: Rig, body: bytes, headers: list[tuple[bytes, bytes]], path: bytes, method: str, query: bytes
) -> None:
    """Never 500."""
    status, _ = rig.call(body, headers, path, method, query)
    assert status in (200, 400, 404, 405, 413)


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "CreateTable", "TransactWriteItems", "Query"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_members_for_tables(tmp_path_factory: pytest.TempPathFactory, operation: str, data: st.DataObject) -> None:
    """Whatever moto makes of what no SDK would send: an answer, and the next request is answered as well."""
    names = ["TableName", "Item", "Key", "UpdateExpression", "TransactItems", "KeySchema", "AttributeDefinitions"]
    members = data.draw(st.dictionaries(st.sampled_from(names), json_values))
    target = (b"x-amz-target", f"DynamoDB_20120810.{operation}".encode())
    with mock_aws():
        rig = Rig(tmp_path_factory.mktemp("tables") / "store", with_tables=True)
        try:
            status, body = rig.call(json.dumps(members).encode(), [target, (b"host", b"localhost")])
            assert status in (200, 400, 500)
            assert json.loads(body)
            assert rig.call(b"{}", [(b"x-amz-target", b"DynamoDB_20120810.ListTables")])[0] == 200
        finally:
            rig.close()

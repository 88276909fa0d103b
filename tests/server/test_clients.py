"""boto3, and a library that follows streams with it, against servers that are killed in the middle."""

from __future__ import annotations

import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bloop
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError
from tests.server.serving import Served, create_table, records_of, shard_records, shards_of, summary
from tests.support.background import Background, wait_until

import shardlog
from shardlog import Change, Stream

KEY = {"id": {"S": "a"}}


class Follower:
    """Reads a stream to its end as an application does: parents first, pages of ten, iterators kept."""

    def __init__(self, streams: Any, arn: str) -> None:
        self._streams = streams
        self._arn = arn
        self._iterators: dict[str, str] = {}
        self._finished: set[str] = set()
        self.read: list[str] = []

    def run(self) -> list[str]:
        """Until all shards are closed and drained; the ids of the records in the order they came."""
        while True:
            self._take_shards()
            if not self._iterators:
                return self.read
            for shard_id in list(self._iterators):
                self._take_page(shard_id)

    def _take_shards(self) -> None:
        shards = self._tried(lambda: shards_of(self._streams, self._arn))
        ids = {shard["ShardId"] for shard in shards}
        for shard in shards:
            shard_id, parent_id = shard["ShardId"], shard.get("ParentShardId")
            is_ready = parent_id not in ids or parent_id in self._finished
            if shard_id in self._finished or shard_id in self._iterators or not is_ready:
                continue
            asked = {"StreamArn": self._arn, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON"}
            self._iterators[shard_id] = self._tried(
                lambda asked=asked: self._streams.get_shard_iterator(**asked)["ShardIterator"]
            )

    def _take_page(self, shard_id: str) -> None:
        asked = {"ShardIterator": self._iterators[shard_id], "Limit": 10}

        def read() -> tuple[dict[str, Any], list[str]]:
            page = self._streams.get_records(**asked)
            return page, [record["dynamodb"]["Keys"]["id"]["S"] for record in page["Records"]]

        page, found = self._tried(read)
        self.read += found
        if "NextShardIterator" in page:
            self._iterators[shard_id] = page["NextShardIterator"]
        else:
            del self._iterators[shard_id]
            self._finished.add(shard_id)

    def _tried(self, call: Any) -> Any:
        """Again, while nobody answers; any other error is one.

        A server that is killed between the head and the body of an answer: botocore, which is not to try again here,
        gives an answer without members.
        """
        found: list[Any] = []

        def is_answered() -> bool:
            try:
                found.append(call())
            except (EndpointConnectionError, HTTPClientError, KeyError):
                return False
            return True

        wait_until(is_answered)
        return found[0]


def put(stream: Stream, key: str) -> None:
    stream.append([Change.insert(keys={"id": key}, new={"id": key})])


def test_a_follower_over_kills_splits_and_roll_overs(tmp_path: Path) -> None:
    """Iterators from before a kill go on after it: every record once, none missing."""
    with shardlog.open(tmp_path / "store") as store, Served(tmp_path / "store") as served:
        stream = store.create_stream("users", key_names=["id"], segment_bytes=64 << 10)
        arn = stream.describe().arn
        follower = Follower(served.client("dynamodbstreams"), arn)
        following = Background(follower.run)
        expected: list[str] = []
        for round_number in range(5):
            for number in range(60):
                put(stream, f"{round_number}-{number}")
                expected.append(f"{round_number}-{number}")
            wait_until(lambda: len(follower.read) > len(expected) - 30)
            served.restart()
            served.admin("split" if round_number % 2 else "roll", StreamArn=arn)
        store.disable_stream("users")
        assert sorted(following.result()) == sorted(expected)


def test_a_tables_stream_outlives_a_kill(tmp_path: Path) -> None:
    """What was acknowledged is there, the stream is DISABLED, and a table of the same name gets a new one."""
    with Served(tmp_path / "store", "--dynamodb") as served:
        database, streams = served.client("dynamodb"), served.client("dynamodbstreams")
        first = create_table(database)
        shard_id = shards_of(streams, first)[0]["ShardId"]
        asked = {"StreamArn": first, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON"}
        held = streams.get_shard_iterator(**asked)["ShardIterator"]
        for number in range(100):
            database.put_item(TableName="users", Item={"id": {"S": str(number)}})
        before = records_of(streams, first)
        served.restart()
        assert records_of(streams, first) == before
        assert len(before) == 100
        page = streams.get_records(ShardIterator=held)
        assert page["Records"] == before
        assert "NextShardIterator" not in page
        assert streams.describe_stream(StreamArn=first)["StreamDescription"]["StreamStatus"] == "DISABLED"
        assert database.list_tables()["TableNames"] == []
        second = create_table(database)
        assert second > first
        database.put_item(TableName="users", Item=KEY)
        assert summary(records_of(streams, second)) == [("INSERT", KEY, None, KEY)]
        listed = streams.list_streams(TableName="users")["Streams"]
        assert [stream["StreamArn"] for stream in listed] == [first, second]


def test_time_under_control(tmp_path: Path) -> None:
    """The clock is moved ahead: iterators expire, records are trimmed, items expire, streams go."""
    with Served(tmp_path / "store", "--dynamodb", "--clock-offset", "1h") as served:
        database, streams = served.client("dynamodb"), served.client("dynamodbstreams")
        arn = create_table(database)
        database.update_time_to_live(
            TableName="users", TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"}
        )
        now = datetime.fromisoformat(served.admin("clock")["Now"])
        assert (now - datetime.now(UTC)).total_seconds() == pytest.approx(3600, abs=60)
        until = str(int(now.timestamp()) + 60)
        database.put_item(TableName="users", Item={**KEY, "until": {"N": until}})
        (shard,) = shards_of(streams, arn)
        asked = {"StreamArn": arn, "ShardId": shard["ShardId"]}
        held = streams.get_shard_iterator(**asked, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        (child,) = served.admin("roll", StreamArn=arn)["ShardIds"]
        served.admin("clock", AdvanceSeconds=20 * 60)
        with pytest.raises(ClientError, match="ExpiredIteratorException"):
            streams.get_records(ShardIterator=held)
        assert served.admin("time-to-live")["Deleted"] == 1
        (removed,) = shard_records(streams, arn, child)
        assert removed["userIdentity"] == {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
        number = removed["dynamodb"]["SequenceNumber"]
        served.admin("clock", AdvanceSeconds=25 * 3600)
        assert served.admin("expire")["Expired"] == [arn]
        with pytest.raises(ClientError, match="TrimmedDataAccessException"):
            streams.get_shard_iterator(
                StreamArn=arn, ShardId=child, ShardIteratorType="AT_SEQUENCE_NUMBER", SequenceNumber=number
            )
        assert records_of(streams, arn) == []
        database.delete_table(TableName="users")
        served.admin("clock", AdvanceSeconds=25 * 3600)
        assert served.admin("expire")["Removed"] == [arn]
        assert streams.list_streams()["Streams"] == []


def test_boto3s_models_errors(tables: Served) -> None:
    """As the client's own exception classes, with the service's words."""
    streams = tables.client("dynamodbstreams")
    nothing = "arn:aws:dynamodb:us-east-1:123456789012:table/none/stream/2026-01-01T00:00:00.000"
    with pytest.raises(streams.exceptions.ResourceNotFoundException) as raised:
        streams.describe_stream(StreamArn=nothing)
    assert raised.value.response["Error"]["Message"] == f"Requested resource not found: Stream: {nothing} not found"
    assert raised.value.response["ResponseMetadata"]["RequestId"]


@pytest.mark.parametrize(
    ("target", "body", "status", "name"),
    [
        ("PutItem", b"{", 400, "SerializationException"),
        ("PutItem", b"[]", 400, "SerializationException"),
        ("PutItem", b"{}", 400, None),
        ("PutItem", b'{"TableName": 5, "Item": {}}', 400, None),
        ("PutItem", b'{"TableName": "none", "Item": {"id": {"S": "a"}}}', 400, "ResourceNotFoundException"),
        ("CreateTable", b'{"TableName": "x"}', 400, None),
        ("Nothing", b"{}", 400, "UnknownOperationException"),
        ("DescribeLimits", b"{}", 200, None),
    ],
)
def test_what_no_sdk_would_send(tables: Served, target: str, body: bytes, status: int, name: str | None) -> None:
    """The client's mistakes are told as such, and the server goes on."""
    headers = {"X-Amz-Target": f"DynamoDB_20120810.{target}", "Content-Type": "application/x-amz-json-1.0"}
    request = urllib.request.Request(tables.address, body, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            found, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            found, text = error.code, error.read().decode()
    assert found == status, text
    assert name is None or name in text
    assert tables.get("/health")


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", "text/plain"])
def test_any_content_type(tables: Served, content_type: str) -> None:
    """What `curl -d` sends is JSON, too."""
    for service, operation in (("DynamoDB", "ListTables"), ("DynamoDBStreams", "ListStreams")):
        headers = {"X-Amz-Target": f"{service}_20120810.{operation}", "Content-Type": content_type}
        with urllib.request.urlopen(urllib.request.Request(tables.address, b'{"Limit": 1}', headers)) as answer:
            assert answer.status == 200


def test_bloop_follows_a_table(tmp_path: Path) -> None:
    """An object mapper that reads streams: over roll-overs and splits, and from its token after a kill."""
    with Served(tmp_path / "store", "--dynamodb") as served:
        clients = {"dynamodb": served.client("dynamodb"), "dynamodbstreams": served.client("dynamodbstreams")}
        engine = bloop.Engine(**clients)

        class Person(bloop.BaseModel):  # type: ignore[misc]
            class Meta:
                stream = {"include": {"new", "old"}}  # noqa: RUF012 - it is bloop's way

            id = bloop.Column(bloop.String, hash_key=True)
            age = bloop.Column(bloop.Integer)

        engine.bind(Person)
        arn = Person.Meta.stream["arn"]
        stream = engine.stream(Person, "trim_horizon")
        expected: list[tuple[str, int]] = []

        def save(count: int, age: int) -> None:
            for number in range(count):
                engine.save(Person(id=f"{number}", age=age))
                expected.append((f"{number}", age))

        def read(count: int) -> list[tuple[str, int]]:
            found: list[tuple[str, int]] = []

            def is_enough() -> bool:
                record = next(stream)
                if record is not None:
                    found.append((record["new"].id, record["new"].age))
                return len(found) >= count

            wait_until(is_enough)
            return found

        got: list[tuple[str, int]] = []
        for age, change in enumerate(["roll", "split", "roll"]):
            save(20, age)
            got += read(20)
            served.admin(change, StreamArn=arn)
        save(20, 99)
        got += read(5)
        token = stream.token
        served.restart()
        stream = engine.stream(Person, token)
        got += read(15)
        assert sorted(got) == sorted(expected)


def test_a_kill_while_clients_write(tmp_path: Path) -> None:
    """Every write that was acknowledged is in the stream, once, in order; at most one more is there."""
    with Served(tmp_path / "store", "--dynamodb") as served:
        database = served.client("dynamodb")
        arn = create_table(database)
        acknowledged: list[str] = []

        def write() -> None:
            try:
                for number in range(100_000):
                    database.put_item(TableName="users", Item={"id": {"S": str(number)}})
                    acknowledged.append(str(number))
            except (ClientError, EndpointConnectionError, HTTPClientError):
                return

        writing = Background(write)
        wait_until(lambda: len(acknowledged) > 100)
        served.kill()
        writing.result()
        served.restart()
        found = records_of(served.client("dynamodbstreams"), arn)
        kept = [record["dynamodb"]["Keys"]["id"]["S"] for record in found]
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 1

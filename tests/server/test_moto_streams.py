"""Streams of moto's tables: enabled, disabled, expired, refused by the log; and the installation itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodbstreams.models import dynamodbstreams_backends
from tests.server.moto_tables import KEY, REGION, Recorded, client, item
from tests.server.serving import create_table, records_of, shards_of, summary
from tests.tools.commands import run_process

import shardlog.moto
from shardlog import InvalidArgument, StorageFull, StoreLocked, Stream
from shardlog.moto.installing import Installed, _lock_store
from shardlog.moto.naming import qualified_name
from shardlog.moto.versions import check_version
from shardlog.testing.clock import ManualClock


def specify(database: Any, **specification: Any) -> dict[str, Any]:
    described: dict[str, Any] = database.update_table(TableName="users", StreamSpecification=specification)
    return described["TableDescription"]


def test_enabling_and_disabling(database: Any, streams: Any) -> None:
    """Each enabling is a new stream with a new label, empty; the old one is DISABLED and readable."""
    first = create_table(database)
    database.put_item(TableName="users", Item=item())
    assert "StreamSpecification" not in specify(database, StreamEnabled=False)
    database.put_item(TableName="users", Item=item(n={"N": "1"}))
    described = specify(database, StreamEnabled=True, StreamViewType="KEYS_ONLY")
    second = described["LatestStreamArn"]
    assert described["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    assert second != first
    database.put_item(TableName="users", Item=item(n={"N": "2"}))
    assert summary(records_of(streams, first)) == [("INSERT", KEY, None, KEY)]
    assert summary(records_of(streams, second)) == [("MODIFY", KEY, None, None)]
    statuses = {
        arn: streams.describe_stream(StreamArn=arn)["StreamDescription"]["StreamStatus"] for arn in (first, second)
    }
    assert statuses == {first: "DISABLED", second: "ENABLED"}
    assert all("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in shards_of(streams, first))
    assert len(streams.list_streams(TableName="users")["Streams"]) == 2


@pytest.mark.parametrize(
    ("specification", "words"),
    [
        ({"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}, "Table already has an enabled stream"),
        ({"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}, "Table already has an enabled stream"),
        ({"StreamEnabled": True}, "StreamViewType is required"),
        ({"StreamEnabled": True, "StreamViewType": "ALL"}, "Member must satisfy enum value set"),
        ({"StreamEnabled": False, "StreamViewType": "KEYS_ONLY"}, "takes no StreamViewType"),
    ],
)
def test_what_is_refused(database: Any, specification: dict[str, Any], words: str) -> None:
    """ValidationException; the stream stays as it is."""
    arn = create_table(database)
    with pytest.raises(ClientError, match=words) as raised:
        specify(database, **specification)
    assert raised.value.response["Error"]["Code"] == "ValidationException"
    assert database.describe_table(TableName="users")["Table"]["LatestStreamArn"] == arn


def test_disabling_twice(database: Any) -> None:
    """ValidationException; also for a table that never had a stream."""
    create_table(database)
    specify(database, StreamEnabled=False)
    with pytest.raises(ClientError, match=r"ValidationException.*no stream to disable"):
        specify(database, StreamEnabled=False)


def test_deleting_a_table_disables_its_stream(database: Any, streams: Any) -> None:
    """A table of the same name gets a new one, while the old one stays readable."""
    first = create_table(database)
    database.put_item(TableName="users", Item=item())
    database.delete_table(TableName="users")
    assert streams.describe_stream(StreamArn=first)["StreamDescription"]["StreamStatus"] == "DISABLED"
    second = create_table(database)
    assert second != first
    assert records_of(streams, second) == []
    assert len(records_of(streams, first)) == 1


def test_a_protected_table_keeps_its_stream(database: Any, streams: Any) -> None:
    """The deletion is refused before anything is done."""
    arn = create_table(database, DeletionProtectionEnabled=True)
    with pytest.raises(ClientError):
        database.delete_table(TableName="users")
    assert streams.describe_stream(StreamArn=arn)["StreamDescription"]["StreamStatus"] == "ENABLED"


def test_tables_of_one_name_in_two_regions(database: Any) -> None:
    """Each has its own stream, and each region lists its own."""
    there = client("dynamodb", "eu-west-1")
    create_table(database)
    create_table(there)
    database.put_item(TableName="users", Item=item())
    for region, count in ((REGION, 1), ("eu-west-1", 0)):
        found = client("dynamodbstreams", region)
        (listed,) = found.list_streams()["Streams"]
        assert f":{region}:" in listed["StreamArn"]
        assert len(records_of(found, listed["StreamArn"])) == count


def test_names_for_tables_are_different() -> None:
    """Also where name, region and account together are too long."""
    arns = [f"arn:aws:dynamodb:eu-west-1:123456789012:table/{'x' * 250}{end}" for end in "ab"]
    names = {qualified_name(arn) for arn in arns}
    assert len(names) == 2
    assert all(len(name) <= 255 for name in names)


# Time to live


def test_expired_items_are_deleted_by_the_service(
    database: Any, streams: Any, installed: Installed, clock: ManualClock
) -> None:
    """Their REMOVE says who did it; what is not expired, not a number, or over five years old stays."""
    arn = create_table(database)
    database.update_time_to_live(TableName="users", TimeToLiveSpecification={"Enabled": True, "AttributeName": "until"})
    now = clock.wall_us() // 1_000_000
    times = {"soon": now + 60, "later": now + 7200, "ancient": now - 6 * 365 * 86400}
    for key, until in times.items():
        database.put_item(TableName="users", Item={"id": {"S": key}, "until": {"N": str(until)}})
    database.put_item(TableName="users", Item={"id": {"S": "text"}, "until": {"S": str(now)}})
    database.put_item(TableName="users", Item={"id": {"S": "none"}})
    assert installed.delete_expired_items() == 0
    clock.advance(timedelta(minutes=2))
    assert installed.delete_expired_items() == 1
    assert installed.delete_expired_items() == 0
    removed = records_of(streams, arn)[-1]
    assert removed["eventName"] == "REMOVE"
    assert removed["userIdentity"] == {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    assert removed["dynamodb"]["OldImage"]["id"] == {"S": "soon"}
    database.delete_item(TableName="users", Key={"id": {"S": "later"}})
    assert "userIdentity" not in records_of(streams, arn)[-1]


# Durability, and what the log refuses


def test_streams_outlive_mock_aws(store_path: Path) -> None:
    """Tables do not; one that is made again gets a new stream, and the old one is disabled."""
    with shardlog.moto.install(store_path, durability="os"):
        with mock_aws():
            first = create_table(client("dynamodb"))
            client("dynamodb").put_item(TableName="users", Item=item())
        with mock_aws():
            streams = client("dynamodbstreams")
            assert len(records_of(streams, first)) == 1
            second = create_table(client("dynamodb"))
            assert second != first
            assert streams.describe_stream(StreamArn=first)["StreamDescription"]["StreamStatus"] == "DISABLED"
    with shardlog.moto.install(store_path, durability="os"), mock_aws():
        streams = client("dynamodbstreams")
        assert len(records_of(streams, first)) == 1
        assert streams.describe_stream(StreamArn=second)["StreamDescription"]["StreamStatus"] == "DISABLED"


@pytest.mark.parametrize("call", ["put", "overwrite", "delete", "update", "create", "transaction"])
def test_a_write_that_the_log_refuses_did_not_happen(
    database: Any, recorded: Recorded, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """InternalServerError; the table is as it was, so it never holds what its stream does not."""
    database.put_item(TableName="users", Item=item(n={"N": "1"}))

    def refuse(*_: object, **__: object) -> None:
        raise StorageFull("no room")

    new = {"id": {"S": "new"}}
    set_n = {"UpdateExpression": "SET n = :n", "ExpressionAttributeValues": {":n": {"N": "2"}}}
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: database.put_item(TableName="users", Item=new),
        "overwrite": lambda: database.put_item(TableName="users", Item=item()),
        "delete": lambda: database.delete_item(TableName="users", Key=KEY),
        "update": lambda: database.update_item(TableName="users", Key=KEY, **set_n),
        "create": lambda: database.update_item(TableName="users", Key=new, **set_n),
        "transaction": lambda: database.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": "users", "Item": new}},
                {"Update": {"TableName": "users", "Key": KEY, **set_n}},
            ]
        ),
    }
    with monkeypatch.context() as patched:
        patched.setattr(Stream, "append", refuse)
        with pytest.raises(ClientError) as raised:
            calls[call]()
    assert raised.value.response["Error"]["Code"] == "InternalServerError"
    assert database.scan(TableName="users")["Items"] == [item(n={"N": "1"})]
    assert len(recorded()) == 1
    calls[call]()
    assert len(recorded()) > 1


# Installing


def test_installing_twice_is_refused(installed: Installed, tmp_path: Path) -> None:
    """Somebody would lose records."""
    with pytest.raises(InvalidArgument, match="already"):
        shardlog.moto.install(tmp_path / "another")


def test_one_process_per_store(installed: Installed, store_path: Path) -> None:
    """A second one would disable the first one's streams."""
    outcome = run_process("serve", store_path, "--dynamodb", "--port", "0")
    assert outcome.status == 1
    assert "another process records" in outcome.talk
    with ExitStack() as undo, pytest.raises(StoreLocked):
        _lock_store(str(store_path), undo)


def test_uninstalling_gives_moto_back(store_path: Path) -> None:
    """Its own streams work as before; nothing is recorded."""
    original = DynamoDBBackend.put_item
    installed = shardlog.moto.install(store_path)
    assert DynamoDBBackend.put_item is not original
    installed.uninstall()
    installed.uninstall()
    assert DynamoDBBackend.put_item is original
    with mock_aws():
        arn = create_table(client("dynamodb"))
        client("dynamodb").put_item(TableName="users", Item=item())
        (listed,) = client("dynamodbstreams").list_streams()["Streams"]
        assert listed["StreamArn"] == arn
    with shardlog.open(store_path) as store:
        assert store.names() == []


@pytest.mark.parametrize("version", [None, "4.2.14", "5.2.4", "5.2.50", "6.0.0"])
def test_other_versions_of_moto_are_refused(version: str | None) -> None:
    """With words that say which one is right."""
    with pytest.raises(InvalidArgument, match=r"expected version 5\.2\.5"):
        check_version(version)


def test_the_backends_methods_answer_as_well(database: Any, installed: Installed) -> None:
    """For who calls moto's backend by itself."""
    arn = create_table(database)
    database.put_item(TableName="users", Item=item())
    backend = dynamodbstreams_backends["123456789012"][REGION]
    shard_id = backend.describe_stream(arn)["Shards"][0]["ShardId"]
    assert backend.list_streams()[0]["StreamArn"] == arn
    found = backend.get_shard_iterator(arn, shard_id, "TRIM_HORIZON")
    assert len(backend.get_records(found.arn, 10)["Records"]) == 1


def test_functions_are_invoked(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event source mapping of moto's Lambda gets the records, as JSON, once."""
    arn = create_table(database)
    calls: list[tuple[str, list[dict[str, Any]], str]] = []

    class Lambda:
        def send_dynamodb_items(self, function_arn: str, events: list[Any], source: str) -> None:
            calls.append((function_arn, [event.to_json() for event in events], source))

    class Mapping:
        event_source_arn = arn

    monkeypatch.setattr("moto.awslambda.utils.get_backend", lambda *_: Lambda())
    function = f"arn:aws:lambda:{REGION}:123456789012:function:f"
    dynamodb_backends["123456789012"][REGION].tables["users"].lambda_event_source_mappings[function] = Mapping()
    database.put_item(TableName="users", Item=item(b={"B": b"hi"}))
    database.put_item(TableName="users", Item=item(b={"B": b"hi"}))
    ((called, events, source),) = calls
    assert (called, source) == (function, arn)
    assert [event["dynamodb"]["NewImage"]["b"] for event in events] == [{"B": "aGk="}]

"""A table never holds what its stream does not, and a request is carried out whole or not at all: with mock_aws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from tests.server.moto_tables import KEY, REGION, Recorded, client, item
from tests.server.serving import create_table, records_of, summary

import shardlog.moto
from shardlog import StorageFull, Store, Stream
from shardlog.moto import recording
from shardlog.moto.installing import Installed
from shardlog.moto.restoring import put_back

ACCOUNT = "123456789012"
OTHER = {"id": {"S": "b"}}


@pytest.fixture
def backend(installed: Installed) -> DynamoDBBackend:
    """Moto's own, for what no client can send."""
    return dynamodb_backends[ACCOUNT][REGION]


def items_of(database: Any, table: str = "users") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = database.scan(TableName=table)["Items"]
    return found


def plain_table(database: Any, name: str = "plain") -> None:
    """A table without a stream."""
    database.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


def pair_table(database: Any) -> str:
    """A table with a sort key, and its stream."""
    described = database.create_table(
        TableName="pairs",
        KeySchema=[{"AttributeName": "h", "KeyType": "HASH"}, {"AttributeName": "r", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "h", "AttributeType": "S"},
            {"AttributeName": "r", "AttributeType": "S"},
        ],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    arn: str = described["TableDescription"]["LatestStreamArn"]
    return arn


def refusing(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let the streams of these names refuse appends."""
    append = Stream.append

    def refuse(self: Stream, *args: Any, **kwargs: Any) -> Any:
        if self.name in names:
            raise StorageFull("no room")
        return append(self, *args, **kwargs)

    monkeypatch.setattr(Stream, "append", refuse)


# Images that cannot be


@pytest.mark.parametrize("call", ["put", "overwrite", "update"])
def test_an_item_without_an_image_does_not_stay(
    database: Any, recorded: Recorded, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ValidationException; it neither is in the table nor has a record, and the table goes on."""
    database.put_item(TableName="users", Item=item(n={"N": "1"}))
    set_n = {"UpdateExpression": "SET n = :n", "ExpressionAttributeValues": {":n": {"N": "666"}}}
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: database.put_item(TableName="users", Item={**OTHER, "n": {"N": "666"}}),
        "overwrite": lambda: database.put_item(TableName="users", Item=item(n={"N": "666"})),
        "update": lambda: database.update_item(TableName="users", Key=OTHER, **set_n),
    }
    image_of = recording.image_of

    def choosy(found: Item | None) -> Any:
        if found is not None and "n" in found.attrs and found.attrs["n"].value == "666":
            raise ValueError("no image")
        return image_of(found)

    monkeypatch.setattr(recording, "image_of", choosy)
    with pytest.raises(ClientError, match=r"ValidationException.*no image"):
        calls[call]()
    assert items_of(database) == [item(n={"N": "1"})]
    database.delete_item(TableName="users", Key=KEY)
    assert [record[0] for record in recorded()] == ["INSERT", "REMOVE"]


def test_what_the_log_cannot_hold_is_the_clients_mistake(
    database: Any, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ValidationException with the log's words instead of InternalServerError; the table is as it was."""

    def refuse(*_: object, **__: object) -> None:
        raise shardlog.InvalidArgument("too deep")

    with monkeypatch.context() as patched:
        patched.setattr(Stream, "append", refuse)
        with pytest.raises(ClientError, match=r"ValidationException.*too deep"):
            database.put_item(TableName="users", Item=item())
    assert items_of(database) == []
    assert recorded() == []


def test_garbage_that_is_there_can_be_removed(database: Any, backend: DynamoDBBackend, streams: Any) -> None:
    """Items that a program gave to moto itself before there was a stream: no number, no base64."""
    plain_table(database)
    garbage = {**KEY, "n": {"NS": ["NaN", "x", "1"]}, "b": {"B": "a"}, "s": {"BS": ["b"]}}
    backend.tables["plain"].put_item(garbage)
    described = database.update_table(
        TableName="plain", StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    )
    database.delete_item(TableName="plain", Key=KEY)
    assert items_of(database, "plain") == []
    (record,) = records_of(streams, described["TableDescription"]["LatestStreamArn"])
    assert (record["eventName"], record["dynamodb"]["Keys"]) == ("REMOVE", KEY)


# Transactions and batches


@pytest.mark.parametrize("name", ["users", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/users"])
def test_a_cancelled_transaction_leaves_nothing_under_any_name(database: Any, recorded: Recorded, name: str) -> None:
    """Tables may be named by ARN, which moto forgets when it takes back."""
    database.put_item(TableName="users", Item=item(n={"N": "1"}))
    set_n = {"UpdateExpression": "SET n = :n", "ExpressionAttributeValues": {":n": {"N": "2"}}}
    check = {"TableName": name, "Key": {"id": {"S": "z"}}, "ConditionExpression": "attribute_exists(id)"}
    with pytest.raises(ClientError, match="TransactionCanceledException"):
        database.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": name, "Item": OTHER}},
                {"Update": {"TableName": name, "Key": KEY, **set_n}},
                {"ConditionCheck": check},
            ]
        )
    assert items_of(database) == [item(n={"N": "1"})]
    assert len(recorded()) == 1


def test_one_item_twice_in_a_transaction(database: Any, recorded: Recorded) -> None:
    """ValidationException, also where its table has two names."""
    arn = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/users"
    with pytest.raises(ClientError, match=r"ValidationException.*multiple operations on one item"):
        database.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": "users", "Item": KEY}},
                {"Delete": {"TableName": arn, "Key": KEY}},
            ]
        )
    assert items_of(database) == []


def test_a_refused_transaction_leaves_tables_without_streams_alone(
    database: Any, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """InternalServerError, and none of its tables has changed."""
    plain_table(database)
    database.put_item(TableName="plain", Item=item(n={"N": "1"}))
    set_n = {"UpdateExpression": "SET n = :n", "ExpressionAttributeValues": {":n": {"N": "2"}}}
    with monkeypatch.context() as patched:
        refusing(patched, "users")
        with pytest.raises(ClientError, match="InternalServerError"):
            database.transact_write_items(
                TransactItems=[
                    {"Update": {"TableName": "plain", "Key": KEY, **set_n}},
                    {"Put": {"TableName": "plain", "Item": OTHER}},
                    {"Put": {"TableName": "users", "Item": KEY}},
                ]
            )
    assert items_of(database, "plain") == [item(n={"N": "1"})]
    assert items_of(database) == recorded() == []


@pytest.mark.parametrize("call", ["writes", "statements", "batch"])
def test_what_is_recorded_stays_where_another_stream_refuses(
    database: Any, recorded: Recorded, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has no way back, so the table keeps what its stream has; all other tables are as they were."""
    create_table(database, "other")
    plain_table(database)
    names = ["plain", "users", "other"]
    calls: dict[str, Callable[[], object]] = {
        "writes": lambda: database.transact_write_items(
            TransactItems=[{"Put": {"TableName": name, "Item": KEY}} for name in names]
        ),
        "statements": lambda: database.execute_transaction(
            TransactStatements=[{"Statement": f"INSERT INTO {name} VALUE {{'id': 'a'}}"} for name in names]
        ),
        "batch": lambda: database.batch_write_item(
            RequestItems={name: [{"PutRequest": {"Item": KEY}}] for name in names}
        ),
    }
    with monkeypatch.context() as patched:
        refusing(patched, "other")
        with pytest.raises(ClientError, match="InternalServerError"):
            calls[call]()
    assert [items_of(database, name) for name in names] == [[], [KEY], []]
    assert [record[0] for record in recorded()] == ["INSERT"]


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([{"PutRequest": {"Item": {"id": {"S": ""}}}}], "empty string"),
        ([{"PutRequest": {"Item": {"id": {"S": str(number)}}}} for number in range(26)], "Member must have length"),
        ([{"PutRequest": {"Item": OTHER}}, {"DeleteRequest": {"Key": OTHER}}], "contains duplicates"),
        (
            [{"PutRequest": {"Item": OTHER}}, {"PutRequest": {"Item": {**OTHER, "n": {"N": "1"}}}}],
            "contains duplicates",
        ),
        ([{"PutRequest": {"Item": OTHER}}, {"PutRequest": {"Item": {"n": {"N": "1"}}}}], "Missing the key id"),
        ([{"PutRequest": {"Item": OTHER}}, {"PutRequest": {"Item": {"id": {"N": "1"}}}}], "Type mismatch for key id"),
        ([{"PutRequest": {"Item": OTHER}}, {"DeleteRequest": {"Key": {"x": {"S": "a"}}}}], "does not match the schema"),
        ([{"PutRequest": {"Item": OTHER}}, {"PutRequest": {"Item": item(x={"S": "x" * 410_000})}}], "Item size"),
        ([{"PutRequest": {"Item": OTHER}, "DeleteRequest": {"Key": KEY}}], "exactly one"),
    ],
)
def test_batches_that_are_refused(database: Any, recorded: Recorded, requests: list[Any], words: str) -> None:
    """ValidationException before anything is written."""
    with pytest.raises(ClientError, match=rf"(?s)ValidationException.*{words}"):
        database.batch_write_item(RequestItems={"users": requests})
    assert items_of(database) == recorded() == []


def test_a_batch_over_several_tables(database: Any, recorded: Recorded) -> None:
    """25 in all; a table that is not there refuses all of it."""
    create_table(database, "other")
    requests = [{"PutRequest": {"Item": {"id": {"S": str(number)}}}} for number in range(13)]
    with pytest.raises(ClientError, match=r"ValidationException.*Too many items"):
        database.batch_write_item(RequestItems={"users": requests, "other": requests})
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        database.batch_write_item(RequestItems={"users": requests, "nothing": requests[:1]})
    assert items_of(database) == recorded() == []
    database.batch_write_item(RequestItems={"users": requests, "other": requests[:12]})
    assert (len(items_of(database)), len(items_of(database, "other"))) == (13, 12)


# Functions


def test_a_failing_function_loses_nobody_elses_records(
    database: Any, recorded: Recorded, backend: DynamoDBBackend, streams: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is recorded in all of its tables before any function is invoked, and it succeeds."""
    other = create_table(database, "other")

    class Mapping:
        event_source_arn = "any"

    def fail(*_: object) -> None:
        raise RuntimeError("the function does not work")

    monkeypatch.setattr("moto.awslambda.utils.get_backend", fail)
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:f"
    backend.tables["users"].lambda_event_source_mappings[function] = Mapping()
    database.transact_write_items(
        TransactItems=[{"Put": {"TableName": name, "Item": KEY}} for name in ("users", "other")]
    )
    assert recorded() == [("INSERT", KEY, None, KEY)]
    assert summary(records_of(streams, other)) == [("INSERT", KEY, None, KEY)]
    assert items_of(database) == items_of(database, "other") == [KEY]


# Keys


def _pair(sort: str, **attributes: Any) -> dict[str, Any]:
    return {"h": {"S": "h"}, "r": {"S": sort}, **attributes}


def test_what_is_expected_is_expected_of_the_item_itself(database: Any, streams: Any) -> None:
    """Moto looks the old item up at the sort key that is expected; the service refuses one that is not the item's."""
    arn = pair_table(database)
    database.put_item(TableName="pairs", Item=_pair("1"))
    with pytest.raises(ClientError, match="ConditionalCheckFailedException"):
        database.put_item(TableName="pairs", Item=_pair("2"), Expected={"r": {"Value": {"S": "1"}}})
    database.put_item(TableName="pairs", Item=_pair("1", n={"N": "1"}), Expected={"r": {"Value": {"S": "1"}}})
    assert items_of(database, "pairs") == [_pair("1", n={"N": "1"})]
    assert [record[0] for record in summary(records_of(streams, arn))] == ["INSERT", "MODIFY"]


def test_putting_back_what_has_another_key(database: Any, backend: DynamoDBBackend) -> None:
    """The new item goes from its own key, the old one comes back to its own."""
    pair_table(database)
    table = backend.tables["pairs"]
    made = [Item(DynamoType({"S": "h"}), DynamoType({"S": sort}), _pair(sort)) for sort in "12"]
    table.put_item(_pair("2"))
    put_back(table, *made)
    assert items_of(database, "pairs") == [_pair("1")]


def test_an_item_that_replaced_another_key_is_an_insert(
    database: Any, backend: DynamoDBBackend, streams: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever moto takes for its old item; and a refusal takes out the new one only."""
    arn = pair_table(database)
    table = backend.tables["pairs"]
    table.put_item(_pair("1"))
    old, new = (Item(DynamoType({"S": "h"}), DynamoType({"S": sort}), _pair(sort)) for sort in "12")
    table.items[new.hash_key][new.range_key] = new
    with monkeypatch.context() as patched:
        refusing(patched, "pairs")
        with pytest.raises(StorageFull):
            table.stream_shard.add(old, new)  # type: ignore[union-attr]  # it is there
    assert items_of(database, "pairs") == [_pair("1")]
    table.put_item(_pair("2"), {"r": {"Value": {"S": "1"}}})
    assert summary(records_of(streams, arn))[1:] == [("INSERT", _pair("2"), None, _pair("2"))]


def test_keys_are_not_updated(database: Any, recorded: Recorded) -> None:
    """ValidationException, also by the old parameter."""
    database.put_item(TableName="users", Item=KEY)
    with pytest.raises(ClientError, match=r"ValidationException.*part of the key"):
        database.update_item(
            TableName="users", Key=KEY, AttributeUpdates={"id": {"Value": {"S": "b"}, "Action": "PUT"}}
        )
    assert items_of(database) == [KEY]
    assert len(recorded()) == 1


@pytest.mark.parametrize(
    "value", [{"B": b"\0\xff"}, {"BS": [b"x"]}, {"BOOL": False}, {"NULL": True}, {"L": [{"S": "a"}]}, {"S": "a"}]
)
def test_the_old_parameter_puts_values_of_any_type(database: Any, recorded: Recorded, value: dict[str, Any]) -> None:
    """Moto made strings of them."""
    database.update_item(TableName="users", Key=KEY, AttributeUpdates={"x": {"Value": value}})
    assert items_of(database) == [item(x=value)]
    assert recorded() == [("INSERT", KEY, None, item(x=value))]


# Streams and tables


def test_tables_that_vanish_with_mock_aws_have_their_streams_disabled(store_path: Path) -> None:
    """Their readers get to an end."""
    with shardlog.moto.install(store_path, durability="os") as installed:
        with mock_aws():
            create_table(client("dynamodb"))
            assert installed.store.stream("users").describe().status == "ENABLED"
        assert installed.store.stream("users").describe().status == "DISABLED"


def test_uninstalling_lets_tables_go_on(store_path: Path) -> None:
    """Within mock_aws: without a stream."""
    with mock_aws():
        database = client("dynamodb")
        with shardlog.moto.install(store_path, durability="os"):
            create_table(database)
            database.put_item(TableName="users", Item=KEY)
        database.put_item(TableName="users", Item=OTHER)
        assert "StreamSpecification" not in database.describe_table(TableName="users")["Table"]
        database.delete_table(TableName="users")
    with shardlog.open(store_path) as store:
        assert len(list(store.stream("users").read())) == 1


@pytest.mark.parametrize("call", ["delete", "disable", "enable"])
def test_the_store_is_asked_before_a_table_is_changed(
    database: Any, streams: Any, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it refuses: InternalServerError, and the table is there, as it was, with the stream that it had."""
    arn = create_table(database)
    plain_table(database)

    def refuse(*_: object, **__: object) -> None:
        raise StorageFull("no room")

    enabled = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    throughput = {"ProvisionedThroughput": {"ReadCapacityUnits": 7, "WriteCapacityUnits": 7}}
    calls: dict[str, Callable[[], object]] = {
        "delete": lambda: database.delete_table(TableName="users"),
        "disable": lambda: database.update_table(
            TableName="users", StreamSpecification={"StreamEnabled": False}, **throughput
        ),
        "enable": lambda: database.update_table(TableName="plain", StreamSpecification=enabled, **throughput),
    }
    before = [database.describe_table(TableName=name)["Table"] for name in ("users", "plain")]
    with monkeypatch.context() as patched:
        patched.setattr(Store, "disable_stream", refuse)
        patched.setattr(Store, "create_stream", refuse)
        with pytest.raises(ClientError, match="InternalServerError"):
            calls[call]()
    assert [database.describe_table(TableName=name)["Table"] for name in ("users", "plain")] == before
    database.put_item(TableName="users", Item=KEY)
    assert len(records_of(streams, arn)) == 1
    calls[call]()

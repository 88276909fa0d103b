"""What moto's tables do, in the log: with mock_aws, as a test suite uses it."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws
from tests.server.moto_tables import KEY, Recorded, client, item
from tests.server.serving import create_table, records_of, summary

import shardlog.moto
from shardlog import Stream
from shardlog.moto.installing import Installed


def test_a_new_item_an_overwrite_and_a_delete(database: Any, recorded: Recorded) -> None:
    """INSERT without an old image, one MODIFY with both, REMOVE without a new one."""
    database.put_item(TableName="users", Item=item())
    database.put_item(TableName="users", Item=item(n={"N": "1"}))
    database.delete_item(TableName="users", Key=KEY)
    assert recorded() == [
        ("INSERT", KEY, None, KEY),
        ("MODIFY", KEY, KEY, item(n={"N": "1"})),
        ("REMOVE", KEY, item(n={"N": "1"}), None),
    ]


def test_writes_that_change_nothing(database: Any, recorded: Recorded) -> None:
    """No record: the same item, maps and sets in another order, numbers written otherwise, what was not there."""
    first = item(m={"M": {"a": {"S": "x"}, "b": {"S": "y"}}}, s={"SS": ["p", "q"]}, n={"N": "1.0"})
    same = item(n={"N": "1"}, s={"SS": ["q", "p"]}, m={"M": {"b": {"S": "y"}, "a": {"S": "x"}}})
    database.put_item(TableName="users", Item=first)
    database.put_item(TableName="users", Item=same)
    database.update_item(TableName="users", Key=KEY, UpdateExpression="REMOVE nothing")
    database.update_item(
        TableName="users", Key=KEY, UpdateExpression="SET n = :n", ExpressionAttributeValues={":n": {"N": "1"}}
    )
    database.delete_item(TableName="users", Key={"id": {"S": "nobody"}})
    database.batch_write_item(RequestItems={"users": [{"PutRequest": {"Item": same}}]})
    database.transact_write_items(TransactItems=[{"Put": {"TableName": "users", "Item": same}}])
    assert len(recorded()) == 1


def test_an_update_that_makes_an_item_is_one_insert(database: Any, recorded: Recorded) -> None:
    """Moto carries it out in two writes; without attributes it still makes the item."""
    database.update_item(
        TableName="users", Key=KEY, UpdateExpression="SET n = :n", ExpressionAttributeValues={":n": {"N": "1"}}
    )
    other = {"id": {"S": "b"}}
    database.update_item(TableName="users", Key=other)
    assert recorded() == [("INSERT", KEY, None, item(n={"N": "1"})), ("INSERT", other, None, other)]


def test_an_update_has_the_right_old_image(database: Any, recorded: Recorded) -> None:
    """Also within maps and lists, which moto changes in place."""
    before = item(m={"M": {"a": {"L": [{"N": "1"}, {"N": "2"}]}}})
    after = copy.deepcopy(before)
    after["m"]["M"]["a"]["L"][1] = {"S": "x"}
    database.put_item(TableName="users", Item=before)
    database.update_item(
        TableName="users", Key=KEY, UpdateExpression="SET m.a[1] = :x", ExpressionAttributeValues={":x": {"S": "x"}}
    )
    assert recorded()[1] == ("MODIFY", KEY, before, after)


def test_a_set_that_becomes_empty_is_gone(database: Any, recorded: Recorded) -> None:
    """As the service removes the attribute."""
    database.put_item(TableName="users", Item=item(s={"SS": ["p"]}))
    database.update_item(
        TableName="users", Key=KEY, UpdateExpression="DELETE s :p", ExpressionAttributeValues={":p": {"SS": ["p"]}}
    )
    assert recorded()[1] == ("MODIFY", KEY, item(s={"SS": ["p"]}), KEY)


def test_binary_comes_back(database: Any, recorded: Recorded) -> None:
    """In values, sets, maps and lists."""
    image = item(b={"B": b"\0\xff"}, s={"BS": [b"a", b"b"]}, m={"M": {"b": {"B": b"x"}}}, li={"L": [{"B": b"y"}]})
    database.put_item(TableName="users", Item=image)
    assert recorded() == [("INSERT", KEY, None, image)]


def test_writes_that_fail_leave_nothing(database: Any, recorded: Recorded) -> None:
    """A condition that does not hold; an update that fails half-way leaves neither a record nor a half item."""
    database.put_item(TableName="users", Item=item(n={"N": "1"}))
    for call, members in [
        ("put_item", {"Item": item(), "ConditionExpression": "attribute_not_exists(id)"}),
        ("delete_item", {"Key": KEY, "ConditionExpression": "attribute_not_exists(id)"}),
        (
            "update_item",
            {
                "Key": KEY,
                "UpdateExpression": "SET n = :n, t = :t",
                "ExpressionAttributeValues": {":n": {"N": "2"}, ":t": {"S": "x" * 405_000}},
            },
        ),
        (
            "update_item",
            {
                "Key": {"id": {"S": "new"}},
                "UpdateExpression": "SET t = :t",
                "ExpressionAttributeValues": {":t": {"S": "x" * 405_000}},
            },
        ),
    ]:
        with pytest.raises(ClientError):
            getattr(database, call)(TableName="users", **members)
    assert len(recorded()) == 1
    assert database.scan(TableName="users")["Items"] == [item(n={"N": "1"})]


def test_batches(database: Any, recorded: Recorded) -> None:
    """A record for each request that changed something."""
    requests = [{"PutRequest": {"Item": {"id": {"S": str(number)}}}} for number in range(5)]
    database.batch_write_item(RequestItems={"users": requests})
    database.batch_write_item(RequestItems={"users": [{"DeleteRequest": {"Key": {"id": {"S": "3"}}}}]})
    events = [(record[0], record[1]["id"]["S"]) for record in recorded()]
    assert events == [*(("INSERT", str(number)) for number in range(5)), ("REMOVE", "3")]


def test_a_transaction_is_one_append_per_table(database: Any, installed: Installed, recorded: Recorded) -> None:
    """Put, update of a new item, delete: together, or not at all."""
    create_table(database, "other")
    database.put_item(TableName="users", Item={"id": {"S": "gone"}})
    appends = _appends_of(installed.store.stream("users"))
    database.transact_write_items(
        TransactItems=[
            {"Put": {"TableName": "users", "Item": item()}},
            {"Put": {"TableName": "other", "Item": item()}},
            {
                "Update": {
                    "TableName": "users",
                    "Key": {"id": {"S": "b"}},
                    "UpdateExpression": "SET n = :n",
                    "ExpressionAttributeValues": {":n": {"N": "1"}},
                }
            },
            {"Delete": {"TableName": "users", "Key": {"id": {"S": "gone"}}}},
            {
                "ConditionCheck": {
                    "TableName": "users",
                    "Key": {"id": {"S": "z"}},
                    "ConditionExpression": "attribute_not_exists(id)",
                }
            },
        ]
    )
    assert [record[0] for record in recorded()[1:]] == ["INSERT", "INSERT", "REMOVE"]
    assert appends() == 1
    (other,) = installed.store.stream("other").read()
    assert other.keys == KEY


def _appends_of(stream: Stream) -> Callable[[], int]:
    before = stream.commits
    return lambda: stream.commits - before


def test_a_cancelled_transaction_leaves_nothing(database: Any, recorded: Recorded) -> None:
    """Whatever came before what cancelled it; and the table goes on being recorded."""
    database.put_item(TableName="users", Item=item(n={"N": "1"}))
    with pytest.raises(ClientError, match="TransactionCanceledException"):
        database.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": "users", "Item": {"id": {"S": "b"}}}},
                {"Delete": {"TableName": "users", "Key": KEY, "ConditionExpression": "attribute_not_exists(id)"}},
            ]
        )
    assert len(recorded()) == 1
    database.put_item(TableName="users", Item=item(n={"N": "2"}))
    assert recorded()[1:] == [("MODIFY", KEY, item(n={"N": "1"}), item(n={"N": "2"}))]


def test_partiql(database: Any, recorded: Recorded) -> None:
    """Statements, batches of them, transactions of them."""
    run = database.execute_statement
    run(Statement="INSERT INTO users VALUE {'id': 'a', 't': 'x'}")
    run(Statement="UPDATE users SET t = 'y' WHERE id = 'a'")
    run(Statement="DELETE FROM users WHERE id = 'a'")
    database.batch_execute_statement(Statements=[{"Statement": "INSERT INTO users VALUE {'id': 'b'}"}])
    database.execute_transaction(
        TransactStatements=[{"Statement": f"INSERT INTO users VALUE {{'id': '{key}'}}"} for key in "cd"]
    )
    events = [(record[0], record[1]["id"]["S"]) for record in recorded()]
    assert events == [("INSERT", "a"), ("MODIFY", "a"), ("REMOVE", "a"), *(("INSERT", key) for key in "bcd")]
    assert recorded()[1][2:] == (item(t={"S": "x"}), item(t={"S": "y"}))


def test_a_partiql_transaction_is_one_append_or_nothing(
    database: Any, installed: Installed, recorded: Recorded
) -> None:
    """Moto itself takes nothing back when a later statement fails."""
    appends = _appends_of(installed.store.stream("users"))
    statements = [{"Statement": f"INSERT INTO users VALUE {{'id': '{key}'}}"} for key in "ab"]
    database.execute_transaction(TransactStatements=statements)
    assert appends() == 1
    with pytest.raises(Exception, match=r".+"):
        database.execute_transaction(
            TransactStatements=[
                {"Statement": "INSERT INTO users VALUE {'id': 'c'}"},
                {"Statement": "DELETE FROM nothing WHERE id = 'a'"},
            ]
        )
    assert len(recorded()) == 2
    assert len(database.scan(TableName="users")["Items"]) == 2


def test_sizes_and_versions(database: Any, streams: Any) -> None:
    """SizeBytes counts names and values; the region is the table's."""
    database = client("dynamodb", "eu-west-1")
    arn = create_table(database)
    database.put_item(TableName="users", Item={"id": {"S": "Fred"}})
    (record,) = records_of(client("dynamodbstreams", "eu-west-1"), arn)
    assert record["dynamodb"]["SizeBytes"] == 12
    assert (record["awsRegion"], record["eventVersion"]) == ("eu-west-1", "1.1")


def test_range_keys(database: Any, streams: Any) -> None:
    """Both keys; the schema tells which is which."""
    described = database.create_table(
        TableName="pairs",
        KeySchema=[{"AttributeName": "z", "KeyType": "HASH"}, {"AttributeName": "a", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "z", "AttributeType": "S"},
            {"AttributeName": "a", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
    )
    arn = described["TableDescription"]["LatestStreamArn"]
    keys = {"z": {"S": "p"}, "a": {"N": "1"}}
    database.put_item(TableName="pairs", Item={**keys, "x": {"S": "y"}})
    database.delete_item(TableName="pairs", Key=keys)
    assert summary(records_of(streams, arn)) == [("INSERT", keys, None, None), ("REMOVE", keys, None, None)]
    schema = streams.describe_stream(StreamArn=arn)["StreamDescription"]["KeySchema"]
    assert [(key["AttributeName"], key["KeyType"]) for key in schema] == [("z", "HASH"), ("a", "RANGE")]


# Any sequence of writes


keys = st.sampled_from("abcd")
numbers = st.integers(0, 2)
steps = st.one_of(
    st.tuples(st.just("put"), keys, numbers),
    st.tuples(st.just("set"), keys, numbers),
    st.tuples(st.just("add"), keys, numbers),
    st.tuples(st.just("remove"), keys, numbers),
    st.tuples(st.just("delete"), keys, numbers),
    st.tuples(st.just("transaction"), keys, numbers),
    st.tuples(st.just("refused"), keys, numbers),
    st.tuples(st.just("refused by ARN"), keys, numbers),
    st.tuples(st.just("batch"), keys, numbers),
    st.tuples(st.just("insert"), keys, numbers),
)


def _do(database: Any, table: str, step: tuple[str, str, int]) -> None:
    kind, key, number = step
    name = {"id": {"S": key}}
    values = {"ExpressionAttributeValues": {":n": {"N": str(number)}}}
    if kind == "put":
        database.put_item(TableName=table, Item={**name, "n": {"N": str(number)}})
    elif kind == "set":
        database.update_item(TableName=table, Key=name, UpdateExpression="SET n = :n", **values)
    elif kind == "add":
        database.update_item(TableName=table, Key=name, UpdateExpression="ADD n :n", **values)
    elif kind == "remove":
        database.update_item(TableName=table, Key=name, UpdateExpression="REMOVE n")
    elif kind == "delete":
        database.delete_item(TableName=table, Key=name)
    elif kind == "batch":
        item = {**name, "n": {"N": str(number)}}
        requests = [{"PutRequest": {"Item": item}}, {"DeleteRequest": {"Key": {"id": {"S": "d"}}}}]
        with suppress(ClientError):  # one item twice
            database.batch_write_item(RequestItems={table: requests[: 1 + number]})
    elif kind == "insert":
        with suppress(ClientError):
            database.execute_statement(Statement=f"INSERT INTO {table} VALUE {{'id': '{key}', 'n': {number}}}")
    else:
        if kind == "refused by ARN":
            table = database.describe_table(TableName=table)["Table"]["TableArn"]
        writes: list[dict[str, Any]] = [{"Put": {"TableName": table, "Item": {**name, "t": {"N": str(number)}}}}]
        if kind != "transaction":
            check = {"TableName": table, "Key": {"id": {"S": "z"}}, "ConditionExpression": "attribute_exists(id)"}
            writes.append({"ConditionCheck": check})
        with suppress(ClientError):
            database.transact_write_items(TransactItems=writes)


@settings(max_examples=40, deadline=None)
@given(st.lists(steps, max_size=12))
def test_replaying_a_stream_gives_the_table(steps: list[tuple[str, str, int]]) -> None:
    """Each record's old image is what the replica holds, each changes something, and in the end they are equal."""
    with tempfile.TemporaryDirectory() as path, shardlog.moto.install(path, durability="os"), mock_aws():
        database, streams = client("dynamodb"), client("dynamodbstreams")
        arn = create_table(database)
        for step in steps:
            _do(database, "users", step)
        replica: dict[str, Any] = {}
        for event, key, old, new in summary(records_of(streams, arn)):
            name = key["id"]["S"]
            assert replica.get(name) == old
            assert old != new
            assert event == ("INSERT" if old is None else "REMOVE" if new is None else "MODIFY")
            if new is None:
                del replica[name]
            else:
                replica[name] = new
        assert replica == {found["id"]["S"]: found for found in database.scan(TableName="users")["Items"]}

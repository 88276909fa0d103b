"""What requests for tables are refused for: their values, their statements, their tokens, their names and regions."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto.core.exceptions import JsonRESTError
from moto.dynamodb.exceptions import MockValidationException
from tests.server.moto_tables import KEY, Recorded, item
from tests.server.serving import Served, create_table, records_of, summary

from shardlog.format.values import LEVELS_MAX
from shardlog.moto.installing import Installed
from shardlog.moto.requests import check_request
from shardlog.moto.tables import answer
from shardlog.moto.tokens import TOKENS_MAX, IdempotentParameterMismatch, Place, Tokens, digest_of
from shardlog.moto.values import check_value
from shardlog.server.signing import Request
from shardlog.testing.clock import ManualClock

OTHER = {"id": {"S": "b"}}


def raw(operation: str, members: object) -> tuple[int, dict[str, Any]]:
    """Status and body of a request that no SDK would send."""
    headers = [("x-amz-target", f"DynamoDB_20120810.{operation}"), ("host", "localhost")]
    found = answer(Request("POST", "/", "", headers, json.dumps(members).encode()))
    return found.status, json.loads(found.body)


def nested(levels: int) -> dict[str, Any]:
    """A value within so many maps and lists."""
    value: dict[str, Any] = {"S": "x"}
    for level in range(levels):
        value = {"M": {"m": value}} if level % 2 else {"L": [value]}
    return value


# Values


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "is empty, must contain exactly one"),
        ({"X": "a"}, "is empty, must contain exactly one"),
        ({"S": None}, "is empty, must contain exactly one"),
        ({"S": "a", "N": "1"}, "more than one datatypes set"),
        ({"N": "x"}, "cannot be converted to a numeric value: x"),
        ({"N": ""}, "cannot be converted to a numeric value"),
        ({"N": " 1"}, "cannot be converted to a numeric value"),
        ({"N": "1_0"}, "cannot be converted to a numeric value"),
        ({"N": "٣"}, "cannot be converted to a numeric value"),
        ({"N": "NaN"}, "cannot be converted to a numeric value"),
        ({"N": "Infinity"}, "cannot be converted to a numeric value"),
        ({"N": "1E126"}, "Number overflow"),
        ({"N": "1E99999999999999999999"}, "Number overflow"),
        ({"N": "-1E-131"}, "Number underflow"),
        ({"N": "1" * 39}, "more than 38 significant digits"),
        ({"NS": ["1", "x"]}, "cannot be converted to a numeric value: x"),
        ({"NS": []}, "An number set  may not be empty"),
        ({"SS": []}, "An string set  may not be empty"),
        ({"BS": []}, "Binary sets should not be empty"),
        ({"NS": ["1", "1.0"]}, "contains duplicates"),
        ({"SS": ["a", "a"]}, "contains duplicates"),
        ({"BS": ["YQ==", "YQ=="]}, "contains duplicates"),
        ({"NULL": False}, "must have the value of true"),
        ({"L": [{"M": {"x": {"NS": ["NaN", "1"]}}}]}, "cannot be converted to a numeric value: NaN"),
        (nested(LEVELS_MAX + 1), "Nesting Levels have exceeded supported limits"),
    ],
)
def test_values_that_are_refused(value: dict[str, Any], words: str) -> None:
    """ValidationException in the service's words."""
    with pytest.raises(MockValidationException, match=words):
        check_value(value)


@pytest.mark.parametrize(
    "value",
    [
        *({"B": text} for text in ("a", "!!!!", "YQ=", "YQ==x", "ü")),
        *({kind: 5} for kind in ("S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS")),
        {"S": {}},
        {"SS": [1]},
        {"BOOL": "true"},
        {"L": [5]},
        "text",
    ],
)
def test_values_of_another_json_type(value: object) -> None:
    """SerializationException: also for base64 that is none."""
    with pytest.raises(JsonRESTError) as raised:
        check_value(value)
    assert raised.value.error_type == "SerializationException"


@pytest.mark.parametrize(
    "value",
    [
        {"S": ""},
        {"B": ""},
        {"L": []},
        {"M": {}},
        *({"N": text} for text in ("0", "-0.0", "+1", ".5", "1.", "0E999", "1E125", "1E-130", "1" * 38 + "0" * 80)),
        {"NS": ["1", "2"]},
        {"BS": ["YQ==", "Yg=="]},
        nested(LEVELS_MAX),
    ],
)
def test_values_that_are_taken(value: dict[str, Any]) -> None:
    """At the limits of what the service takes."""
    check_value(value)


def test_an_item_as_deep_as_may_be(database: Any, recorded: Recorded) -> None:
    """Is recorded, and read as it was; one more level is refused."""
    deepest = item(x=nested(LEVELS_MAX))
    database.put_item(TableName="users", Item=deepest)
    with pytest.raises(ClientError, match=r"ValidationException.*Nesting Levels"):
        database.put_item(TableName="users", Item=item(x=nested(LEVELS_MAX + 1)))
    assert database.scan(TableName="users")["Items"] == [deepest]
    assert recorded() == [("INSERT", KEY, None, deepest)]


def test_every_write_is_looked_at(database: Any, recorded: Recorded) -> None:
    """By whichever request a value comes: 400, and nothing is written."""
    bad = {"NS": ["x"]}
    put = {"TableName": "users", "Item": {**KEY, "x": bad}}
    values = {"ExpressionAttributeValues": {":x": bad}}
    update = {"TableName": "users", "Key": KEY, "UpdateExpression": "SET x = :x", **values}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("PutItem", put),
        ("UpdateItem", update),
        ("UpdateItem", {"TableName": "users", "Key": KEY, "AttributeUpdates": {"x": {"Value": bad}}}),
        ("BatchWriteItem", {"RequestItems": {"users": [{"PutRequest": {"Item": {**KEY, "x": bad}}}]}}),
        ("BatchWriteItem", {"RequestItems": {"users": []}}),
        ("BatchWriteItem", {"RequestItems": {}}),
        ("TransactWriteItems", {"TransactItems": [{"Put": {"TableName": "users", "Item": OTHER}}, {"Put": put}]}),
        ("TransactWriteItems", {"TransactItems": [{"Update": update}]}),
        ("ExecuteStatement", {"Statement": "UPDATE users SET x = ? WHERE id = 'a'", "Parameters": [bad]}),
        ("PutItem", {"TableName": "users", "Item": {"id": {"S": "a", "N": "1"}}}),
        ("PutItem", {"TableName": "users", "Item": {**KEY, "x": {"B": "a"}}}),
        ("PutItem", {"TableName": "users", "Item": {**KEY, "x": {}}}),
    ]
    for operation, members in requests:
        status, body = raw(operation, members)
        name = body["__type"].rpartition("#")[2]
        assert (status, name in ("ValidationException", "SerializationException")) == (400, True), (operation, body)
    assert database.scan(TableName="users")["Items"] == recorded() == []


def test_an_update_names_the_value_that_is_wrong(database: Any, recorded: Recorded) -> None:
    """As the service does."""
    with pytest.raises(ClientError, match=r"ExpressionAttributeValues contains invalid value: .* for key :x"):
        database.update_item(
            TableName="users",
            Key=KEY,
            UpdateExpression="SET x = :x",
            ExpressionAttributeValues={":x": {"NS": ["1", "1"]}},
        )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["S", "NS", "M", "L", "B"]), inner),
    max_leaves=8,
)
member_names = st.sampled_from(["TableName", "Item", "AttributeUpdates", "TransactItems", "RequestItems", "Parameters"])


@given(
    st.sampled_from(
        ["PutItem", "UpdateItem", "BatchWriteItem", "TransactWriteItems", "CreateTable", "ExecuteStatement"]
    ),
    st.dictionaries(member_names, json_values),
)
def test_any_members_are_taken_or_refused(operation: str, members: dict[str, Any]) -> None:
    """Whatever their shape: nothing else is raised than what moto answers."""
    with suppress(JsonRESTError):
        check_request(operation, members)


@pytest.mark.parametrize("name", ["a", "ab", "x" * 256, "what is this", "tabelle-ü", "a/b/c"])
def test_names_of_tables(installed: Installed, name: str) -> None:
    """ValidationException; no stream is made."""
    status, body = raw(
        "CreateTable",
        {
            "TableName": name,
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
        },
    )
    assert (status, body["__type"].rpartition("#")[2]) == (400, "ValidationException")
    assert installed.store.names() == []


# Tokens


def test_a_transaction_is_carried_out_once_per_token(database: Any, recorded: Recorded, clock: ManualClock) -> None:
    """Within ten minutes: success without effect; then it is a new one."""

    def add(number: str, token: str) -> None:
        update = {
            "TableName": "users",
            "Key": KEY,
            "UpdateExpression": "ADD n :n",
            "ExpressionAttributeValues": {":n": {"N": number}},
        }
        database.transact_write_items(TransactItems=[{"Update": update}], ClientRequestToken=token)

    add("1", "one")
    clock.advance(timedelta(minutes=9))
    add("1", "one")
    assert len(recorded()) == 1
    with pytest.raises(ClientError) as raised:
        add("2", "one")
    assert raised.value.response["Error"]["Code"] == "IdempotentParameterMismatchException"
    add("1", "two")
    clock.advance(timedelta(minutes=2))
    add("1", "one")
    assert [record[3] for record in recorded()] == [item(n={"N": number}) for number in "123"]


def test_what_was_cancelled_may_be_tried_again(database: Any, recorded: Recorded) -> None:
    """Under the same token."""
    check = {"TableName": "users", "Key": OTHER, "ConditionExpression": "attribute_exists(id)"}
    request = {
        "TransactItems": [{"Put": {"TableName": "users", "Item": KEY}}, {"ConditionCheck": check}],
        "ClientRequestToken": "one",
    }
    with pytest.raises(ClientError, match="TransactionCanceledException"):
        database.transact_write_items(**request)
    database.put_item(TableName="users", Item=OTHER)
    database.transact_write_items(**request)
    assert len(recorded()) == 2


def test_a_transaction_of_statements_has_a_token_too(database: Any, recorded: Recorded) -> None:
    """The same rule."""
    statements = [{"Statement": "INSERT INTO users VALUE {'id': 'a'}"}]
    for _ in range(2):
        database.execute_transaction(TransactStatements=statements, ClientRequestToken="one")
    assert len(recorded()) == 1


def test_tokens_are_of_one_region_and_limited(clock: ManualClock) -> None:
    """And gone with its tables."""
    tokens = Tokens(clock)
    here, there = Place("1", "here", "t"), Place("1", "there", "t")
    tokens.remember(here, b"x")
    assert tokens.is_known(here, b"x")
    assert not tokens.is_known(there, b"x")
    with pytest.raises(IdempotentParameterMismatch):
        tokens.is_known(here, b"y")
    tokens.forget("1", "here")
    assert not tokens.is_known(here, b"y")
    for number in range(TOKENS_MAX + 1):
        tokens.remember(Place("1", "here", str(number)), b"x")
    assert [tokens.is_known(Place("1", "here", str(number)), b"x") for number in (0, 1)] == [False, True]


def test_equal_requests_have_one_digest() -> None:
    """Maps in any order."""
    assert digest_of([{"a": {"B": b"x"}, "b": 1}]) == digest_of([{"b": 1, "a": {"B": b"x"}}])
    assert digest_of([1, 2]) != digest_of([2, 1])


# PartiQL


def test_inserting_what_is_there(database: Any, recorded: Recorded) -> None:
    """DuplicateItemException; in a transaction the whole is cancelled, and says which; in a batch it is one of them."""
    statement = "INSERT INTO users VALUE {'id': 'a', 'n': 1}"
    database.execute_statement(Statement=statement)
    with pytest.raises(ClientError) as raised:
        database.execute_statement(Statement="INSERT INTO users VALUE {'id': 'a', 'n': 2}")
    assert raised.value.response["Error"]["Code"] == "DuplicateItemException"
    with pytest.raises(ClientError) as raised:
        database.execute_transaction(
            TransactStatements=[{"Statement": "INSERT INTO users VALUE {'id': 'b'}"}, {"Statement": statement}]
        )
    assert raised.value.response["Error"]["Code"] == "TransactionCanceledException"
    assert [reason["Code"] for reason in raised.value.response["CancellationReasons"]] == ["None", "DuplicateItem"]
    assert len(recorded()) == 1
    statements = [{"Statement": statement}, {"Statement": "INSERT INTO users VALUE {'id': 'b'}"}]
    first, second = database.batch_execute_statement(Statements=statements)["Responses"]
    assert first["Error"]["Code"] == "DuplicateItem"
    assert "Error" not in second
    assert len(recorded()) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO users VALUE {'id': 'b', 'n': 1.5}",
        "INSERT INTO users VALUE {'id': 'b', 'n': ?}",
        "INSERT INTO users VALUE {'id': ",
        "INSERT INTO users VALUE",
        "INSERT INTO users VALUE {'n': 1}",
        "INSERT INTO users VALUE {'id': 1}",
        "UPDATE users SET n = 5 WHERE id = 'a'",
        "UPDATE users SET n = n + 1 WHERE id = 'a'",
        "UPDATE users SET n = ? WHERE id = 'a'",
        "UPDATE users",
        "DELETE FROM users",
        "DELETE FROM users WHERE id = ?",
        "DELETE FROM users WHERE id = 5",
        "SELECT",
        "what is this",
        "",
    ],
)
def test_statements_that_the_parser_fails_at(database: Any, recorded: Recorded, statement: str) -> None:
    """ValidationException by all three operations; the table is as it was."""
    database.put_item(TableName="users", Item=item(n={"N": "1"}))
    good = {"Statement": "INSERT INTO users VALUE {'id': 'z'}"}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("ExecuteStatement", {"Statement": statement}),
        ("ExecuteTransaction", {"TransactStatements": [good, {"Statement": statement}]}),
    ]
    for operation, members in calls:
        status, body = raw(operation, members)
        assert (status, body["__type"].rpartition("#")[2]) == (400, "ValidationException"), body
    status, body = raw("BatchExecuteStatement", {"Statements": [{"Statement": statement}]})
    assert status == 400 or body["Responses"][0]["Error"]["Code"] in ("ValidationError", "ResourceNotFound")
    assert database.scan(TableName="users")["Items"] == [item(n={"N": "1"})]
    assert len(recorded()) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO nothing VALUE {'id': 'a'}",
        "UPDATE nothing SET n = 'x' WHERE id = 'a'",
        "DELETE FROM nothing WHERE id = 'a'",
        "SELECT * FROM nothing",
    ],
)
def test_statements_about_no_table(database: Any, statement: str) -> None:
    """ResourceNotFoundException."""
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        database.execute_statement(Statement=statement)


def test_a_statement_that_fails_half_way_leaves_nothing(
    database: Any, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that changes several items, of which one is refused."""
    for key in "ab":
        database.put_item(TableName="users", Item={"id": {"S": key}, "t": {"S": "x" * (300_000 if key == "b" else 1)}})
    with pytest.raises(ClientError, match=r"ValidationException.*Item size"):
        database.execute_statement(Statement="UPDATE users SET u = ?", Parameters=[{"S": "y" * 200_000}])
    assert all("u" not in found for found in database.scan(TableName="users")["Items"])
    assert len(recorded()) == 2


# Regions


@pytest.mark.parametrize("region", ["localhost", "local", "nowhere-1", "us-west-2"])
def test_any_region_will_do(tables: Served, region: str) -> None:
    """Tables and streams of the same region, whether AWS has it or not."""
    database, streams = tables.client("dynamodb", region), tables.client("dynamodbstreams", region)
    arn = create_table(database)
    assert arn.split(":")[3] == region
    database.put_item(TableName="users", Item=KEY)
    assert summary(records_of(streams, arn)) == [("INSERT", KEY, None, KEY)]
    assert arn in [found["StreamArn"] for found in streams.list_streams()["Streams"]]


@pytest.mark.parametrize("region", ["", "UPPER", "a" * 64, "a b"])
def test_a_region_that_is_none(installed: Installed, region: str) -> None:
    """400, with its name."""
    headers = [
        ("x-amz-target", "DynamoDB_20120810.ListTables"),
        ("authorization", f"AWS4-HMAC-SHA256 Credential=any/20260101/{region}/dynamodb/aws4_request, SignedHeaders=x"),
    ]
    found = answer(Request("POST", "/", "", headers, b"{}"))
    assert found.status == 400
    assert repr(region) in json.loads(found.body)["message"]


def test_a_signature_without_a_region(installed: Installed) -> None:
    """400 as well."""
    headers = [("x-amz-target", "DynamoDB_20120810.ListTables"), ("authorization", "AWS4-HMAC-SHA256 any")]
    assert answer(Request("POST", "/", "", headers, b"{}")).status == 400

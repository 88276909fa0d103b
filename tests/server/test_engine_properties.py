"""What the engine keeps for the server: a stream's table, who made a change, one incarnation's deletion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tools.commands import run_process

import shardlog
from shardlog import Change, InvalidArgument, Store, StreamNotFound, fsck
from shardlog.format.record import BatchContext, StoredBatch, encode_batch

TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/users"
KEY = {"id": {"S": "a"}}


def test_a_stream_knows_its_table(store_path: Path) -> None:
    """Its ARN is under the table's; also after it was opened again, and in a snapshot."""
    with shardlog.open(store_path) as store:
        stream = store.create_stream("s", table_arn=TABLE)
        arn = f"{TABLE}/stream/{stream.label}"
        stream.append([Change.insert(keys=KEY, new=KEY)])
        stream.snapshot(store_path.parent / "copy")
    for path in (store_path, store_path.parent / "copy"):
        with shardlog.open(path) as store:
            description = store.stream("s").describe()
            assert (description.table_arn, description.arn) == (TABLE, arn)


def test_a_stream_without_a_table(store: Store) -> None:
    """Is nobody's, as ever."""
    description = store.create_stream("s").describe()
    assert description.table_arn is None
    assert description.arn == f"arn:aws:dynamodb:local:000000000000:table/s/stream/{description.label}"


@pytest.mark.parametrize("wrap", [lambda value: {"L": [value]}, lambda value: {"M": {"a": value}}], ids=["L", "M"])
def test_items_of_a_table_are_nested_as_deep_as_dynamodb_allows(store: Store, wrap: Callable[[Any], Any]) -> None:
    """32 levels of lists or maps, twice as many of typed values; one more is refused, and nothing appended."""
    stream = store.create_stream("s", table_arn=TABLE)
    value: Any = {"S": "innermost"}
    for _ in range(32):
        value = wrap(value)
    stream.append([Change.insert(keys=KEY, new={**KEY, "deep": value})])
    with pytest.raises(InvalidArgument, match="levels of nesting"):
        stream.append([Change.insert(keys=KEY, new={**KEY, "deep": wrap(value)})])
    assert [record.new_image for record in stream.read()] == [{**KEY, "deep": value}]
    assert fsck(store.path, deep=True).clean


@pytest.mark.parametrize("arn", ["", "users", TABLE + "/stream/x", TABLE.replace("123456789012", "1"), 5, TABLE + "\n"])
def test_other_arns_are_refused(store: Store, arn: Any) -> None:
    """Before anything is made."""
    with pytest.raises(InvalidArgument, match="table_arn"):
        store.create_stream("s", table_arn=arn)
    assert store.names() == []


@pytest.mark.parametrize("view_type", ["KEYS_ONLY", "NEW_AND_OLD_IMAGES"])
def test_who_made_a_change_is_kept(store_path: Path, view_type: str) -> None:
    """Beside changes of the application in the same append, whatever the view type; the deep check finds nothing."""
    with shardlog.open(store_path) as store:
        stream = store.create_stream("s", key_names=["id"], partition_key="id", view_type=view_type, shards=2)
        stream.append(
            [
                Change.insert(keys={"id": 1}, new={"id": 1}),
                Change.remove(keys={"id": 1}, old={"id": 1}, identity="service"),
                Change("MODIFY", {"id": 2}, {"id": 2}, {"id": 2}, "another"),
            ]
        )
        found = {(record.keys["id"], record.event): record.identity for record in stream.read()}
        assert found == {(1, "INSERT"): None, (1, "REMOVE"): "service", (2, "MODIFY"): "another"}
        pages = [
            record.identity
            for shard in stream.describe().shards
            for record in stream.get_records(stream.iterator(shard.shard_id, "TRIM_HORIZON"), 1).records
        ]
        assert set(pages) <= {None, "service", "another"}
    assert fsck(store_path, deep=True).clean


def test_a_decoded_and_an_undecoded_record_tell_the_same() -> None:
    """Identity, and the row that was encoded."""
    row = [3, {"id": 1}, None, {"id": 1}, {"identity": "service"}]
    batch = StoredBatch(encode_batch([row], [0]), 1, 5, BatchContext("", 0, ""))
    for record in (*batch.decoded_records(), *batch.records(5, 6)):
        assert record.identity == "service"
        assert record.row == row


@pytest.mark.parametrize("identity", ["", 5, b"x"])
def test_other_identities_are_refused(identity: Any) -> None:
    """InvalidArgument."""
    with pytest.raises(InvalidArgument, match="identity"):
        Change.remove(keys=KEY, old=KEY, identity=identity)


def test_identities_go_out_and_in(store_path: Path) -> None:
    """`cat | import` loses nothing; a line with a wrong one is refused."""
    with shardlog.open(store_path) as store:
        store.create_stream("s").append([Change.remove(keys=KEY, old=KEY, identity='a "service"')])
    run_process("create", store_path, "copy")
    lines = run_process("cat", store_path, "s").data
    assert run_process("import", store_path, "copy", "-", stdin=lines.encode()).status == 0
    with shardlog.open(store_path) as store:
        (record,) = store.stream("copy").read()
        assert getattr(record, "identity", None) == 'a "service"'
    wrong = lines.encode().replace(b'"a \\"service\\""', b"5")
    refused = run_process("import", store_path, "copy", "-", "--producer", "other", stdin=wrong)
    assert refused.status == 1
    assert "identity" in refused.talk


def test_salvage_keeps_identity_and_table(store_path: Path) -> None:
    """A copy of what is good is whole."""
    with shardlog.open(store_path) as store:
        stream = store.create_stream("s", table_arn=TABLE)
        stream.append([Change.remove(keys=KEY, old=KEY, identity="service")])
    new = store_path.parent / "new"
    assert run_process("salvage", store_path, new).status == 0
    with shardlog.open(new) as store:
        copy = store.stream("s")
        (record,) = copy.read()
        assert getattr(record, "identity", None) == "service"
        assert copy.describe().table_arn == TABLE


def test_one_incarnation_is_deleted(store: Store) -> None:
    """The others stay; an unknown label is StreamNotFound."""
    first = store.create_stream("s").label
    store.disable_stream("s")
    second = store.create_stream("s").label
    with pytest.raises(StreamNotFound):
        store.delete_stream("s", "2020-01-01T00:00:00.000")
    store.delete_stream("s", first)
    assert store.names() == [("s", second)]
    store.delete_stream("s", second)
    assert store.names() == []


def test_create_takes_a_table(store_path: Path) -> None:
    """On the command line."""
    created = run_process("create", store_path, "s", "--table-arn", TABLE, "--json").json()
    assert created["table_arn"] == TABLE
    assert created["arn"].startswith(TABLE)
    assert run_process("create", store_path, "t", "--table-arn", "nothing").status == 1

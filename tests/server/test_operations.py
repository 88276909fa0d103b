"""The four operations over a store with a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from shardlog import Change, Store, Stream
from shardlog.server.catalogue import Scope
from shardlog.server.faults import Fault, invalid_iterator
from shardlog.server.identifiers import sequence_text
from shardlog.server.operations import StreamsApi
from shardlog.testing.clock import ManualClock

Call = Callable[..., dict[str, Any]]
NO_ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/none/stream/2026-01-01T00:00:00.000"
NO_SHARD = "shardId-00000000000000000000-ffffffff"
SMALL = 16 << 10


def new_stream(store: Store, name: str = "users", **options: Any) -> Stream:
    return store.create_stream(name, **{"key_names": ["id"], "partition_key": "id", "segment_bytes": SMALL, **options})


def table_stream(store: Store, name: str, region: str = "us-east-1") -> Stream:
    arn = f"arn:aws:dynamodb:{region}:123456789012:table/{name}"
    return new_stream(store, f"{region}.{name}", table_arn=arn)


def put(stream: Stream, *ids: str) -> list[int]:
    return stream.append([Change.insert(keys={"id": key}, new={"id": key}) for key in ids]).sequences


def fault_of(call: Call, operation: str, **members: Any) -> Fault:
    with pytest.raises(Fault) as raised:
        call(operation, **members)
    return raised.value


def iterator(call: Call, stream: Stream, kind: str = "TRIM_HORIZON", **members: Any) -> str:
    description = stream.describe()
    shard_id = members.pop("ShardId", description.shards[0].shard_id)
    answer = call("GetShardIterator", StreamArn=description.arn, ShardId=shard_id, ShardIteratorType=kind, **members)
    text: str = answer["ShardIterator"]
    return text


def ids(page: dict[str, Any]) -> list[str]:
    return [record["dynamodb"]["Keys"]["id"]["S"] for record in page["Records"]]


# ListStreams


def test_streams_are_listed_in_pages(call: Call, store: Store) -> None:
    """In lexical order of their ARN; no cookie on the last page."""
    arns = sorted(new_stream(store, f"table-{number}").describe().arn for number in range(5))
    first = call("ListStreams", Limit=2)
    assert [found["StreamArn"] for found in first["Streams"]] == arns[:2]
    assert first["LastEvaluatedStreamArn"] == arns[1]
    second = call("ListStreams", Limit=3, ExclusiveStartStreamArn=arns[1])
    assert [found["StreamArn"] for found in second["Streams"]] == arns[2:]
    assert "LastEvaluatedStreamArn" not in second


def test_paging_survives_deletions_and_additions(call: Call, store: Store) -> None:
    """The cookie's stream is gone when the next page is asked for, and another one has come behind it."""
    for name in ("aaa", "ccc", "eee"):
        new_stream(store, name)
    cookie = call("ListStreams", Limit=2)["LastEvaluatedStreamArn"]
    store.delete_stream("ccc")
    new_stream(store, "ddd")
    page = call("ListStreams", Limit=2, ExclusiveStartStreamArn=cookie)
    assert [found["TableName"] for found in page["Streams"]] == ["ddd", "eee"]


def test_streams_of_one_table(call: Call, store: Store) -> None:
    """Also those that are disabled; of a table that is not there, none."""
    new_stream(store, "users")
    new_stream(store, "other")
    store.disable_stream("users")
    new_stream(store, "users")
    found = call("ListStreams", TableName="users")["Streams"]
    assert len(found) == 2
    assert {stream["TableName"] for stream in found} == {"users"}
    assert call("ListStreams", TableName="nothing") == {"Streams": []}


def test_a_region_shows_its_tables_and_programs_streams(call: Call, store: Store) -> None:
    """Who asks in another region does not see a table's stream; a program's stream is everybody's."""
    table_stream(store, "here", "eu-west-1")
    table_stream(store, "there", "us-east-1")
    new_stream(store, "program")
    found = call("ListStreams", scope=Scope("eu-west-1"))["Streams"]
    assert {stream["TableName"] for stream in found} == {"here", "program"}
    assert len(call("ListStreams")["Streams"]) == 3


# DescribeStream


def test_a_description_is_whole(call: Call, store: Store) -> None:
    """All members of the model, the hash key first."""
    stream = new_stream(store, key_names=["at", "id"], view_type="NEW_IMAGE")
    description = stream.describe()
    described = call("DescribeStream", StreamArn=description.arn)["StreamDescription"]
    assert described == {
        "StreamArn": description.arn,
        "StreamLabel": description.label,
        "StreamStatus": "ENABLED",
        "StreamViewType": "NEW_IMAGE",
        "CreationRequestDateTime": description.created_at.timestamp(),
        "TableName": "users",
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
        "Shards": [
            {
                "ShardId": description.shards[0].shard_id,
                "SequenceNumberRange": {"StartingSequenceNumber": sequence_text(1)},
            }
        ],
    }


def test_shards_are_listed_in_pages(call: Call, store: Store) -> None:
    """In lexical order, parents and children, each once."""
    stream = new_stream(store, shards=4)
    for shard in stream.describe().shards:
        stream.split_shard(shard.shard_id, at=sum(shard.hash_range) // 2)
    arn = stream.describe().arn
    found: list[str] = []
    more: dict[str, Any] = {}
    while True:
        page = call("DescribeStream", StreamArn=arn, Limit=5, **more)["StreamDescription"]
        found += [shard["ShardId"] for shard in page["Shards"]]
        if "LastEvaluatedShardId" not in page:
            break
        assert len(page["Shards"]) == 5
        more = {"ExclusiveStartShardId": page["LastEvaluatedShardId"]}
    assert found == sorted(shard.shard_id for shard in stream.describe().shards)
    assert len(found) == 12


def test_closed_shards_have_an_end_and_children_a_parent(call: Call, store: Store) -> None:
    """Children start above their parent's end; a shard without a record has a range, too."""
    stream = new_stream(store)
    child_id = stream.roll_shard(stream.describe().shards[0].shard_id)
    parent, child = call("DescribeStream", StreamArn=stream.describe().arn)["StreamDescription"]["Shards"]
    ends = parent["SequenceNumberRange"]
    assert int(ends["StartingSequenceNumber"]) <= int(ends["EndingSequenceNumber"])
    assert int(ends["EndingSequenceNumber"]) < int(child["SequenceNumberRange"]["StartingSequenceNumber"])
    assert "EndingSequenceNumber" not in child["SequenceNumberRange"]
    assert (child["ShardId"], child["ParentShardId"]) == (child_id, parent["ShardId"])
    assert "ParentShardId" not in parent


def test_children_of_one_shard(call: Call, store: Store) -> None:
    """CHILD_SHARDS: the children and nothing else; none for an open shard."""
    stream = new_stream(store)
    parent_id = stream.describe().shards[0].shard_id
    children = stream.split_shard(parent_id, at=1 << 127)
    arn = stream.describe().arn
    asked = {"Type": "CHILD_SHARDS", "ShardId": parent_id}
    described = call("DescribeStream", StreamArn=arn, ShardFilter=asked)["StreamDescription"]
    assert [shard["ShardId"] for shard in described["Shards"]] == sorted(children)
    asked["ShardId"] = children[0]
    assert call("DescribeStream", StreamArn=arn, ShardFilter=asked)["StreamDescription"]["Shards"] == []
    asked["ShardId"] = NO_SHARD
    assert fault_of(call, "DescribeStream", StreamArn=arn, ShardFilter=asked).name == "ResourceNotFoundException"


def test_nothing_of_an_arn(call: Call, store: Store) -> None:
    """Well-formed: ResourceNotFoundException with the service's words. Malformed: ValidationException."""
    new_stream(store)
    fault = fault_of(call, "DescribeStream", StreamArn=NO_ARN)
    assert fault.name == "ResourceNotFoundException"
    assert fault.text == f"Requested resource not found: Stream: {NO_ARN} not found"
    assert fault_of(call, "DescribeStream", StreamArn="x" * 37).name == "ValidationException"


# GetShardIterator


def test_the_four_kinds_of_iterators(call: Call, store: Store) -> None:
    """And AT_TIMESTAMP, which the newest model has."""
    stream = new_stream(store)
    numbers = put(stream, "a", "b", "c")
    at = {"SequenceNumber": sequence_text(numbers[1])}
    assert ids(call("GetRecords", ShardIterator=iterator(call, stream))) == ["a", "b", "c"]
    assert ids(call("GetRecords", ShardIterator=iterator(call, stream, "AT_SEQUENCE_NUMBER", **at))) == ["b", "c"]
    assert ids(call("GetRecords", ShardIterator=iterator(call, stream, "AFTER_SEQUENCE_NUMBER", **at))) == ["c"]
    latest = iterator(call, stream, "LATEST")
    put(stream, "d")
    assert ids(call("GetRecords", ShardIterator=latest)) == ["d"]


def test_a_timestamp_finds_the_first_record_at_or_after_it(call: Call, store: Store, clock: ManualClock) -> None:
    """Records tell the second, rounded down, and that is what is compared; older than all: the horizon."""
    stream = new_stream(store)
    start = clock.wall_us() / 1e6
    for key in "abc":
        put(stream, key)
        clock.advance(timedelta(seconds=10.7))

    def read(timestamp: float) -> list[str]:
        return ids(call("GetRecords", ShardIterator=iterator(call, stream, "AT_TIMESTAMP", Timestamp=timestamp)))

    assert read(start - 1000) == ["a", "b", "c"]
    assert read(start) == ["a", "b", "c"]
    assert read(start + 0.1) == ["b", "c"]
    assert read(start + 10) == ["b", "c"]  # appended at 10.7, says 10
    assert read(start + 10.5) == ["c"]
    assert read(start + 30) == []
    asked = {"StreamArn": stream.describe().arn, "ShardId": stream.describe().shards[0].shard_id}
    future = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": start + 1000}
    assert fault_of(call, "GetShardIterator", **asked, **future).name == "ValidationException"


def test_the_starting_number_reads_all_that_a_shard_has(call: Call, store: Store, clock: ManualClock) -> None:
    """Also after a part of it has expired."""
    stream = new_stream(store, retention=timedelta(hours=1))
    put(stream, "old")
    clock.advance(timedelta(hours=2))
    put(stream, "new")
    stream.expire(force=True)
    (shard,) = call("DescribeStream", StreamArn=stream.describe().arn)["StreamDescription"]["Shards"]
    start = shard["SequenceNumberRange"]["StartingSequenceNumber"]
    page = call("GetRecords", ShardIterator=iterator(call, stream, "AT_SEQUENCE_NUMBER", SequenceNumber=start))
    assert ids(page) == ids(call("GetRecords", ShardIterator=iterator(call, stream)))
    assert "new" in ids(page)
    assert int(start) > int(sequence_text(1))


def test_a_number_that_has_expired(call: Call, store: Store, clock: ManualClock) -> None:
    """TrimmedDataAccessException from GetShardIterator, and from GetRecords for an iterator from before."""
    stream = new_stream(store, retention=timedelta(minutes=10))
    (number,) = put(stream, "old")
    at = {"SequenceNumber": sequence_text(number)}
    held = iterator(call, stream, "AT_SEQUENCE_NUMBER", **at)
    clock.advance(timedelta(minutes=12))
    put(stream, "new")
    stream.expire(force=True)
    description = stream.describe()
    asked = {"StreamArn": description.arn, "ShardId": description.shards[0].shard_id}
    fault = fault_of(call, "GetShardIterator", **asked, ShardIteratorType="AT_SEQUENCE_NUMBER", **at)
    assert fault.name == "TrimmedDataAccessException"
    assert fault_of(call, "GetRecords", ShardIterator=held).name == "TrimmedDataAccessException"


def test_an_iterator_lives_fifteen_minutes(call: Call, store: Store, clock: ManualClock) -> None:
    """Every page gives a fresh one, so a poller never expires."""
    stream = new_stream(store)
    first = position = iterator(call, stream)
    for _ in range(4):
        clock.advance(timedelta(minutes=14))
        position = call("GetRecords", ShardIterator=position)["NextShardIterator"]
    fault = fault_of(call, "GetRecords", ShardIterator=first)
    assert fault.name == "ExpiredIteratorException"
    assert fault.text == "The provided iterator exceeds the maximum age allowed."


def test_an_unknown_shard(call: Call, store: Store) -> None:
    """ResourceNotFoundException."""
    stream = new_stream(store)
    asked = {"StreamArn": stream.describe().arn, "ShardId": NO_SHARD, "ShardIteratorType": "LATEST"}
    assert fault_of(call, "GetShardIterator", **asked).name == "ResourceNotFoundException"


@pytest.mark.parametrize("number", ["9" * 21, "9" * 40, "0" * 21, sequence_text(10**12)])
def test_a_number_that_no_record_has(call: Call, store: Store, number: str) -> None:
    """ValidationException with the number as it was given, and none of the engine's, which clients never see."""
    stream = new_stream(store)
    description = stream.describe()
    fault = fault_of(
        call,
        "GetShardIterator",
        StreamArn=description.arn,
        ShardId=description.shards[0].shard_id,
        ShardIteratorType="AT_SEQUENCE_NUMBER",
        SequenceNumber=number,
    )
    assert (fault.name, fault.text) == ("ValidationException", f"Invalid SequenceNumber: {number}")


# GetRecords


def test_a_closed_shard_ends_without_a_next_iterator(call: Call, store: Store) -> None:
    """Missing, not null; before its end there is one. Its end can be asked for, too."""
    stream = new_stream(store)
    parent_id = stream.describe().shards[0].shard_id
    put(stream, "a", "b")
    stream.roll_shard(parent_id)
    put(stream, "c")
    page = call("GetRecords", ShardIterator=iterator(call, stream), Limit=1)
    assert ids(page) == ["a"]
    last = call("GetRecords", ShardIterator=page["NextShardIterator"])
    assert ids(last) == ["b"]
    assert "NextShardIterator" not in last
    parent = call("DescribeStream", StreamArn=stream.describe().arn)["StreamDescription"]["Shards"][0]
    end = {"SequenceNumber": parent["SequenceNumberRange"]["EndingSequenceNumber"]}
    for kind in ("AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER"):
        position = iterator(call, stream, kind, ShardId=parent_id, **end)
        assert call("GetRecords", ShardIterator=position) == {"Records": []}


def test_a_page_has_at_most_a_thousand_records_or_a_megabyte(call: Call, store: Store) -> None:
    """Whichever is first; what is left comes with the next page."""
    stream = new_stream(store)
    put(stream, *(f"{number:05d}" for number in range(1500)))
    page = call("GetRecords", ShardIterator=iterator(call, stream))
    assert len(page["Records"]) == 1000
    assert len(call("GetRecords", ShardIterator=page["NextShardIterator"])["Records"]) == 500
    large = new_stream(store, "large", view_type="NEW_IMAGE", segment_bytes=4 << 20)
    large.append([Change.insert(keys={"id": str(n)}, new={"id": str(n), "text": "x" * 300_000}) for n in range(7)])
    sizes = []
    position = iterator(call, large)
    while True:
        page = call("GetRecords", ShardIterator=position)
        if not page["Records"]:
            break
        sizes.append(len(page["Records"]))
        position = page["NextShardIterator"]
    assert sizes == [3, 3, 1]


def test_a_record_of_plain_values(call: Call, store: Store, clock: ManualClock) -> None:
    """All members of the model; the time is rounded down to the second; sizes are of names and values."""
    clock.advance(timedelta(milliseconds=999))
    stream = new_stream(store)
    stream.append([Change.insert(keys={"id": "Fred"}, new={"id": "Fred"})])
    stream.append([Change.modify(keys={"id": "Fred"}, old={"id": "Fred"}, new={"id": "Fred", "n": 1})])
    stream.append([Change.remove(keys={"id": "Fred"}, old={"id": "Fred", "n": 1})])
    insert, modify, remove = call("GetRecords", ShardIterator=iterator(call, stream))["Records"]
    assert len(insert.pop("eventID")) == 32
    assert insert == {
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "local",
        "dynamodb": {
            "ApproximateCreationDateTime": clock.wall_us() // 1_000_000,
            "Keys": {"id": {"S": "Fred"}},
            "NewImage": {"id": {"S": "Fred"}},
            "SequenceNumber": sequence_text(1),
            "SizeBytes": 12,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }
    assert modify["dynamodb"]["OldImage"] == {"id": {"S": "Fred"}}
    assert modify["dynamodb"]["SizeBytes"] == 6 + 6 + 9
    assert "NewImage" not in remove["dynamodb"]
    assert remove["dynamodb"]["SizeBytes"] == 6 + 9


@pytest.mark.parametrize(
    ("view_type", "images"),
    [
        ("KEYS_ONLY", set()),
        ("NEW_IMAGE", {"NewImage"}),
        ("OLD_IMAGE", {"OldImage"}),
        ("NEW_AND_OLD_IMAGES", {"NewImage", "OldImage"}),
    ],
)
def test_a_view_type_says_which_images_there_are(call: Call, store: Store, view_type: str, images: set[str]) -> None:
    """And the size counts those only."""
    stream = new_stream(store, view_type=view_type)
    stream.append([Change.modify(keys={"id": "a"}, old={"id": "a"}, new={"id": "a", "b": "c"})])
    (record,) = call("GetRecords", ShardIterator=iterator(call, stream))["Records"]
    assert {name for name in record["dynamodb"] if name.endswith("Image")} == images
    assert record["dynamodb"]["SizeBytes"] == 3 + 5 * ("NewImage" in images) + 3 * ("OldImage" in images)


def test_typed_images_are_given_as_they_are(call: Call, store: Store) -> None:
    """A table's stream; its region is that of its ARN."""
    stream = table_stream(store, "users", "eu-west-1")
    image = {"id": {"S": "Fred"}, "n": {"N": "1"}}
    stream.append([Change.insert(keys={"id": {"S": "Fred"}}, new=image)])
    (record,) = call("GetRecords", ShardIterator=iterator(call, stream))["Records"]
    assert record["dynamodb"]["NewImage"] == image
    assert record["dynamodb"]["SizeBytes"] == 6 + 6 + 3
    assert record["awsRegion"] == "eu-west-1"


def test_a_services_change_says_so(call: Call, store: Store) -> None:
    """By the model's names, which SDKs read, and by those of the guide."""
    stream = table_stream(store, "users")
    image = {"id": {"S": "a"}}
    stream.append([Change.remove(keys=image, old=image, identity="dynamodb.amazonaws.com")])
    (record,) = call("GetRecords", ShardIterator=iterator(call, stream))["Records"]
    assert record["userIdentity"]["Type"] == record["userIdentity"]["type"] == "Service"
    assert record["userIdentity"]["PrincipalId"] == "dynamodb.amazonaws.com"
    assert record["userIdentity"]["principalId"] == "dynamodb.amazonaws.com"


def test_iterators_of_others(call: Call, store: Store) -> None:
    """Malformed, or of one stream under the name of another: ValidationException, in the same words.

    Of a deleted one: not found.
    """
    stream, other = new_stream(store), new_stream(store, "other")
    token = iterator(call, stream).rpartition("|")[2]
    for text in (
        "garbage",
        "a|1|b",
        f"{other.describe().arn}|1|{token}",
        f"{stream.describe().arn}|1|{token[:-4]}AAAA",
    ):
        fault = fault_of(call, "GetRecords", ShardIterator=text)
        assert (fault.name, fault.text) == (invalid_iterator().name, invalid_iterator().text)
    held = iterator(call, other)
    store.delete_stream("other")
    assert fault_of(call, "GetRecords", ShardIterator=held).name == "ResourceNotFoundException"


# Disabled streams


def test_a_disabled_tables_stream_is_there_for_a_day(
    api: StreamsApi, call: Call, store: Store, clock: ManualClock
) -> None:
    """DISABLED, its shards closed, readable; a new one under the same name is empty. Then it is gone."""
    stream = table_stream(store, "users")
    put_typed = Change.insert(keys={"id": {"S": "a"}}, new={"id": {"S": "a"}})
    stream.append([put_typed])
    arn = stream.describe().arn
    store.disable_stream(stream.name)
    table_stream(store, "users")
    assert len(call("ListStreams", TableName="users")["Streams"]) == 2
    described = call("DescribeStream", StreamArn=arn)["StreamDescription"]
    assert described["StreamStatus"] == "DISABLED"
    assert all("EndingSequenceNumber" in shard["SequenceNumberRange"] for shard in described["Shards"])
    page = call("GetRecords", ShardIterator=iterator(call, stream))
    assert ids(page) == ["a"]
    assert "NextShardIterator" not in page
    clock.advance(timedelta(hours=23, minutes=59))
    assert len(call("ListStreams", TableName="users")["Streams"]) == 2
    clock.advance(timedelta(minutes=2))
    assert len(call("ListStreams", TableName="users")["Streams"]) == 1
    assert fault_of(call, "DescribeStream", StreamArn=arn).name == "ResourceNotFoundException"
    assert api._catalogue.remove_expired() == [arn]
    assert [name for name, _ in store.names()] == [stream.name]


def test_a_programs_disabled_stream_stays(api: StreamsApi, call: Call, store: Store, clock: ManualClock) -> None:
    """It is the program's to delete."""
    stream = new_stream(store)
    put(stream, "a")
    store.disable_stream("users")
    clock.advance(timedelta(days=3))
    assert api._catalogue.remove_expired() == []
    assert len(call("ListStreams")["Streams"]) == 1


def test_readers_go_through_splits_and_merges(call: Call, store: Store) -> None:
    """Parents before children, by ParentShardId and the ends of shards alone: every record once, in order per key."""
    stream = new_stream(store)
    expected: list[str] = []
    for round_number in range(6):
        keys = [f"{round_number}-{number}" for number in range(50)]
        put(stream, *keys)
        expected += keys
        shards = [shard for shard in stream.describe().shards if shard.end_sequence is None]
        if len(shards) >= 4:
            ordered = sorted(shards, key=lambda shard: shard.hash_range)
            stream.merge_shards(ordered[0].shard_id, ordered[1].shard_id)
        else:
            stream.split_shard(shards[0].shard_id, at=sum(shards[0].hash_range) // 2)
    store.disable_stream("users")
    read: list[str] = []
    for shard in call("DescribeStream", StreamArn=stream.describe().arn)["StreamDescription"]["Shards"]:
        position: str | None = iterator(call, stream, ShardId=shard["ShardId"])
        while position is not None:
            page = call("GetRecords", ShardIterator=position, Limit=7)
            read += ids(page)
            position = page.get("NextShardIterator")
    assert sorted(read) == sorted(expected)

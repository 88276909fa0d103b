"""Where moto is hooked: what is put in the place of its own functions, and taken out again.

| moto's | now |
|---|---|
| `dynamodb.models.table.StreamShard` | makes a stream in the store, and records what it is told |
| `Table.set_stream_specification` | enables and disables by the rules |
| `DynamoDBBackend.update_table_streams` | refuses what the service refuses; allows enabling again |
| `DynamoDBBackend.delete_table` | disables the table's stream |
| `DynamoDBBackend.update_item` | one record, and nothing at all where it fails |
| `DynamoDBBackend.transact_write_items` | one append per stream, nothing where it is cancelled |
| `DynamoDBBackend.execute_transaction` | the same; moto itself takes nothing back |
| `DynamoDBBackend.put_item`, `delete_item`, `execute_statement`, `create_table`, `update_table` | in order |
| `Item.instances_tracked` | forgets: moto keeps every item that ever was, for its dashboard |
| `DynamoDBStreamsHandler.call_action`, the methods of `DynamoDBStreamsBackend` | the operations over the store |
| `dynamodbstreams.urls.url_bases`, `backend_index.backend_url_patterns` | one more endpoint of the service |
"""

from __future__ import annotations

import copy
import functools
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import moto.dynamodb.models.table as table_module
from moto.backend_index import backend_url_patterns
from moto.core.exceptions import JsonRESTError
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table
from moto.dynamodbstreams import urls
from moto.dynamodbstreams.models import DynamoDBStreamsBackend
from moto.dynamodbstreams.responses import DynamoDBStreamsHandler

from shardlog.errors import ShardlogError
from shardlog.moto.recording import RecordedShard, Recorder, put_back
from shardlog.moto.specification import check_change, is_enabling
from shardlog.server import protocol
from shardlog.server.catalogue import Scope
from shardlog.server.faults import Fault, internal
from shardlog.server.operations import StreamsApi

_ENDPOINT: Final = r"https?://(.+)\.streams-ddb\.(.+)\.amazonaws\.com"
"""An account's own endpoint, which newer SDKs call and moto does not know."""
_ENDPOINT_PATTERN: Final = re.compile(_ENDPOINT)
_IN_ORDER = ("put_item", "delete_item", "execute_statement", "create_table", "update_table")

_log = logging.getLogger("shardlog")

Patches = list[Any]


def patches(recorder: Recorder, api: StreamsApi, new_id: Callable[[], str]) -> Patches:
    """All of them, not applied yet."""
    backend = DynamoDBBackend
    replaced: list[Any] = [
        patch.object(table_module, "StreamShard", recorder.new_shard),
        patch.object(Table, "set_stream_specification", _set_stream_specification(recorder)),
        patch.object(backend, "update_table_streams", _update_table_streams),
        patch.object(backend, "delete_table", _delete_table(recorder, backend.delete_table)),
        patch.object(backend, "update_item", _update_item(recorder, backend.update_item)),
        patch.object(backend, "transact_write_items", _together(recorder, backend.transact_write_items)),
        patch.object(backend, "execute_transaction", _taken_back(recorder, backend.execute_transaction)),
        patch.object(DynamoDBStreamsHandler, "call_action", _call_action(api, new_id)),
        patch.object(Item, "instances_tracked", _Nothing()),
    ]
    replaced += [
        _longer(urls.url_bases, _ENDPOINT),
        _longer(backend_url_patterns, ("dynamodbstreams", _ENDPOINT_PATTERN)),
    ]
    replaced += [patch.object(backend, name, _in_order(recorder, getattr(backend, name))) for name in _IN_ORDER]
    replaced += [
        patch.object(DynamoDBStreamsBackend, name, function) for name, function in _backend_methods(api).items()
    ]
    return replaced


@contextmanager
def _longer(places: list[Any], place: object) -> Iterator[None]:
    """A list of moto's that has one more element for a while."""
    if place in places:
        yield
        return
    places.append(place)
    try:
        yield
    finally:
        places.remove(place)


def _in_order(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def ordered(*args: Any, **kwargs: Any) -> Any:
        with recorder.lock, _storage_errors_told():
            return original(*args, **kwargs)

    return ordered


def _together(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    """Moto itself puts back what a cancelled transaction did to its tables."""

    @functools.wraps(original)
    def transaction(*args: Any, **kwargs: Any) -> Any:
        with recorder.lock, _storage_errors_told(), recorder.unit():
            return original(*args, **kwargs)

    return transaction


def _taken_back(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def transaction(self: DynamoDBBackend, *args: Any, **kwargs: Any) -> Any:
        with recorder.lock, _storage_errors_told():
            before = {name: copy.deepcopy(table.items) for name, table in self.tables.items()}
            try:
                with recorder.unit():
                    return original(self, *args, **kwargs)
            except BaseException:
                for name, items in before.items():
                    self.tables[name].items = items
                raise

    return transaction


def _update_item(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    """Moto makes a new item by a put, and then an update: one record. What fails half-way is taken back."""

    @functools.wraps(original)
    def update_item(self: DynamoDBBackend, table_name: str, key: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attribute_updates") is None:
            kwargs["attribute_updates"] = {}  # an update without any, which moto fails at, makes an item of a key
        with recorder.lock, _storage_errors_told():
            table = self.get_table(table_name)
            if not isinstance(table.stream_shard, RecordedShard):
                return original(self, table_name, key, *args, **kwargs)
            blank, before = _item_before(table, key)
            try:
                with recorder.unit() as unit:
                    result = original(self, table_name, key, *args, **kwargs)
                    recorder.join(unit)
                    return result
            except BaseException:
                put_back(table, before, blank)
                raise

    return update_item


def _item_before(table: Table, key: dict[str, Any]) -> tuple[Item | None, Item | None]:
    """An item that has a key and nothing else, and a copy of the one that is there; None where the key is not right."""
    if any(name not in key for name in table.table_key_attrs):
        return None, None
    hash_key = DynamoType(key[table.hash_key_attr])
    range_key = None if table.range_key_attr is None else DynamoType(key[table.range_key_attr])
    return Item(hash_key, range_key, key), copy.deepcopy(table.get_item(hash_key, range_key))


def _set_stream_specification(recorder: Recorder) -> Callable[..., None]:
    def set_stream_specification(self: Table, streams: dict[str, Any] | None) -> None:
        if is_enabling(streams):
            assert streams is not None
            self.stream_specification = {**streams, "StreamEnabled": True}
            self.stream_shard = recorder.new_shard(self.account_id, self)  # type: ignore[assignment]  # it stands in
            return
        self.stream_specification = {"StreamEnabled": False}
        _disable(recorder, self)

    return set_stream_specification


def _disable(recorder: Recorder, table: Table) -> None:
    shard: object = table.stream_shard
    table.stream_shard = None
    if isinstance(shard, RecordedShard):
        recorder.disable(shard.stream.name)


def _update_table_streams(_self: DynamoDBBackend, table: Table, stream_specification: dict[str, Any]) -> None:
    check_change(table.name, table.stream_shard is not None, stream_specification)
    table.set_stream_specification(stream_specification)


def _delete_table(recorder: Recorder, original: Callable[..., Table]) -> Callable[..., Table]:
    @functools.wraps(original)
    def delete_table(self: DynamoDBBackend, name: str) -> Table:
        with recorder.lock, _storage_errors_told():
            table = original(self, name)
            _disable(recorder, table)
            return table

    return delete_table


class _storage_errors_told:  # noqa: N801 - reads as a function, and is cheaper than a generator on every write
    """The log's errors become what moto answers with status 500."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ShardlogError):
            _log.error("a write was not recorded, and the table is as it was: %s", error)
            raise RecordingFailed from error


def _call_action(api: StreamsApi, new_id: Callable[[], str]) -> Callable[..., Any]:
    def call_action(self: DynamoDBStreamsHandler) -> tuple[int, dict[str, str], str]:
        scope = Scope(self.region, self.current_account)
        try:
            members = protocol.decode_members(self.body if isinstance(self.body, bytes) else self.body.encode())
            answer = protocol.encode_answer(api.call(self._get_action(), members, scope), new_id())
        except Fault as fault:
            answer = protocol.encode_fault(fault, new_id())
        return answer.status, dict(answer.headers), answer.body.decode()

    return call_action


def _backend_methods(api: StreamsApi) -> dict[str, Callable[..., Any]]:
    """For who calls moto's backend by itself."""

    def describe_stream(self: DynamoDBStreamsBackend, arn: str) -> dict[str, Any]:
        described: dict[str, Any] = api.describe_stream({"StreamArn": arn}, _scope(self))["StreamDescription"]
        return described

    def list_streams(self: DynamoDBStreamsBackend, table_name: str | None = None) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = api.list_streams({"TableName": table_name}, _scope(self))["Streams"]
        return listed

    def get_shard_iterator(
        self: DynamoDBStreamsBackend,
        arn: str,
        shard_id: str,
        shard_iterator_type: str,
        sequence_number: str | int | None = None,
    ) -> _Iterator:
        members = {
            "StreamArn": arn,
            "ShardId": shard_id,
            "ShardIteratorType": shard_iterator_type,
            "SequenceNumber": None if sequence_number is None else str(sequence_number),
        }
        return _Iterator(api.get_shard_iterator(members, _scope(self))["ShardIterator"])

    def get_records(self: DynamoDBStreamsBackend, iterator_arn: str, limit: int) -> dict[str, Any]:
        return api.get_records({"ShardIterator": iterator_arn, "Limit": limit}, _scope(self))

    return {
        "describe_stream": describe_stream,
        "list_streams": list_streams,
        "get_shard_iterator": get_shard_iterator,
        "get_records": get_records,
    }


def _scope(backend: DynamoDBStreamsBackend) -> Scope:
    return Scope(backend.region_name, backend.account_id)


class _Iterator:
    """A shard iterator as moto's backend gives it."""

    def __init__(self, arn: str) -> None:
        self.arn = arn


class _Nothing(list[Any]):
    """A list that stays empty."""

    def append(self, _: object) -> None:
        """Forget it."""


class RecordingFailed(JsonRESTError):
    """The log did not take a write; the table is as it was. What it was is in the log, not in the answer."""

    code = internal().status

    def __init__(self) -> None:
        super().__init__(internal().kind, internal().text)

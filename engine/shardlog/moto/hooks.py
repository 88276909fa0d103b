"""Where moto is hooked: what is put in the place of its own functions, and taken out again.

| moto's | now |
|---|---|
| `DynamoHandler._dispatch` | refuses values that the service refuses, which moto would keep |
| `DynamoHandler.transact_write_items`, `execute_transaction` | once per client request token |
| `DynamoHandler.batch_write_item` | whole or not at all (`together`) |
| `Table.set_stream_specification` | makes a stream in the store, or disables it; then the table is told |
| `DynamoDBBackend.update_table_streams` | refuses what the service refuses; allows enabling again |
| `DynamoDBBackend.update_table` | nothing at all where it fails |
| `DynamoDBBackend.delete_table`, `reset` | disables the streams first |
| `DynamoDBBackend.put_item` | takes the item at its own key for the one that is expected |
| `DynamoDBBackend.update_item` | one record, and nothing at all where it fails |
| `DynamoDBBackend.transact_write_items` and three for PartiQL | whole or not at all (`together`) |
| `DynamoDBBackend.delete_item`, `create_table` | in order |
| `Item.update_with_attribute_updates` | puts values of any type |
| `Item.instances_tracked` | forgets: moto keeps every item that ever was, for its dashboard |
| `DynamoDBStreamsHandler.call_action`, the methods of `DynamoDBStreamsBackend` | the operations over the store |
| `dynamodbstreams.urls.url_bases`, `backend_index.backend_url_patterns` | one more endpoint of the service |
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

import msgspec
from moto.backend_index import backend_url_patterns
from moto.dynamodb.exceptions import ConditionalCheckFailed, UpdateHashRangeKeyException
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import Table
from moto.dynamodb.responses import DynamoHandler
from moto.dynamodbstreams import urls
from moto.dynamodbstreams.models import DynamoDBStreamsBackend
from moto.dynamodbstreams.responses import DynamoDBStreamsHandler

from shardlog.moto import together
from shardlog.moto.recording import Recorder
from shardlog.moto.refusals import storage_errors_told
from shardlog.moto.requests import check_region, check_request
from shardlog.moto.restoring import item_before, restore
from shardlog.moto.specification import check_change, is_enabling
from shardlog.moto.tokens import Tokens
from shardlog.server import protocol
from shardlog.server.catalogue import Scope
from shardlog.server.faults import Fault
from shardlog.server.operations import StreamsApi

_ENDPOINT: Final = r"https?://(.+)\.streams-ddb\.(.+)\.amazonaws\.com"
"""An account's own endpoint, which newer SDKs call and moto does not know."""
_ENDPOINT_PATTERN: Final = re.compile(_ENDPOINT)
_IN_ORDER = ("delete_item", "create_table")
_TAKEN_BACK: Final = ("attr", "throughput", "billing_mode", "global_indexes")
"""What moto changes of a table before it comes to the stream."""
_TRANSACTED: Final[dict[str, Any]] = {"ConsumedCapacity": [], "ItemCollectionMetrics": {}}

Patches = list[Any]


def patches(recorder: Recorder, api: StreamsApi, tokens: Tokens, new_id: Callable[[], str]) -> Patches:
    """All of them, not applied yet."""
    replaced: list[Any] = [
        patch.object(Table, "set_stream_specification", _set_stream_specification(recorder)),
        patch.object(DynamoDBStreamsHandler, "call_action", _call_action(api, new_id)),
        patch.object(Item, "instances_tracked", _Nothing()),
        patch.object(Item, "update_with_attribute_updates", _update_attributes(Item.update_with_attribute_updates)),
        _longer(urls.url_bases, _ENDPOINT),
        _longer(backend_url_patterns, ("dynamodbstreams", _ENDPOINT_PATTERN)),
    ]
    for owner, functions in (
        (DynamoDBBackend, _of_tables(recorder, tokens)),
        (DynamoDBBackend, _of_items(recorder)),
        (DynamoHandler, _of_requests(recorder, tokens)),
        (DynamoDBStreamsBackend, _of_streams(api)),
    ):
        replaced += [patch.object(owner, name, function) for name, function in functions.items()]
    return replaced


def _of_tables(recorder: Recorder, tokens: Tokens) -> dict[str, Callable[..., Any]]:
    backend = DynamoDBBackend
    return {
        "update_table_streams": _update_table_streams,
        "update_table": _update_table(recorder, backend.update_table),
        "delete_table": _delete_table(recorder, backend.delete_table),
        "reset": _reset(recorder, tokens, backend.reset),
    }


def _of_items(recorder: Recorder) -> dict[str, Callable[..., Any]]:
    backend = DynamoDBBackend
    return {
        **{name: _in_order(recorder, getattr(backend, name)) for name in _IN_ORDER},
        "put_item": _put_item(recorder, backend.put_item),
        "update_item": _update_item(recorder, backend.update_item),
        "transact_write_items": together.transact_write_items(recorder, backend.transact_write_items),
        "execute_statement": together.execute_statement(recorder, backend.execute_statement),
        "execute_transaction": together.execute_transaction(recorder, backend.execute_transaction),
        "batch_execute_statement": together.batch_execute_statement(recorder, backend.batch_execute_statement),
    }


def _of_requests(recorder: Recorder, tokens: Tokens) -> dict[str, Callable[..., Any]]:
    handler = DynamoHandler
    once = functools.partial(together.once_per_token, recorder, tokens)
    return {
        "_dispatch": _dispatch(handler._dispatch),
        "batch_write_item": together.batch_write_item(recorder),
        "transact_write_items": once(handler.transact_write_items, "TransactItems", _TRANSACTED),
        "execute_transaction": once(handler.execute_transaction, "TransactStatements", {"Responses": []}),
    }


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


def _dispatch(original: Callable[..., Any]) -> Callable[..., Any]:
    """Before moto reads parameters: it is the request's own JSON that is looked at."""

    @functools.wraps(original)
    def dispatch(self: DynamoHandler, request: Any, full_url: str, headers: Any) -> Any:
        check_region(_region_of(self, request, full_url))
        operation = (headers.get("x-amz-target") or "").rpartition(".")[2]
        try:
            members = msgspec.json.decode(request.data or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            members = None  # moto has its own words
        if isinstance(members, dict):
            check_request(operation, members)
        return original(self, request, full_url, headers)

    return dispatch


def _region_of(handler: DynamoHandler, request: Any, full_url: str) -> str:
    try:
        return handler.get_region_from_url(request, full_url)
    except IndexError:  # a signature that names none
        return ""


def _in_order(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def ordered(*args: Any, **kwargs: Any) -> Any:
        with recorder.lock, storage_errors_told():
            return original(*args, **kwargs)

    return ordered


def _put_item(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    """Moto takes the item at the sort key that is expected for the old one; there is none but at the item's own."""

    @functools.wraps(original)
    def put_item(
        self: DynamoDBBackend,
        table_name: str,
        item_attrs: dict[str, Any],
        expected: dict[str, Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        with recorder.lock, storage_errors_told():
            name = self.get_table(table_name).range_key_attr
            value = (expected or {}).get(name or "", {}).get("Value")
            if value is not None and name in item_attrs and DynamoType(value) != DynamoType(item_attrs[name]):
                raise ConditionalCheckFailed
            return original(self, table_name, item_attrs, expected, *args, **kwargs)

    return put_item


def _update_item(recorder: Recorder, original: Callable[..., Any]) -> Callable[..., Any]:
    """Moto makes a new item by a put, and then an update: one record. What fails half-way is taken back."""

    @functools.wraps(original)
    def update_item(self: DynamoDBBackend, table_name: str, key: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("attribute_updates") is None:
            kwargs["attribute_updates"] = {}  # an update without any, which moto fails at, makes an item of a key
        with recorder.lock, storage_errors_told():
            table = self.get_table(table_name)
            for name in kwargs["attribute_updates"]:
                if name in table.table_key_attrs:
                    raise UpdateHashRangeKeyException(name)
            found = item_before(table, key)
            before = [] if found is None else [found]
            with recorder.unit_or(functools.partial(restore, self, before)) as unit:
                result = original(self, table_name, key, *args, **kwargs)
                recorder.join(unit)
                return result

    return update_item


def _update_attributes(original: Callable[..., None]) -> Callable[..., None]:
    """Moto makes strings of what it does not know, and nothing of a null."""

    @functools.wraps(original)
    def update_with_attribute_updates(self: Item, attribute_updates: dict[str, Any]) -> None:
        others = {}
        for name, update in attribute_updates.items():
            if update.get("Action", "PUT") == "PUT" and "Value" in update:
                self.attrs[name] = DynamoType(update["Value"])
            else:
                others[name] = update
        original(self, others)

    return update_with_attribute_updates


def _set_stream_specification(recorder: Recorder) -> Callable[..., None]:
    def set_stream_specification(self: Table, streams: dict[str, Any] | None) -> None:
        if is_enabling(streams):
            assert streams is not None
            shard = recorder.new_shard(self, streams["StreamViewType"])
            self.stream_shard = shard  # type: ignore[assignment]  # it stands in
            self.stream_specification = {**streams, "StreamEnabled": True}
            return
        recorder.close_stream(self)
        self.stream_specification = {"StreamEnabled": False}

    return set_stream_specification


def _update_table_streams(_self: DynamoDBBackend, table: Table, stream_specification: dict[str, Any]) -> None:
    check_change(table.name, table.stream_shard is not None, stream_specification)
    table.set_stream_specification(stream_specification)


def _update_table(recorder: Recorder, original: Callable[..., Table]) -> Callable[..., Table]:
    @functools.wraps(original)
    def update_table(self: DynamoDBBackend, name: str, *args: Any, **kwargs: Any) -> Table:
        with recorder.lock, storage_errors_told():
            table = self.get_table(name)
            before = {attribute: copy.deepcopy(getattr(table, attribute)) for attribute in _TAKEN_BACK}
            try:
                return original(self, name, *args, **kwargs)
            except BaseException:
                for attribute, value in before.items():
                    setattr(table, attribute, value)
                raise

    return update_table


def _delete_table(recorder: Recorder, original: Callable[..., Table]) -> Callable[..., Table]:
    @functools.wraps(original)
    def delete_table(self: DynamoDBBackend, name: str) -> Table:
        with recorder.lock, storage_errors_told():
            table = self.get_table(name)
            if not table.deletion_protection_enabled:  # else moto refuses
                recorder.close_stream(table)
            return original(self, name)

    return delete_table


def _reset(recorder: Recorder, tokens: Tokens, original: Callable[..., None]) -> Callable[..., None]:
    """When mock_aws begins and ends: its tables are gone."""

    @functools.wraps(original)
    def reset(self: DynamoDBBackend) -> None:
        recorder.close_streams(self.tables.values())
        tokens.forget(self.account_id, self.region_name)
        original(self)

    return reset


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


def _of_streams(api: StreamsApi) -> dict[str, Callable[..., Any]]:
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

"""Requests of several writes: batches, transactions, and statements, each carried out whole or not at all.

What a request may change is looked up first. While it is carried out its writes are gathered in a unit, whose records
are appended at its end, one append per stream. Where it fails, moto's tables are put back; only a stream that had taken
its records before another one refused keeps them, and its table keeps the items.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from moto.core.responses import ActionResult
from moto.dynamodb.exceptions import (
    InvalidAttributeTypeError,
    MockValidationException,
    MultipleTransactionsException,
    ProvidedKeyDoesNotExist,
    ResourceNotFoundException,
    TransactionCanceledException,
)
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.table import Table
from moto.dynamodb.parsing import partiql
from moto.dynamodb.responses import DynamoHandler, validate_put_has_empty_keys
from werkzeug.exceptions import BadRequest

from shardlog.moto.recording import Recorder
from shardlog.moto.refusals import DuplicateItem, parser_errors_told, storage_errors_told
from shardlog.moto.restoring import ItemBefore, TablesBefore, item_before, restore
from shardlog.moto.tokens import Place, Tokens, digest_of
from shardlog.moto.values import check_image

BATCH_MAX: Final = 25

_EMPTY_KEY: Final = (
    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty string "
    "value. Key: {}"
)

Original = Callable[..., Any]


# Batches


def batch_write_item(recorder: Recorder) -> Original:
    """Refused before anything is written; one append per stream. Moto takes equal keys of two tables for duplicates."""

    def batch(self: DynamoHandler) -> Any:
        backend, batches = self.dynamodb_backend, self.body["RequestItems"]
        with recorder.lock, storage_errors_told():
            before = _batched(backend, batches)
            with recorder.unit_or(partial(restore, backend, before)):
                for name, requests in batches.items():
                    for request in requests:
                        _write(backend, name, request)
        consumed = [{"TableName": name, "CapacityUnits": 1.0, "Table": {"CapacityUnits": 1.0}} for name in batches]
        return ActionResult({"ConsumedCapacity": consumed, "ItemCollectionMetrics": {}, "UnprocessedItems": {}})

    return batch


def _write(backend: DynamoDBBackend, table_name: str, request: Mapping[str, dict[str, Any]]) -> None:
    if "PutRequest" in request:
        image = request["PutRequest"]["Item"]
        validate_put_has_empty_keys(image, backend.get_table(table_name), _EMPTY_KEY)
        backend.put_item(table_name, image)
    else:
        backend.delete_item(table_name, request["DeleteRequest"]["Key"])


def _batched(backend: DynamoDBBackend, batches: Mapping[str, list[dict[str, Any]]]) -> list[ItemBefore]:
    """What is at the keys of a batch. Raises what moto answers where the service would refuse it."""
    if not batches or not all(1 <= len(requests) <= BATCH_MAX for requests in batches.values()):
        raise MockValidationException(
            "1 validation error detected: Value at 'requestItems' failed to satisfy constraint: Map value must satisfy "
            f"constraint: [Member must have length less than or equal to {BATCH_MAX}, Member must have length greater "
            "than or equal to 1]"
        )
    if sum(map(len, batches.values())) > BATCH_MAX:
        raise MockValidationException("Too many items requested for the BatchWriteItem call")
    before = [
        _requested(backend.get_table(name), request) for name, requests in batches.items() for request in requests
    ]
    if len({found.place for found in before}) < len(before):
        raise MockValidationException("Provided list of item keys contains duplicates")
    return before


def _requested(table: Table, request: Mapping[str, dict[str, Any]]) -> ItemBefore:
    if len(request) != 1:
        raise MockValidationException("A write request must be exactly one of PutRequest and DeleteRequest")
    ((kind, write),) = request.items()
    if kind == "PutRequest":
        attributes = write["Item"]
        _check_key_of(table, attributes)
    else:
        attributes = write["Key"]
        if set(attributes) != set(table.table_key_attrs):
            raise ProvidedKeyDoesNotExist
    found = item_before(table, attributes)
    assert found is not None
    return found


def _check_key_of(table: Table, attributes: Mapping[str, dict[str, Any]]) -> None:
    expected = {table.hash_key_attr: table.hash_key_type, table.range_key_attr: table.range_key_type}
    for name in table.table_key_attrs:
        if name not in attributes:
            raise MockValidationException(
                f"One or more parameter values were invalid: Missing the key {name} in the item"
            )
        (actual,) = attributes[name]
        if actual != expected[name]:
            raise InvalidAttributeTypeError(name, expected_type=expected[name], actual_type=actual)


# Transactions


def transact_write_items(recorder: Recorder, original: Original) -> Original:
    """Of the backend. Moto puts back tables that a cancelled transaction gives by name, and no others."""

    @functools.wraps(original)
    def transaction(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> Any:
        with recorder.lock, storage_errors_told():
            before = _transacted(self, transact_items)
            with recorder.unit_or(partial(restore, self, before)):
                return original(self, transact_items)

    return transaction


def _transacted(backend: DynamoDBBackend, elements: list[dict[str, Any]]) -> list[ItemBefore]:
    """What is at the keys of a transaction; what moto will refuse is left out."""
    before: list[ItemBefore] = []
    for operation in [operation for element in elements for operation in element.values()]:
        try:
            table = backend.get_table(operation["TableName"])
        except ResourceNotFoundException:
            continue
        found = item_before(table, operation.get("Key") or operation.get("Item") or {})
        if found is not None:
            before.append(found)
    if len({found.place for found in before}) < len(before):
        raise MultipleTransactionsException
    return before


def once_per_token(recorder: Recorder, tokens: Tokens, original: Original, writes: str, answer: Any) -> Original:
    """A handler's transaction, `writes` of its members, which is answered only where its token was carried out."""

    @functools.wraps(original)
    def transaction(self: DynamoHandler) -> Any:
        token = self.body.get("ClientRequestToken")
        if token is None:
            return original(self)
        with recorder.lock:
            place = Place(self.current_account, self.region, token)
            digest = digest_of(self.body.get(writes))
            if tokens.is_known(place, digest):
                return ActionResult(answer)
            result = original(self)
            tokens.remember(place, digest)
            return result

    return transaction


# Statements


def execute_statement(recorder: Recorder, original: Original) -> Original:
    """Of the backend. A statement that fails leaves nothing; one that inserts what is there is refused."""

    @functools.wraps(original)
    def execute(self: DynamoDBBackend, statement: str, parameters: list[dict[str, Any]]) -> Any:
        with recorder.lock, storage_errors_told(), parser_errors_told():
            if statement.lower().startswith("select"):
                return original(self, statement, parameters)
            _check_statement(self, statement)
            with recorder.unit_or(TablesBefore(self).restore):
                return original(self, statement, parameters)

    return execute


def _check_statement(backend: DynamoDBBackend, statement: str) -> None:
    (name,) = partiql.get_query_metadata(statement).get_table_names()
    if not name:
        raise MockValidationException("Statement wasn't well formed, can't be processed: it names no table")
    if name not in backend.tables:
        raise ResourceNotFoundException
    if not statement.lower().startswith("insert"):
        return
    table = backend.tables[name]
    _, updates = partiql.query(statement, {}, [])
    ((_, image),) = updates[name]
    check_image(image)
    _check_key_of(table, image or {})
    found = item_before(table, image or {})
    if found is not None and found.item is not None:
        raise DuplicateItem(statement)


def execute_transaction(recorder: Recorder, original: Original) -> Original:
    """Of the backend. Moto itself takes nothing back."""

    @functools.wraps(original)
    def transaction(self: DynamoDBBackend, statements: list[dict[str, Any]]) -> Any:
        with recorder.lock, storage_errors_told():
            try:
                with recorder.unit_or(TablesBefore(self).restore):
                    return original(self, statements)
            except DuplicateItem as error:
                raise _cancelled(statements, error) from None

    return transaction


def _cancelled(statements: list[dict[str, Any]], error: DuplicateItem) -> TransactionCanceledException:
    """The last statement of that text is the one: an earlier one of the same text has inserted the item."""
    texts = [statement["Statement"] for statement in statements]
    failed = len(texts) - 1 - texts[::-1].index(error.statement)
    reasons = [(None, None, None)] * len(texts)
    return TransactionCanceledException(
        [*reasons[:failed], (error.name, error.message, None), *reasons[failed + 1 :]],
    )


def batch_execute_statement(recorder: Recorder, original: Original) -> Original:
    """Of the backend: statements that have nothing to do with each other."""

    @functools.wraps(original)
    def batch(self: DynamoDBBackend, statements: list[dict[str, Any]]) -> Any:
        with recorder.lock, parser_errors_told():
            responses = original(self, statements)
        for error in [response["Error"] for response in responses if "Error" in response]:
            if error["Code"] == BadRequest().name:  # moto gives the name of the status
                error["Code"] = "ValidationError"
        return responses

    return batch

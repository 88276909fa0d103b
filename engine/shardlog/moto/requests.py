"""What a request must be before moto sees it: its region, its attribute values, and the name of a new table. Pure.

Members are those of the request's JSON, and may be anything: what is not of the shape that a rule is about is left to
those who know the service's model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from moto.core.exceptions import JsonRESTError
from moto.dynamodb.exceptions import MockValidationException

from shardlog.moto.values import check_image, check_value

TABLE_NAME_CHARACTERS_MIN: Final = 3
TABLE_NAME_CHARACTERS_MAX: Final = 255

_REGION: Final = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
_TABLE_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]+", re.ASCII)

Members = dict[str, Any]


def check_region(region: str) -> None:
    """Raise what moto answers unless a region may be one: it becomes part of ARNs and of names of streams."""
    if not _REGION.fullmatch(region):
        raise JsonRESTError(
            "com.amazon.coral.service#IncompleteSignatureException",
            f"Region {region[:64]!r}: expected lower-case letters, digits and hyphens",
        )


def check_request(operation: str, members: Members) -> None:
    """Raise what moto answers where the service would refuse the values of a request."""
    check = _CHECKS.get(operation)
    if check is not None:
        check(members)


def _check_create_table(members: Members) -> None:
    name = members.get("TableName")
    if not isinstance(name, str):
        return
    if not TABLE_NAME_CHARACTERS_MIN <= len(name) <= TABLE_NAME_CHARACTERS_MAX:
        raise MockValidationException(
            f"TableName must be at least {TABLE_NAME_CHARACTERS_MIN} characters long and at most "
            f"{TABLE_NAME_CHARACTERS_MAX} characters long"
        )
    if not _TABLE_NAME.fullmatch(name):
        raise MockValidationException(
            f"1 validation error detected: Value '{name}' at 'tableName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+"
        )


def _check_write(members: Members) -> None:
    """One write: a request of its own, or an element of a transaction."""
    check_image(members.get("Item"))
    check_image(members.get("Key"))
    for update in _maps(_values(members.get("AttributeUpdates"))):
        if update.get("Value") is not None:
            check_value(update["Value"])
    values = members.get("ExpressionAttributeValues")
    for name, value in values.items() if isinstance(values, dict) else ():
        try:
            check_value(value)
        except MockValidationException as error:
            raise MockValidationException(
                f"ExpressionAttributeValues contains invalid value: {error.message} for key {name}"
            ) from None


def _check_transaction(members: Members) -> None:
    for element in _maps(members.get("TransactItems")):
        for write in _maps(_values(element)):
            _check_write(write)


def _check_batch(members: Members) -> None:
    for requests in _values(members.get("RequestItems")):
        for request in _maps(requests):
            for write in _maps(_values(request)):
                _check_write(write)


def _check_statements(members: Members) -> None:
    for statement in [members, *_maps(members.get("Statements")), *_maps(members.get("TransactStatements"))]:
        for value in _maps(statement.get("Parameters")):
            check_value(value)


def _values(value: object) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []


def _maps(values: object) -> Iterator[Members]:
    return (value for value in values if isinstance(value, dict)) if isinstance(values, list) else iter(())


_CHECKS: Final[dict[str, Callable[[Members], None]]] = {
    "CreateTable": _check_create_table,
    "PutItem": _check_write,
    "UpdateItem": _check_write,
    "DeleteItem": _check_write,
    "BatchWriteItem": _check_batch,
    "TransactWriteItems": _check_transaction,
    "ExecuteStatement": _check_statements,
    "BatchExecuteStatement": _check_statements,
    "ExecuteTransaction": _check_statements,
}

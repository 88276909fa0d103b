"""What a client is told where a write did not happen: errors of the log and of moto's parser of statements."""

from __future__ import annotations

import logging

from moto.core.exceptions import JsonRESTError, ServiceException
from moto.dynamodb.exceptions import MockValidationException
from werkzeug.exceptions import HTTPException

from shardlog.errors import InvalidArgument, ShardlogError
from shardlog.server.faults import internal

_log = logging.getLogger("shardlog")


class RecordingFailed(JsonRESTError):
    """The log did not take a write; the table is as it was. What it was is in the log, not in the answer."""

    name = "InternalServerError"
    code = internal().status

    def __init__(self) -> None:
        super().__init__(internal().kind, internal().text)


class DuplicateItem(JsonRESTError):
    """A statement would insert an item whose key is there."""

    name = "DuplicateItem"
    """As batches of statements give it."""

    def __init__(self, statement: str) -> None:
        super().__init__(
            "com.amazonaws.dynamodb.v20120810#DuplicateItemException", "Duplicate primary key exists in table"
        )
        self.statement = statement


class storage_errors_told:  # noqa: N801 - reads as a function, and is cheaper than a generator on every write
    """The log's errors become what moto answers: status 500, or 400 where it is the item that cannot be recorded."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InvalidArgument):
            raise MockValidationException(f"One or more parameter values were invalid: {error}") from error
        if isinstance(error, ShardlogError):
            _log.error("a write was not recorded, and the table is as it was: %s", error)
            raise RecordingFailed from error


class parser_errors_told:  # noqa: N801 - beside the other
    """Whatever moto's parser of statements raises becomes a ValidationException: it takes a part of PartiQL only."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, HTTPException | ServiceException | ShardlogError):
            return
        raise MockValidationException(
            f"Statement wasn't well formed, can't be processed: {type(error).__name__}: {error}"
        ) from error

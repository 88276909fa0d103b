"""The DynamoDB API beside the streams, for `shardlog serve --dynamodb`: requests to moto, and its answers back.

moto trusts its clients' SDKs to check parameters. Here anybody may send anything: a body that is not JSON is refused
first, and where moto fails in an unexpected way the request is held against the service's model, so that what was the
client's mistake is told as such. Any region will do, `localhost` included.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from botocore.model import ServiceModel
from botocore.session import get_session
from botocore.validate import ParamValidator
from moto.core.request import Request as MotoRequest
from moto.dynamodb.responses import DynamoHandler
from werkzeug.exceptions import HTTPException

from shardlog.api import Store
from shardlog.clock import Clock
from shardlog.moto.installing import install_into
from shardlog.server import protocol
from shardlog.server.faults import Fault, internal, serialization, unknown_operation, validation
from shardlog.server.protocol import Answer
from shardlog.server.running import SWEEP_SECONDS, Tables
from shardlog.server.signing import Request

_log = logging.getLogger("shardlog")


@contextmanager
def tables(
    store: Store,
    clock: Clock,
    observe_append: Callable[[int, float], None],
    *,
    durability: str = "fsync",
    sweep_seconds: float = SWEEP_SECONDS,
) -> Iterator[Tables]:
    """The tables of a server, recorded into its store."""
    with ExitStack() as undo:
        undo.enter_context(patch("moto.core.base_backend.allow_unknown_region", lambda: True))
        installed = install_into(store, clock, durability, undo, observe_append=observe_append)
        yield Tables(answer=answer, delete_expired=installed.delete_expired_items, sweep_seconds=sweep_seconds)


def answer(request: Request) -> Answer:
    """Moto's answer to a request. Raises a Fault."""
    operation = protocol.parse_target(request.header("x-amz-target")).operation
    model = _model()
    if operation not in model.operation_names:
        raise unknown_operation(f"there is no operation {operation}")
    members = protocol.decode_members(request.body)
    url = f"http://{request.header('host') or 'localhost'}/"
    # Whatever type a client gives its JSON, the one that `curl -d` gives included.
    given = {**dict(request.headers), "content-type": protocol.CONTENT_TYPE}
    moto_request = MotoRequest.from_primitives("POST", url, given, request.body)
    try:
        status, headers, body = DynamoHandler.dispatch(moto_request, url, moto_request.headers)
    except HTTPException as error:
        # Raised outside of what moto answers itself: as it would be by moto's own server.
        return _answer(error.code or internal().status, dict(error.get_headers()), error.get_body())
    except NotImplementedError:
        raise unknown_operation(f"{operation} is not implemented") from None
    except Exception as error:
        raise _fault_of(operation, members, error) from error
    return _answer(int(status), headers, body)


def _answer(status: int, headers: dict[str, Any], body: str | bytes) -> Answer:
    content = body.encode() if isinstance(body, str) else body
    return protocol.answer_of(status, content, headers.get("x-amzn-RequestId") or str(uuid.uuid4()))


def _fault_of(operation: str, members: dict[str, Any], error: Exception) -> Fault:
    """Whose mistake it was that moto failed."""
    shape = _model().operation_model(operation).input_shape
    missing = str(error.args[0]) if isinstance(error, KeyError) and error.args else ""
    if shape is not None and missing in shape.members and missing not in members:
        # What moto needs although the model does not say so: the key schema of a table.
        path = f"{missing[0].lower()}{missing[1:]}"
        return validation(
            f"1 validation error detected: Value null at '{path}' failed to satisfy constraint: Member must not be null"
        )
    report = ParamValidator().validate(members, shape) if shape is not None else None
    if report is not None and report.has_errors():
        return serialization(report.generate_report())
    _log.error("moto failed at %s", operation, exc_info=error)
    return internal()


@functools.cache
def _model() -> ServiceModel:
    return get_session().get_service_model("dynamodb")

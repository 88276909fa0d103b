"""JSON 1.0 as AWS speaks it: the operation and the members of a request, and the bytes of an answer. Pure.

A request is a POST with `X-Amz-Target: <service>_<version>.<operation>` and a JSON object; the answer has the CRC-32 of
its body and an id. An error's `__type` is its name with a namespace.
"""

from __future__ import annotations

import re
import zlib
from typing import Any, Final, NamedTuple

import msgspec

from shardlog.server.faults import Fault, serialization, unknown_operation

STREAMS_SERVICE: Final = "DynamoDBStreams_20120810"
DATABASE_SERVICE: Final = "DynamoDB_20120810"
CONTENT_TYPE: Final = "application/x-amz-json-1.0"

OK: Final = 200

_TARGET: Final = re.compile(r"(DynamoDB[A-Za-z]*_\d{8})\.([A-Za-z]+)", re.ASCII)
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Headers = list[tuple[str, str]]


class Target(NamedTuple):
    """What a request is for."""

    service: str
    operation: str


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Headers
    body: bytes


def parse_target(target: str | None) -> Target:
    """The service and the operation of a request. Raises a Fault."""
    match = _TARGET.fullmatch(target or "")
    if match is None:
        raise unknown_operation()
    return Target(match[1], match[2])


def decode_members(body: bytes) -> dict[str, Any]:
    """The members of a request; no body is none. Raises a Fault."""
    if not body:
        return {}
    try:
        members = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise serialization(f"the body is not JSON: {error}") from None
    if not isinstance(members, dict):
        raise serialization("the body is not a JSON object")
    return members


def encode_answer(members: dict[str, Any], request_id: str) -> Answer:
    """An answer. Bytes in it become base64."""
    return answer_of(OK, _encode(members), request_id)


def encode_fault(fault: Fault, request_id: str) -> Answer:
    """An answer that is an error."""
    body = _encode({"__type": fault.kind, "message": fault.text})
    return answer_of(fault.status, body, request_id)


def answer_of(status: int, body: bytes, request_id: str) -> Answer:
    """An answer with this body."""
    headers = [
        ("content-type", CONTENT_TYPE),
        ("x-amzn-requestid", request_id),
        ("x-amz-crc32", str(zlib.crc32(body))),
    ]
    return Answer(status, headers, body)

from __future__ import annotations

import json
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlog.server import protocol
from shardlog.server.faults import Fault, validation


def test_targets() -> None:
    """Service with version, and operation."""
    assert protocol.parse_target("DynamoDBStreams_20120810.GetRecords") == ("DynamoDBStreams_20120810", "GetRecords")


@pytest.mark.parametrize(
    "target", [None, "", "GetRecords", "Kinesis_20131202.GetRecords", "DynamoDB_20120810.", "a.b.c"]
)
def test_other_targets(target: str | None) -> None:
    """UnknownOperationException."""
    with pytest.raises(Fault) as raised:
        protocol.parse_target(target)
    assert raised.value.name == "UnknownOperationException"


@pytest.mark.parametrize("body", [b"{", b"[]", b"1", b"null", b'"x"', b'{"a":}', b"\xff", b"{} {}", b"[" * 100_000])
def test_bodies_that_are_no_object(body: bytes) -> None:
    """SerializationException; depth is no way to end the server."""
    with pytest.raises(Fault) as raised:
        protocol.decode_members(body)
    assert raised.value.name == "SerializationException"


@given(st.binary())
def test_any_body_is_an_object_or_refused(body: bytes) -> None:
    """No other exception gets out."""
    with suppress(Fault):
        assert isinstance(protocol.decode_members(body), dict)


def test_an_answer_has_its_checksum() -> None:
    """SDKs compare it. Bytes are base64."""
    answer = protocol.encode_answer({"B": b"hi"}, "id-1")
    headers = dict(answer.headers)
    assert json.loads(answer.body) == {"B": "aGk="}
    assert headers["x-amz-crc32"] == str(zlib.crc32(answer.body))
    assert headers["x-amzn-requestid"] == "id-1"
    assert headers["content-type"] == "application/x-amz-json-1.0"


def test_an_error_has_its_name_and_words() -> None:
    """`__type` with its namespace, `message`."""
    answer = protocol.encode_fault(validation("no"), "id-1")
    assert answer.status == 400
    assert json.loads(answer.body) == {"__type": "com.amazon.coral.validate#ValidationException", "message": "no"}

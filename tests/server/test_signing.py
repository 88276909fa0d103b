"""Signatures, against those that botocore makes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from shardlog.server.faults import Fault
from shardlog.server.signing import Request, credential_of, verify

SECRETS = {"AKID": "a secret"}


def signed(
    body: bytes = b"{}",
    *,
    secret: str = "a secret",
    access_key: str = "AKID",
    url: str = "http://localhost:8000/",
    headers: dict[str, str] | None = None,
) -> Request:
    """A request that botocore has signed, now."""
    request = AWSRequest(
        "POST", url, data=body, headers={"X-Amz-Target": "DynamoDB_20120810.ListTables", **(headers or {})}
    )
    SigV4Auth(Credentials(access_key, secret), "dynamodb", "eu-west-1").add_auth(request)
    prepared = request.prepare()
    pairs = [
        (name.lower(), value.decode() if isinstance(value, bytes) else str(value))
        for name, value in prepared.headers.items()
    ]
    path, _, query = url.partition("8000")[2].partition("?")
    return Request("POST", path, query, [("host", "localhost:8000"), *pairs], body)


def fault_of(request: Request, now: datetime | None = None) -> str:
    with pytest.raises(Fault) as raised:
        verify(request, SECRETS, now or datetime.now(UTC))
    return raised.value.name


def with_header(request: Request, name: str, value: str | None) -> Request:
    kept = [pair for pair in request.headers if pair[0] != name]
    return request._replace(headers=kept if value is None else [*kept, (name, value)])


def test_a_right_signature() -> None:
    """Who signed it, and for which region."""
    credential = verify(signed(), SECRETS, datetime.now(UTC))
    assert (credential.access_key, credential.region, credential.service) == ("AKID", "eu-west-1", "dynamodb")


@given(st.binary(max_size=200), st.text(st.characters(codec="ascii", categories=["L", "N", "Zs", "P"]), max_size=20))
def test_any_body_and_header(body: bytes, value: str) -> None:
    """Whatever is signed is verified: bodies, and headers with spaces in them."""
    verify(signed(body, headers={"X-Amz-Meta": f"a {value} b"}), SECRETS, datetime.now(UTC))


def test_queries_are_signed_too() -> None:
    """In their canonical form."""
    verify(signed(url="http://localhost:8000/a/b?z=1&a=%20x&a=b"), SECRETS, datetime.now(UTC))


def test_another_secret() -> None:
    """InvalidSignatureException."""
    assert fault_of(signed(secret="another")) == "InvalidSignatureException"


def test_another_key() -> None:
    """UnrecognizedClientException."""
    assert fault_of(signed(access_key="OTHER")) == "UnrecognizedClientException"


def test_what_was_changed_on_the_way() -> None:
    """Body, path, query, method, a signed header, one more header that had to be signed."""
    request = signed()
    assert fault_of(request._replace(body=b"{ }")) == "InvalidSignatureException"
    assert fault_of(request._replace(path="/_shardlog/roll")) == "InvalidSignatureException"
    assert fault_of(request._replace(query="a=b")) == "InvalidSignatureException"
    assert fault_of(request._replace(method="PUT")) == "InvalidSignatureException"
    target = with_header(request, "x-amz-target", "DynamoDB_20120810.DeleteTable")
    assert fault_of(target) == "InvalidSignatureException"
    assert fault_of(with_header(request, "x-amz-more", "1")) == "InvalidSignatureException"


def test_a_hash_that_the_client_tells_is_not_believed() -> None:
    """The body's own is computed."""
    request = signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    assert fault_of(request._replace(body=b'{"other": 1}')) == "InvalidSignatureException"


def test_old_signatures() -> None:
    """Five minutes, in both directions."""
    request = signed()
    now = datetime.now(UTC)
    verify(request, SECRETS, now + timedelta(minutes=4))
    assert fault_of(request, now + timedelta(minutes=6)) == "InvalidSignatureException"
    assert fault_of(request, now - timedelta(minutes=6)) == "InvalidSignatureException"


def test_no_signature_or_a_part_of_one() -> None:
    """MissingAuthenticationTokenException; IncompleteSignatureException."""
    request = signed()
    assert fault_of(with_header(request, "authorization", None)) == "MissingAuthenticationTokenException"
    assert fault_of(with_header(request, "x-amz-date", None)) == "IncompleteSignatureException"
    assert fault_of(with_header(request, "x-amz-date", "yesterday")) == "IncompleteSignatureException"
    for text in (
        "Bearer x",
        "AWS4-HMAC-SHA256 Credential=AKID",
        "AWS4-HMAC-SHA256 Credential=a,SignedHeaders=b,Signature=c",
    ):
        assert fault_of(with_header(request, "authorization", text)) == "IncompleteSignatureException"


def test_the_region_of_a_request() -> None:
    """Read without being verified; None where there is none."""
    found = credential_of(signed().header("authorization"))
    assert found is not None
    assert found.region == "eu-west-1"
    assert credential_of(None) is None
    assert credential_of("Basic abc") is None

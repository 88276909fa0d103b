"""Signature Version 4, verified: whether a request was signed by who has the secret key. Pure.

The rules are those of "Create a signed AWS API request" (IAM User Guide): a canonical form of the request is hashed,
and signed with a key that is derived from the secret key, the day, the region and the service. Signed headers must
include the host and every `x-amz-*` header; the body's hash is always computed, never taken from the client. The time
of a request may differ by five minutes from ours; that is the real time, whatever a test's clock says.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote

from shardlog.server.faults import incomplete_signature, missing_token, unknown_access_key, wrong_signature

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW_MAX: Final = timedelta(minutes=5)

_TERMINATOR: Final = "aws4_request"
_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_SPACES: Final = re.compile(r" +")
_PARTS: Final = ("Credential", "SignedHeaders", "Signature")


class Request(NamedTuple):
    """An HTTP request: the raw path and query, header names in lower case, in the order they came."""

    method: str
    path: str
    query: str
    headers: Sequence[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for found, value in self.headers if found == name), None)


class Credential(NamedTuple):
    """The scope of a signature."""

    access_key: str
    day: str
    region: str
    service: str

    @property
    def scope(self) -> str:
        """As it is signed."""
        return f"{self.day}/{self.region}/{self.service}/{_TERMINATOR}"


def credential_of(authorization: str | None) -> Credential | None:
    """Who says to have signed, and for which region; None where that cannot be read."""
    match = re.search(
        r"Credential=([^/,\s]+)/(\d{8})/([A-Za-z0-9-]+)/([A-Za-z0-9_.-]+)/aws4_request", authorization or ""
    )
    return None if match is None else Credential(*match.groups())


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Credential:
    """Who signed a request. `secrets`: secret keys by access key. Raises a Fault."""
    authorization = request.header("authorization")
    if authorization is None:
        raise missing_token()
    credential, signed_names, signature = _parts(authorization)
    time_text = request.header("x-amz-date")
    if time_text is None:
        raise incomplete_signature("Authorization header requires existence of the 'X-Amz-Date' header.")
    secret = secrets.get(credential.access_key)
    if secret is None:
        raise unknown_access_key()
    _check_time(time_text, credential, now)
    _check_names(request, signed_names)
    expected = signature_of(request, credential, signed_names, time_text, secret)
    if not hmac.compare_digest(expected, signature):
        raise wrong_signature(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )
    return credential


def signature_of(
    request: Request, credential: Credential, signed_names: Sequence[str], time_text: str, secret: str
) -> str:
    """The signature of a request, in hexadecimal digits."""
    canonical = canonical_request(request, signed_names)
    to_sign = "\n".join([ALGORITHM, time_text, credential.scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (credential.day, credential.region, credential.service, _TERMINATOR):
        key = _hmac(key, part)
    return _hmac(key, to_sign).hex()


def canonical_request(request: Request, signed_names: Sequence[str]) -> str:
    """The text of a request that is hashed and signed."""
    pairs = sorted((_quoted(name), _quoted(value)) for name, value in parse_qsl(request.query, keep_blank_values=True))
    values: dict[str, list[str]] = {}
    for name, value in request.headers:
        values.setdefault(name, []).append(_SPACES.sub(" ", value.strip()))
    return "\n".join(
        [
            request.method,
            quote(request.path or "/", safe="/-_.~%"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{','.join(values.get(name, []))}" for name in signed_names),
            "",
            ";".join(signed_names),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )


def _parts(authorization: str) -> tuple[Credential, list[str], str]:
    algorithm, _, rest = authorization.partition(" ")
    if algorithm != ALGORITHM:
        raise incomplete_signature(f"Expected an Authorization header of {ALGORITHM}.")
    found = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if missing := [name for name in _PARTS if not found.get(name)]:
        raise incomplete_signature(f"Authorization header requires {', '.join(map(repr, missing))}.")
    credential = credential_of(authorization)
    if credential is None:
        raise incomplete_signature("Credential must be <access key>/<day>/<region>/<service>/aws4_request.")
    return credential, found["SignedHeaders"].split(";"), found["Signature"]


def _check_time(time_text: str, credential: Credential, now: datetime) -> None:
    try:
        moment = datetime.strptime(time_text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise incomplete_signature(f"Date must be in ISO-8601 'basic format'. Got '{time_text:.40}'.") from None
    if not time_text.startswith(credential.day):
        raise wrong_signature(f"Date in Credential scope does not match YYYYMMDD: {credential.day}, {time_text}")
    if abs(moment - now) > SKEW_MAX:
        raise wrong_signature(
            f"Signature expired or not yet valid: {time_text} is not within 5 min. of {now:%Y%m%dT%H%M%SZ}"
        )


def _check_names(request: Request, signed_names: Sequence[str]) -> None:
    needed = {name for name, _ in request.headers if name == "host" or name.startswith("x-amz-")} | {"host"}
    if unsigned := sorted(needed - set(signed_names)):
        raise wrong_signature(f"There were headers present in the request which were not signed: {', '.join(unsigned)}")
    if list(signed_names) != sorted(set(signed_names)):
        raise wrong_signature("SignedHeaders must be in order, each once.")


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")

"""Client request tokens: a transaction that is sent again within ten minutes is not carried out again.

A token is a client's name for one request, in one region and account. It is remembered when the transaction has been
carried out: what failed may be tried again under the same token. SDKs give one to every transaction, so the number of
those that are remembered has a limit; the oldest are forgotten first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from datetime import timedelta
from typing import Any, Final, NamedTuple

import msgspec
from moto.core.exceptions import JsonRESTError

from shardlog.clock import Clock

TOKEN_LIFE: Final = timedelta(minutes=10)
TOKENS_MAX: Final = 65_536

_LIFE_US: Final = TOKEN_LIFE // timedelta(microseconds=1)
_DIGEST_BYTES: Final = 16


class Place(NamedTuple):
    """Where a token means something."""

    account: str
    region: str
    token: str


class _Seen(NamedTuple):
    digest: bytes
    wall_us: int


class IdempotentParameterMismatch(JsonRESTError):
    """The token was used for another request."""

    def __init__(self) -> None:
        super().__init__(
            "com.amazonaws.dynamodb.v20120810#IdempotentParameterMismatchException",
            "The request was retried with the same client request token, but its parameters are not identical",
        )


class Tokens:
    """The tokens of transactions that were carried out. One thread at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: OrderedDict[Place, _Seen] = OrderedDict()

    def is_known(self, place: Place, request: bytes) -> bool:
        """Whether this request was carried out under this token. Raises IdempotentParameterMismatch if another was."""
        seen = self._seen.get(place)
        if seen is None or self._clock.wall_us() - seen.wall_us >= _LIFE_US:
            return False
        if seen.digest != request:
            raise IdempotentParameterMismatch
        return True

    def remember(self, place: Place, request: bytes) -> None:
        """A request has been carried out."""
        now = self._clock.wall_us()
        self._seen.pop(place, None)
        self._seen[place] = _Seen(request, now)
        while len(self._seen) > TOKENS_MAX or now - next(iter(self._seen.values())).wall_us >= _LIFE_US:
            self._seen.popitem(last=False)

    def forget(self, account: str, region: str) -> None:
        """The tables of a region are gone."""
        for place in [place for place in self._seen if place[:2] == (account, region)]:
            del self._seen[place]


def digest_of(writes: Any) -> bytes:
    """What tells requests apart: maps in any order are the same."""
    return hashlib.blake2b(msgspec.json.encode(writes, order="sorted"), digest_size=_DIGEST_BYTES).digest()

"""CRC-32C, computed by two independent implementations.

`google-crc32c` is the fast one; `crcmod`'s compiled extension is the second opinion: both must agree when this module
is loaded, it stands in where the fast one has no compiled build, and a deep check of a store uses it, so that a bug
in one cannot hide itself. The pure-Python fallbacks of both (20 MB/s) are refused unless asked for by
`SHARDLOG_ALLOW_SLOW_CHECKSUM=1`.

A checksum may be seeded with that of other bytes, as if those stood in front.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

import crcmod.crcmod
import crcmod.predefined

from shardlog.errors import ShardlogError

with warnings.catch_warnings():
    # It warns at import where it has no compiled build; `_chosen` decides about that case.
    warnings.simplefilter("ignore", RuntimeWarning)
    import google_crc32c

_Checksum = Callable[..., int]

_CHECK_BYTES = b"123456789"
_CHECK_VALUE = 0xE3069283  # the published check value of CRC-32C (iSCSI)

_crcmod_function = crcmod.predefined.mkCrcFun("crc-32c")


def _crc32c_google(content: bytes, seed: int = 0) -> int:
    return google_crc32c.extend(seed, content)  # type: ignore[no-any-return]


def crc32c_independent(content: bytes, seed: int = 0) -> int:
    """CRC-32C of `content` by the second implementation; `seed` is the checksum of the bytes before it."""
    return _crcmod_function(content, seed)  # type: ignore[no-any-return]


def _chosen() -> tuple[_Checksum, str]:
    crcmod_compiled = crcmod.crcmod._crcfunext.__name__.endswith("_crcfunext")
    for function, name in ((_crc32c_google, "google-crc32c"), (crc32c_independent, "crcmod")):
        seeded = function(_CHECK_BYTES[4:], function(_CHECK_BYTES[:4], 0))
        if not function(_CHECK_BYTES, 0) == seeded == _CHECK_VALUE:
            raise ShardlogError(f"{name} computes a wrong CRC-32C on this machine; reinstall it")
    if google_crc32c.implementation == "c":
        return _crc32c_google, "google-crc32c"
    if crcmod_compiled:
        return crc32c_independent, "crcmod"
    if os.environ.get("SHARDLOG_ALLOW_SLOW_CHECKSUM") == "1":
        return crc32c_independent, "crcmod (pure Python, slow)"
    raise ShardlogError(
        "neither google-crc32c nor crcmod has its compiled extension here, and pure Python checksums 20 MB/s; "
        "install a build with the extension, or set SHARDLOG_ALLOW_SLOW_CHECKSUM=1 to accept that"
    )


crc32c, IMPLEMENTATION = _chosen()

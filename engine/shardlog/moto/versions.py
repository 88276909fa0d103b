"""Which versions of moto this was tested with: the hooks are in its insides, so others are refused."""

from __future__ import annotations

from importlib import metadata
from typing import Final

from shardlog.errors import InvalidArgument

MOTO_VERSIONS: Final = ("5.2.5",)


def check_moto() -> None:
    """Raise InvalidArgument unless a tested version of moto is installed."""
    try:
        found = metadata.version("moto")
    except metadata.PackageNotFoundError:
        found = None
    check_version(found)


def check_version(found: str | None) -> None:
    """Raise InvalidArgument unless this version is a tested one; None: it is not installed."""
    if found not in MOTO_VERSIONS:
        raise InvalidArgument(
            f"moto: expected version {' or '.join(MOTO_VERSIONS)}, found {found or 'none'}; "
            "pip install 'shardlog[dynamodb]' installs the right one"
        )

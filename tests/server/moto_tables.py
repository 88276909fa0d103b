"""Tables of moto whose streams are recorded, for the tests of this directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config

REGION = "us-east-1"
KEY = {"id": {"S": "a"}}

Recorded = Callable[[], list[tuple[Any, ...]]]


def client(service: str, region: str = REGION) -> Any:
    """A client of boto3 that does not try again by itself."""
    return boto3.client(service, region_name=region, config=Config(retries={"total_max_attempts": 1}))


def item(**attributes: Any) -> dict[str, Any]:
    """An item with the key, and more."""
    return {**KEY, **attributes}

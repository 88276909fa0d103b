"""`Store` and `Stream`: the public faces over what is below."""

from shardlog.api.store import Store, open, open_store  # noqa: A004 - `shardlog.open`, as `gzip.open`
from shardlog.api.stream import Stream

__all__ = ["Store", "Stream", "open", "open_store"]

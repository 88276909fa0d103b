"""Which shard a user means: by its id, its number, or as much of the id as tells it from the others."""

from __future__ import annotations

from shardlog import ShardNotFound
from shardlog.model import ShardDescription, StreamDescription
from shardlog_tools.descriptions import number_of
from shardlog_tools.output import CommandFailed


def find_shard(description: StreamDescription, text: str) -> ShardDescription:
    """The only shard whose id is, begins or ends with `text`; of several, the one with that number.

    Raises ShardNotFound where there is none, CommandFailed where it may be any of several.
    """
    wanted = text.lower()
    shards = [
        shard
        for shard in description.shards
        if wanted and (shard.shard_id.lower().startswith(wanted) or shard.shard_id.endswith(wanted))
    ]
    if not shards:
        raise ShardNotFound(f"stream {description.name}: expected the id of one of its shards, found {text!r}")
    exact = [shard for shard in shards if wanted in (shard.shard_id.lower(), number_of(shard.shard_id))]
    found = exact or shards
    if len(found) > 1:
        raise CommandFailed(
            f"stream {description.name}: expected enough of an id to tell its shard, found {text!r}, which may be any "
            f"of {len(found)}: {', '.join(shard.shard_id for shard in found[:3])}{', ...' if len(found) > 3 else ''}"
        )
    return found[0]

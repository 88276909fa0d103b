"""Streams whose shards have a history, at times that the test sets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import shardlog
from shardlog import Change, Stream
from shardlog.testing.clock import ManualClock

NAME = "orders"
SECOND = timedelta(seconds=1)


def changes(count: int, first: int = 0) -> list[Change]:
    """Insertions of items of their own."""
    return [Change.insert(keys={"id": f"k{n}"}, new={"id": f"k{n}", "n": n}) for n in range(first, first + count)]


@contextmanager
def stream_with_history(path: Path, *, retention: timedelta | None = None) -> Iterator[tuple[Stream, ManualClock]]:
    """0 splits into 1 and 2, 1 rolls over into 3, and 3 and 2 merge into 4; records before and after each."""
    clock = ManualClock()
    with shardlog.open(path, clock=clock) as store:
        stream = store.create_stream(NAME, partition_key="id", retention=retention, segment_bytes=1 << 16)
        first = stream.describe().shards[0].shard_id
        clock.advance(SECOND)
        stream.append(changes(40))
        clock.advance(SECOND)
        left, right = stream.split_shard(first, at=1 << 127)
        clock.advance(SECOND)
        stream.append(changes(60, 40))
        clock.advance(SECOND)
        rolled = stream.roll_shard(left)
        clock.advance(SECOND)
        stream.append(changes(10, 100))
        stream.append(changes(10, 110))
        clock.advance(SECOND)
        stream.merge_shards(rolled, right)
        clock.advance(SECOND)
        stream.append(changes(5, 120))
        clock.advance(SECOND)
        yield stream, clock

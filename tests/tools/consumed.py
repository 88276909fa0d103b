"""A stream to consume, and processes that do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import shardlog
from shardlog import Change, Group


def append(store: Path, first: int, count: int, shards: int = 1) -> list[int]:
    """Append changes `first` to `first + count` to stream s, made if need be; returns their sequence numbers."""
    with shardlog.open(store) as opened:
        known = {name for name, _ in opened.names()}
        stream = opened.stream("s") if "s" in known else opened.create_stream("s", shards=shards)
        changes = [Change.insert(keys={"id": number}, new={"id": number}) for number in range(first, first + count)]
        return stream.append(changes).sequences


@contextmanager
def group_of(store: Path, name: str) -> Iterator[Group]:
    """A group of stream s, for looking at it while others consume."""
    with shardlog.open(store, create=False) as opened:
        yield opened.stream("s").group(name)


@contextmanager
def running(words: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process, with a process group of its own; killed at the end if it is still there."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0) as process:
        try:
            yield process
        finally:
            process.kill()

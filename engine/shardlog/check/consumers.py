"""Phase: leases and checkpoints, the only truth outside the log.

A stream in use: a copy of the environment is examined, as LMDB makes it; else the file itself, without LMDB. Each row
must agree with its checksum, belong to a group, and a checkpoint must lie before the end of the log.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import lmdb

from shardlog.check.consumer_rows import kept_rows, problems_of, read_data
from shardlog.check.subject import Subject
from shardlog.consumer.environment import Consumers
from shardlog.errors import ShardlogError
from shardlog.format import names
from shardlog.format.lease import LeaseRow, parse_key
from shardlog.index.lmdb_files import DATA_FILE, LMDB_0_9
from shardlog.stream.open_stream import registry


def check_consumers(subject: Subject) -> None:
    """Check the environment. What a stream in use holds is asked for *after* the copy was taken."""
    path = f"{subject.path}/{names.CONSUMERS}"
    data = f"{path}/{DATA_FILE}"
    if not subject.files.exists(data):
        return
    try:
        with _held_still(subject, path) as directory:
            content = read_data(subject.files, f"{directory}/{DATA_FILE}")
            problems = problems_of(directory, content)
    except (ShardlogError, lmdb.Error) as error:
        problems, content = [str(error)], b""
    for problem in problems:
        subject.add("consumers-damaged", data, problem)
    tail = subject.live.tail_now() if subject.live is not None else None
    if content and tail is not None:
        _check_rows(subject, data, content, tail.next_sequence)


def _check_rows(subject: Subject, data: str, content: bytes, next_sequence: int) -> None:
    for key, row in kept_rows(content).items():
        _, group, shard_id = parse_key(key)
        if isinstance(row, LeaseRow) and row.checkpoint is not None:
            if row.checkpoint >= next_sequence:
                subject.add(
                    "checkpoint-ahead", data,
                    f"group {group} has handled number {row.checkpoint} of shard {shard_id}, and the log ends at "
                    f"{next_sequence}",
                )  # fmt: skip


@contextmanager
def _held_still(subject: Subject, path: str) -> Iterator[str]:
    """The directory of an environment that nobody changes: of a stream in use, a copy."""
    if subject.live is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="shardlog-check-") as directory:
        shared = registry().shared(subject.path)
        consumers = shared.attachment(Consumers) if shared is not None else None
        if consumers is not None:
            consumers.copy_to(directory)
        else:
            with lmdb.open(path, readonly=True, lib_version=LMDB_0_9) as environment:
                environment.copy(directory)
        yield directory

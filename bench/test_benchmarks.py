"""The appending and reading workloads under pytest-benchmark: `pytest bench --benchmark-only`.

Contestants run one after the other here, so whatever else the machine does shows: `python -m bench` interleaves them.
BENCH_DIR says where to write.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import cycle

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.changes import change_commits
from bench.peers import Peer
from bench.peers.engine import Shardlog
from bench.peers.limit import Limit
from bench.peers.plain_lmdb import PlainLmdb
from bench.peers.sqlite import Sqlite
from bench.rounds import Settings
from bench.workloads.reading import read_passes, record_passes

_READ_RECORDS = 20_000


@pytest.fixture
def directory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="shardlog-bench-", dir=os.environ.get("BENCH_DIR", "/var/tmp")) as path:
        yield path


@pytest.mark.parametrize("peer", [Shardlog, Limit, Sqlite, PlainLmdb], ids=lambda peer: peer.name)
@pytest.mark.parametrize("records", [1, 100, 1000])
def test_append(benchmark: BenchmarkFixture, directory: str, peer: Callable[[str], Peer], records: int) -> None:
    benchmark.group = f"append {records} per durable commit"
    commits = cycle(change_commits(records))
    with closing(peer(directory)) as contestant:
        benchmark(lambda: contestant.commit(next(commits)))


@pytest.mark.parametrize("number", [0, 1], ids=["shardlog", "limit"])
@pytest.mark.parametrize("records", [100, 1000])
def test_read(benchmark: BenchmarkFixture, directory: str, number: int, records: int) -> None:
    benchmark.group = f"read {_READ_RECORDS} records, commits of {records}, images undecoded"
    with read_passes(Settings(directory, read_records=_READ_RECORDS), records) as passes:
        assert benchmark(passes[number].go_through) == _READ_RECORDS


@pytest.mark.parametrize("number", [0, 1], ids=["shardlog", "limit"])
def test_get_records(benchmark: BenchmarkFixture, directory: str, number: int) -> None:
    benchmark.group = f"get_records of {_READ_RECORDS} records, all images decoded"
    with record_passes(Settings(directory, read_records=_READ_RECORDS)) as passes:
        assert benchmark(passes[number].go_through) == _READ_RECORDS

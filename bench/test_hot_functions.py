"""Functions on the hot path under pytest-benchmark, against a stored baseline: `make bench-functions`.

BENCH_BASELINE=write stores what is measured as the new baseline. Commits are at level "os", in memory where that can
be: a sync is the device's business.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import shardlog
from bench.baseline import calibration_seconds, read_baseline, slower, write_baseline
from shardlog import Stream
from shardlog.format.commit import COMMIT, decode_directory, decode_header, encode_block, encode_entry
from shardlog.format.record import BatchContext, StoredBatch, encode_batch
from shardlog.index.tail import decode_tail, encode_tail
from shardlog.stream.append import check_rows, new_request
from shardlog_tools.measuring.changes import change_commits

_BASELINE = Path(__file__).with_name("baseline.json")
_IN_MEMORY = "/dev/shm"
_RECORDS = 100
_COMMITS = 200

Measure = Callable[[str, Callable[[], object]], None]


@pytest.fixture(scope="module")
def multiples() -> Iterator[dict[str, float]]:
    """What was measured; judged, or stored, when all is done."""
    found: dict[str, float] = {}
    yield found
    if os.environ.get("BENCH_BASELINE") == "write":
        write_baseline(_BASELINE, found)
        return
    assert not (worse := slower(read_baseline(_BASELINE), found)), "\n".join(worse)


@pytest.fixture
def measure(benchmark: BenchmarkFixture, multiples: dict[str, float]) -> Measure:
    """Measures a function beside the calibration, under a name."""

    def run(name: str, function: Callable[[], object]) -> None:
        calibration = calibration_seconds()
        benchmark(function)
        if benchmark.stats is not None:
            multiples[name] = benchmark.stats.stats.min / min(calibration, calibration_seconds())
            benchmark.extra_info["times the calibration"] = multiples[name]

    return run


@pytest.fixture
def stream() -> Iterator[Stream]:
    """A stream of one shard at level "os"."""
    where = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=where) as directory, shardlog.open(os.path.join(directory, "store")) as store:
        yield store.create_stream("bench", retention=None, durability="os")


@pytest.mark.parametrize("records", [1, 100, 1000])
def test_append(measure: Measure, stream: Stream, records: int) -> None:
    """A commit without its sync."""
    commits = cycle(change_commits(records))
    measure(f"append-{records}", lambda: stream.append(next(commits)))


def test_check(measure: Measure, stream: Stream) -> None:
    """Whether rows are right."""
    options = stream._stream.commits.options
    rows = [change.row for change in change_commits(_RECORDS)[0]]
    measure("check-rows-100", lambda: check_rows(rows, options))


def test_request(measure: Measure, stream: Stream) -> None:
    """Changes to a request."""
    options = stream._stream.commits.options
    changes = change_commits(_RECORDS)[0]
    measure("new-request-100", lambda: new_request(changes, options, None))


def test_encode(measure: Measure) -> None:
    """Rows to a body."""
    rows = [change.row for change in change_commits(_RECORDS)[0]]
    measure("encode-batch-100", lambda: encode_batch(rows, range(_RECORDS)))


def test_block(measure: Measure) -> None:
    """A body to a block, and back to its directory."""
    body = _body()
    entry = encode_entry(0, _RECORDS, body)

    def there_and_back() -> None:
        block, _ = encode_block(
            [entry], [body], seed=7, record_count=_RECORDS, first_sequence=1, durable_sequence=1, records_before=0,
            timestamp_us=1, previous_crc=0, block_type=COMMIT,
        )  # fmt: skip
        header = decode_header(block, 0, 0, 7)
        assert header is not None
        decode_directory(block, 0, header)

    measure("block-100", there_and_back)


def test_records(measure: Measure) -> None:
    """A body to records, images undecoded."""
    batch = _stored()
    measure("records-100", lambda: batch.records(1, 1 + _RECORDS))


def test_decoded_records(measure: Measure) -> None:
    """A body to records, images decoded."""
    batch = _stored()
    measure("decoded-records-100", batch.decoded_records)


def test_tail(measure: Measure, stream: Stream) -> None:
    """The tail row, there and back."""
    tail = stream._stream.tail()
    measure("tail-row", lambda: decode_tail(encode_tail(tail)))


def test_read(measure: Measure, stream: Stream) -> None:
    """A whole stream, images undecoded."""
    _fill(stream)
    measure("read-20000", lambda: sum(1 for _ in stream.read()))


def test_page(measure: Measure, stream: Stream) -> None:
    """A page from the middle, all decoded."""
    _fill(stream)
    shard = stream.describe().shards[0].shard_id
    iterator = stream.iterator(shard, "AT_SEQUENCE_NUMBER", sequence=_RECORDS * _COMMITS // 2)
    measure("page-1000", lambda: stream.get_records(iterator))


def test_seek(measure: Measure, stream: Stream) -> None:
    """The first record from somewhere in the middle."""
    _fill(stream)
    places = cycle(range(1, _RECORDS * _COMMITS, 997))
    measure("seek", lambda: next(iter(stream.read(next(places)))))


def _fill(stream: Stream) -> None:
    commits = cycle(change_commits(_RECORDS))
    for _ in range(_COMMITS):
        stream.append(next(commits))


def _body() -> bytes:
    return encode_batch([change.row for change in change_commits(_RECORDS)[0]], range(_RECORDS))


def _stored() -> StoredBatch:
    return StoredBatch(_body(), _RECORDS, 1, BatchContext("shard", 1, "0" * 16))

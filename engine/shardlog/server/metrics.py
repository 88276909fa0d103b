"""What Prometheus is told at `GET /metrics`.

Two kinds: what happens in this process is counted as it happens (requests, bytes, latencies, appends of tables, the age
of readers); what a stream is like is read from it when somebody asks (commits, records, bytes, shards, lag per group).
The figures of a stream that is gone go, too: names of tables that test suites make and delete must not pile up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shardlog.api import Stream
from shardlog.errors import ShardlogError
from shardlog.server.catalogue import Catalogue

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_log = logging.getLogger("shardlog")


class Metrics:
    """The figures of one server. Any number of threads may use it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._read: set[str] = set()
        """ARNs of the streams that readers were given pages of."""
        self._read_lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "shardlog_requests", "Requests answered", ["operation", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "shardlog_request_seconds",
            "Time from the whole request to its answer",
            ["operation"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._received = Counter("shardlog_received_bytes", "Bytes of requests' bodies", registry=self._registry)
        self._sent = Counter("shardlog_sent_bytes", "Bytes of answers' bodies", registry=self._registry)
        self._records_read = Counter(
            "shardlog_records_read", "Records given to readers", ["stream"], registry=self._registry
        )
        self._age = Gauge(
            "shardlog_iterator_age_seconds",
            "How far the reader that asked last was behind the newest record",
            ["stream"],
            registry=self._registry,
        )
        self._appends = Counter("shardlog_appends", "Appends of tables' changes", registry=self._registry)
        self._appended = Counter("shardlog_appended_records", "Records of tables' changes", registry=self._registry)
        self._append_seconds = Histogram(
            "shardlog_append_seconds",
            "Time until an append was durable",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._registry.register(_Streams(catalogue))

    def observe_request(self, operation: str, status: int, seconds: float, received: int, sent: int) -> None:
        """A request was answered."""
        self._requests.labels(operation, status).inc()
        self._seconds.labels(operation).observe(seconds)
        self._received.inc(received)
        self._sent.inc(sent)

    def observe_page(self, arn: str, records: int, behind_seconds: float) -> None:
        """A reader got a page."""
        with self._read_lock:
            self._read.add(arn)
            self._records_read.labels(arn).inc(records)
            self._age.labels(arn).set(behind_seconds)

    def observe_append(self, records: int, seconds: float) -> None:
        """Changes of a table were appended."""
        self._appends.inc()
        self._appended.inc(records)
        self._append_seconds.observe(seconds)

    def forget_removed(self) -> None:
        """Drop the figures of streams that are gone."""
        with self._read_lock:
            read = set(self._read)
        gone = read - self._catalogue.present()
        with self._read_lock:
            for arn in gone & self._read:  # two may ask at once
                self._read.discard(arn)
                self._records_read.remove(arn)
                self._age.remove(arn)

    def text(self) -> bytes:
        """All of it, in Prometheus' text format. Reads every stream."""
        self.forget_removed()
        return generate_latest(self._registry)


class _Streams(Collector):
    """What the streams are like, read when asked."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def describe(self) -> Iterable[Metric]:
        """Nothing: so that registering does not read the streams."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The figures of all streams."""
        stream = ["stream"]
        commits = CounterMetricFamily(
            "shardlog_commits", "Commits since the first process opened the stream", labels=stream
        )
        syncs = CounterMetricFamily("shardlog_syncs", "Commits that were synced one by one", labels=stream)
        records = GaugeMetricFamily("shardlog_stream_records", "Records readable now", labels=stream)
        space = GaugeMetricFamily("shardlog_stream_bytes", "Bytes on disk", labels=stream)
        shards = GaugeMetricFamily("shardlog_shards", "Shards", labels=["stream", "state"])
        lag_records = GaugeMetricFamily("shardlog_group_lag_records", "Records not handled", labels=["stream", "group"])
        lag_age = GaugeMetricFamily(
            "shardlog_group_lag_seconds", "Age of the oldest record not handled", labels=["stream", "group"]
        )
        for found in self._catalogue.streams():
            try:
                arn = found.describe().arn
                figures = found.statistics()
                count = found.commits
                commits.add_metric([arn], count)
                syncs.add_metric([arn], count if found.describe().durability == "fsync" else 0)
                records.add_metric([arn], figures.records)
                space.add_metric([arn], figures.bytes)
                is_open = [shard.closed_at is None for shard in figures.shards]
                shards.add_metric([arn, "open"], sum(is_open))
                shards.add_metric([arn, "closed"], len(is_open) - sum(is_open))
                for group, lag in _lags(found):
                    lag_records.add_metric([arn, group], lag[0])
                    lag_age.add_metric([arn, group], lag[1])
            except ShardlogError as error:
                _log.warning("no figures of %s %s: %s", found.name, found.label, error)
        yield from (commits, syncs, records, space, shards, lag_records, lag_age)


def _lags(stream: Stream) -> Iterator[tuple[str, tuple[int, float]]]:
    for name in stream.groups():
        lag = stream.group(name).lag()
        yield name, (lag.records, lag.age.total_seconds())

"""What is measured, by name: each workload takes settings and returns a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bench.results import Table
from bench.rounds import Settings
from bench.workloads.appending import append_many, append_one, append_threads
from bench.workloads.memory import read_memory
from bench.workloads.opening import open_full_segment, open_many_segments
from bench.workloads.reading import get_records, read
from bench.workloads.sharding import append_to_shards, append_with_policy, expire_much, find_first, read_one_shard

Workload = Callable[[Settings], Table]

WORKLOADS: Final[dict[str, Workload]] = {
    "append-100": lambda settings: append_many(settings, 100),
    "append-1000": lambda settings: append_many(settings, 1000),
    "append-1": append_one,
    "append-16-threads": append_threads,
    "read-100": lambda settings: read(settings, 100),
    "read-1000": lambda settings: read(settings, 1000),
    "get-records-100": lambda settings: get_records(settings, 100),
    "get-records-1000": lambda settings: get_records(settings, 1000),
    "memory": read_memory,
    "open-segments": open_many_segments,
    "open-full-1": lambda settings: open_full_segment(settings, 1),
    "open-full-100": lambda settings: open_full_segment(settings, 100),
    "append-shards": append_to_shards,
    "append-policy": append_with_policy,
    "read-shard": read_one_shard,
    "first-record": find_first,
    "expire": expire_much,
}

"""What is measured, by name, in the order in which it runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from bench.peers import makers, reading_makers
from bench.peers.sqlite import SqliteTasks
from bench.settings import Settings
from bench.workloads.appending import append_processes, append_sized
from bench.workloads.checking import check
from bench.workloads.consuming import checkpoint, idle_leases, share_leases
from bench.workloads.expiring import expire_against_delete
from bench.workloads.growth import grow
from bench.workloads.memory import read_memory
from bench.workloads.opening import open_full_segment, open_many_segments
from bench.workloads.sharding import append_to_shards, append_with_policy, expire_much, find_first, read_one_shard
from bench.workloads.waking import idle_followers, wake_up
from shardlog_tools.measuring.appending import append_many, append_tasks, append_threads
from shardlog_tools.measuring.reading import get_records, read, seek
from shardlog_tools.measuring.results import Table


class Workload(NamedTuple):
    """What it is, in a line, and what runs it."""

    description: str
    run: Callable[[Settings], Table]


WORKLOADS: Final[dict[str, Workload]] = {
    **{
        f"append-{records}": Workload(
            f"commits of {records} record(s) by one thread, beside every peer and the limit",
            lambda settings, records=records: append_many(settings, records, makers()),
        )
        for records in (1, 10, 100, 1000)
    },
    **{
        f"append-{threads}-threads": Workload(
            f"appends of one record by {threads} threads at once, beside SQLite",
            lambda settings, threads=threads: append_threads(settings, threads, makers("SQLite")),
        )
        for threads in (4, 16, 64)
    },
    **{
        f"append-{tasks}-tasks": Workload(
            f"appends of one record by {tasks} asyncio tasks at once, beside SQLite",
            lambda settings, tasks=tasks: append_tasks(settings, tasks, [SqliteTasks]),
        )
        for tasks in (64, 1000)
    },
    **{
        f"append-{processes}-processes": Workload(
            f"appends of one record by {processes} processes at once, beside SQLite",
            partial(append_processes, processes=processes),
        )
        for processes in (2, 4)
    },
    **{
        f"append-{name}": Workload(
            f"records of {name}, about 100 KB per commit at most, beside SQLite, LMDB, RocksDB and the limit",
            partial(append_sized, record_bytes=record_bytes, name=name),
        )
        for name, record_bytes in (("100B", 100), ("1KB", 1_000), ("10KB", 10_000), ("100KB", 100_000))
    },
    **{
        f"append-{shards}-shards": Workload(
            f"commits of 100 records to {shards} shard(s), beside a limit that routes",
            partial(append_to_shards, shards=shards),
        )
        for shards in (1, 16, 64, 256)
    },
    "append-policy": Workload("what a sharding policy costs an append", append_with_policy),
    **{
        f"read-{records}": Workload(
            f"replay, images undecoded, of commits of {records}, beside the limit of reading and peers",
            lambda settings, records=records: read(settings, records, reading_makers()),
        )
        for records in (100, 1000)
    },
    **{
        f"decoded-{records}": Workload(
            f"replay, every image decoded, of commits of {records}, beside the limit of reading and peers",
            lambda settings, records=records: get_records(settings, records, reading_makers()),
        )
        for records in (100, 1000)
    },
    "read-shard": Workload("replay of one shard of 64", read_one_shard),
    "seek": Workload(
        "one record by sequence number and by time, log in the page cache, beside peers",
        lambda settings: seek(settings, reading_makers()),
    ),
    "first-record": Workload("the first record from somewhere in a log that is not in the page cache", find_first),
    "wake-up": Workload("from a commit to a follower that waits, same process and other", wake_up),
    "memory": Workload("memory of a process that reads a large log", read_memory),
    "open-segments": Workload("opening after SIGKILL, many segments", open_many_segments),
    **{
        f"open-full-{records}": Workload(
            f"opening after SIGKILL, a nearly full last segment of commits of {records}",
            partial(open_full_segment, records_per_commit=records),
        )
        for records in (1, 100)
    },
    "expire": Workload("10 GB of log expire in one pass", expire_much),
    "expire-half": Workload("half of the records expire, beside DELETE in SQLite", expire_against_delete),
    "fsck": Workload("checking a store, beside a loop that reads and checksums the same bytes", check),
    "checkpoints": Workload("durable checkpoints of consumers", checkpoint),
}

LONG: Final[dict[str, Workload]] = {
    "growth": Workload("append, replay, seek and open at 1, 10 and 50 million records", grow),
    "leases": Workload("how soon a dead worker's leases are taken over", share_leases),
    "idle-leases": Workload("what holding leases costs", idle_leases),
    "idle-followers": Workload("what waiting followers cost", idle_followers),
}
"""What takes too long for every run."""

"""What `shardlog bench` measures, by name: shardlog beside the limit, on the machine and in the directory given."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from shardlog_tools.measuring.appending import append_many, append_tasks, append_threads
from shardlog_tools.measuring.reading import get_records, read, seek
from shardlog_tools.measuring.results import Table
from shardlog_tools.measuring.rounds import Settings


class Workload(NamedTuple):
    """What it is, in a line, and what runs it."""

    description: str
    run: Callable[[Settings], Table]


WORKLOADS: Final[dict[str, Workload]] = {
    "append-1": Workload("commits of one record", partial(append_many, records=1)),
    "append-100": Workload("commits of 100 records", partial(append_many, records=100)),
    "append-1000": Workload("commits of 1,000 records", partial(append_many, records=1000)),
    "append-16-threads": Workload("appends of one record by 16 threads at once", partial(append_threads, threads=16)),
    "append-64-tasks": Workload("appends of one record by 64 asyncio tasks at once", partial(append_tasks, tasks=64)),
    "read-100": Workload("replay, images undecoded", partial(read, records_per_commit=100)),
    "decoded-100": Workload("replay, every image decoded", partial(get_records, records_per_commit=100)),
    "seek": Workload("one record by sequence number and by time", seek),
}

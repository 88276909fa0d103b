"""A process of the demo that consumes: a worker of a group, which is killed, or told to stop.

`python -m shardlog_tools.demo_worker STORE STREAM GROUP WORKER`. It takes leases at once and batches when a line comes
on stdin. For each batch a line goes to stdout before the checkpoint: the records' sequence numbers.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from typing import Final

import shardlog
from shardlog import Batch

LEASE: Final = timedelta(seconds=1)
RECORDS_MAX: Final = 500
"""So that a line is not longer than a pipe takes at once: it is there whole or not at all."""


def handle(batch: Batch) -> None:
    """Tell of a batch."""
    os.write(1, f"{' '.join(str(record.sequence) for record in batch.records)}\n".encode("ascii"))


def main(argv: list[str]) -> None:
    """Consume until SIGTERM."""
    store_path, stream_name, group_name, worker_name = argv
    with shardlog.open(store_path, create=False) as store:
        worker = store.stream(stream_name).group(group_name).worker(worker_name, lease_duration=LEASE)
        with worker:
            sys.stdin.readline()
            worker.run(handle, max_records=RECORDS_MAX, wait=timedelta(0))


if __name__ == "__main__":
    main(sys.argv[1:])

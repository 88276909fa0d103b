"""shardlog: an embeddable, durable, on-disk change log with the semantics of DynamoDB Streams.

import shardlog
from shardlog import Change

with shardlog.open("store") as store:
    stream = store.create_stream("users")
    stream.append([Change.insert(keys={"id": 1}, new={"id": 1, "name": "Ada"})])
    for record in stream.read():
        print(record.sequence, record.event, record.keys)
"""

import logging

from shardlog.api import Store, Stream, open  # noqa: A004 - `shardlog.open`, as `gzip.open`
from shardlog.check import Finding, RepairPlan, Report, fsck, plan_repair
from shardlog.consumer import Batch, Group, Lag, Lease, ShardLag, Worker
from shardlog.errors import (
    Closed,
    CorruptLog,
    InvalidArgument,
    IteratorExpired,
    LeaseLost,
    ReadOnly,
    ShardClosed,
    ShardlogError,
    ShardNotFound,
    StorageFailed,
    StorageFull,
    StoreLocked,
    StreamDisabled,
    StreamExists,
    StreamNotFound,
    TrimmedData,
    UnsupportedVersion,
)
from shardlog.format.record import Record
from shardlog.model import Appended, Change, Gap, ShardDescription, Statistics, StreamDescription
from shardlog.options import ShardingPolicy
from shardlog.stream.iterators import Page
from shardlog.stream.retention import Trimmed

__all__ = [
    "Appended",
    "Batch",
    "Change",
    "Closed",
    "CorruptLog",
    "Finding",
    "Gap",
    "Group",
    "InvalidArgument",
    "IteratorExpired",
    "Lag",
    "Lease",
    "LeaseLost",
    "Page",
    "ReadOnly",
    "Record",
    "RepairPlan",
    "Report",
    "ShardClosed",
    "ShardDescription",
    "ShardLag",
    "ShardNotFound",
    "ShardingPolicy",
    "ShardlogError",
    "Statistics",
    "StorageFailed",
    "StorageFull",
    "Store",
    "StoreLocked",
    "Stream",
    "StreamDescription",
    "StreamDisabled",
    "StreamExists",
    "StreamNotFound",
    "Trimmed",
    "TrimmedData",
    "UnsupportedVersion",
    "Worker",
    "fsck",
    "open",
    "plan_repair",
]

# Silent unless the program configures logging (the library convention of the logging howto).
logging.getLogger("shardlog").addHandler(logging.NullHandler())

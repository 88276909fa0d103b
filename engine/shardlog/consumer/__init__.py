"""Consumers: groups, workers, leases and checkpoints, over a stream's public interface."""

from shardlog.consumer.environment import Consumers, open_consumers, open_consumers_to_read
from shardlog.consumer.group import Group, Lag, Lease, ShardLag, WorkerPresence, checked_name
from shardlog.consumer.leases import GENERATION_BITS, LeaseTable
from shardlog.consumer.witness import highest_checkpoint
from shardlog.consumer.worker import Batch, Worker

__all__ = [
    "GENERATION_BITS",
    "Batch",
    "Consumers",
    "Group",
    "Lag",
    "Lease",
    "LeaseTable",
    "ShardLag",
    "Worker",
    "WorkerPresence",
    "checked_name",
    "highest_checkpoint",
    "open_consumers",
    "open_consumers_to_read",
]

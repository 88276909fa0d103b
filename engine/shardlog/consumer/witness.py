"""What consumers witness: a checkpoint says that the log was durable up to it.

Asked when a log is recovered, or checked, by whoever is alone with it; read without locks, from a file that was
verified first. What does not verify witnesses nothing, and shows when a group is opened.
"""

from __future__ import annotations

import logging

import lmdb

from shardlog.consumer.environment import check_sound
from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.files.protocol import Files
from shardlog.format import names
from shardlog.format.lease import LEASE, LeaseRow, decode_row
from shardlog.index.lmdb_files import DATA_FILE, LMDB_0_9

_log = logging.getLogger("shardlog")


def highest_checkpoint(files: Files, stream_path: str) -> int:
    """The highest sequence number that any group of a stream has checkpointed; 0: there is none."""
    path = f"{stream_path}/{names.CONSUMERS}"
    if not files.exists(f"{path}/{DATA_FILE}"):
        return 0
    try:
        check_sound(path)
        with lmdb.open(path, readonly=True, lock=False, lib_version=LMDB_0_9) as environment:
            return _highest(environment)
    except (CorruptLog, lmdb.Error) as error:
        _log.warning("%s: leases and checkpoints cannot be read: %s", stream_path, error)
        return 0


def _highest(environment: lmdb.Environment) -> int:
    highest = 0
    with environment.begin() as transaction, transaction.cursor() as cursor:
        for key, value in cursor.iternext() if cursor.set_range(LEASE) else ():
            if not bytes(key).startswith(LEASE):
                break
            try:
                row = decode_row(bytes(key), bytes(value))
            except (CorruptLog, UnsupportedVersion):
                continue
            if isinstance(row, LeaseRow) and row.checkpoint is not None:
                highest = max(highest, row.checkpoint)
    return highest

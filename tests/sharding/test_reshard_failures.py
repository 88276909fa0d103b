"""The disk fails, or is full, while shards change: what is said of it, and what is true afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sharding.lineages import check_routed, open_shards
from tests.support.faults import FaultyFiles, Step, failing, no_room, open_with
from tests.support.history import changes, new_stream, numbers, records_only

import shardlog
from shardlog import StorageFailed, StorageFull, Stream
from shardlog.files.protocol import Site
from shardlog.stream.sampling import hash_of


def is_reshard(step: Step) -> bool:
    """Whether it writes the control record."""
    return step.operation == "pwrite" and b"reshard" in step.content


def split(stream: Stream) -> list[str]:
    """Split the first open shard."""
    return stream.split_shard(open_shards(stream.describe())[0].shard_id)


@pytest.mark.parametrize("when", ["before", "half"])
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_without_room_nothing_changes(store_path: Path, when: str, durability: str) -> None:
    """StorageFull; the shards are as before, also for readers, and the next attempt goes through."""
    files = FaultyFiles()
    with open_with(store_path, files) as store:
        stream = new_stream(store, shards=2, durability=durability)
        stream.append(changes(0, 20))
        before = stream.describe()
        files.arm(is_reshard, no_room, when)  # type: ignore[arg-type]
        with pytest.raises(StorageFull):
            split(stream)
        assert stream.describe() == before
        with shardlog.open(store_path, read_only=True) as reader:
            assert reader.stream("s").describe() == before
        stream.append(changes(20, 20))
        split(stream)
        stream.append(changes(40, 20))
        after = stream.describe()
        assert len(after.shards) == 4
    with shardlog.open(store_path) as store:
        stream = store.stream("s")
        assert stream.describe() == after
        records = records_only(stream.read())
        assert sorted(numbers(records)) == list(range(60))
        check_routed(after, records, lambda record: hash_of(record.keys))


def test_a_failed_sync_leaves_the_outcome_open(store_path: Path) -> None:
    """Level "fsync": StorageFailed, and this process changes and appends no more; opened again, nothing happened."""
    files = FaultyFiles()
    with open_with(store_path, files) as store:
        stream = new_stream(store, shards=2)
        stream.append(changes(0, 20))
        before = stream.describe().shards
        files.arm(lambda step: step.operation == "sync" and step.site is Site.COMMIT, failing)
        with pytest.raises(StorageFailed):
            split(stream)
        assert stream.describe().shards == before
        for action in (
            lambda: split(stream),
            lambda: stream.append(changes(20, 1)),
            lambda: stream.set_retention(None),
        ):
            with pytest.raises(StorageFailed):
                action()
        assert sorted(numbers(stream.read())) == list(range(20))
    with shardlog.open(store_path) as store:
        stream = store.stream("s")
        assert stream.describe().shards == before
        children = split(stream)
        stream.append(changes(20, 20))
        assert [shard.shard_id for shard in stream.describe().shards if shard.parent_ids] == children


def test_a_control_record_that_could_not_be_synced_is_not_called_durable_later(store_path: Path) -> None:
    """Level "os": after the failed sync of a change, another sync of the same file would say nothing. It is refused."""
    files = FaultyFiles()
    with open_with(store_path, files) as store:
        stream = new_stream(store, shards=2, durability="os")
        stream.append(changes(0, 20))
        files.arm(lambda step: step.operation == "sync" and step.site is Site.LOG_SYNC, failing)
        with pytest.raises(StorageFailed):
            split(stream)
        with pytest.raises(StorageFailed):
            stream.sync()
        with pytest.raises(StorageFailed):
            stream.append(changes(20, 1))
        with pytest.raises(StorageFailed):
            store.close()
    with shardlog.open(store_path) as store:
        stream = store.stream("s")
        assert sorted(numbers(stream.read())) == list(range(20))
        split(stream)
        stream.append(changes(20, 20))
        stream.sync()
        check_routed(stream.describe(), records_only(stream.read()), lambda record: hash_of(record.keys))

"""A consumer's checkpoint says that the log was durable up to it, also where nothing else does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.support.history import changes, new_stream, numbers

import shardlog
from shardlog import CorruptLog, Gap


def consumed(path: Path, records: int) -> Path:
    """A store with some records, the last of them checkpointed; MARK is lost. The stream's directory."""
    with shardlog.open(path) as store:
        stream = new_stream(store)
        for number in range(records):
            stream.append(changes(number, 1))
        with stream.group("g").worker("w") as worker:
            for batch in worker.batches(until_drained=True):
                batch.checkpoint()
    (directory,) = path.glob("streams/s/*")
    (directory / "MARK").unlink()
    return directory


def last_segment(directory: Path) -> Path:
    return max((directory / "log").iterdir())


def cut_records(directory: Path, records: int) -> None:
    """Take the last commits away, as a disk does that lied about a sync: zeros are where they were."""
    with shardlog.open(directory.parents[2], read_only=True) as store:
        stream = store.stream("s")._stream
        offsets = [block.header.offset for block in _blocks(stream)]
    with last_segment(directory).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.truncate(offsets[-records])
        file.truncate(size)


def _blocks(stream):  # type: ignore[no-untyped-def]
    return list(stream.reader(1, None).cursor.blocks(stream.tail()))


def test_lost_records_that_a_consumer_handled_are_told(tmp_path: Path) -> None:
    """The log ends before a checkpoint: to go on would use its numbers again, and the consumer would skip them."""
    directory = consumed(tmp_path / "store", 8)
    cut_records(directory, 3)
    with pytest.raises(CorruptLog, match="consumer has handled") as caught:
        shardlog.open(tmp_path / "store").stream("s")
    assert caught.value.witnesses == ("a consumer's checkpoint",)
    with shardlog.open(tmp_path / "store", read_only=True) as store:
        first, *gap = list(store.stream("s").read(on_damage="gap"))[4:]
        assert first.sequence == 5
        assert [type(item) for item in gap] == [Gap]
        assert (gap[0].first, gap[0].next) == caught.value.sequences
    report = shardlog.fsck(tmp_path / "store")
    assert report.exit_status & 4
    assert any(finding.sequences == caught.value.sequences for finding in report.findings)


def test_and_can_be_repaired(tmp_path: Path) -> None:
    """The lost range becomes a known gap; numbers go on above it."""
    directory = consumed(tmp_path / "store", 8)
    cut_records(directory, 3)
    shardlog.plan_repair(shardlog.fsck(tmp_path / "store")).apply()
    assert shardlog.fsck(tmp_path / "store").clean
    with shardlog.open(tmp_path / "store") as store:
        stream = store.stream("s")
        (sequence,) = stream.append(changes(100, 1)).sequences
        assert sequence > 8
        assert numbers(item for item in stream.read(on_damage="gap") if not isinstance(item, Gap)) == [*range(5), 100]


def test_a_torn_tail_beyond_the_checkpoint_is_none(tmp_path: Path) -> None:
    """What no consumer has handled may be torn: nobody acknowledged it."""
    directory = consumed(tmp_path / "store", 8)
    with shardlog.open(tmp_path / "store") as store:
        stream = store.stream("s")
        stream.append(changes(8, 1))
    cut_records(directory, 1)
    (directory / "MARK").unlink()
    with shardlog.open(tmp_path / "store") as store:
        assert numbers(store.stream("s").read()) == list(range(8))


def test_damaged_checkpoints_witness_nothing(tmp_path: Path) -> None:
    """The log opens; the damage shows where the group is opened."""
    directory = consumed(tmp_path / "store", 8)
    data = directory / "consumers" / "data.mdb"
    content = bytearray(data.read_bytes())
    content[:8192] = os.urandom(8192)
    data.write_bytes(content)
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "store", copy)
    with shardlog.open(copy) as store:
        assert numbers(store.stream("s").read()) == list(range(8))
        with pytest.raises(CorruptLog, match="checkpoints are damaged"):
            store.stream("s").group("g")

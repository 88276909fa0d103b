"""fsck of leases and checkpoints: what verifies is kept, the rest is told, and nothing is skipped by a consumer."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.history import changes, new_stream

import shardlog
from shardlog import CorruptLog, Store
from shardlog.check.consumer_rows import kept_rows
from shardlog.format import lease
from shardlog.format.lease import GroupRow, LeaseRow, decode_row

GROUPS = ("billing", "search")
SHARDS = 5
RECORDS = 40


@pytest.fixture(scope="module")
def consumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two groups; the second is half-way."""
    path = tmp_path_factory.mktemp("consumed") / "store"
    with shardlog.open(path) as store:
        stream = new_stream(store, shards=SHARDS)
        for number in range(0, RECORDS, 10):
            stream.append(changes(number, 10))
        for group, batches in zip(GROUPS, (1000, SHARDS), strict=True):
            with stream.group(group).worker("w") as worker:
                for _, batch in zip(range(batches), worker.batches(max_records=4, until_drained=True), strict=False):
                    batch.checkpoint()
    return path


@pytest.fixture
def copy(consumed: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(consumed, tmp_path / "store"))


def data_of(store: Path) -> Path:
    (path,) = store.glob("streams/*/*/consumers/data.mdb")
    return path


def checkpoints(store: Store) -> dict[tuple[str, str], int | str | None]:
    stream = store.stream("s")
    return {
        (group, found.shard_id): found.checkpoint for group in stream.groups() for found in stream.group(group).leases()
    }


def handled(store: Store, group: str) -> list[int]:
    """Every record that a group still gets, by sequence number."""
    with store.stream("s").group(group).worker("later") as worker:
        return [record.sequence for batch in worker.batches(until_drained=True) for record in batch.records]


def flips(content: bytes, count: int, generator: random.Random) -> Iterator[tuple[int, int]]:
    """Places and bits, where something is."""
    written = [place for place, byte in enumerate(content) if byte]
    for place in generator.sample(written, count):
        yield place, 1 << generator.randrange(8)


def test_a_sound_environment_is_clean(consumed: Path) -> None:
    """Also while the stream is in use, and while a worker holds leases."""
    assert shardlog.fsck(consumed).findings == ()
    with shardlog.open(consumed) as store, store.stream("s").group("billing").worker("w"):
        assert shardlog.fsck(consumed).clean
        script = f"import shardlog, sys; sys.exit(shardlog.fsck({str(consumed)!r}).exit_status)"
        assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_what_lmdb_holds_is_read_without_it(consumed: Path) -> None:
    """The walker finds every row of a sound file."""
    rows = kept_rows(data_of(consumed).read_bytes())
    assert sum(isinstance(row, GroupRow) for row in rows.values()) == len(GROUPS)
    assert sum(isinstance(row, LeaseRow) for row in rows.values()) == len(GROUPS) * SHARDS


def test_any_flipped_bit_is_told_or_harmless(consumed: Path, tmp_path: Path, seed: int) -> None:
    """Opening gives the rows as they were, or CorruptLog; fsck tells it; repair keeps what is good, skips nothing."""
    generator = random.Random(seed)
    with shardlog.open(consumed) as store:
        before = checkpoints(store)
        numbers = [record.sequence for record in store.stream("s").read()]
    sound = data_of(consumed).read_bytes()
    told = 0
    for case, (place, bit) in enumerate(flips(sound, 150, generator)):
        damaged = tmp_path / str(case)
        shutil.copytree(consumed, damaged)
        content = bytearray(sound)
        content[place] ^= bit
        data_of(damaged).write_bytes(content)
        report = shardlog.fsck(damaged)
        with shardlog.open(damaged) as store:
            try:
                assert checkpoints(store) == before, f"byte {place}, bit {bit}"
                if report.clean:
                    continue
            except CorruptLog:
                assert not report.clean, f"byte {place}, bit {bit}"
        told += 1
        shardlog.plan_repair(report).apply()
        assert shardlog.fsck(damaged).clean
        with shardlog.open(damaged) as store:
            stream = store.stream("s")
            for group in GROUPS:
                after = {item.shard_id: item.checkpoint for item in stream.group(group).leases()}
                for shard_id, checkpoint in after.items():
                    assert (checkpoint or 0) <= (before[group, shard_id] or 0), "nothing is skipped"
        shutil.rmtree(damaged)
    assert told > 10, "hardly anything was damaged"
    assert len(numbers) == RECORDS


def test_one_damaged_row_costs_no_other(copy: Path) -> None:
    """Its shard begins at the group's start again; the others go on where they were. The old file is kept."""
    with shardlog.open(copy) as store:
        before = checkpoints(store)
    data = data_of(copy)
    content = bytearray(data.read_bytes())
    victim = next(iter(before))
    key = lease.row_key(lease.LEASE, *victim)
    places = [at for at in range(len(content)) if content.startswith(key, at)]
    for at in places:  # every version of it that lies in the file
        content[at + len(key) + 5] ^= 0xFF
    data.write_bytes(content)
    report = shardlog.fsck(copy)
    assert {finding.code for finding in report.findings} == {"consumers-damaged"}
    with shardlog.open(copy) as store, pytest.raises(CorruptLog):
        store.stream("s").group(victim[0]).leases()
    shardlog.plan_repair(report).apply()
    with shardlog.open(copy) as store:
        after = checkpoints(store)
        assert {each: after[each] for each in after} == {each: before[each] for each in before if each != victim}
        shard = [record.sequence for record in store.stream("s").read(shard_id=victim[1])]
        assert sorted(set(handled(store, victim[0]))) == shard
    assert list(copy.glob("streams/*/*/lost+found/*"))


def test_a_lost_root_is_searched_for(copy: Path) -> None:
    """Both meta pages are gone: the leaves tell the rows; a group may repeat, and skips nothing."""
    with shardlog.open(copy) as store:
        before = checkpoints(store)
        numbers = {record.sequence for record in store.stream("s").read()}
    data = data_of(copy)
    content = bytearray(data.read_bytes())
    content[: 2 * 4096] = bytes(2 * 4096)
    data.write_bytes(content)
    report = shardlog.fsck(copy)
    assert not report.clean
    shardlog.plan_repair(report).apply()
    assert shardlog.fsck(copy).clean
    with shardlog.open(copy) as store:
        assert store.stream("s").groups() == sorted(GROUPS)
        for (group, shard_id), checkpoint in checkpoints(store).items():
            assert (checkpoint or 0) <= (before[group, shard_id] or 0)
        done = {before["search", shard.shard_id] for shard in store.stream("s").describe().shards}
        assert numbers - set(handled(store, "search")) <= set(range(max(int(last or 0) for last in done) + 1))


def test_a_lost_group_row_is_made_again(copy: Path) -> None:
    """Its leases, and so its checkpoints, are kept."""
    with shardlog.open(copy) as store:
        before = checkpoints(store)
    data = data_of(copy)
    content = bytearray(data.read_bytes())
    key = lease.row_key(lease.GROUP, "billing")
    for at in range(len(content) - len(key)):
        if content.startswith(key, at):
            value = bytes(content[at + len(key) : at + len(key) + 40])
            if any(_is_row(key, value[:size]) for size in range(5, 41)):
                content[at + len(key)] ^= 1
    data.write_bytes(content)
    report = shardlog.fsck(copy)
    assert not report.clean
    shardlog.plan_repair(report).apply()
    with shardlog.open(copy) as store:
        assert checkpoints(store) == before


def _is_row(key: bytes, value: bytes) -> bool:
    try:
        decode_row(key, value)
    except CorruptLog:
        return False
    return True


def test_a_snapshot_takes_consumers_along(consumed: Path, tmp_path: Path) -> None:
    """Groups go on in the copy where they were, and move nothing in the source."""
    with shardlog.open(consumed) as store:
        store.stream("s").snapshot(tmp_path / "copy")
        before = checkpoints(store)
    assert shardlog.fsck(tmp_path / "copy", deep=True).findings == ()
    with shardlog.open(tmp_path / "copy") as store:
        assert checkpoints(store) == before
        assert handled(store, "billing") == []
        store.stream("s").group("billing").reset("TRIM_HORIZON")
    with shardlog.open(consumed) as store:
        assert checkpoints(store) == before

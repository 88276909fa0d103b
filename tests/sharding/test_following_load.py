"""Shards follow the load of a stream, on a manual clock: splits, merges, roll-overs, hot keys, several who decide."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.sharding.lineages import open_shards
from tests.sharding.measures import Load, share_below
from tests.support.children import Channel, Children
from tests.support.faults import FaultyFiles, no_room, open_with
from tests.support.history import records_only

import shardlog
from shardlog import Change, ShardingPolicy, Store
from shardlog.model import HASH_RANGE_END
from shardlog.stream import sharding
from shardlog.stream.sampling import BUCKETS, recent_keys
from shardlog.stream.sharding import Intent, Sharder
from shardlog.testing.clock import ManualClock

WINDOW = 8.0
TARGET = 100
POLICY = ShardingPolicy(
    records_per_second=TARGET,
    bytes_per_second=None,
    window=timedelta(seconds=WINDOW),
    cooldown=timedelta(seconds=WINDOW),
    max_shards=16,
)
KEYS = [f"item-{number}" for number in range(500)]


@pytest.fixture
def clock() -> ManualClock:
    """The store's clock."""
    return ManualClock()


@pytest.fixture
def timed_store(store_path: Path, clock: ManualClock) -> Iterator[Store]:
    """A store on a manual clock."""
    with shardlog.open(store_path, clock=clock) as store:
        yield store


@pytest.fixture
def load(timed_store: Store, clock: ManualClock) -> Load:
    """A stream of one shard that follows the load."""
    return Load(timed_store, clock, POLICY)


@pytest.fixture
def generator(seed: int) -> random.Random:
    """Chooses keys."""
    return random.Random(seed)


def zipfian(generator: random.Random) -> list[str]:
    """A few hundred keys, some many times as often as others, none dominating."""
    keys = generator.sample(KEYS, 200)
    return [key for rank, key in enumerate(keys, 3) for _ in range(1 + 600 // rank)]


def test_a_skewed_load_splits_near_its_median(load: Load, generator: random.Random) -> None:
    """After a whole window, not before; the bound halves what was written as well as 64 buckets can."""
    keys = zipfian(generator)
    load.run(keys, TARGET * 3 // 2, WINDOW, generator)
    assert len(load.open) == 1
    load.run(keys, TARGET * 3 // 2, WINDOW / 2, generator)
    left, right = load.open
    bound = left.hash_range[1]
    assert bound == right.hash_range[0]
    written = [record.keys["id"] for record in records_only(load.stream.read(stop=left.first_sequence))]
    grid = [share_below(HASH_RANGE_END * bucket // BUCKETS, written) for bucket in range(1, BUCKETS)]
    assert abs(share_below(bound, written) - 0.5) == pytest.approx(min(abs(share - 0.5) for share in grid), abs=0.01)
    assert left.parent_ids == right.parent_ids


def test_halving_ignores_where_the_load_is(timed_store: Store, clock: ManualClock, generator: random.Random) -> None:
    """As Kinesis on demand does."""
    policy = ShardingPolicy(records_per_second=TARGET, window=POLICY.window, cooldown=POLICY.cooldown, halving=True)
    load = Load(timed_store, clock, policy)
    load.run(zipfian(generator), TARGET * 3 // 2, 2 * WINDOW, generator)
    assert [shard.hash_range[1] for shard in load.open] == [HASH_RANGE_END // 2, HASH_RANGE_END]


def test_a_moving_hot_spot_is_split_where_it_is_now(load: Load, generator: random.Random) -> None:
    """What a shard took before the window does not move the bound."""
    middle = HASH_RANGE_END // 2
    left = [key for key in KEYS if share_below(middle, [key])]
    right = [key for key in KEYS if key not in left]
    load.run(left, TARGET // 2, 5 * WINDOW, generator)
    while len(load.open) == 1:
        load.run(right, TARGET * 8 // 5, 1.0, generator)
    bound = load.open[0].hash_range[1]
    assert bound > middle
    assert 0.2 < share_below(bound, right) < 0.6


def test_shards_grow_with_the_load_and_merge_when_it_cools(load: Load, generator: random.Random) -> None:
    """Until each takes less than the target; back to one when hardly anything comes; every record is still there."""
    load.run(KEYS, TARGET * 5, 6 * WINDOW, generator)
    grown = len(load.open)
    assert 6 <= grown <= POLICY.max_shards
    open_shards(load.stream.describe())
    load.run(KEYS, 4, 12 * WINDOW, generator)
    assert len(load.open) == 1
    taken = round(TARGET * 5 * 6 * WINDOW + 4 * 12 * WINDOW)
    assert len(records_only(load.stream.read())) == taken
    per_shard = [len(records_only(load.stream.read(shard_id=s.shard_id))) for s in load.stream.describe().shards]
    assert sum(per_shard) == taken


def test_a_hot_key_is_reported_instead_of_split(load: Load, generator: random.Random) -> None:
    """With the shard and its share; when the key cools down it is not reported any more, and others may split."""
    load.run([*KEYS[:10], *["hot"] * 30], TARGET * 2, 3 * WINDOW, generator)
    (shard,) = load.open
    (hot,) = load.stream._stream.sharder.hot_keys
    assert (hot.shard_id, hot.key) == (shard.shard_id, "hot")
    assert hot.share == pytest.approx(0.75, abs=0.1)
    (told,) = load.stream.throughput().hot_keys
    assert (told.shard_id, told.key) == (shard.shard_id, "hot")
    load.run(KEYS, TARGET * 8 // 5, 2 * WINDOW, generator)
    assert load.stream._stream.sharder.hot_keys == ()
    assert len(load.open) >= 2


def test_a_hot_key_is_looked_for_once_in_a_window(
    load: Load, generator: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It means to read back MiBs of log, by a thread that appends; it is reported all the time."""
    looks = []

    def counted(*arguments: Any) -> list[object]:
        looks.append(load.clock.wall_us())
        return recent_keys(*arguments)

    monkeypatch.setattr(sharding, "recent_keys", counted)
    load.run(["hot"], TARGET * 2, WINDOW + 1, generator)
    for _ in range(round(5 * WINDOW)):
        load.run(["hot"], TARGET * 2, 1.0, generator)
        assert [key.share for key in load.stream._stream.sharder.hot_keys] == [1.0]
    assert 5 <= len(looks) <= 7


def test_shards_roll_over_in_time(timed_store: Store, clock: ManualClock) -> None:
    """One child each, of the same range, however idle; never without `roll_every`."""
    load = Load(timed_store, clock, replace(ShardingPolicy.dynamodb(), merge_below=0), shards=2)
    load.take(["a"], 4 * 3600 - 60)
    load.take(["b"], 60)
    first = load.open
    load.take(["c"], 1)
    second = load.open
    assert [shard.hash_range for shard in second] == [shard.hash_range for shard in first]
    assert [shard.parent_ids for shard in second] == [(shard.shard_id,) for shard in first]
    load.take(["d"], 60)
    assert load.open == second
    load.stream.set_sharding(None)
    clock.advance(timedelta(days=1))
    load.take(["e"], 60)
    assert load.open == second


def test_a_policy_can_be_set_changed_and_taken_away(
    timed_store: Store, clock: ManualClock, generator: random.Random
) -> None:
    """At any time; it is part of the stream, and there after a reopening."""
    load = Load(timed_store, clock, None)
    load.run(KEYS, TARGET * 2, 3 * WINDOW, generator)
    assert len(load.open) == 1
    load.stream.set_sharding(POLICY)
    load.run(KEYS, TARGET * 8 // 5, 2 * WINDOW, generator)
    assert len(load.open) == 2
    timed_store.close()
    with shardlog.open(timed_store.path, clock=clock) as again:
        load.stream = again.stream("load")
        assert load.stream.describe().sharding == POLICY
        load.run(KEYS, TARGET * 4, 2 * WINDOW, generator)
        assert len(load.open) > 2
        count = len(load.open)
        load.stream.set_sharding(None)
        load.run(KEYS, TARGET * 40, 3 * WINDOW, generator)
        assert len(load.open) == count


def test_a_clock_set_back_does_not_stop_the_measuring(load: Load, clock: ManualClock, generator: random.Random) -> None:
    """Measuring begins anew: after a whole window of the clock as it goes now, the shard splits."""
    rate = TARGET * 8 // 5
    load.run(KEYS, rate, WINDOW / 2, generator)
    clock.advance(timedelta(days=-30))
    load.run(KEYS, rate, WINDOW - 1, generator)
    assert len(load.open) == 1
    load.run(KEYS, rate, WINDOW, generator)
    assert len(load.open) == 2


def test_a_seldom_writer_of_large_batches_splits(load: Load) -> None:
    """One batch in seven tenths of a window makes samples that far apart; the target is exceeded all the same."""
    for _ in range(6):
        load.take(KEYS * 3, WINDOW * 0.7)
    assert len(load.open) >= 2


def test_two_who_measure_one_stream_do_not_split_twice_for_one_cause(load: Load, generator: random.Random) -> None:
    """Both see the target exceeded in the same window; after one split neither is above it any more."""
    other = Sharder(load.stream._stream)
    for _ in range(round(8 * WINDOW)):
        load.run(KEYS, round(TARGET * 1.4), 1.0, generator)
        other.tick()
    assert len(load.open) == 2
    assert len(load.stream.describe().shards) == 3


def test_limits_hold_whoever_splits(load: Load, generator: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose picture is old wants to split, or merge, another shard: the limits are the stream's."""
    policy = ShardingPolicy(records_per_second=TARGET, max_shards=2, min_shards=2, window=POLICY.window)
    load.take(generator.choices(KEYS, k=500), 1.0)
    (shard,) = load.stream._stream.state().open_shards
    late = Sharder(load.stream._stream)
    left, right = load.stream.split_shard(shard.shard_id)
    shards = load.stream._stream.state().open_shards
    for intent in (Intent("split", shards[:1]), Intent("split", shards[1:]), Intent("merge", shards)):
        with monkeypatch.context() as patch:
            patch.setattr(sharding, "decide", lambda *_, wanted=intent: [wanted])
            late.run(policy, load.clock.wall_us())
        assert [shard.shard_id for shard in load.open] == [left, right]


def test_a_decision_that_came_too_late_changes_nothing(
    load: Load, generator: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shard was split, merged or rolled over by hand in between."""
    load.take(generator.choices(KEYS, k=500), 1.0)
    before = load.stream._stream.state().open_shards
    load.stream.split_shard(before[0].shard_id)
    shards = load.stream.describe().shards
    for kind in ("split", "roll", "merge"):
        with monkeypatch.context() as patch:
            patch.setattr(sharding, "decide", lambda *_, wanted=kind: [Intent(wanted, (before[0], before[0]))])
            Sharder(load.stream._stream).run(POLICY, load.clock.wall_us())
        assert load.stream.describe().shards == shards


def test_an_append_succeeds_though_the_split_after_it_fails(
    store_path: Path, clock: ManualClock, generator: random.Random
) -> None:
    """The records are there; the shard splits when there is room again."""
    files = FaultyFiles()
    with open_with(store_path, files, clock=clock) as store:
        load = Load(store, clock, POLICY)
        rate = TARGET * 8 // 5
        load.run(KEYS, rate, WINDOW, generator)
        fault = files.arm(lambda step: step.operation == "pwrite" and b"reshard" in step.content, no_room)
        load.take(generator.choices(KEYS, k=rate // 2), 0.5)
        assert fault.struck == 1
        assert len(load.open) == 1
        assert len(records_only(load.stream.read())) == rate * WINDOW + rate // 2
        load.run(KEYS, rate, WINDOW / 2, generator)
        assert len(load.open) == 2


def writer(channel: Channel, path: str) -> None:
    """Append what is asked for, on a clock of its own that is moved from outside."""
    clock = ManualClock()
    with shardlog.open(path, clock=clock) as store:
        stream = store.stream("load")
        channel.send("open")
        while (keys := channel.receive()) is not None:
            stream.append([Change.insert(keys={"id": key}) for key in keys])
            clock.advance(timedelta(seconds=0.5))
            channel.send("appended")


def test_two_processes_do_not_split_twice_for_one_cause(
    load: Load, generator: random.Random, store_path: Path, children: Children
) -> None:
    """Each takes half of the load, both measure all of it, and one split is enough."""
    child = children.start(writer, str(store_path))
    assert child.receive() == "open"
    per_process = round(TARGET * 1.4 / 4)
    for turn in range(round(16 * WINDOW)):
        mine, theirs = generator.choices(KEYS, k=per_process), generator.choices(KEYS, k=per_process)
        if turn % 2:
            load.take(mine, 0.5)
        child.send(theirs)
        assert child.receive() == "appended"
        if not turn % 2:
            load.take(mine, 0.5)
    child.send(None)
    assert child.wait() == 0
    assert len(load.open) == 2
    assert len(load.stream.describe().shards) == 3
    taken = records_only(load.stream.read())
    assert len(taken) == round(16 * WINDOW) * per_process * 2
    _check_routes(load, taken)


def _check_routes(load: Load, records: list[Any]) -> None:
    """Every record is in the shard whose range holds its hash, and within that shard's life."""
    shards = {shard.shard_id: shard for shard in load.stream.describe().shards}
    for record in records:
        shard = shards[record.shard_id]
        first, end = shard.hash_range
        assert share_below(first, [record.keys["id"]]) == 0
        assert share_below(end, [record.keys["id"]]) == 1
        assert shard.first_sequence <= record.sequence < (shard.end_sequence or record.sequence + 1)

"""When shards change by themselves: the policy's values, and the decision as a pure function of samples and a time."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sharding.measures import BYTES_PER_RECORD, SECOND_US, START_US, samples_of, seconds_of

from shardlog import InvalidArgument, ShardingPolicy
from shardlog.model import HASH_RANGE_END
from shardlog.options import SHARDS_MAX, stream_options
from shardlog.stream.lineage import fold, plan_roll_over, plan_split
from shardlog.stream.sampling import BUCKETS, hash_of, hot_key, weighted_median
from shardlog.stream.sharding import Intent, Sample, decide, throughput
from shardlog.stream.state import Shard, StreamState, new_state

WINDOW = 80.0
TARGET = 100.0
POLICY = ShardingPolicy(
    records_per_second=TARGET,
    bytes_per_second=None,
    window=timedelta(seconds=WINDOW),
    cooldown=timedelta(seconds=WINDOW),
    max_shards=8,
    merge_below=0.25,
)
DAY_US = 86_400 * SECOND_US
STEP = WINDOW / 8


def state_of(shards: int, created_us: int = START_US - DAY_US) -> StreamState:
    """A stream that is a day old when the samples begin."""
    options = stream_options(
        view_type="KEYS_ONLY",
        key_names=None,
        partition_key=None,
        durability="fsync",
        segment_bytes=1 << 16,
        retention=None,
        retention_bytes=None,
        sharding=None,
    )
    return new_state("stream", created_us, options, shards)


def every(step: float, until: float, since: float = 0.0) -> list[float]:
    """Times of samples, the last of them `until`."""
    return [until - step * index for index in range(int((until - since) / step + 1e-6), -1, -1)]


def kinds(intents: list[Intent]) -> list[tuple[str, tuple[int, ...]]]:
    """Intents by shard number."""
    return [(intent.kind, tuple(shard.number for shard in intent.shards)) for intent in intents]


def decided(
    state: StreamState, at_seconds: list[float], rates: Any, policy: ShardingPolicy = POLICY
) -> list[tuple[str, tuple[int, ...]]]:
    """What is decided at the time of the last sample."""
    return kinds(decide(policy, state, samples_of(state, at_seconds, rates), seconds_of(at_seconds[-1])))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("records_per_second", 0),
        ("records_per_second", -1.0),
        ("records_per_second", float("nan")),
        ("records_per_second", "1000"),
        ("bytes_per_second", 0),
        ("bytes_per_second", [1]),
        ("window", timedelta(0)),
        ("window", timedelta(seconds=-1)),
        ("window", 60),
        ("window", None),
        ("cooldown", timedelta(0)),
        ("cooldown", None),
        ("roll_every", timedelta(0)),
        ("roll_every", "4h"),
        ("max_shards", 0),
        ("max_shards", SHARDS_MAX + 1),
        ("max_shards", 4.0),
        ("max_shards", True),
        ("min_shards", 0),
        ("min_shards", 257),
        ("min_shards", None),
        ("merge_below", -0.1),
        ("merge_below", 1),
        ("merge_below", None),
        ("merge_below", float("nan")),
    ],
)
def test_policies_that_are_refused(name: str, value: Any) -> None:
    """InvalidArgument, and no policy."""
    with pytest.raises(InvalidArgument):
        ShardingPolicy(**{name: value})


def test_presets() -> None:
    """What DynamoDB and Kinesis on demand do."""
    dynamodb = ShardingPolicy.dynamodb()
    assert (dynamodb.records_per_second, dynamodb.bytes_per_second) == (1000, 1_000_000)
    assert dynamodb.roll_every == timedelta(hours=4)
    assert not dynamodb.halving
    kinesis = ShardingPolicy.kinesis_on_demand()
    assert (kinesis.records_per_second, kinesis.bytes_per_second) == (None, 500_000)
    assert kinesis.window <= timedelta(minutes=15)
    assert kinesis.roll_every is None
    assert kinesis.halving


DURATIONS = st.timedeltas(timedelta(microseconds=1), timedelta(days=3650))


@given(
    st.builds(
        ShardingPolicy,
        records_per_second=st.none() | st.integers(1, 10**9) | st.floats(1e-6, 1e12),
        bytes_per_second=st.none() | st.integers(1, 10**12) | st.floats(1e-6, 1e15),
        window=DURATIONS,
        cooldown=DURATIONS,
        max_shards=st.integers(10, SHARDS_MAX),
        min_shards=st.integers(1, 10),
        merge_below=st.floats(0, 1, exclude_max=True),
        roll_every=st.none() | DURATIONS,
        halving=st.booleans(),
    )
)
def test_a_policy_comes_back_from_its_fields(policy: ShardingPolicy) -> None:
    """Through MessagePack, as control records and snapshots hold it; every field."""
    stored = policy.as_fields()
    assert stored.keys() == {field.name for field in fields(ShardingPolicy)}
    assert ShardingPolicy.of_fields(msgpack.unpackb(msgpack.packb(stored))) == policy


def test_above_the_target_for_a_whole_window_splits() -> None:
    """The shard that is, and no other; exactly on the target is not above it."""
    state = state_of(3)
    times = every(STEP, WINDOW)
    assert decided(state, times, {0: TARGET, 1: TARGET * 1.1, 2: 30}) == [("split", (1,))]
    assert decided(state, times, {0: TARGET, 1: TARGET, 2: TARGET}) == []


def test_bytes_count_as_records_do() -> None:
    """Whichever of the two targets is exceeded; a target of None is none."""
    state = state_of(1)
    times = every(STEP, WINDOW)
    rates = {0: TARGET * 1.1}
    bytes_only = replace(POLICY, records_per_second=None, bytes_per_second=TARGET * BYTES_PER_RECORD)
    assert decided(state, times, rates, bytes_only) == [("split", (0,))]
    assert decided(state, times, rates, replace(POLICY, records_per_second=None)) == []
    both = replace(POLICY, records_per_second=1e9, bytes_per_second=TARGET * BYTES_PER_RECORD)
    assert decided(state, times, rates, both) == [("split", (0,))]


@pytest.mark.parametrize("seconds", [0, STEP, WINDOW / 2, WINDOW - STEP, WINDOW - 0.001])
def test_nothing_is_decided_before_a_whole_window(seconds: float) -> None:
    """However far above the target, and also not that a shard is cold."""
    state = state_of(2)
    times = every(STEP, seconds) if seconds else [0.0]
    assert decided(state, times, {0: TARGET * 1000, 1: TARGET * 1000}) == []
    assert decided(state, times, {}) == []
    assert decide(POLICY, state, [], seconds_of(0)) == []


@pytest.mark.parametrize("step", [0.3, 0.51, 0.75, 1.0])
def test_seldom_samples_make_a_whole_window_too(step: float) -> None:
    """Samples come with appends: a stream that takes a large batch now and then must split, and merge, as any other."""
    state = state_of(2)
    times = every(WINDOW * step, WINDOW * 4)
    assert decided(state, times, {0: TARGET * 3, 1: TARGET / 2}) == [("split", (0,))]
    assert decided(state, times, {}) == [("merge", (0, 1))]


def test_what_was_long_ago_does_not_count() -> None:
    """A window that was hot is not one that is; a peak at its end is not a window."""
    state = state_of(1)
    times = every(STEP, 5 * WINDOW)
    assert decided(state, times, [(0.0, {0: TARGET * 9}), (4 * WINDOW, {0: TARGET / 2})]) == []
    assert decided(state, times, [(0.0, {0: TARGET / 2}), (5 * WINDOW - STEP, {0: TARGET * 3})]) == []


def test_a_shard_that_has_cooled_down_does_not_split() -> None:
    """Above the target on average over the window, but not any more."""
    state = state_of(1)
    times = every(STEP, WINDOW)
    assert decided(state, times, [(0.0, {0: TARGET * 9}), (WINDOW - STEP, {0: TARGET / 2})]) == []


def test_samples_of_before_a_pause_are_no_window() -> None:
    """After an idle hour the load has to last a whole window anew."""
    state = state_of(1)
    before = every(STEP, WINDOW)
    for since, wanted in ((STEP, []), (WINDOW, [("split", (0,))])):
        resumed = 3600 + WINDOW
        times = [*before, *every(STEP, resumed + since, resumed)]
        rates = [(0.0, {0: TARGET * 9}), (WINDOW, {0: 0.0}), (resumed, {0: TARGET * 9})]
        assert decided(state, times, rates) == wanted


@pytest.mark.parametrize(("age", "wanted"), [(WINDOW / 2, []), (WINDOW - 0.001, []), (WINDOW, [("split", (0,))])])
def test_between_two_changes_a_cooldown_passes(age: float, wanted: list[Any]) -> None:
    """Counted from the newest shard, whichever it is."""
    state = state_of(2)
    times = every(STEP, WINDOW)
    rolled = plan_roll_over(state, state.open_shards[1].shard_id, (seconds_of(WINDOW - age) + 999) // 1000)
    changed = fold(state, [(5, rolled)])
    assert decided(changed, times, {0: TARGET * 2, 2: TARGET / 2}) == wanted


def test_a_clock_that_was_set_back_does_not_stop_decisions() -> None:
    """Shards that were made while it ran ahead seem to be of the future: they may split all the same."""
    ahead = state_of(2, created_us=START_US + 365 * DAY_US)
    assert decided(ahead, every(STEP, WINDOW), {0: TARGET * 2, 1: TARGET}) == [("split", (0,))]


def test_a_shard_that_was_not_open_all_the_time_has_no_rate() -> None:
    """A child starts without a history: what its parent took is not its own, and none of its own is missing."""
    before = state_of(1)
    after = fold(before, [(5, plan_split(before, before.shards[0].shard_id, HASH_RANGE_END // 2, 0))])
    times = every(STEP, WINDOW)
    middle = len(times) // 2
    samples = [
        *samples_of(before, times[:middle], {0: TARGET * 9}),
        *samples_of(after, times[middle:], {1: TARGET * 9, 2: 0}),
    ]
    assert decide(POLICY, after, samples, seconds_of(WINDOW)) == []
    assert all(throughput(samples, shard) is None for shard in after.shards)
    later = [*samples, *samples_of(after, every(STEP, 2 * WINDOW, WINDOW + STEP), {1: TARGET * 9, 2: 0})]
    assert kinds(decide(POLICY, after, later, seconds_of(2 * WINDOW))) == [("split", (1,))]


def test_at_most_so_many_shards_the_hottest_first() -> None:
    """Several shards may split at once, as long as there is room."""
    state = state_of(4)
    times = every(STEP, WINDOW)
    rates = {0: TARGET * 2, 1: TARGET * 5, 2: TARGET / 2, 3: TARGET * 3}
    assert decided(state, times, rates) == [("split", (1,)), ("split", (3,)), ("split", (0,))]
    assert decided(state, times, rates, replace(POLICY, max_shards=6)) == [("split", (1,)), ("split", (3,))]
    assert decided(state, times, rates, replace(POLICY, max_shards=4)) == []
    assert decided(state, times, rates, replace(POLICY, max_shards=2)) == []


def test_cold_neighbours_merge() -> None:
    """Two that together take less than a fraction of the target; each shard at most once, never below the minimum."""
    state = state_of(5)
    times = every(STEP, WINDOW)
    cold = {0: 10.0, 1: 14.0, 2: 12.0, 3: 12.5, 4: 30.0}
    assert decided(state, times, cold) == [("merge", (0, 1)), ("merge", (2, 3))]
    assert decided(state, times, {**cold, 1: 15.5}) == [("merge", (2, 3))]
    assert decided(state, times, {0: 1.0, 1: 90.0, 2: 1.0, 3: 90.0, 4: 1.0}) == []
    assert decided(state, times, cold, replace(POLICY, min_shards=4)) == [("merge", (0, 1))]
    assert decided(state, times, cold, replace(POLICY, min_shards=5)) == []
    assert decided(state, times, {}, replace(POLICY, merge_below=0)) == []


def test_neighbours_that_are_heating_up_do_not_merge() -> None:
    """Cold over the window, but not any more."""
    state = state_of(2)
    rates = [(0.0, {}), (WINDOW - STEP, {0: TARGET * 0.9, 1: TARGET * 0.9})]
    assert decided(state, every(STEP, WINDOW), rates) == []


def test_nothing_merges_while_something_splits() -> None:
    """The load is moving: merges wait until it has settled."""
    state = state_of(4)
    assert decided(state, every(STEP, WINDOW), {0: 1, 1: 1, 2: TARGET * 2, 3: 1}) == [("split", (2,))]


def test_old_shards_roll_over() -> None:
    """Whatever they take, with or without samples, but not those that change anyway."""
    policy = replace(POLICY, roll_every=timedelta(hours=4))
    state = state_of(2, created_us=START_US - 4 * 3600 * SECOND_US)
    assert kinds(decide(policy, state, [], seconds_of(-0.001))) == []
    assert kinds(decide(policy, state, [], seconds_of(0))) == [("roll", (0,)), ("roll", (1,))]
    rates = {0: TARGET * 2, 1: TARGET / 2}
    assert decided(state, every(STEP, WINDOW), rates, policy) == [("split", (0,)), ("roll", (1,))]
    assert decided(state, every(STEP, WINDOW), rates, replace(policy, roll_every=None)) == [("split", (0,))]


@given(
    rates=st.lists(st.floats(0, 10 * TARGET), min_size=1, max_size=12),
    step=st.floats(0.05, 1),
    max_shards=st.integers(1, 16),
    min_shards=st.integers(1, 16),
)
def test_decisions_can_be_carried_out(rates: list[float], step: float, max_shards: int, min_shards: int) -> None:
    """Each shard is in at most one, merges are of neighbours, and the limits hold when all is done."""
    policy = replace(POLICY, max_shards=max(max_shards, min_shards), min_shards=min(max_shards, min_shards))
    state = state_of(len(rates))
    intents = decided(state, every(WINDOW * step, WINDOW * 3), dict(enumerate(rates)), policy)
    concerned = [number for _, numbers in intents for number in numbers]
    assert len(set(concerned)) == len(concerned)
    assert all(right == left + 1 for kind, numbers in intents if kind == "merge" for left, right in pairwise(numbers))
    splits = sum(kind == "split" for kind, _ in intents)
    merges = sum(kind == "merge" for kind, _ in intents)
    assert splits == 0 or (merges == 0 and len(rates) + splits <= policy.max_shards)
    assert merges == 0 or len(rates) - merges >= policy.min_shards


def shard_of(first: int, end: int) -> Shard:
    """An open shard of a range."""
    return Shard(0, 0, (), first, end, 1, None)


WHOLE = shard_of(0, HASH_RANGE_END)


@given(st.integers(0, 2**32), st.integers(200, 1000), st.floats(0.5, 3))
def test_the_weighted_median_halves_what_was_written(seed: int, keys: int, skew: float) -> None:
    """As well as 64 buckets can: no bound between buckets halves it better."""
    generator = random.Random(seed)
    drawn = [f"key-{int(keys * generator.random() ** skew)}" for _ in range(keys)]
    bound = weighted_median(WHOLE, drawn)
    hashes = sorted(map(hash_of, drawn))
    best = min(
        abs(2 * sum(value < HASH_RANGE_END * bucket // BUCKETS for value in hashes) - keys)
        for bucket in range(1, BUCKETS)
    )
    assert 0 < bound < HASH_RANGE_END
    assert abs(2 * sum(value < bound for value in hashes) - keys) == best


@pytest.mark.parametrize("width", [2, 3, 63, 64, 65, 1000, 2**64 + 1])
def test_the_median_lies_inside_the_shard(width: int) -> None:
    """Also of one that is narrower than there are buckets, at either end of the range, with keys or without."""
    key = "some key"
    place = hash_of(key)
    for first in (0, max(0, place - width + 1), place, HASH_RANGE_END - width):
        shard = shard_of(first, first + width)
        mine = first <= place < first + width
        for keys in ([], [key] * 5 if mine else []):
            assert first < weighted_median(shard, keys) < first + width


def test_without_keys_the_middle() -> None:
    """Nothing was written: halve the range."""
    assert weighted_median(WHOLE, []) == HASH_RANGE_END // 2


def test_a_single_hash_has_no_median() -> None:
    """It cannot be split."""
    with pytest.raises(InvalidArgument, match="single hash"):
        weighted_median(shard_of(7, 8), [])


@pytest.mark.parametrize(
    ("hot", "others", "is_hot"), [(64, 0, True), (63, 0, False), (51, 49, True), (50, 50, False), (4000, 3999, True)]
)
def test_a_hot_key_takes_more_than_half(hot: int, others: int, is_hot: bool) -> None:
    """Of enough keys to tell; its share is told."""
    keys: list[object] = [{"id": number} for number in range(others)] + [{"id": "hot"}] * hot
    random.Random(hot).shuffle(keys)
    found = hot_key("shard", keys)
    assert (found is not None) is is_hot
    if found is not None:
        assert (found.shard_id, found.key) == ("shard", {"id": "hot"})
        assert found.share == hot / (hot + others)


def test_a_rate_is_an_average_over_time() -> None:
    """Records/s and bytes/s; none where no time has passed."""
    state = state_of(1)
    samples = samples_of(state, [0.0, 10.0], {0: 25.0})
    rate = throughput(samples, state.shards[0])
    assert rate is not None
    assert (rate.records_per_second, rate.bytes_per_second) == (25.0, 25.0 * BYTES_PER_RECORD)
    same = [Sample(5, {}, frozenset([0]))] * 2
    assert throughput(same, state.shards[0]) is None

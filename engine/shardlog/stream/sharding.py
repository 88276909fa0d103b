"""Splitting by write throughput: when shards change by themselves.

Owns the measuring of throughput per shard (from the index's counters, which all processes share), the decision, and
carrying it out. The decision is a pure function of what was measured and of the time; it asks for nothing but a plan,
and the plan is checked again under the lock between the writers: a process whose picture is old changes nothing. A new
shard has no history, so two processes cannot split twice for one cause.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shardlog.clock import MICROSECOND
from shardlog.errors import InvalidArgument, ShardClosed, ShardlogError, ShardNotFound
from shardlog.format.control import Control
from shardlog.model import HotKey, ShardThroughput
from shardlog.options import ShardingPolicy
from shardlog.stream.lineage import plan_merge, plan_roll_over, plan_split
from shardlog.stream.sampling import hot_key, recent_keys, weighted_median
from shardlog.stream.state import Shard, StreamState

if TYPE_CHECKING:
    from shardlog.stream.open_stream import OpenStream

_log = logging.getLogger("shardlog")

SAMPLES_PER_WINDOW: Final = 8
_SECOND_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """Records and bytes per shard number since the stream was created, at a time."""

    at_us: int
    counts: dict[int, tuple[int, int]]
    open_shards: frozenset[int]


@dataclass(frozen=True, slots=True)
class Intent:
    """What should happen: one shard to "split" or "roll", or two neighbours to "merge"."""

    kind: str
    shards: tuple[Shard, ...]


def throughput(samples: Sequence[Sample], shard: Shard) -> ShardThroughput | None:
    """Records/s and bytes/s of a shard between the first and the last sample; None unless it was open all the time."""
    first, last = samples[0], samples[-1]
    seconds = (last.at_us - first.at_us) / _SECOND_US
    if seconds <= 0 or shard.number not in first.open_shards or shard.number not in last.open_shards:
        return None
    records_before, bytes_before = first.counts.get(shard.number, (0, 0))
    records, body_bytes = last.counts.get(shard.number, (0, 0))
    return ShardThroughput((records - records_before) / seconds, (body_bytes - bytes_before) / seconds)


def load(policy: ShardingPolicy, rate: ShardThroughput) -> float:
    """How much of a shard's target is taken: 1 is all of it, by records or by bytes, whichever is more."""
    shares = [0.0]
    if policy.records_per_second is not None:
        shares.append(rate.records_per_second / policy.records_per_second)
    if policy.bytes_per_second is not None:
        shares.append(rate.bytes_per_second / policy.bytes_per_second)
    return max(shares)


def decide(policy: ShardingPolicy, state: StreamState, samples: Sequence[Sample], now_us: int) -> list[Intent]:
    """What the policy wants now, most urgent first. Pure.

    `samples` are in order of time. A split wants the target exceeded on average over the window and still in its last
    part; a merge, two neighbours below `merge_below` together, over the window and still in its last part.
    """
    shards = state.open_shards
    intents: list[Intent] = []
    newest_us = max(shard.created_ms for shard in shards) * 1000
    # A shard of the future was made while the clock ran ahead: that must not stop everything until then.
    has_cooled = not 0 <= now_us - newest_us < policy.cooldown // MICROSECOND
    window = _last_window(policy, samples)
    if window and has_cooled:
        average, latest = _loads(policy, shards, window), _loads(policy, shards, window[-2:])
        measured = average.keys() & latest.keys()
        intents += _splits(policy, shards, {number: min(average[number], latest[number]) for number in measured})
        if not intents:
            intents += _merges(policy, shards, {number: max(average[number], latest[number]) for number in measured})
    if policy.roll_every is not None:
        roll_us = policy.roll_every // MICROSECOND
        taken = {shard.number for intent in intents for shard in intent.shards}
        intents += [
            Intent("roll", (shard,))
            for shard in shards
            if shard.number not in taken and now_us - shard.created_ms * 1000 >= roll_us
        ]
    return intents


def _last_window(policy: ShardingPolicy, samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples since a window ago; none where they do not go back so far.

    They come with the appends, which may be seldom: the oldest may be two windows old, not more.
    """
    window_us = policy.window // MICROSECOND
    for index in range(len(samples) - 1, -1, -1):
        age_us = samples[-1].at_us - samples[index].at_us
        if age_us >= window_us:
            return list(samples)[index:] if age_us <= 2 * window_us else []
    return []


def _loads(policy: ShardingPolicy, shards: Sequence[Shard], samples: Sequence[Sample]) -> dict[int, float]:
    """The load of the shards that were open all the time."""
    rates = {shard.number: throughput(samples, shard) for shard in shards}
    return {number: load(policy, rate) for number, rate in rates.items() if rate is not None}


def _splits(policy: ShardingPolicy, shards: Sequence[Shard], loads: dict[int, float]) -> list[Intent]:
    over = [shard for shard in shards if loads.get(shard.number, 0.0) > 1]
    over.sort(key=lambda shard: -loads[shard.number])
    room = max(0, policy.max_shards - len(shards))
    return [Intent("split", (shard,)) for shard in over[:room]]


def _merges(policy: ShardingPolicy, shards: Sequence[Shard], loads: dict[int, float]) -> list[Intent]:
    room = len(shards) - policy.min_shards
    intents: list[Intent] = []
    index = 0
    while index + 1 < len(shards) and len(intents) < room:
        left, right = shards[index], shards[index + 1]
        if left.number in loads and right.number in loads:
            if loads[left.number] + loads[right.number] < policy.merge_below:
                intents.append(Intent("merge", (left, right)))
                index += 1
        index += 1
    return intents


class Sharder:
    """Measures one stream in this process and carries out what its policy wants. Ticks with the appends."""

    def __init__(self, stream: OpenStream) -> None:
        self._stream = stream
        self._samples: deque[Sample] = deque(maxlen=4 * SAMPLES_PER_WINDOW)
        self._lock = threading.Lock()
        self._next_us = 0
        self._seen_hot: dict[str, tuple[int, HotKey]] = {}
        self.hot_keys: tuple[HotKey, ...] = ()
        """Keys that kept a shard from being split when last it was due."""

    def tick(self) -> None:
        """Called after each append: takes a sample when one is due, and acts on it. Costs a comparison otherwise."""
        self.follow(self._stream.commits.options.sharding)

    def follow(self, policy: ShardingPolicy | None) -> None:
        """The same by a given policy."""
        if policy is None:
            return
        now_us = self._stream.clock.wall_us()
        pause_us = policy.window // MICROSECOND // SAMPLES_PER_WINDOW
        is_early = now_us < self._next_us <= now_us + pause_us  # further away: the clock was set back
        if is_early or not self._lock.acquire(blocking=False):
            return
        try:
            self._next_us = now_us + pause_us
            self.run(policy, now_us)
        except ShardlogError as error:
            # The append that brought us here succeeded; another one will bring us here again.
            _log.warning("%s: shards could not follow the load: %s", self._stream.path, error)
        finally:
            self._lock.release()

    def run(self, policy: ShardingPolicy, now_us: int) -> None:
        """Take a sample now, and carry out what follows from it."""
        state = self._stream.state()
        if state.closed:
            return
        if self._samples and now_us < self._samples[-1].at_us:
            self._samples.clear()  # the clock was set back
        numbers = frozenset(shard.number for shard in state.open_shards)
        self._samples.append(Sample(now_us, self._stream.index.counts(), numbers))
        hot: list[HotKey] = []
        for intent in decide(policy, state, self._samples, now_us):
            self._carry_out(policy, intent, hot, now_us)
        self.hot_keys = tuple(hot)
        self._seen_hot = {key.shard_id: self._seen_hot[key.shard_id] for key in hot}

    def rates(self) -> dict[int, ShardThroughput]:
        """Throughput of the open shards over the samples of this process, as far as it has them."""
        samples = list(self._samples)
        if len(samples) < 2:
            return {}
        found = {shard.number: throughput(samples, shard) for shard in self._stream.state().open_shards}
        return {number: rate for number, rate in found.items() if rate is not None}

    def _carry_out(self, policy: ShardingPolicy, intent: Intent, hot: list[HotKey], now_us: int) -> None:
        shard = intent.shards[0]
        at = 0
        if intent.kind == "split":
            window_us = policy.window // MICROSECOND
            seen_us, seen = self._seen_hot.get(shard.shard_id, (0, None))
            if seen is not None and 0 <= now_us - seen_us < window_us:
                hot.append(seen)  # to look again means to read back MiBs of log: once in a window
                return
            # What came before the window may have come from elsewhere: hot spots move.
            keys = recent_keys(self._stream, shard, now_us - window_us)
            dominating = hot_key(shard.shard_id, keys)
            if dominating is not None:
                self._seen_hot[shard.shard_id] = now_us, dominating
                hot.append(dominating)
                return
            at = (shard.hash_first + shard.hash_next) // 2 if policy.halving else weighted_median(shard, keys)

        def plan(state: StreamState, now_us: int) -> list[Control]:
            # The limits are the stream's: another process may have split or merged other shards meanwhile.
            count = len(state.open_shards)
            if intent.kind == "split":
                allowed = count < policy.max_shards
                return [plan_split(state, shard.shard_id, at, now_us // 1000)] if allowed else []
            if intent.kind == "merge":
                allowed = count > policy.min_shards
                neighbour = intent.shards[1].shard_id
                return [plan_merge(state, shard.shard_id, neighbour, now_us // 1000)] if allowed else []
            return [plan_roll_over(state, shard.shard_id, now_us // 1000)]

        try:
            self._stream.commits.change(plan)
        except (ShardClosed, ShardNotFound, InvalidArgument) as error:
            # Another process was faster, or there is nothing left to split.
            _log.info("%s of %s was not needed any more: %s", intent.kind, shard.shard_id, error)

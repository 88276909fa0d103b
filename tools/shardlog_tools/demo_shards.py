"""`shardlog demo --shards`: shards follow a load whose hot spots move, and nothing is lost or reordered by it.

Owns the threads, their pace, the telling of what happens as it happens, and the verdict. The load is in `demo_load`,
what is proven afterwards in `demo_shards_proof`. The engine is left to itself: a policy with a short window, and
maintenance in a thread, make all the splits and merges.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any, Final

import shardlog
from shardlog import Change, ShardingPolicy, Stream
from shardlog.model import ShardDescription
from shardlog_tools.demo_load import FileLoad, HotSpots, Load
from shardlog_tools.demo_shards_proof import compare, count_disordered, records_of, records_shard_by_shard
from shardlog_tools.descriptions import hash_words, number_of, policy_words
from shardlog_tools.lineage import Lineage, read_lineage
from shardlog_tools.lineage_picture import draw
from shardlog_tools.lineage_tree import tree_lines
from shardlog_tools.output import CommandFailed

STREAM: Final = "load"
_SHARDS_UNDER_LOAD: Final = 6.0
"""The targets are chosen so that an even load would need so many shards."""

_WINDOWS_UNDER_LOAD: Final = 16
_WINDOW_SECONDS_MIN: Final = 0.2
_WINDOW_SECONDS_MAX: Final = 0.5
_SHARDS_MAX: Final = 64
_PART_AFTER_LOAD: Final = 0.02
_COOLING_SECONDS_MAX: Final = 6.0
_TURN_SECONDS: Final = 0.01
_CHANGES_PER_APPEND_MAX: Final = 500
_LOOK_SECONDS: Final = 0.03
_LOOK_FOR_HOT_KEYS_SECONDS: Final = 0.5

Tell = Callable[[str], None]
Figures = dict[str, Any]


class Appender(threading.Thread):
    """Appends one thread's changes at its pace until told to stop. `acknowledged` and `error` are for afterwards."""

    def __init__(self, stream: Stream, changes: Iterator[Change], per_second: float, load_seconds: float) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[tuple[int, Change]] = []
        self.error: Exception | None = None
        self._stream = stream
        self._changes = changes
        self._per_second = per_second
        self._load_seconds = load_seconds
        self._stop_asked = threading.Event()

    def stop(self) -> None:
        """Append no more, and wait until that is so."""
        self._stop_asked.set()
        self.join()

    def run(self) -> None:
        """Append what is due, again and again: what a slow disk holds up comes in larger appends."""
        started = time.monotonic()
        try:
            while not self._stop_asked.wait(_TURN_SECONDS):
                due = self._due(time.monotonic() - started) - len(self.acknowledged)
                changes = list(islice(self._changes, min(due, _CHANGES_PER_APPEND_MAX))) if due > 0 else []
                if changes:
                    result = self._stream.append(changes)
                    self.acknowledged += zip(result.sequences, changes, strict=True)
        except Exception as error:  # noqa: BLE001 - the demo's verdict, given where it is seen
            self.error = error

    def _due(self, seconds: float) -> int:
        under_load = min(seconds, self._load_seconds)
        return int(self._per_second * (under_load + (seconds - under_load) * _PART_AFTER_LOAD))


@dataclass
class Watcher:
    """Looks at a stream's shards again and again, and tells what has changed since."""

    stream: Stream
    window: timedelta
    tell: Tell
    started: float = field(default_factory=time.monotonic)
    splits: int = 0
    merges: int = 0
    shards_most: int = 1
    hot_keys: list[str] = field(default_factory=list)
    _known: dict[str, ShardDescription] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell something with the time it happened."""
        self.tell(f"  {time.monotonic() - self.started:5.2f} s  {text}")

    def look(self) -> int:
        """Tell of splits and merges; returns how many shards are open."""
        shards = {shard.shard_id: shard for shard in self.stream.describe().shards}
        if not self._known:
            self._known = shards
        opened = [shard for shard_id, shard in shards.items() if shard_id not in self._known]
        self._known = shards
        by_parents: dict[tuple[str, ...], list[ShardDescription]] = {}
        for shard in opened:
            by_parents.setdefault(shard.parent_ids, []).append(shard)
        open_count = sum(shard.end_sequence is None for shard in shards.values())
        events = []
        for parent_ids, children in by_parents.items():
            parents = " + ".join(map(number_of, parent_ids))
            if len(parent_ids) > 1:
                self.merges += 1
                events.append(f"{parents} -> {number_of(children[0].shard_id)}")
            else:
                self.splits += 1
                numbers = ", ".join(number_of(child.shard_id) for child in children)
                events.append(f"{parents} -> {numbers} at {hash_words(children[-1].hash_range[0], 4)}")
        self.shards_most = max(self.shards_most, open_count)
        for verb, is_told in (("split", True), ("merge", False)):
            told = [event for event, parents in zip(events, by_parents, strict=True) if (len(parents) == 1) is is_told]
            if told:
                self.say(f"{verb}  {'; '.join(told)}   ({open_count} open)")
        return open_count

    def look_for_hot_keys(self) -> None:
        """Tell of keys that take most of their shard."""
        for hot in self.stream.throughput(self.window).hot_keys:
            if repr(hot.key) not in self.hot_keys:
                self.hot_keys.append(repr(hot.key))
                self.say(
                    f"hot key {hot.key!r} takes {hot.share:.0%} of shard {number_of(hot.shard_id)}: no split helps"
                )


def run_shards(args: argparse.Namespace, directory: str, seed: int, load_seconds: float, tell: Tell) -> Figures:
    """The whole of it; the figures say whether it `passed`."""
    load: Load = HotSpots(seed, args.threads) if args.input is None else FileLoad(args.input, args.threads)
    rates = load.rates(load_seconds)
    policy = _policy(sum(rates), load_seconds)
    tell(
        f"  load      {sum(rates):,.0f} records/s from {args.threads} threads for {load_seconds:g} s, then next to none"
    )
    tell(f"  policy    {policy_words(policy)}\n")
    with shardlog.open(os.path.join(directory, "store"), maintenance=True) as store:
        stream = store.create_stream(STREAM, partition_key=load.partition_key, sharding=policy)
        appenders = [Appender(stream, load.changes(thread), rate, load_seconds) for thread, rate in enumerate(rates)]
        watcher = Watcher(stream, policy.window, tell)
        open_at_last, seconds = _let_it_run(load, appenders, watcher, load_seconds)
        stream.set_sharding(None)
        figures = _prove(stream, load, appenders, tell)
        lineage = read_lineage(stream)
    if args.svg is not None:
        with open(args.svg, "w", encoding="utf-8") as picture:
            picture.write(draw(lineage))
    follows = watcher.splits > 0 and watcher.merges > 0 and open_at_last == 1
    figures |= {
        "passed": figures["is_right"] and (follows or args.input is not None),
        "seconds": round(seconds, 3),
        "splits": watcher.splits,
        "merges": watcher.merges,
        "shards_most": watcher.shards_most,
        "shards_at_last": open_at_last,
        "hot_keys": watcher.hot_keys,
    }
    _tell_end(lineage, figures, tell)
    return figures


def _policy(records_per_second: float, load_seconds: float) -> ShardingPolicy:
    window = min(max(load_seconds / _WINDOWS_UNDER_LOAD, _WINDOW_SECONDS_MIN), _WINDOW_SECONDS_MAX)
    return ShardingPolicy(
        records_per_second=round(records_per_second / _SHARDS_UNDER_LOAD),
        bytes_per_second=None,
        window=timedelta(seconds=window),
        cooldown=timedelta(seconds=window / 2),
        max_shards=_SHARDS_MAX,
    )


def _let_it_run(load: Load, appenders: list[Appender], watcher: Watcher, load_seconds: float) -> tuple[int, float]:
    """Load and cooling; returns how many shards are open at the end, and the seconds it took."""
    for appender in appenders:
        appender.start()
    try:
        for phase, ends_at in zip(load.phases, [phase.begins_at for phase in load.phases[1:]] + [1.0], strict=True):
            load.phase = phase
            watcher.say(phase.words)
            _watch_until(watcher, watcher.started + ends_at * load_seconds, appenders)
        watcher.say("the load ends")
        cooling_ends = time.monotonic() + _COOLING_SECONDS_MAX
        while (open_count := watcher.look()) > 1 and time.monotonic() < cooling_ends:
            time.sleep(_LOOK_SECONDS)
        watcher.say(f"{open_count} open {'shard' if open_count == 1 else 'shards'}")
    finally:
        for appender in appenders:
            appender.stop()
    return open_count, time.monotonic() - watcher.started


def _watch_until(watcher: Watcher, end: float, appenders: list[Appender]) -> None:
    look_for_hot_keys_at = time.monotonic() + _LOOK_FOR_HOT_KEYS_SECONDS
    while (now := time.monotonic()) < end:
        watcher.look()
        if now >= look_for_hot_keys_at:
            watcher.look_for_hot_keys()
            look_for_hot_keys_at = now + _LOOK_FOR_HOT_KEYS_SECONDS
        for appender in appenders:
            if appender.error is not None:
                raise CommandFailed(f"an append failed: {appender.error}") from appender.error
        time.sleep(_LOOK_SECONDS)


def _prove(stream: Stream, load: Load, appenders: list[Appender], tell: Tell) -> Figures:
    acknowledged = [appender.acknowledged for appender in appenders]
    shards = stream.describe().shards
    whole = compare(records_of(stream), acknowledged, shards, load.partition_key)
    by_shard = compare(records_shard_by_shard(stream), acknowledged, shards, load.partition_key)
    disordered = count_disordered(acknowledged)
    count = sum(map(len, acknowledged))
    tell(f"\n  proof     {count:,} records of {len(whole.items):,} items were acknowledged")
    for words, found in (("in the whole stream", whole), ("shard by shard, parents first", by_shard)):
        tell(
            f"            {words}: {found.found:,} found, {found.missing:,} missing, {found.wrong:,} wrong, "
            f"{found.out_of_order:,} out of their item's order, {found.misplaced:,} in a shard of other hashes"
        )
    return {
        "records": count,
        "items": len(whole.items),
        "found": min(whole.found, by_shard.found),
        "missing": max(whole.missing, by_shard.missing),
        "wrong": max(whole.wrong, by_shard.wrong),
        "out_of_order": disordered + max(whole.out_of_order, by_shard.out_of_order),
        "misplaced": max(whole.misplaced, by_shard.misplaced),
        "is_right": whole.is_right and by_shard.is_right and not disordered,
    }


def _tell_end(lineage: Lineage, figures: Figures, tell: Tell) -> None:
    tell("")
    for line in tree_lines(lineage):
        tell("  " + line)
    tell(
        f"\n  {figures['records']:,} records in {figures['seconds']:.1f} s, {figures['splits']} splits, "
        f"{figures['merges']} merges; from 1 shard to {figures['shards_most']} and back to {figures['shards_at_last']}"
    )

"""A stream's groups as values, as JSON and as words: what several commands tell about consumers."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from shardlog import Group, InvalidArgument, Lag, Lease, Stream
from shardlog.consumer import WorkerPresence
from shardlog_tools.descriptions import count_words, number_of

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_MINUTE: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class GroupFigures:
    """One group. They are read one after the other while workers go on, so they need not belong to one moment."""

    name: str
    start: int
    workers: list[WorkerPresence]
    leases: list[Lease]
    lag: Lag

    @property
    def open_leases(self) -> list[Lease]:
        """Those that are not finished."""
        return [lease for lease in self.leases if lease.checkpoint != "SHARD_END"]

    @property
    def shards_by_owner(self) -> dict[str | None, list[str]]:
        """The shards that each worker holds, and under None those that nobody holds."""
        found: dict[str | None, list[str]] = defaultdict(list)
        for lease in self.open_leases:
            found[lease.owner].append(lease.shard_id)
        return found


def figures_of(group: Group) -> GroupFigures:
    """The figures of a group. Raises InvalidArgument where it was deleted."""
    return GroupFigures(group.name, group.start, group.workers(), group.leases(), group.lag())


def existing_group(stream: Stream, name: str) -> Group:
    """A group that is there: `Stream.group` would make it, and a mistyped name is no wish. Raises InvalidArgument."""
    names = stream.groups()
    if name not in names:
        raise InvalidArgument(
            f"stream {stream.name}: expected one of its groups ({', '.join(names)}), found {name!r}"
            if names
            else f"stream {stream.name}: group {name!r} not found; it has no groups yet, `shardlog consume` makes one"
        )
    return stream.group(name)


def group_as_json(figures: GroupFigures) -> dict[str, Any]:
    """A group with its workers, leases and lag."""
    return {
        "group": figures.name,
        "start": figures.start,
        "records": figures.lag.records,
        "age_seconds": figures.lag.age.total_seconds(),
        "workers": [
            {
                "worker": worker.name,
                "process": worker.process,
                "alive": worker.is_alive,
                "shards": figures.shards_by_owner.get(worker.name, []),
            }
            for worker in figures.workers
        ],
        "leases": [
            {
                "shard": lease.shard_id,
                "owner": lease.owner,
                "counter": lease.counter,
                "checkpoint": lease.checkpoint,
            }
            for lease in figures.leases
        ],
    }


def summary_words(figures: GroupFigures) -> str:
    """A group in one line."""
    return (
        f"{figures.name}: {count_words(len(figures.workers), 'worker')}, "
        f"{count_words(len(figures.open_leases), 'lease')}, {lag_words(figures.lag)}"
    )


def worker_lines(figures: GroupFigures) -> list[str]:
    """Who of a group's workers holds which shards, a line for each."""
    held = figures.shards_by_owner
    lines = []
    for worker in figures.workers:
        process = f"process {worker.process}" if worker.is_alive else f"process {worker.process} is gone"
        lines.append(f"worker {worker.name} ({process}): {_shards_words(held.get(worker.name, []))}")
    known = {worker.name for worker in figures.workers}
    unheld = [shard_id for owner, shard_ids in held.items() if owner not in known for shard_id in shard_ids]
    if unheld:
        lines.append(f"held by nobody: {_shards_words(sorted(unheld))}")
    return lines


def lag_words(lag: Lag) -> str:
    """How far behind."""
    if not lag.records:
        return "nothing behind"
    return f"{count_words(lag.records, 'record')} behind, the oldest {age_words(lag.age)} old"


def age_words(age: timedelta) -> str:
    """An age for people: 0.3 s, 4m 10s, 2d 3h."""
    if age < _MINUTE:
        return f"{age.total_seconds():.1f} s"
    for large, small, words in ((_DAY, _HOUR, "dh"), (_HOUR, _MINUTE, "hm")):
        if age >= large:
            return f"{age // large}{words[0]} {age % large // small}{words[1]}"
    return f"{age // _MINUTE}m {age % _MINUTE // timedelta(seconds=1)}s"


def _shards_words(shard_ids: list[str]) -> str:
    if not shard_ids:
        return "no shard"
    return f"{'shard' if len(shard_ids) == 1 else 'shards'} {', '.join(map(number_of, shard_ids))}"

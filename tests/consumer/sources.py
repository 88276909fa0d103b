"""A stream made up of lists, and a worker's leases on it, for tests of what reads and of who is given what."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from shardlog.consumer.coordinator import Held
from shardlog.consumer.leases import Fence
from shardlog.errors import CorruptLog, TrimmedData
from shardlog.format.record import Record
from shardlog.model import Gap
from shardlog.stream.log_reader import RecordBatch


class Numbered:
    """As much of a record as reading needs."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence

    def __repr__(self) -> str:
        return f"#{self.sequence}"


class ListedReader:
    """Reads `ListedSource`, and notes what was asked of it."""

    def __init__(self, source: ListedSource, start: int, shard_ids: Collection[str], on_damage: str) -> None:
        self.position = start
        self._source = source
        self._wanted = set(shard_ids)
        self._skips = on_damage == "gap"

    def select(self, shard_ids: Collection[str]) -> None:
        """See `Reader`."""
        self._source.selections += 1
        self._wanted = set(shard_ids)

    def published(self) -> Iterator[RecordBatch | Gap]:
        """See `Reader`."""
        first = self.position
        if first < self._source.trim_horizon:
            raise TrimmedData(f"{first}")
        for shard_id, sequences in list(self._source.log):
            if sequences[-1] < first:
                continue
            self.position = sequences[-1] + 1
            if shard_id == "damage":
                if not self._skips:
                    raise CorruptLog("damage", sequences=(sequences[0], sequences[-1] + 1))
                yield Gap(sequences[0], sequences[-1] + 1, "damage")
            elif shard_id in self._wanted:
                self._source.batches_read += 1
                records: list[Any] = [Numbered(sequence) for sequence in sequences if sequence >= first]
                yield RecordBatch(shard_id, records, self._source.body_bytes)
        self.position = max(self.position, self._source.next_sequence)


class ListedSource:
    """Commits of one batch each: (shard id, sequence numbers)."""

    def __init__(self, *log: tuple[str, list[int]], body_bytes: int = 100) -> None:
        self.log = list(log)
        self.body_bytes = body_bytes
        self.trim_horizon = 1
        self.batches_read = 0
        self.readers = 0
        self.selections = 0

    @property
    def next_sequence(self) -> int:
        """See `Source`."""
        return self.log[-1][1][-1] + 1 if self.log else 1

    def reader(self, start: int, shard_ids: Collection[str] | None = None, *, on_damage: str = "raise") -> ListedReader:
        """See `Source`."""
        assert shard_ids is not None
        self.readers += 1
        return ListedReader(self, start, shard_ids, on_damage)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody asks for {name} here")


def lease(shard_id: str, next_sequence: int = 1) -> Held:
    """A lease that was just taken."""
    return Held(shard_id, Fence(1, 1, 1), next_sequence, next_sequence)


def sequences(records: list[Record]) -> list[int]:
    """The numbers of some records."""
    return [record.sequence for record in records]

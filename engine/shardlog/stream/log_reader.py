"""Reading on: what is published from a sequence number on, batch by batch, now and whenever asked again.

`Reading` in `stream.following` waits between two looks and gives records; consumers keep one `LogReader` for all their
shards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal

import msgspec

from shardlog.errors import CorruptLog, InvalidArgument
from shardlog.format.record import Record, StoredBatch
from shardlog.model import Gap
from shardlog.stream.open_stream import OpenStream
from shardlog.stream.reading import SegmentDamage

Position = int | datetime | Literal["TRIM_HORIZON", "LATEST"]
OnDamage = Literal["raise", "gap"]

ALL_SEQUENCES: Final = 1 << 64
"""More than any sequence number."""

DECODED_BATCHES_MAX: Final = 32
"""So many batches are decoded together before one is not."""


class RecordBatch(msgspec.Struct, frozen=True, gc=False):
    """Records of one shard that were appended together, or those of them that were asked for."""

    shard_id: str
    records: list[Record]
    body_bytes: int
    """What the whole batch takes in the log; 0 for what follows of one that is given in parts."""


class LogReader:
    """A place in the log, over all shards or some. Made by `Stream.reader`.

    `check_open` raises Closed when whoever reads was closed.
    """

    def __init__(
        self,
        stream: OpenStream,
        check_open: Callable[[], None],
        first: int,
        shard_ids: Collection[str] | None,
        stop: int | None = None,
        on_damage: OnDamage = "raise",
    ) -> None:
        if on_damage not in ("raise", "gap"):
            raise InvalidArgument(f"on_damage: expected 'raise' or 'gap', found {on_damage!r}")
        self._stream = stream
        self._check_open = check_open
        self._reader = stream.reader(first, None)
        self._stop = stop
        self._raises = on_damage == "raise"
        self._last: Record | None = None
        """The last record that was given."""
        self._decoded_batches = 0
        if shard_ids is not None:
            self.select(shard_ids)

    @property
    def position(self) -> int:
        """The first sequence number that it has not passed."""
        return self._reader.cursor.next_sequence

    def select(self, shard_ids: Collection[str]) -> None:
        """From here on give the records of these shards; those that have expired have none."""
        wanted = frozenset(shard_ids)
        self._reader.shards = {shard.number for shard in self._stream.state().shards if shard.shard_id in wanted}

    def published(self) -> Iterator[RecordBatch | Gap]:
        """What is published now and was not read yet.

        To be taken to its end before it is asked again: a commit may hold several batches. Raises Closed, TrimmedData,
        and CorruptLog (with "gap", a Gap stands for it).
        """
        first = self._reader.cursor.next_sequence
        end = ALL_SEQUENCES if self._stop is None else self._stop
        for batch in self._reader.batches(self._stream.tail(), self._stop):
            try:
                if isinstance(batch, SegmentDamage):
                    raise batch.error()
                if self._last is None:
                    yield from self._in_parts(batch, first, end)
                else:
                    yield self._batch_of(batch, self._whole(batch, first, end), len(batch.body))
            except CorruptLog as error:
                if self._raises or error.sequences is None:
                    raise
                yield Gap(*error.sequences, str(error), error.segment, error.offset)
            self._check_open()

    def _in_parts(self, batch: StoredBatch, first: int, end: int) -> Iterator[RecordBatch]:
        body_bytes = len(batch.body)
        for records in batch.records_in_parts(first, end):
            yield self._batch_of(batch, records, body_bytes)
            body_bytes = 0

    def _batch_of(self, batch: StoredBatch, records: list[Record], body_bytes: int) -> RecordBatch:
        self._last = records[-1] if records else None
        return RecordBatch(batch.context.shard_id, records, body_bytes)

    def _whole(self, batch: StoredBatch, first: int, end: int) -> list[Record]:
        """Decoded together where whoever reads has looked at the images of the last record: that is faster.

        Now and then not, to see whether it still looks.
        """
        is_inside = first <= batch.first_sequence and batch.next_sequence <= end
        was_looked_at = self._last is not None and self._last.is_decoded
        if is_inside and was_looked_at and self._decoded_batches < DECODED_BATCHES_MAX:
            self._decoded_batches += 1
            with suppress(CorruptLog):  # each by itself then: a row that does not decode harms no other
                return batch.decoded_records()
        self._decoded_batches = 0
        return batch.records(first, end)


def sequence_of(stream: OpenStream, position: Position, name: str) -> int:
    """The sequence number of a position, now. `name` is the argument's. Raises InvalidArgument."""
    if position == "TRIM_HORIZON":
        return stream.tail().trim_horizon
    if position == "LATEST":
        return stream.tail().next_sequence
    if isinstance(position, datetime) and position.tzinfo is not None:
        return stream.sequence_at(position)
    if type(position) is int and position >= 0:
        return max(position, 1)
    raise InvalidArgument(
        f"{name}: expected TRIM_HORIZON, LATEST, a sequence number or an aware datetime, found {position!r}"
    )

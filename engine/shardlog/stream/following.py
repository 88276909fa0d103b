"""Reading the whole stream, or one shard, from a position to another, and on as records come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from shardlog.errors import InvalidArgument, ShardNotFound, TrimmedData
from shardlog.format.record import Record
from shardlog.model import Gap
from shardlog.stream.log_reader import LogReader, OnDamage, Position, sequence_of
from shardlog.stream.open_stream import OpenStream

Batch = list[Record] | list[Gap]

CLOSE_BEHIND_RECORDS: Final = 100


async def _read_here(function: Callable[[Iterator[Batch], None], Batch | None], *arguments: Any) -> Batch | None:
    """`asyncio.to_thread` without a thread."""
    return function(*arguments)


class Reading:
    """One call of `read`: where it is, where it ends, and how long it waits. Positions are settled when it is made.

    `check_open` raises Closed when whoever reads was closed. Raises InvalidArgument, TrimmedData, ShardNotFound.
    """

    def __init__(
        self,
        stream: OpenStream,
        check_open: Callable[[], None],
        start: Position,
        *,
        stop: Position | None,
        shard_id: str | None,
        follow: bool,
        timeout: float | None,
        on_damage: OnDamage,
    ) -> None:
        if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
            raise InvalidArgument(f"timeout: expected None or seconds, found {timeout!r}")
        self._stream = stream
        self._check_open = check_open
        if follow and stream.is_private:
            raise InvalidArgument(
                "follow: nobody has the stream open to write, and a store that is open to read alone never sees more; "
                "open it without read_only to follow"
            )
        first = sequence_of(stream, start, "start")
        self._stop = None if stop is None else sequence_of(stream, stop, "stop")
        horizon = stream.tail().trim_horizon
        if first < horizon:
            raise TrimmedData(f"start: sequence number {first} lies before the trim horizon {horizon}")
        self._shard_id = shard_id
        shard_ids = None if shard_id is None else [stream.state().shard(shard_id).shard_id]
        self._reader = LogReader(stream, check_open, first, shard_ids, self._stop, on_damage)
        self._follow = follow
        self._timeout = timeout

    def records(self) -> Iterator[Record | Gap]:
        """The records, one by one. An iterator in C over lists: nothing of ours runs per record."""
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[Batch]:
        """The records in non-empty lists."""
        watch = self._stream.watch
        quiet_since = time.monotonic()
        is_last_look = False
        while True:
            turn = watch.turn() if self._follow else 0
            self._check_open()  # after taking the turn: a close that comes later ends the wait
            for batch in self._published():
                yield batch
                quiet_since, is_last_look = time.monotonic(), False
            if not self._follow or is_last_look or self._is_finished():
                return
            remaining = self._remaining(quiet_since)
            is_last_look = remaining == 0 or not watch.wait(turn, remaining)

    async def batches_async(self) -> AsyncIterator[Batch]:
        """The same for asyncio; reading runs in a thread, waiting takes none.

        A follower that is close behind the end reads in the loop: what was just written is in memory, and going to a
        thread and back would take ten times as long as reading it.
        """
        watch = self._stream.watch
        loop = asyncio.get_running_loop()
        written = asyncio.Event()

        def announce() -> None:
            with suppress(RuntimeError):  # the loop was closed under its tasks: nobody waits there any more
                loop.call_soon_threadsafe(written.set)

        watch.add_callback(announce)
        quiet_since = time.monotonic()
        is_last_look = False
        try:
            while True:
                if self._follow:
                    watch.turn()
                written.clear()
                self._check_open()
                batches = self._published()
                read_next = _read_here if self._is_close_behind() else asyncio.to_thread
                while (batch := await read_next(next, batches, None)) is not None:
                    yield batch
                    quiet_since, is_last_look = time.monotonic(), False
                if not self._follow or is_last_look or self._is_finished():
                    return
                remaining = self._remaining(quiet_since)
                try:
                    await asyncio.wait_for(written.wait(), remaining)
                    is_last_look = remaining == 0
                except TimeoutError:
                    is_last_look = True
        finally:
            watch.remove_callback(announce)

    def _is_close_behind(self) -> bool:
        return self._follow and self._stream.tail().next_sequence - self._reader.position <= CLOSE_BEHIND_RECORDS

    def _remaining(self, quiet_since: float) -> float | None:
        """Seconds to wait for a record still; None: for ever. At 0, one last look: waking up takes its time."""
        return None if self._timeout is None else max(0.0, quiet_since + self._timeout - time.monotonic())

    def _published(self) -> Iterator[Batch]:
        """What is published now and was not read yet."""
        for batch in self._reader.published():
            yield [batch] if isinstance(batch, Gap) else batch.records

    def _is_finished(self) -> bool:
        position = self._reader.position
        if self._stop is not None and position >= self._stop:
            return True
        if self._shard_id is None:
            state = self._stream.state()
            return state.closed and position >= self._stream.tail().next_sequence
        state = self._stream.state()
        try:
            end = state.shard(self._shard_id).end_sequence
        except ShardNotFound:
            end = state.trim_horizon  # it has expired, and ended before that
        return end is not None and position >= end

"""Group commit: many appends become one durable block.

There is no background thread: `stream.gathering` has one of the appending threads lead; here is what it does. The
index's write transaction is the lock between processes. Steps, in this order and visible below: reserve (index rows are
put, so that a full map shows before anything is written), write, sync, publish (the transaction commits), acknowledge.

Failing schedules that the odd-looking parts close:
- A failed commit whose bytes reached the disk must not reappear. The lock is lost with the transaction, so it is taken
  again, and the block's header is zeroed and synced, unless somebody has appended meanwhile, in the very same place.
- After a failed sync nobody knows what is on disk, and a later sync of the same descriptor may succeed without having
  written anything: the tail is marked MUST_ROLL, the commit's numbers are skipped, and this process appends no more.
- A skip stands in the index alone, and readers are told of it as the next number. So MARK says it first, which a
  recovery believes; where that cannot be synced, nothing is skipped: a number once told is never given again.
- A leader may be interrupted anywhere: whether its requests were committed is told by the transaction.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from shardlog.clock import Clock
from shardlog.errors import Closed, ShardlogError, StorageFailed, StreamDisabled
from shardlog.files.protocol import Site
from shardlog.format import control
from shardlog.format.commit import HEADER_BYTES
from shardlog.format.control import Control
from shardlog.index.environment import Index
from shardlog.index.tail import CLOSED, MUST_ROLL, Tail
from shardlog.index.transaction import IndexWrite
from shardlog.log.mark_file import MarkFile
from shardlog.model import Appended
from shardlog.options import StreamOptions
from shardlog.stream.append import Request, Router, encode_request
from shardlog.stream.gathering import Gathering
from shardlog.stream.plan import Plan, Planner
from shardlog.stream.rolling import Roller, mark_of
from shardlog.stream.state import StreamState, decode_state, encode_state

COMMITS_PER_READER_CHECK: Final = 1024

_log = logging.getLogger("shardlog")


Decide = Callable[[StreamState, int], list[Control]]

_AFTER_CLOSING: Final = frozenset({control.TRIM, control.CONFIGURE, control.GAP})
"""What a stream that takes no more records still takes."""


def _decide_nothing(_state: StreamState, _now_us: int) -> list[Control]:
    return []


class GroupCommit:
    """Commits what the threads of this process append to one stream."""

    def __init__(self, index: Index, mark: MarkFile, roller: Roller, state: StreamState, clock: Clock) -> None:
        self.router = Router(state)
        self._index = index
        self._mark = mark
        self._roller = roller
        self._clock = clock
        self._synced_commits = state.options.durability == "fsync"
        self._gathering = Gathering(self._commit_requests)
        self._lock = threading.Lock()
        self._poison: StorageFailed | None = None
        self._closed: str | None = None
        self._commits_since_check = 0

    @property
    def options(self) -> StreamOptions:
        """The stream's options, as of the state that this process last saw."""
        return self.router.state.options

    def append(self, request: Request) -> Appended:
        """Commit a request, alone or with others; returns when it is durable at the stream's level and published."""
        encode_request(request, self.router)
        self._gathering.submit([request])
        return request.outcome()

    def append_many(self, requests: list[Request]) -> None:
        """Commit encoded requests together; outcomes are left in them."""
        self._gathering.submit(requests)

    def change(self, decide: Decide, *, may_use_reserve: bool = False) -> StreamState:
        """Commit the control records that `decide` makes of the state, and return the state after them.

        `decide` gets the state under the lock between the writers, and the time in microseconds; what it raises is
        raised. Control records are synced at every level. `may_use_reserve`: into the room that segments keep free.
        """
        with self._lock:
            self._commit([], decide, may_use_reserve)
            self._sync()
            return decode_state(self._index.state()[0]).state

    def close_stream(self) -> None:
        """Let the stream take no more records. Raises StreamDisabled if it is so already."""
        self.change(lambda _, now_us: [{"kind": control.CLOSE, "at_us": now_us}])

    def forget_segments_before(self, horizon: int) -> None:
        """Take segments behind the trim horizon out of the index, and the counts of shards that expired with them."""
        with self._lock, self._index.write() as transaction:
            transaction.delete_segments_before(horizon)
            transaction.delete_counts_but(decode_state(transaction.state()).state.by_number)
            transaction.commit()

    def roll(self, is_due: Callable[[Tail], bool]) -> None:
        """Roll the active segment if it is due by this judgement, or anyway."""
        with self._lock:
            self._check_usable()
            self._roll(lambda tail, _: is_due(tail))

    def sync(self) -> None:
        """Make durable what was appended. Under level "fsync" it is already."""
        if self._synced_commits:
            return
        with self._lock:
            self._check_usable()
            self._sync()

    def copy_index(self, directory: str) -> None:
        """Copy the index as published now.

        Under the lock: the copy waits for whoever writes to the index, and a writer of this process would wait for it.
        """
        with self._lock:
            self._index.copy_to(directory)

    def close(self, reason: str) -> None:
        """Refuse what comes from now on; waits for a commit under way."""
        with self._lock:
            self._closed = reason

    def abandon(self, reason: str) -> None:
        """The same in a forked child, where a lock may be held by a thread that does not exist."""
        self._lock = threading.Lock()
        self._gathering.abandon()
        self._closed = reason

    def _sync(self) -> None:
        if self._synced_commits:
            return
        try:
            self._roller.sync()
        except StorageFailed as error:
            self._poison = error
            raise

    def _commit_requests(self, requests: list[Request]) -> None:
        try:
            with self._lock:
                self._commit(requests, _decide_nothing, may_use_reserve=False)
        except Exception as error:  # noqa: BLE001 - it is everybody's outcome
            for request in requests:
                if not request.is_done:
                    request.error = error

    def _check_usable(self) -> None:
        if self._closed is not None:
            raise Closed(self._closed)
        if self._poison is not None:
            raise StorageFailed(
                f"an earlier sync of this stream failed ({self._poison}); close it and open it again to append"
            )

    def _commit(self, requests: list[Request], decide: Decide, may_use_reserve: bool) -> None:
        self._check_usable()
        attempt: tuple[IndexWrite, Plan] | None = None
        try:
            while True:
                with self._index.write() as transaction:
                    tail = transaction.tail()
                    plan = self._plan(transaction, tail, requests, decide)
                    must_roll = partial(
                        self._roller.must_roll, block_bytes=len(plan.block), may_use_reserve=may_use_reserve
                    )
                    fits = plan.tail is None or not must_roll(tail, self.router.state.options)
                    if plan.tail is not None and fits:
                        attempt = transaction, plan
                        self._write_and_publish(transaction, tail, plan)
                if fits:
                    break
                self._roll(must_roll, len(plan.block))
            self._acknowledge(plan)
        except BaseException:
            if attempt and attempt[0].was_committed():
                self._acknowledge(attempt[1])  # interrupted, but published
            raise

    def _plan(self, transaction: IndexWrite, tail: Tail, requests: list[Request], decide: Decide) -> Plan:
        self._follow_state(transaction, tail, requests)
        state, now_us = self.router.state, self._clock.wall_us()
        controls = decide(state, now_us)
        is_refused = requests or any(record["kind"] not in _AFTER_CLOSING for record in controls)
        if tail.flags & CLOSED and is_refused:
            raise StreamDisabled(f"stream {state.name} is disabled: it takes no more records")
        seed = self._roller.active(tail).seed
        return Planner(transaction, tail, state, seed, now_us).plan(requests, controls)

    def _roll(self, is_due: Callable[[Tail, StreamOptions], bool], needed: int = 0) -> None:
        try:
            self._roller.roll(is_due, needed)
        except StorageFailed as error:
            self._poison = error
            raise

    def _follow_state(self, transaction: IndexWrite, tail: Tail, requests: list[Request]) -> None:
        """Take up the state that another process committed, and route again what was routed by an older one."""
        if tail.state_version != self.router.state.version:
            self.router = Router(decode_state(transaction.state()).state)
            self._roller.drop_files()
        if not tail.flags & CLOSED:
            for request in requests:
                if request.state_version != tail.state_version:
                    encode_request(request, self.router)

    def _write_and_publish(self, transaction: IndexWrite, before: Tail, plan: Plan) -> None:
        segment = self._roller.active(before)
        is_written = False
        try:
            self._reserve(transaction, plan)
            if not self._synced_commits and before.durable_sequence == before.next_sequence:
                self._mark.set_unsynced(True)
            segment.write(plan.block, before.offset)
            is_written = True
            if self._synced_commits:
                segment.sync(Site.COMMIT)
            transaction.commit()
        except BaseException as error:
            if not transaction.was_committed():
                transaction.abort()
                self._withdraw(before, plan, sync_failed=is_written and isinstance(error, StorageFailed))
            raise

    @staticmethod
    def _reserve(transaction: IndexWrite, plan: Plan) -> None:
        assert plan.tail is not None
        if plan.position:
            transaction.put_positions([plan.position])
        if plan.producers:
            transaction.put_producers(plan.producers.items())
        if plan.state:
            transaction.put_state(encode_state(plan.state))
        transaction.add_counts(plan.counts)
        transaction.put_tail(plan.tail)

    def _withdraw(self, before: Tail, plan: Plan, sync_failed: bool) -> None:
        """Make sure that a block which was not published cannot reappear, unless somebody has appended in its place."""
        assert plan.tail is not None
        if sync_failed:
            self._poison = StorageFailed("the outcome of the last commit is unknown")
        try:
            with self._index.write() as transaction:
                tail = transaction.tail()  # not `before`: somebody may have begun to roll meanwhile
                if tail.commits != before.commits:
                    return
                if not sync_failed:
                    self._roller.active(before).cancel(before.offset)
                    return
                with suppress(ShardlogError):
                    self._roller.active(before).write(bytes(HEADER_BYTES), before.offset)
                after = tail._replace(flags=tail.flags | MUST_ROLL, commits=tail.commits + 1)
                skipping = after._replace(next_sequence=plan.tail.next_sequence)
                transaction.put_tail(skipping if self._announces(skipping) else after)
                transaction.commit()
        except ShardlogError as error:
            self._poison = StorageFailed(f"the outcome of the last commit is unknown: {error}")
            raise self._poison from error

    def _announces(self, skipping: Tail) -> bool:
        """Let MARK say, durably, where numbers go on; at level "os" its flag does. Whether that was possible."""
        if not self._synced_commits:
            return True
        try:
            self._mark.write_numbers(mark_of(skipping))
        except ShardlogError:
            return False
        return True

    def _acknowledge(self, plan: Plan) -> None:
        for request, outcome in plan.outcomes:
            if isinstance(outcome, ShardlogError):
                request.error = outcome
            else:
                request.result = outcome
        if plan.tail is None:
            return
        if self._synced_commits:
            self._mark.write(mark_of(plan.tail))
        else:
            self._mark.ring()
        self._commits_since_check += 1
        if self._commits_since_check >= COMMITS_PER_READER_CHECK:
            self._commits_since_check = 0
            self._index.check_readers()

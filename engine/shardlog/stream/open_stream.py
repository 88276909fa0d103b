"""One stream's directory, open in this process: the parts put together, and shared by whoever opens it again.

LMDB allows an environment to be open once per process, so a directory that is open to write, or in use by others, has
one `OpenStream` here, counted by its users. A fork leaves the child with locks and an LMDB environment that are not
its own: every `OpenStream` that it inherited is closed there.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final, Protocol, TypeVar

from shardlog.clock import Clock, wall_us_of
from shardlog.errors import Closed, CorruptLog, TrimmedData
from shardlog.files.protocol import Files
from shardlog.files.watch import Watch
from shardlog.format import names
from shardlog.index.tail import Tail
from shardlog.index.transaction import SegmentName
from shardlog.log.segments import Segments, expired_segments
from shardlog.model import Appended
from shardlog.stream.append import Request
from shardlog.stream.commit import GroupCommit
from shardlog.stream.opening import Checkpointed, OpenedStream, nothing_checkpointed, open_to_read, open_to_write
from shardlog.stream.reading import BatchReader, Cursor, SegmentDamage
from shardlog.stream.retention import Retention
from shardlog.stream.rolling import Roller, mark_of
from shardlog.stream.sampling import recent_keys, weighted_median
from shardlog.stream.sharding import Sharder
from shardlog.stream.state import StreamState, decode_state


class Closeable(Protocol):
    """What can be attached to an open stream."""

    def close(self) -> None:
        """Close it with the stream."""
        ...

    def abandon(self) -> None:
        """Forget it in a forked child, without touching what belongs to the parent."""
        ...


Value = TypeVar("Value")
Attachment = TypeVar("Attachment", bound=Closeable)

_EVENT_PREFIX_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is injected, and how long to wait for locks."""

    files: Files
    clock: Clock
    lock_timeout: float
    held_from: Callable[[OpenStream, Collection[str]], int] | None = None
    """The first sequence number that some groups of consumers have not checkpointed."""
    checkpointed: Checkpointed = nothing_checkpointed
    """What consumers witness when a log is recovered."""


class OpenStream:
    """A stream's parts. Its public face is `api.Stream`."""

    def __init__(self, path: str, opened: OpenedStream, surroundings: Surroundings) -> None:
        self.path = path
        self.files = surroundings.files
        self.clock = surroundings.clock
        self.lock_timeout = surroundings.lock_timeout
        self.index = opened.index
        self.damage = opened.damage
        self.stream_uuid = opened.stream_uuid
        self.is_private = opened.is_private
        log_path = f"{path}/{names.LOG}"
        self.segments = Segments(surroundings.files, log_path, opened.stream_uuid)
        self.watch = Watch(f"{path}/{names.MARK}", self.index.tail)
        self._opened = opened
        self._state = decode_state(self.index.state()[0]).state
        self._roller = Roller(
            surroundings.files, log_path, opened.lock, self.index, opened.mark, self.segments, surroundings.clock
        )
        self.commits = GroupCommit(self.index, opened.mark, self._roller, self._state, surroundings.clock)
        self._event_prefix = self.stream_uuid.hex()[:_EVENT_PREFIX_DIGITS]
        self._horizon_seen = 0
        self._shard_ids = {shard.number: shard.shard_id for shard in self._state.shards}
        self._closed = False
        self._attaching = threading.Lock()
        self._attachments: dict[type, Closeable] = {}
        self.sharder = Sharder(self)
        ask = surroundings.held_from
        held_from = None if ask is None else partial(ask, self)
        self.retention = Retention(
            surroundings.files, self.index, self.segments, self.commits, surroundings.clock, held_from
        )

    def attached(self, kind: type[Attachment], make: Callable[[], Attachment]) -> Attachment:
        """What lives as long as this does, one of a kind; made when first asked for."""
        with self._attaching:
            self.check_open()
            if kind not in self._attachments:
                self._attachments[kind] = make()
            found = self._attachments[kind]
        assert isinstance(found, kind)
        return found

    def attachment(self, kind: type[Attachment]) -> Attachment | None:
        """The same, if it was made already."""
        found = self._attachments.get(kind)
        return found if isinstance(found, kind) else None

    def append(self, request: Request) -> Appended:
        """Commit a request; see `GroupCommit.append`."""
        appended = self.commits.append(request)
        self.sharder.tick()
        return appended

    def append_many(self, requests: list[Request]) -> None:
        """Commit encoded requests together; see `GroupCommit.append_many`."""
        self.commits.append_many(requests)
        self.sharder.tick()

    def state(self) -> StreamState:
        """The stream's state as published now. Raises Closed."""
        self.check_open()
        if self.index.tail().state_version != self._state.version:
            self._state = decode_state(self.index.state()[0]).state
        return self._state

    def tail(self) -> Tail:
        """The tail as published now. Raises Closed."""
        self.check_open()
        tail = self.index.tail()
        if tail.trim_horizon != self._horizon_seen:
            self._horizon_seen = tail.trim_horizon
            self.segments.close_files()  # an open file keeps the space of a segment that has expired
        return tail

    def check_open(self) -> None:
        """Raise Closed if it is."""
        if self._closed:
            raise Closed(f"{self.path}: the stream was closed, or inherited through a fork")

    def reader(self, sequence: int, shards: Collection[int] | None) -> BatchReader:
        """Reads batches of all shards (None) or of some from a sequence number on."""
        cursor = Cursor(self.index, self.segments, sequence)
        return BatchReader(cursor, self._shard_id_of, self._event_prefix, shards)

    def sequence_at(self, moment: datetime) -> int:
        """The sequence number of the first record that was appended at a time or later."""
        return self.asked_again(lambda: self._sequence_at(wall_us_of(moment)))

    def _sequence_at(self, wanted_us: int) -> int:
        tail = self.tail()
        if wanted_us > tail.timestamp_us:
            return tail.next_sequence
        start = max(tail.trim_horizon, self._segment_before(wanted_us))
        cursor = Cursor(self.index, self.segments, start)
        cursor.skip_older(tail, wanted_us)
        for item in cursor.blocks(tail):
            if not isinstance(item, SegmentDamage) and item.header.timestamp_us >= wanted_us:
                return max(item.header.first_sequence, tail.trim_horizon)
        return tail.next_sequence

    def sequence_before_bytes(self, length: int) -> int:
        """A sequence number with at least so many bytes of log after it, or the first one there is."""
        tail = self.tail()
        if tail.offset > length:
            rows = [row for row in self.index.positions() if row.offset <= tail.offset - length]
            return rows[-1].first_sequence if rows else tail.segment_first
        behind = tail.offset
        first = tail.segment_first
        for segment in reversed(self.live_segments()[:-1]):
            if behind >= length:
                break
            first = segment.first_sequence
            size = self.segments.file(*segment).size()
            footer = self.segments.footer(*segment) if behind + size > length else None
            for row in footer.positions if footer else ():
                if row.offset > behind + size - length:
                    break
                first = row.first_sequence
            behind += size
        return first

    def hash_to_split_at(self, shard_id: str) -> int:
        """Where half of what a shard took lately went. Raises ShardNotFound, InvalidArgument."""
        shard = self.state().shard(shard_id)
        return weighted_median(shard, self.asked_again(lambda: recent_keys(self, shard)))

    def asked_again(self, ask: Callable[[], Value]) -> Value:
        """What a question about the whole log answers: asked again where the horizon passed what it looked at."""
        while True:
            horizon = self.tail().trim_horizon
            try:
                return ask()
            except TrimmedData:
                if self.tail().trim_horizon == horizon:
                    raise

    def close(self) -> None:
        """Make durable what was appended, end what waits, give up the locks; twice is harmless."""
        if self._closed:
            return
        with self._attaching:
            self._closed = True
        self.watch.close()
        try:
            self._settle()
        finally:
            for attachment in self._attachments.values():
                attachment.close()
            self.commits.close(f"{self.path}: the stream was closed")
            self._roller.close()
            self.segments.close()
            self._opened.close()

    def abandon(self) -> None:
        """Close in a forked child, without touching what belongs to the parent."""
        if self._closed:
            return
        self._closed = True
        self._attaching = threading.Lock()
        for attachment in self._attachments.values():
            attachment.abandon()
        self.watch.abandon()
        self.commits.abandon(f"{self.path}: the stream was inherited through a fork; open it in this process")
        self.index.abandon()
        self._roller.close()
        self.segments.abandon()
        self._opened.mark.close()
        self._opened.lock.close()

    def _settle(self) -> None:
        if self.is_private:
            return
        self.commits.sync()
        tail = self.index.tail()
        if tail.durable_sequence == tail.next_sequence:
            self._opened.mark.write(mark_of(tail))
        self._opened.mark.sync()

    def _shard_id_of(self, number: int) -> str:
        """The id of a shard that a reader met; remembered, because a slow reader may meet it after it has expired."""
        known = self._shard_ids.get(number)
        if known is None:
            state = self.state()
            self._shard_ids.update((shard.number, shard.shard_id) for shard in state.shards)
            if number not in self._shard_ids and number < state.next_shard:
                raise TrimmedData(f"all records of the shard of number {number} have expired")
            known = self._shard_ids[number]
        return known

    def live_segments(self) -> list[SegmentName]:
        """The segments that are not behind the horizon, oldest first: files of the others may be gone."""
        segments = self.index.segments()
        return segments[len(expired_segments(segments, self.index.tail().trim_horizon)) :]

    def _segment_before(self, wanted_us: int) -> int:
        """First sequence number of the last segment whose commits before it are all older."""
        segments = self.live_segments()
        try:
            return self._last_older(segments, wanted_us)
        except CorruptLog:
            # A segment whose header is damaged tells no time; those around it do.
            return self._last_older([segments[0], *filter(self._has_header, segments[1:])], wanted_us)

    def _last_older(self, segments: list[SegmentName], wanted_us: int) -> int:
        low, high = 0, len(segments) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.segments.header(*segments[middle]).timestamp_before_us < wanted_us:
                low = middle
            else:
                high = middle - 1
        return segments[low].first_sequence

    def _has_header(self, segment: SegmentName) -> bool:
        try:
            self.segments.header(*segment)
        except CorruptLog:
            return False
        return True


class _Registry:
    """The streams that this process has open, by directory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shared: dict[str, tuple[OpenStream, int]] = {}
        self._all: weakref.WeakSet[OpenStream] = weakref.WeakSet()
        # A fork waits for openings: the child could not close locks that are on their way to an OpenStream.
        os.register_at_fork(
            before=lambda: self._lock.acquire(),
            after_in_parent=lambda: self._lock.release(),
            after_in_child=self._after_fork,
        )

    def acquire(self, path: str, read_only: bool, surroundings: Surroundings) -> OpenStream:
        path = os.path.realpath(path)
        with self._lock:
            shared = self._shared.get(path)
            if shared is not None:
                self._shared[path] = (shared[0], shared[1] + 1)
                return shared[0]
            open_directory = open_to_read if read_only else open_to_write
            opened = open_directory(surroundings.files, path, surroundings.lock_timeout, surroundings.checkpointed)
            try:
                stream = OpenStream(path, opened, surroundings)
            except BaseException:
                opened.close()
                raise
            self._all.add(stream)
            if not stream.is_private:
                self._shared[path] = (stream, 1)
            return stream

    def release(self, stream: OpenStream) -> None:
        with self._lock:
            shared = self._shared.get(stream.path)
            if shared is not None and shared[0] is stream:
                if shared[1] > 1:
                    self._shared[stream.path] = (stream, shared[1] - 1)
                    return
                del self._shared[stream.path]
            stream.close()

    def shared(self, path: str) -> OpenStream | None:
        """The stream of a directory, if this process has it open together with the stream's index."""
        with self._lock:
            found = self._shared.get(os.path.realpath(path))
            return found[0] if found else None

    def evict(self, path: str) -> None:
        """Close a directory's stream whoever uses it: the directory is going away."""
        with self._lock:
            shared = self._shared.pop(os.path.realpath(path), None)
        if shared is not None:
            shared[0].close()

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._shared.clear()
        for stream in list(self._all):
            stream.abandon()


_registry: _Registry | None = None
_registry_lock = threading.Lock()


def registry() -> _Registry:
    """The process's registry, made when first needed."""
    global _registry
    with _registry_lock:
        if _registry is None:
            _registry = _Registry()
        return _registry

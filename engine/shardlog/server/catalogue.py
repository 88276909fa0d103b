"""The streams of a store by their ARN, as the API shows them.

Owns which streams there are: every stream of the store, opened once, when it is first asked for, and kept open with the
store. A table's stream that was disabled is shown and readable for 24 hours; then it is removed. Streams that a program
made stay whatever their state: they are the program's. A stream that cannot be opened is left out of the list, and said
once in the log.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Final, NamedTuple

from shardlog.api import Store, Stream
from shardlog.clock import Clock, wall_us_of
from shardlog.errors import ShardlogError, StreamNotFound
from shardlog.model import StreamDescription
from shardlog.server.faults import stream_not_found
from shardlog.server.identifiers import StreamArn, parse_arn

DISABLED_LIFE: Final = timedelta(hours=24)
LOCAL_REGION: Final = "local"
"""The region of streams that a program made: they are nobody's table, and every region shows them."""

_MICROSECOND: Final = timedelta(microseconds=1)
_log = logging.getLogger("shardlog")


class Scope(NamedTuple):
    """Whose streams a request is about; None: all."""

    region: str | None = None
    account: str | None = None

    def shows(self, arn: StreamArn) -> bool:
        """Whether a stream is in it."""
        if arn.region == LOCAL_REGION:
            return True
        return self.region in (None, arn.region) and self.account in (None, arn.account)


class Catalogue:
    """The streams of one store. Any number of threads may use it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._places: dict[str, tuple[str, str]] = {}
        self._closed_us: dict[str, int] = {}
        self._unusable: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    def arns(self, scope: Scope) -> list[StreamArn]:
        """The streams of a scope, in lexical order of their ARN."""
        found = [parse_arn(description.arn) for stream in self.streams() if (description := self._shown(stream))]
        return sorted((arn for arn in found if scope.shows(arn)), key=lambda arn: arn.text)

    def streams(self) -> list[Stream]:
        """All streams that can be opened."""
        return [stream for place in self._store.names() if (stream := self._opened(*place)) is not None]

    def find(self, arn: StreamArn) -> Stream:
        """The stream of an ARN. Raises a Fault, and the engine's errors where it is damaged."""
        place = self._place_of(arn)
        if place is None:
            raise stream_not_found(arn.text)
        try:
            stream = self._store.stream(*place)
        except StreamNotFound:
            self._forget({arn.text})
            raise stream_not_found(arn.text) from None
        if self._shown(stream) is None:
            raise stream_not_found(arn.text)
        return stream

    def present(self) -> set[str]:
        """The ARNs of all streams that can be read, shown or not."""
        return {description.arn for stream in self.streams() if (description := _described(stream)) is not None}

    def remove_expired(self) -> list[str]:
        """Remove tables' streams that were disabled long enough ago; returns their ARNs.

        What is remembered of streams that are gone, whoever removed them, is dropped.
        """
        with self._lock:
            remembered = {*self._places, *self._closed_us}
        removed = []
        for stream in self.streams():
            try:
                description = stream.describe()
                if self._is_gone(stream, description):
                    self._store.delete_stream(stream.name, stream.label)
                    removed.append(description.arn)
            except ShardlogError as error:
                _log.error("%s %s was not removed: %s", stream.name, stream.label, error)
        self._forget(remembered - self.present())
        return removed

    def _forget(self, arns: set[str]) -> None:
        with self._lock:
            for arn in arns:
                self._places.pop(arn, None)
                self._closed_us.pop(arn, None)

    def _place_of(self, arn: StreamArn) -> tuple[str, str] | None:
        with self._lock:
            place = self._places.get(arn.text)
        if place is None:
            for name, label in self._store.names():
                if label == arn.label and (stream := self._opened(name, label)) is not None:
                    found = stream.describe().arn
                    with self._lock:
                        self._places[found] = name, label
            with self._lock:
                place = self._places.get(arn.text)
        return place

    def _opened(self, name: str, label: str) -> Stream | None:
        try:
            return self._store.stream(name, label)
        except StreamNotFound:
            return None  # deleted meanwhile
        except ShardlogError as error:
            if (name, label) not in self._unusable:
                self._unusable.add((name, label))
                _log.error("stream %s %s cannot be served: %s", name, label, error)
            return None

    def _shown(self, stream: Stream) -> StreamDescription | None:
        try:
            description = stream.describe()
            return None if self._is_gone(stream, description) else description
        except StreamNotFound:
            return None

    def _is_gone(self, stream: Stream, description: StreamDescription) -> bool:
        """Whether it is a table's stream that was disabled long enough ago."""
        if description.status == "ENABLED" or description.table_arn is None:
            return False
        closed_us = self._closed_us.get(description.arn)
        if closed_us is None:
            times = [shard.closed_at for shard in stream.statistics().shards if shard.closed_at is not None]
            if not times:
                return True  # its last record has expired
            closed_us = wall_us_of(max(times))
            with self._lock:
                self._closed_us[description.arn] = closed_us
        return self._clock.wall_us() - closed_us >= DISABLED_LIFE // _MICROSECOND


def _described(stream: Stream) -> StreamDescription | None:
    """None: it was deleted meanwhile, or is damaged."""
    try:
        return stream.describe()
    except ShardlogError:
        return None

"""The optional background thread of a store: expires records and lets shards follow the load, also of idle streams.

Owns when, not what: `stream.retention` and `stream.sharding` do the work. Its errors are logged and do not end it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

from shardlog.errors import Closed, ShardlogError
from shardlog.stream.open_stream import OpenStream

PAUSE_MIN: Final = timedelta(milliseconds=100)
PAUSE_MAX: Final = timedelta(minutes=1)
PASSES_PER_SEGMENT_AGE: Final = 4

_log = logging.getLogger("shardlog")


class Maintenance:
    """Looks after the streams that `streams` yields, until closed."""

    def __init__(self, streams: Callable[[], Iterable[OpenStream]]) -> None:
        self._streams = streams
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shardlog-maintenance", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; waits for a pass under way."""
        self._stop.set()
        if self._thread is not threading.current_thread() and self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pause = PAUSE_MIN
        while not self._stop.wait(pause.total_seconds()):
            pause = PAUSE_MAX
            for stream in self._streams():
                pause = min(pause, self._look_after(stream))

    def _look_after(self, stream: OpenStream) -> timedelta:
        """One pass over one stream; how soon it wants the next one."""
        options = stream.commits.options
        try:
            options = stream.state().options  # another process may have changed them
            stream.retention.expire(force=False)
            stream.sharder.follow(options.sharding)
        except Closed:
            return PAUSE_MAX
        except ShardlogError as error:
            _log.error("%s: maintenance failed: %s", stream.path, error)
        wishes = [options.segment_age / PASSES_PER_SEGMENT_AGE]
        if options.sharding is not None:
            wishes.append(options.sharding.window / PASSES_PER_SEGMENT_AGE)
        return max(PAUSE_MIN, min(wishes))

"""How `shardlog demo` ends: two workers share a stream's shards, one is killed, and the other takes over.

Owns the two processes (`demo_worker`), the telling, and the verdict: every record was handled, and none twice but the
batch that the killed worker had in hand.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from shardlog import Group, Stream
from shardlog_tools.demo_worker import RECORDS_MAX
from shardlog_tools.descriptions import number_of
from shardlog_tools.output import CommandFailed

GROUP: Final = "demo"
WORKERS: Final = ("worker-1", "worker-2")
_SECONDS_MAX: Final = 60.0
_LOOK_SECONDS: Final = 0.01
_BATCHES_BEFORE_KILL: Final = 3

Tell = Callable[[str], None]
Figures = dict[str, Any]


class WorkerProcess:
    """A worker in a process of its own. `handled`: the sequence numbers of each batch that it told of."""

    def __init__(self, name: str, store_path: str, stream_name: str) -> None:
        self.name = name
        self.handled: list[list[int]] = []
        words = ["-m", "shardlog_tools.demo_worker", store_path, stream_name, GROUP, name]
        self._process = subprocess.Popen(  # noqa: S603 - we start ourselves, with our own arguments
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def go(self) -> None:
        """Let it begin with batches."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.close()

    def end(self, signal_number: int) -> None:
        """Send it a signal, and wait until it and what it had to tell are through."""
        self._process.send_signal(signal_number)
        self._process.wait()
        self._reading.join()

    def check(self) -> None:
        """Raise CommandFailed where it ended by itself."""
        if self._process.poll() is not None:
            raise CommandFailed(f"{self.name} ended by itself, with {self._process.returncode}")

    def close(self) -> None:
        """Leave nothing of it."""
        self.end(signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith(b"\n"):
                self.handled.append(list(map(int, line.split())))


def share_and_take_over(store_path: str, stream: Stream, records: int, tell: Tell) -> Figures:
    """Consume a stream of so many records with two workers, and kill one; the figures say whether it `passed`."""
    group = stream.group(GROUP)
    lag_before = group.lag().records
    with _started(store_path, stream.name) as workers:
        _wait_until(lambda: _are_shared(group), workers)
        tell(f"  consume   {_shares_words(group)}; {lag_before:,} records behind")
        for worker in workers:
            worker.go()
        survivor, victim = workers
        _wait_until(lambda: len(victim.handled) >= _BATCHES_BEFORE_KILL or not group.lag().records, workers)
        victim.end(signal.SIGKILL)
        killed = time.monotonic()
        tell(f"            SIGKILL for {victim.name}, after {_count(victim):,} records")
        _wait_until(lambda: not any(lease.owner == victim.name for lease in group.leases()), [survivor])
        seconds = time.monotonic() - killed
        tell(f"            {_shares_words(group)}, {seconds:.1f} s later")
        _wait_until(lambda: not group.lag().records, [survivor])
        survivor.end(signal.SIGTERM)
        lag = group.lag().records
    handled = [sequence for worker in workers for batch in worker.handled for sequence in batch]
    distinct = len(set(handled))
    twice = len(handled) - distinct
    again = f"{twice:,} of them twice: the batch in hand at the kill" if twice else "none twice"
    tell(f"            lag {lag:,}: {distinct:,} of {records:,} records handled, {again}")
    return {
        "consumed": distinct,
        "consumed_twice": twice,
        "lag": lag,
        "take_over_seconds": round(seconds, 3),
        "passed": lag == 0 and distinct == records and twice <= RECORDS_MAX,
    }


@contextmanager
def _started(store_path: str, stream_name: str) -> Iterator[list[WorkerProcess]]:
    with ExitStack() as closing:
        workers = []
        for name in WORKERS:
            workers.append(WorkerProcess(name, store_path, stream_name))
            closing.callback(workers[-1].close)
        yield workers


def _wait_until(is_so: Callable[[], bool], workers: list[WorkerProcess]) -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    while not is_so():
        for worker in workers:
            worker.check()
        if time.monotonic() > deadline:
            raise CommandFailed(f"the workers did not come so far within {_SECONDS_MAX:g} s")
        time.sleep(_LOOK_SECONDS)


def _are_shared(group: Group) -> bool:
    owners = [lease.owner for lease in group.leases()]
    return bool(owners) and {owners.count(name) for name in WORKERS} == {len(owners) // len(WORKERS)}


def _shares_words(group: Group) -> str:
    """Which worker holds which shards."""
    leases = group.leases()
    held = {name: [number_of(lease.shard_id) for lease in leases if lease.owner == name] for name in WORKERS}
    return ", ".join(
        f"{name} has shards {', '.join(numbers)}" if numbers else f"{name} has none" for name, numbers in held.items()
    )


def _count(worker: WorkerProcess) -> int:
    return sum(map(len, worker.handled))

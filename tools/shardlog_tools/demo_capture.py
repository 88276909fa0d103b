"""The process that the demo kills: threads that append made-up changes until they are no more.

`python -m shardlog_tools.demo_capture STORE STREAM SEED THREADS`. As soon as an append has returned, a line goes to
stdout: the thread, and the sequence numbers of the append's records. A line is written by one system call that is not
longer than a pipe takes at once, so it is there whole or not at all, and what is in the pipe survives us.
"""

from __future__ import annotations

import os
import sys
import threading

import shardlog
from shardlog_tools.demo_changes import appends


def capture(stream: shardlog.Stream, seed: int, thread: int) -> None:
    """Append one thread's changes for ever; its n-th append has position n."""
    for position, changes in enumerate(appends(seed, thread), 1):
        result = stream.append(changes, producer=f"thread-{thread}", position=position)
        os.write(1, f"{thread} {' '.join(map(str, result.sequences))}\n".encode("ascii"))


def main(argv: list[str]) -> None:
    """Start the threads; ends only by being killed."""
    store_path, stream_name, seed, threads = argv
    with shardlog.open(store_path, create=False) as store:
        stream = store.stream(stream_name)
        capturers = [
            threading.Thread(target=capture, args=(stream, int(seed), thread), name=f"capture {thread}")
            for thread in range(int(threads))
        ]
        for capturer in capturers:
            capturer.start()
        for capturer in capturers:
            capturer.join()


if __name__ == "__main__":
    main(sys.argv[1:])

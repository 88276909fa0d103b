"""What the stores of the crash tests go through. Segments of 16 KiB, so that an append or two fill one."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from functools import partial
from unittest import mock

from tests.crash import reshaping
from tests.crash.rig import (
    LARGE,
    NEEDING_SPACE,
    SYNCING,
    Rig,
    Script,
    Workload,
    count_of,
    full_at,
    interrupted_at,
    killed_at,
    new_stream,
    unsynced_at,
)

from shardlog.errors import StorageFailed, StorageFull, StreamDisabled
from shardlog.files.protocol import Site
from shardlog.format.commit import ENTRY_BYTES, HEADER_BYTES
from shardlog.format.record import encode_batch
from shardlog.options import Durability
from shardlog.testing.disk import SECTOR_BYTES
from shardlog.testing.failing import CHANGING, Fault, Killed, Kind
from shardlog.testing.journal import changes_of
from shardlog.testing.promises import StreamKey


def birth(rig: Rig) -> None:
    """A store and its first stream; closed, opened again."""
    rig.journal.open()
    key = new_stream(rig)
    rig.journal.append(key, 1)
    rig.journal.close()
    rig.journal.open()
    rig.journal.append(key, 2)


def appends(rig: Rig, durability: Durability) -> None:
    """Two threads, several shards, small appends and large ones; a tear anywhere in a block."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability, shards=3)

    def run(first: int) -> None:
        for turn in range(6):
            journal.append(key, 1 + (first + turn) % 3, payload=37 * (first + turn) % 400)

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.look(key)
    journal.close()


def tears(rig: Rig) -> None:
    """Blocks whose last bytes are the first of a sector, so that little is missing where one is torn there."""
    rig.journal.open()
    key = new_stream(rig, shards=1)
    for turn in range(12):
        stream = rig.journal.stream(key)
        before = stream._stream.tail().offset
        overhead = HEADER_BYTES + ENTRY_BYTES + len(encode_batch([changes_of(turn, 1, 600)[0].row], [0])) - 600
        rig.journal.append(key, 1, payload=-(before + overhead - 1 - turn % 3) % SECTOR_BYTES + SECTOR_BYTES)


def rolls(rig: Rig, durability: Durability) -> None:
    """Segments that fill, roll and are sealed."""
    rig.journal.open()
    key = new_stream(rig, durability=durability)
    for turn in range(6):
        rig.journal.append(key, 2, payload=LARGE)
        rig.journal.append(key, 1 + turn % 2)
    rig.journal.close()
    rig.journal.open()
    rig.journal.append(key, 3, payload=LARGE)


def level_os(rig: Rig) -> None:
    """Level "os": synced, not synced, closed, opened again."""
    rig.journal.open()
    key = new_stream(rig, durability="os")
    for turn in range(9):
        rig.journal.append(key, 1 + turn % 3)
        if turn % 4 == 3:
            rig.journal.sync(key)
    rig.journal.look(key)
    rig.journal.close()
    rig.journal.open()
    rig.journal.append(key)
    rig.kill_and_restart()
    rig.journal.append(key)
    rig.journal.append(key)


def producers(rig: Rig, durability: Durability) -> None:
    """Producers with positions, duplicates, over a roll and a reopening."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    for position in range(4):
        for producer in ("one", "two"):
            journal.append(key, 1, payload=LARGE // 2, producer=producer, position=position)
        journal.append(key, 2, producer="one", position=position)
    journal.close()
    journal.open()
    journal.append(key, 1, producer="one", position=3)
    journal.append(key, 1, producer="one", position=4)


def endings(rig: Rig, durability: Durability) -> None:
    """Streams are disabled, deleted, and created again under the same name."""
    journal = rig.journal
    journal.open()
    first = new_stream(rig, durability=durability)
    journal.append(first)
    journal.disable(first)
    with suppress(StreamDisabled):
        journal.append(first)
    journal.delete(first)
    second = new_stream(rig, durability=durability)
    journal.append(second, 2, payload=LARGE)
    other = new_stream(rig, "other", durability)
    journal.append(other)
    journal.delete(second)
    third = new_stream(rig, durability=durability)
    journal.append(third)
    journal.append(other)
    journal.close()


def consumers(rig: Rig, durability: Durability) -> None:
    """A group handles records and checkpoints them, between appends, over rolls and a reopening."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability, shards=1)
    journal.append(key, 4)
    journal.consume(key)
    journal.append(key, 3, payload=LARGE)
    journal.append(key, 4, payload=LARGE)
    journal.consume(key)
    journal.append(key)
    journal.close()
    journal.open()
    journal.consume(key)
    journal.append(key, 1)
    journal.consume(key)
    journal.append(key, 2)


def checkpoints(rig: Rig) -> None:
    """Checkpoints in the log, so close that a scan starts at one."""
    with mock.patch("shardlog.stream.plan.CHECKPOINT_STRIDE_BYTES", 1024):
        rig.journal.open()
        key = new_stream(rig)
        for turn in range(12):
            rig.journal.append(key, 1, payload=200, producer="one", position=turn)
        rig.journal.close()
        rig.journal.open()
        for _ in range(4):
            rig.journal.append(key, 2, payload=300)


def seen_before_synced(rig: Rig, durability: Durability) -> None:
    """Killed between the write and the sync; who opens it sees the records, and then the power fails."""
    rig.journal.open()
    key = new_stream(rig, durability=durability)
    rig.journal.append(key)
    _killed_within_append(rig, key, Fault(Killed, kinds=frozenset({Kind.WRITE}), path_end=".seg", after=True))
    rig.journal.append(key, 1, producer="one", position=1)
    rig.journal.append(key, 1, producer="one", position=1)


def torn_tails(rig: Rig) -> None:
    """Killed within a write, so that there is something to set aside; then a roll, which takes its place."""
    rig.journal.open()
    key = new_stream(rig)
    rig.journal.append(key)
    for written in (700, 1500):
        fault = Fault(Killed, kinds=frozenset({Kind.WRITE}), path_end=".seg", written=written)
        _killed_within_append(rig, key, fault, payload=LARGE)
        rig.journal.append(key, 1)
    _killed_within_append(
        rig, key, Fault(Killed, kinds=frozenset({Kind.WRITE}), path_end=".seg", written=600), payload=LARGE
    )
    rig.journal.close()
    rig.journal.open()
    rig.journal.append(key)


def unsynced_names(rig: Rig) -> None:
    """Killed when a new stream, or a new segment, has its name, and the name is not synced."""
    journal = rig.journal
    journal.open()
    rig.faults.add(Fault(Killed, nth=3, site=Site.STREAM_ENTRY))
    with suppress(Killed):
        new_stream(rig)
        raise AssertionError("nothing was killed")
    rig.restart()
    (key,) = journal.streams()
    journal.append(key)
    rig.faults.add(Fault(Killed, site=Site.SEGMENT_ENTRY))
    with suppress(Killed):
        journal.append(key, 6, payload=LARGE)
        raise AssertionError("nothing was killed")
    rig.restart()
    journal.append(key)
    journal.append(key)


def torn_once(rig: Rig) -> None:
    """One torn tail and its recovery, to be killed at every step."""
    rig.journal.open()
    key = new_stream(rig)
    rig.journal.append(key)
    fault = Fault(Killed, kinds=frozenset({Kind.WRITE}), path_end=".seg", written=700)
    _killed_within_append(rig, key, fault, payload=LARGE)
    rig.journal.append(key)
    rig.journal.close()


def refused(rig: Rig) -> None:
    """The disk is full when all of a block but its padding is written: refused, it must not come back."""
    rig.journal.open()
    key = new_stream(rig)
    rig.journal.append(key)
    for _ in range(2):
        rig.faults.add(Fault(_full, kinds=frozenset({Kind.WRITE}), path_end=".seg", after=True))
        with suppress(StorageFull):
            rig.journal.append(key)
    rig.journal.append(key)


def failed_syncs(rig: Rig, durability: Durability, site: Site) -> None:
    """A sync fails; the stream is closed and opened again, and goes on."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    journal.append(key)
    if durability == "os":
        journal.sync(key)
        journal.append(key)
    rig.sync_faults.add(Fault(lambda: StorageFailed("the disk failed"), site=site))
    with suppress(StorageFailed):
        for _ in range(5):
            journal.append(key, 3, payload=700)
        journal.sync(key)
    with suppress(StorageFailed):
        journal.close()
    journal.open()
    journal.look(key, is_settled=True)
    journal.append(key)
    journal.append(key, 2, payload=LARGE)


def interrupted_roll(rig: Rig) -> None:
    """A roll is interrupted when its segment has its name; the next finds the disk full; small appends go on."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig)
    journal.append(key, 2, payload=LARGE)
    rig.faults.add(Fault(KeyboardInterrupt, kinds=frozenset({Kind.RENAME}), path_end=".seg", after=True))
    with suppress(KeyboardInterrupt):
        journal.append(key, 5, payload=LARGE)
    rig.faults.add(Fault(_full, kinds=frozenset({Kind.ALLOCATE})))
    with suppress(StorageFull):
        journal.append(key, 5, payload=LARGE)
    journal.append(key)
    journal.append(key)


def life(rig: Rig, durability: Durability) -> None:
    """A short life with everything in it, to be killed at every step."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    journal.append(key, 1, producer="one", position=1)
    journal.append(key, 2, payload=LARGE)
    journal.append(key, 3, payload=LARGE)
    journal.sync(key)
    journal.close()
    journal.open()
    journal.append(key)
    journal.disable(key)
    journal.delete(key)
    key = new_stream(rig, durability=durability)
    journal.append(key)
    journal.close()


def afterlife(rig: Rig) -> None:
    """What a program does after the one before it was killed."""
    journal = rig.journal
    for key in journal.streams():
        with suppress(StreamDisabled):
            journal.append(key, 2)
            journal.append(key, 2, payload=LARGE)
    if "stream" not in {key.name for key in journal.streams()}:
        key = new_stream(rig)
        journal.append(key)
    journal.close()


def _killed_within_append(rig: Rig, key: StreamKey, fault: Fault, payload: int = 60) -> None:
    rig.faults.add(fault)
    with suppress(Killed):
        rig.journal.append(key, 2, payload=payload)
        raise AssertionError("nothing was killed")
    rig.restart()


def _full() -> StorageFull:
    return StorageFull("the disk is full")


LEVELS: tuple[Durability, ...] = ("fsync", "os")

WORKLOADS = [
    Workload("birth", birth),
    *(Workload(f"appends, {level}", partial(appends, durability=level)) for level in LEVELS),
    Workload("tears", tears),
    *(Workload(f"rolls, {level}", partial(rolls, durability=level)) for level in LEVELS),
    Workload("level os", level_os),
    *(Workload(f"producers, {level}", partial(producers, durability=level)) for level in LEVELS),
    *(Workload(f"endings, {level}", partial(endings, durability=level)) for level in LEVELS),
    *(
        Workload(f"{name}, {level}", partial(script, durability=level))
        for name, script in (
            ("resharding", reshaping.resharding),
            ("appending while resharding", reshaping.appending_while_resharding),
            ("disabled after a split", reshaping.disabled_after_a_split),
            ("expiring", reshaping.expiring),
            ("expiring beside others", reshaping.expiring_beside_others),
        )
        for level in LEVELS
    ),
    *(Workload(f"consumers, {level}", partial(consumers, durability=level)) for level in LEVELS),
    Workload("checkpoints", checkpoints),
    *(Workload(f"seen before synced, {level}", partial(seen_before_synced, durability=level)) for level in LEVELS),
    Workload("torn tails", torn_tails),
    Workload("unsynced names", unsynced_names),
    Workload("refused", refused),
    *(
        Workload(f"failed {site.value}, {level}", partial(failed_syncs, durability=level, site=site))
        for level, site in (
            ("fsync", Site.COMMIT),
            ("fsync", Site.SEGMENT_SEALED),
            ("fsync", Site.SEGMENT_HEADER),
            ("fsync", Site.SEGMENT_ENTRY),
            ("os", Site.LOG_SYNC),
            ("os", Site.SEGMENT_SEALED),
            ("os", Site.MARK_UNSYNCED),
            ("os", Site.MARK_POSITION),
        )
    ),
    Workload("interrupted roll", interrupted_roll),
]
BY_NAME = {workload.name: workload for workload in WORKLOADS}


LIVES = {
    "life": (life, afterlife),
    "resharding life": (reshaping.resharding_life, reshaping.afterlife),
    "expiring life": (reshaping.expiring_life, reshaping.afterlife),
}
"""Scripts to be disturbed at each of their steps, and what comes after that."""


def sweeps(life_name: str, durability: Durability) -> list[Workload]:
    """One of LIVES with something happening at each of its steps."""
    life_script, epilogue = LIVES[life_name]
    script: Script = partial(life_script, durability=durability)
    name = f"{life_name}, {durability}"
    changes = range(1, count_of(script, CHANGING) + 1)
    return [
        *(killed_at(name, script, epilogue, nth) for nth in changes),
        *(killed_at(name, script, epilogue, nth, written=520) for nth in changes),
        *(interrupted_at(name, script, epilogue, nth, after) for nth in changes for after in (False, True)),
        *(full_at(name, script, epilogue, nth) for nth in range(1, count_of(script, NEEDING_SPACE) + 1)),
        *(unsynced_at(name, script, epilogue, nth) for nth in range(1, count_of(script, SYNCING) + 1)),
    ]


def torn_sweep() -> list[Workload]:
    """`torn_once`, killed at each of its steps, those of the recovery included."""
    changes = range(1, count_of(torn_once, CHANGING) + 1)
    return [killed_at("torn once", torn_once, afterlife, nth, written) for nth in changes for written in (None, 520)]


def all_sweeps() -> list[Workload]:
    """The lives disturbed at each step, in no order, the same every time."""
    swept = [workload for name in LIVES for level in LEVELS for workload in sweeps(name, level)] + torn_sweep()
    random.Random(0).shuffle(swept)
    return swept

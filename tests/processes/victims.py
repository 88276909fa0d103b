"""Child processes that append, and kill themselves at a step of an append that the test names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.children import Channel
from tests.support.faults import FaultyFiles, IndexFaults, IndexStep, Step, When, kill, open_with
from tests.support.history import batch

import shardlog
from shardlog.files.protocol import Site
from shardlog.format.commit import COMMIT, FOOTER

Arm = Callable[[FaultyFiles, IndexFaults, int], object]

APPENDS_MAX = 600
WARM_UP = 5


def _at_file(wanted: Callable[[Step], bool], when: When) -> Arm:
    return lambda files, _, skip: files.arm(wanted, kill, when, skip=skip)


def _at_index(step: IndexStep, when: When) -> Arm:
    return lambda _, index, skip: index.arm(step, kill, when, skip=skip)


def _writes_block(kind: int) -> Callable[[Step], bool]:
    return lambda step: (
        step.operation == "pwrite" and step.is_segment and step.content.startswith(b"SLOG") and step.content[4] == kind
    )


def _syncs(site: Site) -> Callable[[Step], bool]:
    return lambda step: step.site is site


def _writes_mark(step: Step) -> bool:
    return step.operation == "pwrite" and step.is_mark and not step.content.startswith(b"FLAG")


def _writes_flag(step: Step) -> bool:
    return step.operation == "pwrite" and step.is_mark and step.content.startswith(b"FLAG")


def _on_new_segment(operation: str) -> Callable[[Step], bool]:
    return lambda step: step.operation == operation and step.is_new_segment


def _names_segment(step: Step) -> bool:
    return step.operation == "rename" and step.is_segment


COMMIT_STEPS: dict[str, Arm] = {
    "before the transaction": _at_index("begin", "before"),
    "in the transaction": _at_index("begin", "after"),
    "rows reserved": _at_index("reserved", "after"),
    "before the write": _at_file(_writes_block(COMMIT), "before"),
    "half of the write": _at_file(_writes_block(COMMIT), "half"),
    "written": _at_file(_writes_block(COMMIT), "after"),
    "before publication": _at_index("publish", "before"),
    "published": _at_index("publish", "after"),
    "before MARK": _at_file(_writes_mark, "before"),
    "half of MARK": _at_file(_writes_mark, "half"),
    "MARK written": _at_file(_writes_mark, "after"),
}
SYNC_STEPS: dict[str, Arm] = {
    "before the sync": _at_file(_syncs(Site.COMMIT), "before"),
    "synced": _at_file(_syncs(Site.COMMIT), "after"),
}
FLAG_STEPS: dict[str, Arm] = {
    "before the flag": _at_file(_writes_flag, "before"),
    "half of the flag": _at_file(_writes_flag, "half"),
    "flag written": _at_file(_writes_flag, "after"),
    "flag synced": _at_file(_syncs(Site.MARK_UNSYNCED), "after"),
}
ROLL_STEPS: dict[str, Arm] = {
    "before rolling": _at_index("rolling", "before"),
    "rolling": _at_index("rolling", "after"),
    "before the new segment": _at_file(_on_new_segment("create"), "before"),
    "created": _at_file(_on_new_segment("create"), "after"),
    "allocated": _at_file(_on_new_segment("allocate"), "after"),
    "half of the header": _at_file(_on_new_segment("pwrite"), "half"),
    "header written": _at_file(_on_new_segment("pwrite"), "after"),
    "header synced": _at_file(_syncs(Site.SEGMENT_HEADER), "after"),
    "before the footer": _at_file(_writes_block(FOOTER), "before"),
    "half of the footer": _at_file(_writes_block(FOOTER), "half"),
    "footer written": _at_file(_writes_block(FOOTER), "after"),
    "cut": _at_file(lambda step: step.operation == "truncate", "after"),
    "sealed": _at_file(_syncs(Site.SEGMENT_SEALED), "after"),
    "before the name": _at_file(_names_segment, "before"),
    "named": _at_file(_names_segment, "after"),
    "entry synced": _at_file(_syncs(Site.SEGMENT_ENTRY), "after"),
    "before the tail": _at_index("rolled", "before"),
    "tail": _at_index("rolled", "after"),
    "MARK synced": _at_file(_syncs(Site.MARK_POSITION), "after"),
}
STEPS = COMMIT_STEPS | SYNC_STEPS | FLAG_STEPS | ROLL_STEPS


def append_until_killed(channel: Channel, path: Path, who: str, step: str) -> None:
    """Append, tell what was acknowledged, and die at a step: not at the first append, where others come before."""
    files, index = FaultyFiles(), IndexFaults(pytest.MonkeyPatch())
    stream = open_with(path, files).stream("s")
    STEPS[step](files, index, 0 if step in FLAG_STEPS or step in ROLL_STEPS else WARM_UP)
    for number in range(APPENDS_MAX):
        sequences = stream.append(batch(who, number, 3)).sequences
        channel.send(((who, number), sequences))


def append_for_ever(channel: Channel, path: Path, who: str) -> None:
    """Append and tell what was acknowledged, until somebody kills it."""
    stream = shardlog.open(path).stream("s")
    channel.send("open")
    number = 0
    while True:
        sequences = stream.append(batch(who, number, 1 + number % 4)).sequences
        channel.send(((who, number), sequences))
        number += 1


def append_some(channel: Channel, path: Path, who: str, count: int) -> None:
    """Open, append so often, close, and tell what was acknowledged."""
    channel.receive()
    with shardlog.open(path) as store:
        stream = store.stream("s")
        channel.send({(who, n): stream.append(batch(who, n, 1 + n % 4)).sequences for n in range(count)})


def die_at_step(channel: Channel, path: Path, what: str, skip: int) -> None:
    """Do something with a store, and die at its `skip`-th write, sync, rename or other step."""
    files = FaultyFiles()
    files.arm(lambda step: True, kill, skip=skip)
    with open_with(path, files) as store:
        if what == "create":
            store.create_stream("s", segment_bytes=16384, shards=2)
        elif what == "delete":
            store.delete_stream("s")
        elif what == "disable":
            store.disable_stream("s")
        elif what == "open":
            store.stream("s")
    channel.send("done")

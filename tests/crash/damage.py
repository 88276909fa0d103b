"""Damage on top of a crash: what MARK witnesses must not be lost unseen.

Behind the last MARK that was synced (by a close, a sync, a roll), damage looks like a torn write. Before it, it is
told: when it hits the last record that MARK covers, and when the segment that MARK names is gone altogether.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.crash.rig import Recorded

from shardlog.files.protocol import Site
from shardlog.format import names
from shardlog.testing.crash_states import Strategy, crash_states
from shardlog.testing.images import scratch_directory
from shardlog.testing.journal import catalogue_of
from shardlog.testing.operations import Created, Image, Marked, Opened, Operation, Outcome, Renamed, Synced
from shardlog.testing.oracle import Probe, observe
from shardlog.testing.promises import Acknowledged

SPOILT_BYTES = 8


@dataclass(slots=True)
class Witness:
    """What the last MARK that was synced covers, in the only stream there is."""

    append: int | None = None
    segment: str | None = None
    _paths: dict[int, str] = field(default_factory=dict)
    _acknowledged: int | None = None
    _newest: str | None = None

    def take(self, operation: Operation) -> None:
        """Take the next operation of a recording."""
        match operation:
            case Opened(handle, path) | Created(handle, path):
                self._paths[handle] = path
            case Marked(Acknowledged(append, _)):
                self._acknowledged = append
            case Renamed(_, target) if target.endswith(".seg"):
                self._newest = target.replace(names.TEMPORARY + "/", "/")  # a new stream has another name at first
            case Synced(_, Site.MARK_POSITION, outcome) if outcome is not Outcome.FAILED:
                self.append, self.segment = self._acknowledged, self._newest


def without_record(image: Image, append: int) -> Image:
    """The image with some bytes of an append's first record changed."""
    wanted = f"{append}.0".encode()
    wanted = bytes([0xA2]) + b"id" + bytes([0xA0 + len(wanted)]) + wanted
    for path, content in image.items():
        if content and path.endswith(".seg") and wanted in content:
            start = content.rindex(wanted) + len(wanted)
            spoilt = bytes(byte ^ 0x5A for byte in content[start - SPOILT_BYTES : start])
            return {**image, path: content[: start - SPOILT_BYTES] + spoilt + content[start:]}
    return image


def without_file(image: Image, path: str) -> Image:
    """The image without a file."""
    return {name: content for name, content in image.items() if name != path}


def unseen_damage(recorded: Recorded, strategy: Strategy, states: int) -> Iterable[str]:
    """Damage to crash states that an opening and a reading did not tell."""
    recording = recorded.recording
    witness, taken = Witness(), 0
    seen: set[bytes] = set()
    with scratch_directory() as root:
        for state in crash_states(recording, strategy, recorded.first):
            for operation in recording.operations[taken : state.point]:
                witness.take(operation)
            taken = state.point
            if state.digest in seen or len(seen) >= states or witness.append is None or witness.segment is None:
                continue
            if any(fate.kind in ("zeros", "garbage") for fate in state.choices.values()):
                continue  # sectors are written whole or not: else both slots of MARK may be lost
            seen.add(state.digest)
            probe = Probe(catalogue_of(recording), (), 1_000_000, False, False, None)
            for what, image in (
                (f"append {witness.append} was damaged", without_record(state.image, witness.append)),
                (f"{witness.segment} was removed", without_file(state.image, witness.segment)),
            ):
                observation = observe(image, root, probe)
                told = [stream.error for stream in observation.streams.values()]
                if observation.error is None and not any(error and "CorruptLog" in error for error in told):
                    yield f"{what}, and nobody was told\n{state.story(recording, max(0, state.point - 30))}"

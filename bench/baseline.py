"""A stored baseline for single functions that holds on other machines: times as multiples of a calibration's.

The calibration is a fixed mixture of what the hot path is made of (calls, attributes, dicts, an encoder, a checksum),
measured in the same run, right before the function. Least times count: what disturbs only ever adds. Pure but for the
file it is told to read or write.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Final

import google_crc32c
import ormsgpack

TOLERATED: Final = 1.35
"""How many times slower than the baseline a function may be."""

_CALIBRATIONS: Final = 60
_LOOPS: Final = 400


class _Thing:
    __slots__ = ("row",)

    def __init__(self, row: list[object]) -> None:
        self.row = row


def calibration_seconds() -> float:
    """The least time of the mixture."""
    return min(_time_mixture() for _ in range(_CALIBRATIONS))


def _time_mixture() -> float:
    image = {"sku": "12-000345", "name": "anvil", "stock": 17, "version": 3}
    start = time.perf_counter()
    kept = {}
    for number in range(_LOOPS):
        thing = _Thing([number, image, None])
        kept[number & 63] = thing.row[0]
        google_crc32c.value(ormsgpack.packb(thing.row))
    return time.perf_counter() - start


def read_baseline(path: Path) -> dict[str, float]:
    """Multiples by the functions' names; empty where there is no file."""
    if not path.exists():
        return {}
    content: dict[str, float] = json.loads(path.read_text())
    return content


def write_baseline(path: Path, multiples: dict[str, float]) -> None:
    """Store multiples, those of other functions kept."""
    content = {**read_baseline(path), **{name: round(multiple, 4) for name, multiple in multiples.items()}}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")


def slower(baseline: dict[str, float], multiples: dict[str, float]) -> list[str]:
    """What is slower than is tolerated, in words; also what the baseline does not know."""
    found = []
    for name, multiple in sorted(multiples.items()):
        before = baseline.get(name)
        if before is None:
            found.append(f"{name}: not in the baseline; measured {multiple:.3f}")
        elif multiple > before * TOLERATED:
            found.append(f"{name}: {multiple:.3f} times the calibration, baseline {before:.3f}")
    return found

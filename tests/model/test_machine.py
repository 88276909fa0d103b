"""A store does what its model does, whatever is done to it, in whatever order."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest
from tests.model.machine import LONG, SHORT, run
from tests.support.tally import Figure, Tally

DONE: Final = (
    "appends",
    "changes of shards",
    "copies",
    "damage",
    "expired",
    "full faults",
    "interrupt faults",
    "kill faults",
    "kills",
    "power cuts",
    "repairs",
    "unsynced faults",
)
"""What a run must have come to, or it proves little."""


def test_a_store_does_what_its_model_does(tally: Tally) -> None:
    """Streams, appends, shards, expiry, copies, crashes, damage and repairs: every promise is kept all along."""
    _report(run(SHORT), tally)


@pytest.mark.torture
def test_a_store_does_what_its_model_does_for_long(tally: Tally, seed: int) -> None:
    """The same, many times, and longer."""
    _report(run(LONG, seed_of_run=seed), tally)


def _report(counts: Counter[str], tally: Tally) -> None:
    print(", ".join(f"{what} {count}" for what, count in sorted(counts.items())))
    missing = [what for what in DONE if not counts[what]]
    assert not missing, f"never came to {missing}"
    tally.add(Figure.EXAMPLES, number=counts["examples"])

"""The whole machine, and how it is run: the short form always in the same way, the long one from a printed seed on."""

from __future__ import annotations

from collections import Counter
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.model.base import NO_SITES
from tests.model.crashing import Crashing
from tests.model.damaging import Damaging
from tests.model.reading import Reading
from tests.model.sharding import Sharding
from tests.model.writing import Writing

from shardlog.files.protocol import Site

_COMMON: Final = settings(
    database=None,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
SHORT: Final = settings(_COMMON, derandomize=True, max_examples=130, stateful_step_count=30)
LONG: Final = settings(_COMMON, max_examples=4000, stateful_step_count=60)
CONTROL: Final = settings(SHORT, max_examples=600, phases=[Phase.generate])
"""A failure is looked for, and not made small."""


class StoreMachine(Writing, Sharding, Reading, Crashing, Damaging):
    """A store through everything that may happen to it."""


def run(profile: settings, *, seed_of_run: int | None = None, skipped: frozenset[Site] = NO_SITES) -> Counter[str]:
    """Run the machine; what was done. `skipped` syncs are left out. Raises what was found."""
    counts: Counter[str] = Counter()

    def new_machine() -> StoreMachine:
        return StoreMachine(counts, skipped)

    if seed_of_run is not None:
        seed(seed_of_run)(new_machine)
    run_state_machine_as_test(new_machine, settings=profile)  # type: ignore[arg-type]  # any function that makes one
    return counts

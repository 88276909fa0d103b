from __future__ import annotations

from typing import Final

import pytest
from tests.faults.tally import Tally

_TALLY: Final = pytest.StashKey[Tally]()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> Tally:
    """The figures of the whole run; they are printed at its end."""
    return request.config.stash.setdefault(_TALLY, Tally())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how much was tried."""
    tally = terminalreporter.config.stash.get(_TALLY, None)
    if tally is not None and (lines := tally.lines()):
        terminalreporter.section("faults")
        for line in lines:
            terminalreporter.line(line)

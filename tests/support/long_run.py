"""Prints what a run tried at its end, and fails a long run that proves too little."""

from __future__ import annotations

import pytest
from tests.support.tally import Run, shortfalls, summary, whole_summary


class Summary:
    """A plugin. `is_long`: all long forms and controls run, and so much is expected of them if none was left out."""

    def __init__(self, is_long: bool) -> None:
        self._is_long = is_long
        self._run = Run()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in what one phase of a test led to."""
        self._run.take(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A long run that proves too little has failed."""
        if session.exitstatus == pytest.ExitCode.OK and self._shortfalls(session.config):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary, if there is anything to tell."""
        lines = whole_summary(self._run) if self._is_long else summary(self._run)
        if not lines:
            return
        terminalreporter.section("tried")
        for line in lines:
            terminalreporter.line(line)
        for line in self._shortfalls(terminalreporter.config):
            terminalreporter.line(f"NOT ENOUGH: {line}", red=True)

    def _shortfalls(self, config: pytest.Config) -> list[str]:
        is_whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.getoption("keyword")
        return shortfalls(self._run) if self._is_long and is_whole else []

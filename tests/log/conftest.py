from __future__ import annotations

from pathlib import Path

import pytest
from tests.log.logs import Log, long_log, short_log


@pytest.fixture(scope="session")
def _short(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return short_log(tmp_path_factory.mktemp("short") / "store")


@pytest.fixture(scope="session")
def _long(tmp_path_factory: pytest.TempPathFactory) -> Log:
    return long_log(tmp_path_factory.mktemp("long") / "store")


@pytest.fixture
def short(_short: Log, tmp_path: Path) -> Log:
    """One segment of five commits, of one's own to edit."""
    return _short.copy_to(tmp_path / "short")


@pytest.fixture
def long(_long: Log, tmp_path: Path) -> Log:
    """Four segments, of one's own to edit."""
    return _long.copy_to(tmp_path / "long")

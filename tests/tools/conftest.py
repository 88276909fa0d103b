from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.tools.commands import Outcome

from shardlog_tools.main import main

REAL_CHANGES = Path(__file__).resolve().parents[3] / "shared/data/file-changes.jsonl.gz"


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Outcome]:
    """Runs a command within this process."""

    def run(*words: object) -> Outcome:
        capfdbinary.readouterr()
        status = main([str(word) for word in words])
        data, talk = capfdbinary.readouterr()
        return Outcome(status, data.decode(), talk.decode())

    return run


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "store"


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[bytes], None]]:
    """Gives this process a stdin that is no terminal."""
    with ExitStack() as opened:

        def give(content: bytes) -> None:
            path = tmp_path / "stdin"
            path.write_bytes(content)
            monkeypatch.setattr(sys, "stdin", opened.enter_context(path.open(encoding="utf-8")))

        yield give


@pytest.fixture(scope="session")
def real_changes() -> Path:
    """The real changes that lie beside the checkout of whoever has them."""
    if not REAL_CHANGES.exists():
        pytest.skip("the real changes are not here")
    return REAL_CHANGES

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.check.damage import Original, one_segment, original_of, three_segments

from shardlog.testing.images import materialise, scratch_directory


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A directory in memory."""
    with scratch_directory() as path:
        yield Path(path)


@pytest.fixture(scope="session")
def small(scratch: Path) -> Original:
    """A store of three segments."""
    return original_of(scratch / "small", three_segments)


@pytest.fixture(scope="session")
def tiny(scratch: Path) -> Original:
    """A store of one segment."""
    return original_of(scratch / "tiny", one_segment)


@pytest.fixture
def place(scratch: Path) -> Path:
    """Where a damaged store is put."""
    return scratch / "place"


@pytest.fixture
def path(small: Original, place: Path) -> Path:
    """A store of three segments, to be damaged."""
    materialise(small.image, str(place))
    return place

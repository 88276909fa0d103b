"""Rows are kept decoded in memory; what a transaction wrote and did not commit is never seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from shardlog.consumer.environment import Consumers, Rows, open_consumers
from shardlog.files.posix import PosixFiles
from shardlog.format.lease import LeaseRow

ROW = LeaseRow("worker", 7, 3, 2, 1, 5, False, None)


def test_a_moved_checkpoint_changes_nothing_else() -> None:
    """The fast way to move it is the same as `replace`."""
    assert ROW.at(9) == replace(ROW, checkpoint=9)


def test_what_was_rolled_back_is_not_seen(tmp_path: Path) -> None:
    """An interrupted transaction leaves the row as it was, in memory too."""
    consumers = open_consumers(PosixFiles(), str(tmp_path), 1.0)
    try:
        consumers.update(lambda rows: rows.put_lease("g", "s", ROW))

        def interrupted(rows: Rows) -> None:
            rows.put_lease("g", "s", ROW.at(9))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            consumers.update(interrupted)
        assert _lease(consumers) == ROW
        consumers.update(lambda rows: rows.put_lease("g", "s", ROW.at(6)))
        assert _lease(consumers) == ROW.at(6)
    finally:
        consumers.close()


def _lease(consumers: Consumers) -> LeaseRow | None:
    with consumers.read() as rows:
        return rows.lease("g", "s")

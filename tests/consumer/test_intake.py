"""What a worker reads ahead, gathers and delivers, and what it does about damage and what has expired."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from tests.consumer.sources import ListedSource, lease, sequences

from shardlog.consumer import intake as intake_module
from shardlog.consumer.coordinator import Held
from shardlog.consumer.intake import Intake
from shardlog.errors import CorruptLog

SECOND = 1_000_000


def intake_of(source: ListedSource, records_max: int = 10, wait_us: int = SECOND, on_damage: Any = "raise") -> Intake:
    """What reads `source`."""
    return Intake(source, records_max, wait_us, on_damage)  # type: ignore[arg-type]  # all that it asks for is there


def delivered(intake: Intake, now_us: int = 0, at_once: bool = True) -> list[tuple[str, list[int]]]:
    """Everything that there is, as a worker that never waits gets it."""
    found = []
    while True:
        ready = intake.ready(now_us, at_once)
        if ready is None:
            intake.read(now_us)
            ready = intake.ready(now_us, at_once)
        if ready is None:
            return found
        found.append((ready[0].shard_id, sequences(ready[1])))


def test_each_shard_has_its_records_from_its_checkpoint_on() -> None:
    """One pass over the log for all of them; shards of others are left out."""
    source = ListedSource(("a", [1, 2]), ("b", [3]), ("x", [4]), ("a", [5]), ("b", [6, 7]))
    intake = intake_of(source)
    intake.follow([lease("a", 2), lease("b", 4)])
    assert delivered(intake) == [("a", [2, 5]), ("b", [6, 7])]
    assert source.readers == 1
    source.log.append(("a", [8]))
    assert delivered(intake) == [("a", [8])]
    assert source.readers == 1
    assert intake.is_idle


def test_records_are_gathered_for_so_long_at_most() -> None:
    """A full batch comes at once, the rest when the first of it has waited; a shard that ended waits for nothing."""
    source = ListedSource(("a", [1, 2, 3]))
    intake = intake_of(source, records_max=2)
    intake.follow([lease("a")])
    intake.read(0)
    assert sequences(intake.ready(0, at_once=False)[1]) == [1, 2]  # type: ignore[index]  # it is there
    assert intake.ready(SECOND - 1, at_once=False) is None
    assert intake.next_due_us() == SECOND
    assert sequences(intake.ready(SECOND, at_once=False)[1]) == [3]  # type: ignore[index]
    assert intake.next_due_us() is None
    intake.read(SECOND)
    source.log.append(("a", [4]))
    intake.read(2 * SECOND)
    assert intake.ready(2 * SECOND, at_once=False) is None
    assert intake.drained({"a": 5}) == []
    assert intake.ready(2 * SECOND, at_once=False) is not None


def test_what_ended_waits_for_nothing_on_a_machine_that_just_started() -> None:
    """The time that it is given as having waited since lies before any clock's beginning."""
    intake = intake_of(ListedSource(("a", [1])))
    intake.follow([lease("a")])
    intake.read(0)
    intake.drained({"a": 2})
    assert intake.ready(0, at_once=False) is not None


def test_the_shard_that_waited_longest_comes_first() -> None:
    """No shard starves because another one always has a full batch."""
    source = ListedSource(("a", [1]), ("b", [2, 3]))
    intake = intake_of(source, records_max=2)
    intake.follow([lease("a"), lease("b")])
    intake.read(0)
    source.log.append(("b", [4, 5]))
    assert intake.ready(SECOND, at_once=False)[0].shard_id == "a"  # type: ignore[index]


def test_nothing_is_read_behind_a_full_batch() -> None:
    """It ends with the commit that filled it; the next is read when that was delivered."""
    source = ListedSource(*(("a", [number]) for number in range(1, 100)))
    intake = intake_of(source, records_max=5)
    intake.follow([lease("a")])
    for batch in range(1, 4):
        intake.read(0)
        intake.read(0)
        assert intake.ready(0, at_once=False) is not None
        assert source.batches_read <= 5 * batch + 1


def test_no_more_is_read_ahead_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the commit in hand, over all shards together; then the oldest comes without waiting, and reading goes on."""
    monkeypatch.setattr(intake_module, "PREFETCH_BYTES_MAX", 1000)
    source = ListedSource(*(("ab"[number % 2], [number]) for number in range(1, 100)))
    intake = intake_of(source, records_max=1000, wait_us=3600 * SECOND)
    intake.follow([lease("a"), lease("b")])
    for _ in range(3):
        intake.read(0)
    assert source.batches_read == 10
    assert intake.ready(0, at_once=False) is not None
    intake.read(0)
    assert source.batches_read == 15
    assert intake.ready(0, at_once=False) is not None


def test_everything_before_damage_is_delivered_and_then_it_is_raised() -> None:
    """Without waiting for more, and again whenever it is asked for more."""
    source = ListedSource(("a", [1]), ("b", [2]), ("damage", [3]), ("a", [4]))
    intake = intake_of(source, wait_us=3600 * SECOND)
    intake.follow([lease("a"), lease("b")])
    intake.read(0)
    found = {ready[0].shard_id for ready in (intake.ready(0, at_once=False), intake.ready(0, at_once=False)) if ready}
    assert found == {"a", "b"}
    for _ in range(2):
        with pytest.raises(CorruptLog):
            intake.read(0)


def test_damage_that_concerns_nobody_any_more_is_not_raised() -> None:
    """The lease went to another worker, and what is read now lies behind it."""
    source = ListedSource(("a", [1]), ("damage", [2]), ("b", [3]))
    intake = intake_of(source)
    intake.follow([lease("a")])
    intake.read(0)
    intake.follow([lease("b", 3)])
    assert delivered(intake) == [("b", [3])]


def test_a_gap_is_logged_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    """With on_damage="gap"."""
    intake = intake_of(ListedSource(("a", [1]), ("damage", [2, 3]), ("a", [4])), on_damage="gap")
    intake.follow([lease("a")])
    assert delivered(intake) == [("a", [1, 4])]
    assert "skipped records from 2 to 4" in caplog.text


@pytest.mark.parametrize("is_late", [False, True])
def test_what_has_expired_is_skipped_with_a_warning(is_late: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Whether it expired before the worker began, where nobody was told, or while it was behind."""
    source = ListedSource(("a", [1]), ("a", [2, 3]), ("a", [4]))
    intake = intake_of(source)
    if is_late:
        intake.follow([lease("a")])
    source.trim_horizon = 4
    with caplog.at_level(logging.WARNING):
        intake.follow([lease("a")])
        assert delivered(intake) == [("a", [4])]
    assert "shard a: what it had from 1 to 4 (exclusive) expired before it was consumed" in caplog.text
    assert len(caplog.records) == 1


def test_nothing_is_delivered_of_a_lease_that_goes() -> None:
    """One that another worker asks for or has by now, also if that came up after the lease was looked at."""
    for attribute in ("is_wanted", "is_lost"):
        intake = intake_of(ListedSource(("a", [1]), ("b", [2])))
        held = lease("a")
        intake.follow([held, lease("b")])
        intake.read(0)
        setattr(held, attribute, True)
        assert intake.ready(0, at_once=True) is None
        assert held.is_settled
        intake.follow([held, lease("b")])
        assert delivered(intake) == [("b", [2])]


def test_a_lease_that_stays_after_all_goes_on_where_it_was() -> None:
    """Who asked for it went away: what is in the program's hands does not come again.

    It did, though the lease was held all the time.
    """
    source = ListedSource(("a", [1]), ("a", [2]))
    intake = intake_of(source, records_max=1)
    held = lease("a")
    intake.follow([held])
    intake.read(0)
    assert intake.ready(0, at_once=True) is not None
    held.is_wanted = True
    intake.follow([held])
    assert not held.is_settled
    held.is_wanted = False
    intake.follow([held])
    assert not held.is_settled
    assert delivered(intake) == [("a", [2])]


def test_a_new_iteration_begins_with_what_was_left_outstanding() -> None:
    """And with nothing outstanding."""
    source = ListedSource(("a", [1]), ("a", [2]))
    held = lease("a")
    for _ in range(2):
        intake = intake_of(source)
        intake.follow([held])
        assert held.is_settled
        assert delivered(intake) == [("a", [1, 2])]
        assert not held.is_settled


def test_a_lease_taken_later_begins_at_its_checkpoint() -> None:
    """The log is read again from there on, and nothing comes twice of the others; a later one costs nothing."""
    source = ListedSource(("a", [1]), ("b", [2]), ("a", [3]))
    intake = intake_of(source)
    a = lease("a")
    intake.follow([a])
    assert delivered(intake) == [("a", [1, 3])]
    intake.follow([a, lease("b")])
    assert delivered(intake) == [("b", [2])]
    assert source.readers == 2
    intake.follow([a, *intake._begun, lease("c", 4)])
    source.log.append(("c", [4]))
    assert delivered(intake) == [("c", [4])]
    assert source.readers == 2


def test_idle_shards_are_not_read_again() -> None:
    """The log was read for them up to its end: a lease that comes later reads from its own checkpoint."""
    source = ListedSource(*(("a", [number]) for number in range(1, 50)), ("b", [50]))
    intake = intake_of(source, records_max=100)
    idle, busy = lease("idle"), lease("a")
    intake.follow([idle, busy])
    delivered(intake)
    read = source.batches_read
    intake.follow([idle, busy, lease("b", 50)])
    assert delivered(intake) == [("b", [50])]
    assert source.batches_read == read + 1


def test_a_shard_is_drained_when_all_of_it_was_checkpointed() -> None:
    """Delivered is not enough, nor is the end of what was read before the shard's end."""
    source = ListedSource(("a", [1]), ("b", [2]))
    intake = intake_of(source)
    a, b = lease("a"), lease("b")
    assert intake.drained({"a": 2}) == []
    intake.follow([a, b])
    assert intake.drained({"a": 2}) == []
    delivered(intake)
    assert intake.drained({"a": 2}) == []
    a.next_sequence = 2
    assert intake.drained({"a": 2}) == [a]
    assert intake.drained({"a": 9}) == []
    assert intake.drained({}) == []


def test_without_leases_nothing_is_read() -> None:
    """And nothing waits."""
    source = ListedSource(("a", [1]))
    intake = intake_of(source)
    intake.follow([])
    intake.read(0)
    assert intake.is_idle
    intake.follow([lease("a")])
    intake.follow([])
    intake.read(0)
    assert (intake.is_idle, source.batches_read) == (True, 0)


def test_delivering_is_noted_before_the_lease_is_looked_at() -> None:
    """A cycle says that a lease is wanted, and hands it over in a later one if nothing is outstanding then.

    Looked at first, a lease could be handed over between the look and the note, and its next records came twice.
    """
    held = lease("a")
    noted: list[int] = []

    class Watched(Held):
        @property
        def is_wanted(self) -> bool:  # type: ignore[override]  # looks like the field
            noted.append(self.delivered_next)
            return False

        @is_wanted.setter
        def is_wanted(self, _: bool) -> None:
            pass

    watched = Watched("a", held.fence, 1, 1)
    assert watched.delivers(5)
    assert noted == [5]
    held.is_lost = True
    assert not held.delivers(5)
    assert held.delivered_next == 1

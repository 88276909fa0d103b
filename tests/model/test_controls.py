"""Controls: a store that breaks a promise is found out by the machine, and so is a model that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.model.machine import CONTROL, run
from tests.model.plain import Broken
from tests.model.reference import StreamModel
from tests.support.tally import Figure, Tally

import shardlog
from shardlog import ShardlogError
from shardlog.check import Report
from shardlog.files.protocol import Site
from shardlog.format.record import StoredBatch
from shardlog.log.mark_file import MarkFile
from shardlog.stream import retention
from shardlog.stream.plan import Planner
from shardlog.stream.state import StreamState

pytestmark = pytest.mark.control("state machine")

Mutation = Callable[[pytest.MonkeyPatch], None]


def loses_a_record(patch: pytest.MonkeyPatch) -> None:
    """Of a batch of two the last one is not read."""
    records = StoredBatch.records
    patch.setattr(
        StoredBatch, "records", lambda batch, first, end: records(batch, first, end)[: 1 if batch.count == 2 else None]
    )


def forgets_positions(patch: pytest.MonkeyPatch) -> None:
    """No append is taken for a duplicate."""
    settle = Planner._settle_producer

    def never_a_duplicate(planner: Planner, request: Any) -> Any:
        found = settle(planner, request)
        return None if found is not None and getattr(found, "duplicate", False) else found

    patch.setattr(Planner, "_settle_producer", never_a_duplicate)


def routes_to_a_neighbour(patch: pytest.MonkeyPatch) -> None:
    """Every record goes to the shard of the lowest hashes."""
    patch.setattr(StreamState, "shard_of_digest", lambda state, _: state.open_shards[0].number)


def expires_too_early(patch: pytest.MonkeyPatch) -> None:
    """One segment more goes than is old enough."""
    by_age = retention.expired_by_age
    patch.setattr(
        retention,
        "expired_by_age",
        lambda ages, kept, now_us: min(len(ages), by_age(ages, kept, now_us) + (kept is not None)),
    )


def never_says_unsynced(patch: pytest.MonkeyPatch) -> None:
    """Level "os": the flag that makes numbers jump is not set."""
    patch.setattr(MarkFile, "set_unsynced", lambda mark, unsynced: None)


def checks_nothing(patch: pytest.MonkeyPatch) -> None:
    """The check finds every store in order."""
    patch.setattr(shardlog, "fsck", lambda path, deep=False: Report(str(path), (), (), True))


def models_another_routing(patch: pytest.MonkeyPatch) -> None:
    """A model that is wrong is told from the store, too."""
    patch.setattr(StreamModel, "shard_of", lambda model, _: model.state.open_shards[-1].shard_id)


MUTATIONS: dict[Mutation, str] = {
    loses_a_record: "there is only a part",
    forgets_positions: "duplicate=False",
    routes_to_a_neighbour: "appended was|changed their order",
    checks_nothing: "the check finds nothing|the check tells of",
    models_another_routing: "appended was|changed their order",
}
RARE_MUTATIONS: dict[Mutation, str] = {
    expires_too_early: "expired too early",
    never_says_unsynced: "was told",
}
"""It takes many examples to come to what they break."""
SITES = (Site.COMMIT, Site.LOG_SYNC, Site.STREAM_ENTRY)
RARE_SITES = (Site.SEGMENT_ENTRY, Site.SEGMENT_SEALED)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_promise_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """The machine finds what is wrong with the engine, or with the model."""
    _expect_found(mutation, MUTATIONS[mutation], monkeypatch, tally)


@pytest.mark.torture
@pytest.mark.parametrize("mutation", RARE_MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_rarely_broken_promise_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """The same, where it takes longer."""
    _expect_found(mutation, RARE_MUTATIONS[mutation], monkeypatch, tally)


@pytest.mark.parametrize("site", SITES, ids=str)
def test_a_sync_that_is_left_out_is_found(site: Site, tally: Tally) -> None:
    """A power cut takes what was promised."""
    _expect_lost(site, tally)


@pytest.mark.torture
@pytest.mark.parametrize("site", RARE_SITES, ids=str)
def test_a_rare_sync_that_is_left_out_is_found(site: Site, tally: Tally) -> None:
    """The same, where it takes longer."""
    _expect_lost(site, tally)


def _expect_found(mutation: Mutation, found: str, patch: pytest.MonkeyPatch, tally: Tally) -> None:
    mutation(patch)
    with pytest.raises(Broken, match=found):
        run(CONTROL)
    tally.add(Figure.LOSSES_OF_CONTROLS)


def _expect_lost(site: Site, tally: Tally) -> None:
    with pytest.raises((Broken, ShardlogError)):
        run(CONTROL, skipped=frozenset({site}))
    tally.add(Figure.LOSSES_OF_CONTROLS)

"""Every sync is needed: without it, some power cut breaks a promise.

For each site the workload in which it is left out, and a word of what is found broken then.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from tests.crash.damage import unseen_damage
from tests.crash.exploration import Plan, explore
from tests.crash.rig import record
from tests.crash.workloads import BY_NAME
from tests.support.tally import Figure, Tally

from shardlog.files.protocol import Site
from shardlog.testing.crash_states import Strategy

DAMAGE_STATES = 120


class Proof(NamedTuple):
    """Leaving the sync out of a workload shows as a violation that says `found`."""

    workload: str
    found: str


PROOFS = {
    Site.STORE_IDENTITY: Proof("birth", "expected a store's identity"),
    Site.STORE_ENTRY: Proof("birth", "the stream is gone"),
    Site.STREAM_MARK: Proof("rolls, fsync", "and nothing was ever unsynced"),
    Site.STREAM_ENTRIES: Proof("birth", "it does not open or read"),
    Site.STREAM_ENTRY: Proof("birth", "the stream is gone"),
    Site.STREAM_REMOVED: Proof("endings, fsync", "and nothing was ever unsynced"),
    Site.SEGMENT_HEADER: Proof("rolls, fsync", "of a segment header, found"),
    Site.SEGMENT_ENTRY: Proof("rolls, fsync", "expected at least one segment, found none"),
    Site.SEGMENT_REMOVED: Proof("interrupted roll", "acknowledged as durable, and is gone"),
    Site.SEGMENT_SEALED: Proof("rolls, os", "CorruptLog"),
    Site.COMMIT: Proof("appends, fsync", "that data was durable there is told by"),
    Site.COMMIT_CANCELLED: Proof("refused", "was refused, and shows"),
    Site.LOG_SYNC: Proof("level os", "that data was durable there is told by"),
    Site.MARK_UNSYNCED: Proof("level os", "was given to a new record"),
    Site.FOUND_ENTRIES: Proof("unsynced names", "the stream is gone"),
    Site.ADOPTED: Proof("seen before synced, fsync", "acknowledged as durable, and is gone"),
    Site.LOST_AND_FOUND: Proof("torn tails", "a manifest in lost+found is not what was written"),
    Site.LOST_AND_FOUND_ENTRY: Proof("torn tails", "bytes set aside in"),
}

WITNESSES = {Site.MARK_POSITION: "rolls, fsync"}
"""Syncs without which no record is lost, but damage to records on top of a power cut would go unseen."""


@pytest.mark.whole
def test_every_site_is_proven() -> None:
    """A new sync needs a proof that it is needed."""
    assert PROOFS.keys() | WITNESSES.keys() == set(Site)


@pytest.mark.control("sync sites")
@pytest.mark.parametrize("site", PROOFS, ids=lambda site: site.name)
def test_without_the_sync_something_is_lost(site: Site, tally: Tally) -> None:
    """The power cut that the sync is there for is found."""
    proof = PROOFS[site]
    found = explore([record(BY_NAME[proof.workload], frozenset({site}))], Plan(stops_at_failure=True)).failures
    assert found, f"nothing is lost without the sync of {site.name}: it can go, or the oracle misses something"
    assert proof.found in found[0].partition("\n    ")[0]
    tally.add(Figure.SITES)


@pytest.mark.control("sync sites")
@pytest.mark.parametrize("site", WITNESSES, ids=lambda site: site.name)
def test_without_the_sync_damage_goes_unseen(site: Site, tally: Tally) -> None:
    """Damage to what the sync witnesses is told with it, and not without it."""
    workload = BY_NAME[WITNESSES[site]]
    assert not [*unseen_damage(record(workload), Strategy(), DAMAGE_STATES)]
    assert [*unseen_damage(record(workload, frozenset({site})), Strategy(), DAMAGE_STATES)]
    tally.add(Figure.SITES)

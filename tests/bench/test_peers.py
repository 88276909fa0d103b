"""Every peer that is installed keeps what it was told to; one that is not is named."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from bench.peers import OFFERS, Offer, reading_makers, skipped

from shardlog_tools.measuring.changes import change_commits

_COMMITS = change_commits(10)[:3]


@pytest.mark.parametrize("offer", OFFERS, ids=lambda offer: offer.name)
def test_a_peer_commits_and_says_how(offer: Offer, tmp_path: Path) -> None:
    """It has the name that it is offered by, and says how durable it is."""
    if offer.lacks:
        pytest.skip(f"{offer.lacks} is not installed")
    with closing(offer.make(str(tmp_path))) as peer:
        assert peer.name == offer.name
        assert peer.setting
        for changes in _COMMITS:
            peer.commit(changes)


@pytest.mark.parametrize("number", range(len(reading_makers())))
def test_a_peer_reads_back_what_it_was_given(number: int, tmp_path: Path) -> None:
    """All of it, in order, decoded as it was."""
    with closing(reading_makers()[number](str(tmp_path))) as peer:
        for changes in _COMMITS:
            peer.commit(changes)
        given = [change for changes in _COMMITS for change in changes]
        assert peer.count_raw() == peer.count_decoded() == len(given)
        for sequence, change in enumerate(given, 1):
            found = peer.find(sequence)
            assert (found.keys, found.new, found.old) == (change.keys, change.new, change.old)  # type: ignore[attr-defined]


def test_a_peer_that_is_not_installed_is_named_with_what_it_lacks() -> None:
    """And not tried."""
    offer = Offer("Nothing", lambda directory: pytest.fail("it was made"), ("no_such_package",), ("no-such-program",))
    assert offer.lacks == "the package no_such_package and the program no-such-program"
    assert set(skipped()) == {offer.name for offer in OFFERS if offer.lacks}

"""The power is cut while a stream is copied: the copy is not there, or it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest
from tests.crash.exploration import FIRST_APPEND_AFTER
from tests.crash.reshaping import split
from tests.crash.rig import LARGE, Recorded, Rig, Workload, new_stream, record
from tests.support.tally import Figure, Tally

from shardlog.files.protocol import Site
from shardlog.options import Durability
from shardlog.testing.crash_states import Strategy, crash_states
from shardlog.testing.images import scratch_directory
from shardlog.testing.journal import STORE, catalogue_of
from shardlog.testing.operations import Image, Marked
from shardlog.testing.oracle import Probe, observe, producers_of, violations
from shardlog.testing.promises import Copied, Copying, promises_at

COPY = "copy"
HARNESS = "crash states of copies and repairs"
SITES = (Site.SEGMENT_HEADER, Site.STORE_IDENTITY, Site.STREAM_ENTRIES, Site.STORE_ENTRY)


def copied_in_use(rig: Rig, durability: Durability) -> None:
    """A stream of some segments, of which one has expired, is copied; then it goes on."""
    journal = rig.journal
    journal.open()
    key = new_stream(rig, durability=durability)
    journal.append(key, 5, payload=LARGE, producer="one", position=1)
    rig.clock.advance(timedelta(hours=25))
    journal.append(key, 5, payload=LARGE)
    journal.change(key, lambda stream: stream.expire(force=True))
    journal.change(key, lambda stream: split(stream, 0))
    journal.append(key, 4, payload=LARGE, producer="one", position=2)
    journal.append(key, 3)
    journal.snapshot(key, COPY)
    journal.append(key, 6, payload=LARGE)
    journal.close()


def recorded(durability: Durability, *skipped: Site) -> Recorded:
    """What that does to a disk, with some syncs left out."""
    return record(Workload("copied in use", partial(copied_in_use, durability=durability)), frozenset(skipped))


def copy_in(image: Image) -> Image:
    """What there is of the copy under its name, as a disk of its own."""
    found = {
        STORE + path.removeprefix(COPY): content for path, content in image.items() if f"{path}/".startswith(f"{COPY}/")
    }
    return {"": None, **found} if found else {}


def broken_copies(subject: Recorded, tally: Tally) -> Iterator[str]:
    """What is wrong with the copies that power cuts leave, from the moment when copying began."""
    operations = subject.recording.operations
    began, done = (
        next(
            at
            for at, operation in enumerate(operations)
            if isinstance(operation, Marked) and isinstance(operation.mark, kind)
        )
        for kind in (Copying, Copied)
    )
    promises = promises_at(operations[:began])
    for append in promises.appends.values():
        append.is_durable = True  # at every level: a copy is synced
    catalogue = catalogue_of(subject.recording)
    probe = Probe(catalogue, producers_of(promises.appends.values()), FIRST_APPEND_AFTER, True, False, None)
    judged: set[tuple[int, bool]] = set()
    with scratch_directory() as root:
        for state in crash_states(subject.recording, Strategy(), began):
            is_promised = state.point > done
            image = copy_in(state.image)
            digest = hash(frozenset(image.items()))
            if (digest, is_promised) in judged:
                continue
            judged.add((digest, is_promised))
            tally.add(Figure.JUDGEMENTS, "copies")
            found = violations(promises, observe(image, root, probe), image) if image else []
            if is_promised and not image:
                found = ["the copy was made, and is gone"]
            if found:
                yield "\n".join([*found, state.story(subject.recording, began)])


@pytest.mark.whole
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_copy_is_whole_or_not_there(durability: Durability, tally: Tally) -> None:
    """It holds all that was appended before it was begun; once the call has returned, it stays."""
    found = [*broken_copies(recorded(durability), tally)]
    tally.add(Figure.LOSSES, "copies", len(found))
    assert not found, found[0]


@pytest.mark.control(HARNESS)
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_without_a_sync_a_copy_is_broken(site: Site, tally: Tally) -> None:
    """Each of these is needed for a copy, too."""
    assert next(broken_copies(recorded("fsync", site), tally), None)

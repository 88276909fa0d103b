"""Whether a store that was left by a crash keeps its promises.

`observe` puts an image into a directory and uses it with the real engine, as a program would after the crash: it opens
it, reads, appends, and before that or after it closes it, opens it and reads it again. `violations` holds what was seen
against what was promised at the point of the crash; that is pure, so an image is used once and judged at every point
that allows it.

An image may come with any index: LMDB's files do not go through the file layer and are never synced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from shardlog.errors import StreamDisabled
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Files
from shardlog.format import names
from shardlog.model import HASH_RANGE_END
from shardlog.stream.rolling import UNSYNCED_NUMBERS_MAX
from shardlog.testing.clock import ManualClock
from shardlog.testing.images import materialise
from shardlog.testing.journal import STORE, Catalogue, Journal, Sight, ignore
from shardlog.testing.operations import Image
from shardlog.testing.promises import AppendPromise, Number, Promises, StreamKey, StreamPromise

FRESH: Final = "fresh"
"""Name of a stream that is created after a crash, to see that the store takes one."""


@dataclass(frozen=True, slots=True)
class StreamObservation:
    """One stream after a crash: what each opening showed, the numbers of what was appended then, and what that led to.

    `error` is what stopped it. `leftover` are the files of the log and of lost+found after each opening.
    """

    error: str | None = None
    sights: tuple[Sight, ...] = ()
    leftovers: tuple[tuple[str, ...], ...] = ()
    appended: tuple[int, ...] = ()
    next_sequence: int = 0
    last: Sight | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """A store after a crash. `error`: it could not be opened, or took no new stream."""

    error: str | None
    streams: dict[StreamKey, StreamObservation]


@dataclass(frozen=True, slots=True)
class Probe:
    """How to use a store after a crash: opened again before anything is appended, or after it; `creates` a stream."""

    catalogue: Catalogue
    producers: tuple[str, ...]
    first_append: int
    reopens_first: bool
    creates: bool
    garbage: bytes | None
    """What is left in the index's directory; None: nothing."""


def observe(
    image: Image,
    root: str,
    probe: Probe,
    files_in: Callable[[str], Files] | None = None,
    mark: Callable[[object], None] = ignore,
) -> Observation:
    """Use what a crash left, in the directory `root`."""
    materialise({**image, **_index_files(image, probe.garbage)}, root)
    journal = Journal(
        files_in(root) if files_in else PosixFiles(),
        root,
        ManualClock(),
        mark,
        first_append=probe.first_append,
        known=probe.catalogue,
    )
    seen: dict[StreamKey, StreamObservation] = {}
    try:
        journal.open()
        _look_at_all(journal, probe, seen)
        if probe.reopens_first:
            journal.close()
            journal.open()
            _look_at_all(journal, probe, seen)
        _append_to_all(journal, probe, seen)
        journal.close()
        if not probe.reopens_first:
            journal.open()
            for key in journal.streams():
                if key in seen and seen[key].error is None:
                    seen[key] = replace(seen[key], last=journal.look(key, probe.producers))
            journal.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, no crash may lead to it
        return Observation(f"{type(error).__name__}: {error}", seen)
    finally:
        journal.abandon()
    return Observation(None, seen)


def _look_at_all(journal: Journal, probe: Probe, seen: dict[StreamKey, StreamObservation]) -> None:
    for key in journal.streams():
        before = seen.get(key, StreamObservation())
        if before.error is not None:
            continue
        try:
            sight = journal.look(key, probe.producers, is_settled=True)
        except Exception as error:  # noqa: BLE001 - likewise
            seen[key] = replace(before, error=f"{type(error).__name__}: {error}")
        else:
            seen[key] = replace(
                before,
                sights=(*before.sights, sight),
                leftovers=(*before.leftovers, _leftover(journal, key)),
            )


def _append_to_all(journal: Journal, probe: Probe, seen: dict[StreamKey, StreamObservation]) -> None:
    for key, observation in seen.items():
        if observation.error is not None:
            continue
        try:
            appended = tuple(journal.append(key).sequences)
        except StreamDisabled:
            appended = ()
        seen[key] = replace(observation, appended=appended, next_sequence=journal.stream(key).next_sequence)
    if probe.creates or not seen:
        if not any(key.name == FRESH for key in seen):
            journal.append(journal.create(FRESH, segment_bytes=16 << 10))


def _leftover(journal: Journal, key: StreamKey) -> tuple[str, ...]:
    path = f"{journal.path}/{names.STREAMS}/{key.name}/{key.label}"
    found = journal.files.names(f"{path}/{names.LOG}")
    if journal.files.exists(f"{path}/{names.LOST_AND_FOUND}"):
        found += journal.files.names(f"{path}/{names.LOST_AND_FOUND}")
    return tuple(sorted(found))


def _index_files(image: Image, garbage: bytes | None) -> dict[str, bytes]:
    if garbage is None:
        return {}
    return {
        f"{path}/data.mdb": garbage
        for path, content in image.items()
        if content is None and path.endswith("/" + names.INDEX)
    }


def violations(promises: Promises, observation: Observation, image: Image) -> list[str]:
    """What was promised and is not so, in words; empty where all is well."""
    found = [] if observation.error is None else [f"the store: {observation.error}"]
    for key, stream in promises.streams.items():
        seen = observation.streams.get(key)
        if seen is None:
            if observation.error is None and stream.phase not in ("deleting", "deleted"):
                found.append(f"{key.name}: the stream is gone")
        elif stream.phase == "deleted":
            found.append(f"{key.name}: the stream was deleted, and is back")
        else:
            appends = promises.of_stream(key)
            found += (f"{key.name}: {what}" for what in _stream_violations(stream, appends, seen))
    for key, seen in observation.streams.items():
        if key not in promises.streams:
            if key.name not in promises.creating:
                found.append(f"{key.name}: nobody created that stream")
            appends = promises.of_stream(key)
            begun = StreamPromise(promises.creating.get(key.name, "fsync"))
            found += (f"{key.name}: {what}" for what in _stream_violations(begun, appends, seen))
    return found + _missing_set_aside(promises, image)


def _stream_violations(
    stream: StreamPromise, appends: dict[int, AppendPromise], seen: StreamObservation
) -> Iterator[str]:
    if seen.error is not None:
        yield f"it does not open or read: {seen.error}"
        return
    yield from sight_violations(stream, appends, seen.sights[0])
    yield from _position_violations(appends, seen.sights[0])
    yield from _repetition_violations(stream, seen)


def sight_violations(stream: StreamPromise, appends: dict[int, AppendPromise], sight: Sight) -> Iterator[str]:
    """What one sight of a stream shows that breaks a promise."""
    yield from (f"a record that nobody appended: {record}" for record in sight.strange)
    yield from _number_violations(stream, appends, sight)
    yield from _append_violations(stream, appends, sight)
    if stream.looks and stream.phase == "existing" and sight.look not in stream.looks:
        yield f"it was {' or '.join(map(str, stream.looks))}, now it is {sight.look}"
    yield from _shard_violations(sight)
    if sight.checkpoint < stream.checkpoint:
        yield f"a consumer had come to {stream.checkpoint}, now it is at {sight.checkpoint}"
    if sight.checkpoint >= sight.next_sequence:
        yield f"a consumer is at {sight.checkpoint}, and the next record gets {sight.next_sequence}"


def _shard_violations(sight: Sight) -> Iterator[str]:
    """Open shards partition the range of hashes, and each record is in the shard that was open for it."""
    ranges = sorted(shard.hash_range for shard in sight.look.shards if shard.end_sequence is None)
    if sight.look.status == "ENABLED":
        bounds = [0, *(end for _, end in ranges)]
        if [first for first, _ in ranges] != bounds[:-1] or bounds[-1] != HASH_RANGE_END:
            yield f"open shards do not partition the range: {ranges}"
    shards = {shard.shard_id: shard for shard in sight.look.shards}
    for number, shard_id, hashed in zip(sight.numbers, sight.shards, sight.hashes, strict=True):
        shard = shards.get(shard_id)
        if shard is None or not shard.hash_range[0] <= hashed < shard.hash_range[1]:
            yield f"{number} went astray, to {shard}"
        elif number.sequence < shard.first_sequence or number.sequence >= (shard.end_sequence or number.sequence + 1):
            yield f"{number} is in a shard that was not open then, {shard}"


def _number_violations(stream: StreamPromise, appends: dict[int, AppendPromise], sight: Sight) -> Iterator[str]:
    """Numbers grow, and belong for ever to what they were once given to."""
    for one, other in pairwise(sight.numbers):
        if other.sequence <= one.sequence:
            yield f"sequence number {other.sequence} after {one.sequence}"
    for number in sight.numbers:
        given = stream.given.get(number.sequence)
        if given is not None and given != number:
            yield f"{given} was told to somebody, now it is {number}"
        append = appends.get(number.append)
        if append is None:
            yield f"{number} shows, which was never appended to this stream"
        elif append.numbers and number not in append.numbers:
            yield f"{append.numbers[number.place]} was acknowledged, now it is {number}"


def _append_violations(stream: StreamPromise, appends: dict[int, AppendPromise], sight: Sight) -> Iterator[str]:
    """What is durable is there, each append wholly or not at all, and none before which one is missing."""
    places: dict[int, list[tuple[str, int]]] = {}
    for given, shard in zip(sight.numbers, sight.shards, strict=True):
        places.setdefault(given.append, []).append((shard, given.place))
    first = {given.append: given.sequence for given in reversed(sight.numbers)}
    horizon, last = sight.look.trim_horizon, max([0, *first.values()])
    for number, append in appends.items():
        shown = places.get(number, [])
        if not shown:
            if append.numbers and append.numbers[0].sequence < horizon:
                continue  # expired
            if append.is_durable:
                yield f"append {number} was acknowledged as durable, and is gone: {append.numbers}"
            elif append.state == "acknowledged" and append.numbers and append.numbers[0].sequence < last:
                yield f"append {number} is gone, and later ones are there"
            continue
        if sorted(place for _, place in shown) != list(range(append.size)):
            yield f"append {number} of {append.size} records is there in part: {shown}"
        if any(one[0] == other[0] and one[1] > other[1] for one, other in pairwise(shown)):
            yield f"append {number} is out of order: {shown}"
        if append.state == "refused":
            yield f"append {number} was refused, and shows"
        others = [sequence for sequence, told in stream.given.items() if told.append != number]
        if append.state == "lost" and max([0, *others]) > first[number]:
            yield f"append {number} was lost, and shows before what was appended since"


def _position_violations(appends: dict[int, AppendPromise], sight: Sight) -> Iterator[str]:
    shown = {number.append for number in sight.numbers}
    expected: dict[str, int] = {}
    expired = {number for number, append in appends.items() if _is_expired(append, sight)}
    for number in (shown & appends.keys()) | expired:
        producer = appends[number].producer
        if producer is not None:
            expected[producer[0]] = max(expected.get(producer[0], 0), producer[1])
    for name, position in sight.positions:
        if position != expected.get(name) and position not in _unknown_positions(name, shown, appends, sight):
            yield f"the position of {name} is {position}, and the last of its records has {expected.get(name)}"


def _unknown_positions(name: str, shown: set[int], appends: dict[int, AppendPromise], sight: Sight) -> set[int]:
    """Of a producer's appends of which nobody was told: they may have been made, and have expired since."""
    if sight.look.trim_horizon == 1:
        return set()
    return {
        append.producer[1]
        for number, append in appends.items()
        if append.producer
        and append.producer[0] == name
        and append.state in ("in flight", "lost")
        and number not in shown
    }


def _is_expired(append: AppendPromise, sight: Sight) -> bool:
    return bool(append.numbers) and append.numbers[0].sequence < sight.look.trim_horizon


def _repetition_violations(stream: StreamPromise, seen: StreamObservation) -> Iterator[str]:
    """Opening again changes nothing; what is appended after a crash has new numbers, and stays."""
    before = seen.sights[0]
    for sight, leftover in zip(seen.sights[1:], seen.leftovers[1:], strict=True):
        if sight != before:
            yield f"opened again it differs: {_difference(before, sight)}"
        if leftover != seen.leftovers[0]:
            yield f"opened again its files differ: {seen.leftovers[0]}, now {leftover}"
    highest = max([0, *stream.given, *(number.sequence for number in before.numbers)])
    if seen.appended and min(seen.appended) <= highest:
        yield f"number {min(seen.appended)} was given to a new record, and {highest} had been used already"
    if stream.durability == "fsync" and before.next_sequence - highest > UNSYNCED_NUMBERS_MAX:
        yield f"numbers jump from {highest} to {before.next_sequence}, and nothing was ever unsynced"
    if seen.last is None:
        return
    after = seen.last.numbers[: len(before.numbers)]
    added = tuple(number.sequence for number in seen.last.numbers[len(before.numbers) :])
    if seen.last.strange or after != before.numbers or added != tuple(sorted(seen.appended)):
        yield f"after an append and a reopening it differs: {_difference(before, seen.last)}"
    if (seen.last.positions, seen.last.look) != (before.positions, before.look):
        yield f"after an append and a reopening it differs: {_difference(before, seen.last)}"
    if seen.next_sequence and seen.last.next_sequence != seen.next_sequence:
        yield f"a reopening after a close leads from number {seen.next_sequence} to {seen.last.next_sequence}"


def _difference(before: Sight, after: Sight) -> str:
    missing = sorted(set(before.numbers) - set(after.numbers))
    more = sorted(set(after.numbers) - set(before.numbers))
    rest = [(sight.positions, sight.look, sight.next_sequence, sight.strange) for sight in (before, after)]
    return f"missing {missing[:5]}, more {more[:5]}, {rest[0]} became {rest[1]}"


def _missing_set_aside(promises: Promises, image: Image) -> list[str]:
    """What recovery took out of a log is in lost+found, or still in its place."""
    missing = []
    for kept in promises.set_aside:
        segment = image.get(kept.segment) or b""
        in_place = segment[kept.offset : kept.offset + len(kept.content)] == kept.content
        key = next((key for key in promises.streams if f"/{key.name}/{key.label}/" in kept.file), None)
        is_wanted = key is None or promises.streams[key].phase not in ("deleting", "deleted")
        if is_wanted and not in_place and image.get(kept.file) != kept.content:
            missing.append(f"{len(kept.content)} bytes set aside in {kept.file} are gone")
    return missing


def producers_of(promises: Iterable[AppendPromise]) -> tuple[str, ...]:
    """The producers that took part."""
    return tuple(sorted({append.producer[0] for append in promises if append.producer}))


__all__ = ["STORE", "Number", "Observation", "Probe", "observe", "producers_of", "violations"]

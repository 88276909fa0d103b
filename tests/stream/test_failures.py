"""Errors of the disk, at each place where one can come: what they say, what is in the log then, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.background import Background
from tests.support.children import Channel, Children
from tests.support.faults import Fault, FaultyFiles, IndexFaults, Step, failing, no_room, open_with
from tests.support.history import Append, batch, changes, check_holds, new_stream, numbers

import shardlog
from shardlog import ShardlogError, StorageFailed, StorageFull, Store, Stream
from shardlog.files.protocol import Site
from shardlog.index.transaction import IndexWrite


@pytest.fixture
def files() -> FaultyFiles:
    """The files of `store`."""
    return FaultyFiles()


@pytest.fixture
def store(store_path: Path, files: FaultyFiles) -> Iterator[Store]:
    """A store whose disk fails on demand. Closing it may fail as well."""
    store = open_with(store_path, files)
    yield store
    files.faults.clear()
    try:
        store.close()
    except ShardlogError as error:
        print("close:", error)


def is_block(step: Step) -> bool:
    """Whether a step writes a commit."""
    return step.operation == "pwrite" and step.is_segment and step.content.startswith(b"SLOG\x01")


def is_commit_sync(step: Step) -> bool:
    """Whether a step syncs a commit."""
    return step.site is Site.COMMIT


def append_until(stream: Stream, what: Callable[[], object], who: str = "w") -> dict[Append, list[int]]:
    """Append until something is so; what was acknowledged."""
    acknowledged: dict[Append, list[int]] = {}
    for number in range(1000):
        if what():
            return acknowledged
        acknowledged[who, number] = stream.append(batch(who, number, 3)).sequences
    raise AssertionError("it never was")


def reopened(store: Store, store_path: Path) -> Store:
    """Close a store, whatever that says, and open it again with files that do not fail."""
    try:
        store.close()
    except ShardlogError as error:
        print("close:", error)
    return shardlog.open(store_path)


# No room


FULL: dict[str, tuple[Callable[[Step], bool], str]] = {
    "block": (is_block, "before"),
    "half of the block": (is_block, "half"),
    "whole block": (is_block, "after"),
    "unsynced flag": (lambda step: step.operation == "pwrite" and step.is_mark, "before"),
}


@pytest.mark.parametrize("place", FULL)
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_no_room_for_a_block_appends_nothing(
    store: Store, store_path: Path, files: FaultyFiles, place: str, durability: str
) -> None:
    """StorageFull: nothing is appended, no number or position is used, it stays so; with room, appends work again."""
    if place == "unsynced flag" and durability == "fsync":
        pytest.skip("MARK is written after publication there")
    stream = new_stream(store, shards=2, durability=durability)
    acknowledged = {("a", number): stream.append(batch("a", number, 3)).sequences for number in range(3)}
    stream.sync()
    wanted, when = FULL[place]
    fault = files.arm(wanted, no_room, when, times=4)  # type: ignore[arg-type]
    before = stream.next_sequence
    for _ in range(4):
        with pytest.raises(StorageFull, match="no space"):
            stream.append(batch("lost", 0, 3), producer="p", position=1)
        assert stream.next_sequence == before
        assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    assert fault.struck == 4
    assert stream.position("p") is None
    acknowledged["b", 0] = stream.append(batch("b", 0, 3), producer="p", position=1).sequences
    assert min(acknowledged["b", 0]) == before
    for _ in range(2):
        with reopened(store, store_path) as again:
            assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()


@pytest.mark.parametrize(
    "place",
    [
        lambda step: step.operation == "create" and step.is_new_segment,
        lambda step: step.operation == "allocate",
        lambda step: step.operation == "pwrite" and step.is_new_segment,
        lambda step: step.operation == "rename" and step.is_segment,
    ],
    ids=["create", "allocate", "header", "rename"],
)
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_no_room_for_a_new_segment_appends_nothing(
    store: Store, store_path: Path, files: FaultyFiles, durability: str, place: Callable[[Step], bool]
) -> None:
    """StorageFull while rolling: reads go on, nothing is appended, nothing is left behind; with room, it rolls."""
    stream = new_stream(store, durability=durability, shards=2)
    acknowledged = append_until(stream, lambda: stream.statistics().segments == 2)
    fault = files.arm(place, no_room, times=3)
    number = 0
    while not fault.struck:
        try:
            acknowledged["x", number] = stream.append(batch("x", number, 3)).sequences
        except StorageFull:
            break
        number += 1
    before = stream.next_sequence
    for _ in range(2):
        with pytest.raises(StorageFull):
            stream.append(batch("lost", 0, 3))
    assert stream.next_sequence == before
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    acknowledged |= append_until(stream, lambda: stream.statistics().segments == 4, "later")
    assert not list(store_path.glob("streams/s/*/log/*.tmp"))
    ids = [path.stem.split("-")[1] for path in sorted(store_path.glob("streams/s/*/log/*.seg"))]
    assert len(set(ids)) == len(ids) == 4
    for _ in range(2):
        with reopened(store, store_path) as again:
            assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()


def test_a_nearly_full_disk_gives_a_smaller_segment(
    store: Store, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new segment takes at most half of what is free; where not even the block fits, StorageFull says how much."""
    stream = new_stream(store)
    append_until(stream, lambda: stream.statistics().segments == 2)
    monkeypatch.setattr(FaultyFiles, "free_bytes", lambda self, path: 40_000)
    append_until(stream, lambda: stream.statistics().segments == 5, "more")
    monkeypatch.setattr(FaultyFiles, "free_bytes", lambda self, path: 1_000)
    with pytest.raises(StorageFull, match="1000 are free"):
        append_until(stream, lambda: False, "last")
    monkeypatch.undo()
    append_until(stream, lambda: stream.statistics().segments == 7, "again")


# A failed write


@pytest.mark.parametrize("when", ["before", "half", "after"])
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_write_that_fails_appends_nothing_that_comes_back(
    store: Store, store_path: Path, files: FaultyFiles, when: str, durability: str
) -> None:
    """EIO at the write: StorageFailed, and the block is taken back: it is not there, not even after reopening."""
    stream = new_stream(store, shards=2, durability=durability)
    acknowledged = {("a", number): stream.append(batch("a", number, 3)).sequences for number in range(3)}
    fault = files.arm(is_block, failing, when)  # type: ignore[arg-type]
    with pytest.raises(StorageFailed):
        stream.append(batch("lost", 0, 3))
    assert fault.struck == 1
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    for number in range(2):
        with reopened(store, store_path) as again:
            stream = again.stream("s")
            assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
            acknowledged["b", number] = stream.append(batch("b", number, 3)).sequences


def test_a_block_that_cannot_be_taken_back_is_of_unknown_outcome(
    store: Store, store_path: Path, files: FaultyFiles
) -> None:
    """No room, and then the cancelling fails, too: that is StorageFailed, and this process appends no more."""
    stream = new_stream(store)
    acknowledged = {("a", 0): stream.append(batch("a", 0, 3)).sequences}
    files.arm(is_block, no_room, "after")
    files.arm(lambda step: step.site is Site.COMMIT_CANCELLED, failing)
    with pytest.raises(StorageFailed, match="unknown"):
        stream.append(batch("lost", 0, 3))
    with pytest.raises(StorageFailed, match="open it again"):
        stream.append(batch("b", 0, 3))
    with reopened(store, store_path) as again:
        acknowledged["b", 0] = again.stream("s").append(batch("b", 0, 3)).sequences
        assert check_holds(again.stream("s"), acknowledged).keys() <= {*acknowledged, ("lost", 0)}


# A failed sync


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_failed_sync_stops_this_process(store: Store, store_path: Path, files: FaultyFiles, when: str) -> None:
    """EIO at fdatasync: this process appends no more (it does not try the sync again), and still reads.

    Opened again, the stream goes on in a new segment; nothing acknowledged is lost, no number is used for other data.
    """
    stream = new_stream(store, shards=2)
    acknowledged = {("a", number): stream.append(batch("a", number, 3)).sequences for number in range(3)}
    files.arm(is_commit_sync, failing, when)  # type: ignore[arg-type]
    with pytest.raises(StorageFailed):
        stream.append(batch("lost", 0, 3), producer="p", position=1)
    del files.steps[:]
    for _ in range(2):
        with pytest.raises(StorageFailed, match="open it again"):
            stream.append(batch("b", 0, 3))
    assert not [step for step in files.steps if step.operation in ("pwrite", "sync")]
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    segments = stream.statistics().segments
    for turn in range(2):
        with reopened(store, store_path) as again:
            stream = again.stream("s")
            assert stream.position("p") is None
            acknowledged["b", turn] = stream.append(batch("b", turn, 3)).sequences
            assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
            assert stream.statistics().segments == segments + 1


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_number_told_after_a_failed_sync_is_not_given_again(
    store: Store, store_path: Path, files: FaultyFiles, is_killed: bool
) -> None:
    """An iterator taken at LATEST between the failure and the reopening misses nothing that is appended after it.

    The failed commit's numbers were skipped in the index only, which nobody keeps: they came again after a reopening,
    behind the back of whoever had been told that they were over.
    """
    stream = new_stream(store)
    stream.append(changes(0, 1))
    files.arm(is_commit_sync, failing)
    with pytest.raises(StorageFailed):
        stream.append(changes(1, 5))
    told = stream.next_sequence
    iterator = stream.iterator(stream.describe().shards[0].shard_id, "LATEST")
    if is_killed:
        files.arm(lambda step: step.is_mark, failing, times=1 << 30)  # nothing of what a close writes comes about
    with reopened(store, store_path) as again:
        stream = again.stream("s")
        assert stream.append(changes(9, 1)).sequences[0] >= told
        assert numbers(stream.get_records(iterator).records) == [9]
        last = stream.next_sequence
    with shardlog.open(store_path) as again:
        assert again.stream("s").next_sequence == last, "numbers are skipped once, not at each opening"


def test_where_mark_cannot_tell_the_skip_nothing_is_skipped(store: Store, store_path: Path, files: FaultyFiles) -> None:
    """A disk that takes no sync any more: the next number that readers are told is the one that will be given."""
    stream = new_stream(store)
    stream.append(changes(0, 1))
    before = stream.next_sequence
    files.arm(lambda step: step.operation == "sync", failing, times=1 << 30)
    with pytest.raises(StorageFailed):
        stream.append(changes(1, 5))
    assert stream.next_sequence == before
    with reopened(store, store_path) as again:
        assert again.stream("s").append(changes(9, 1)).sequences[0] >= before


def test_a_failed_sync_stops_all_who_share_it(store: Store, files: FaultyFiles, store_path: Path) -> None:
    """The stream is poisoned in the whole process: a second opener cannot append either, until both have closed it."""
    stream = new_stream(store)
    with shardlog.open(store_path) as other:
        files.arm(is_commit_sync, failing)
        with pytest.raises(StorageFailed):
            stream.append(changes(0, 1))
        with pytest.raises(StorageFailed):
            other.stream("s").append(changes(1, 1))
        store.close()
    with shardlog.open(store_path) as again:
        again.stream("s").append(changes(2, 1))
        assert numbers(again.stream("s").read()) == [2]


def _appends_on_demand(channel: Channel, path: Path) -> None:
    with shardlog.open(path) as store:
        stream = store.stream("s")
        channel.send("open")
        while (append := channel.receive()) is not None:
            result = stream.append(batch(*append, 3)).sequences
            channel.send((result, stream.statistics().segments))


def test_another_process_goes_on_after_a_failed_sync(
    store: Store, store_path: Path, files: FaultyFiles, children: Children
) -> None:
    """It goes on in a new segment, without the numbers of the failed commit, which nobody ever sees."""
    stream = new_stream(store, shards=2)
    child = children.start(_appends_on_demand, store_path)
    assert child.receive() == "open"
    acknowledged = {("a", 0): stream.append(batch("a", 0, 3)).sequences}
    child.send(("c", 0))
    acknowledged["c", 0], _ = child.receive()
    failed = range(stream.next_sequence, stream.next_sequence + 3)
    files.arm(is_commit_sync, failing)
    with pytest.raises(StorageFailed):
        stream.append(batch("lost", 0, 3))
    child.send(("c", 1))
    acknowledged["c", 1], segments = child.receive()
    assert segments == 2
    assert min(acknowledged["c", 1]) >= failed.stop
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    with pytest.raises(StorageFailed):
        stream.append(batch("b", 0, 3))
    with reopened(store, store_path) as again:
        stream = again.stream("s")
        acknowledged["b", 0] = stream.append(batch("b", 0, 3)).sequences
        child.send(("c", 2))
        acknowledged["c", 2], _ = child.receive()
        assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
        child.send(None)
        assert child.wait() == 0
    with shardlog.open(store_path) as again:
        assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()


def _fails_to_sync(channel: Channel, path: Path) -> None:
    files = FaultyFiles()
    stream = open_with(path, files).stream("s")
    withdrawing = IndexFaults(pytest.MonkeyPatch())

    def fail() -> None:
        # The lock is given up before the block is withdrawn: hold on where it is taken again.
        withdrawing.arm("begin", lambda: (channel.send("failed"), channel.receive()))
        failing()

    files.arm(is_commit_sync, fail)
    channel.send("open")
    channel.receive()
    try:
        stream.append(batch("lost", 0, 3))
    except StorageFailed:
        channel.send("told so")


def test_a_failed_sync_while_another_process_begins_to_roll(
    store: Store, store_path: Path, monkeypatch: pytest.MonkeyPatch, children: Children
) -> None:
    """Withdrawing a block does not undo what another process has begun meanwhile: no segment id is used twice."""
    stream = new_stream(store, shards=2)
    acknowledged = {("a", number): stream.append(batch("a", number, 3)).sequences for number in range(4)}
    child = children.start(_fails_to_sync, store_path)
    assert child.receive() == "open"
    child.send("go")
    assert child.receive() == "failed"

    def let_it_withdraw() -> None:
        child.send("go on")
        assert child.receive() == "told so"

    # The roll has said in the index that it begins, and gave up the lock between the writers for a moment.
    IndexFaults(monkeypatch).arm("rolling", let_it_withdraw, "after")
    rolling = Background(stream.append, batch("large", 0, 3, "x" * 6000))
    acknowledged["large", 0] = rolling.result().sequences
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    acknowledged |= append_until(stream, lambda: stream.statistics().segments == 5, "later")
    names = sorted(path.stem for path in store_path.glob("streams/s/*/log/*.seg"))
    assert len({name.split("-")[1] for name in names}) == len(names) == 5
    with reopened(store, store_path) as again:
        assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()


@pytest.mark.parametrize("site", [Site.SEGMENT_SEALED, Site.SEGMENT_HEADER, Site.SEGMENT_ENTRY])
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_failed_sync_while_rolling(
    store: Store, store_path: Path, files: FaultyFiles, durability: str, site: Site
) -> None:
    """The append fails and this process appends no more; opened again, everything acknowledged is there."""
    stream = new_stream(store, durability=durability, shards=2)
    acknowledged = append_until(stream, lambda: stream.statistics().segments == 2)
    fault = files.arm(lambda step: step.site is site, failing)
    for number in range(200):
        try:
            acknowledged["x", number] = stream.append(batch("x", number, 3)).sequences
        except StorageFailed:
            break
    assert fault.struck == 1
    with pytest.raises(StorageFailed):
        stream.append(batch("y", 0, 3))
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    with reopened(store, store_path) as again:
        assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()
        acknowledged |= append_until(again.stream("s"), lambda: again.stream("s").statistics().segments > 4, "z")
    with shardlog.open(store_path) as again:
        assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()


def test_a_failed_sync_at_level_os(store: Store, store_path: Path, files: FaultyFiles) -> None:
    """`sync()` raises StorageFailed once and for all; opened again, what is there is there, and numbers jump."""
    stream = new_stream(store, durability="os")
    acknowledged = {("a", number): stream.append(batch("a", number, 3)).sequences for number in range(5)}
    files.arm(lambda step: step.site is Site.LOG_SYNC, failing)
    with pytest.raises(StorageFailed):
        stream.sync()
    for again in (lambda: stream.append(batch("b", 0, 3)), stream.sync):
        with pytest.raises(StorageFailed):
            again()
    with reopened(store, store_path) as opened:
        acknowledged["b", 0] = opened.stream("s").append(batch("b", 0, 3)).sequences
        assert min(acknowledged["b", 0]) > 1 << 24
        assert check_holds(opened.stream("s"), acknowledged).keys() == acknowledged.keys()


# MARK


@pytest.mark.parametrize("error", [no_room, failing])
def test_mark_that_cannot_be_written_harms_no_append(
    store: Store, store_path: Path, files: FaultyFiles, error: Callable[[], object]
) -> None:
    """MARK comes after publication: what was published is acknowledged, and recovery does without."""
    stream = new_stream(store)
    files.arm(lambda step: step.operation == "pwrite" and step.is_mark, error, times=1000)
    acknowledged = {("a", number): stream.append(batch("a", number, 3)).sequences for number in range(5)}
    with reopened(store, store_path) as again:
        assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()


# The index


def refuse_commit(when: str) -> Callable[[IndexWrite], None]:
    """`IndexWrite.commit` that raises StorageFull: before it did anything, or having given up the transaction."""

    def commit(write: IndexWrite) -> None:
        if when == "given up":
            write.abort()
        raise StorageFull("the index has no room (made up)")

    return commit


@pytest.mark.parametrize("when", ["untouched", "given up"])
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_an_index_that_cannot_publish(
    store: Store, store_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, durability: str
) -> None:
    """The block is written (and synced), but not published: it is taken back, now and after reopening."""
    stream = new_stream(store, shards=2, durability=durability)
    acknowledged = {("a", number): stream.append(batch("a", number, 3)).sequences for number in range(3)}
    stream.sync()
    before = stream.next_sequence
    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(IndexWrite, "commit", refuse_commit(when))
            with pytest.raises(StorageFull):
                stream.append(batch("lost", 0, 3), producer="p", position=1)
        assert stream.next_sequence == before
        assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    assert stream.position("p") is None
    for number in range(2):
        with reopened(store, store_path) as again:
            stream = again.stream("s")
            assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
            acknowledged["b", number] = stream.append(batch("b", number, 3)).sequences
    assert min(acknowledged["b", 0]) == before if durability == "fsync" else min(acknowledged["b", 0]) >= before


def _fails_to_publish(channel: Channel, path: Path) -> None:
    stream = shardlog.open(path).stream("s")
    patch = pytest.MonkeyPatch()

    def commit(write: IndexWrite) -> None:
        patch.undo()
        write.abort()
        channel.send("lock given up")
        channel.receive()
        raise StorageFull("the index has no room (made up)")

    channel.send("open")
    channel.receive()
    patch.setattr(IndexWrite, "commit", commit)
    try:
        stream.append(batch("lost", 0, 3))
    except StorageFull:
        channel.send("told so")
    channel.receive()
    channel.send(stream.append(batch("c", 1, 3)).sequences)
    channel.receive()


def test_a_block_is_not_taken_back_where_another_process_has_appended(
    store: Store, store_path: Path, children: Children
) -> None:
    """When the index cannot publish, the lock is gone: who has appended in that place meanwhile is left alone."""
    stream = new_stream(store, shards=2)
    acknowledged = {("a", 0): stream.append(batch("a", 0, 3)).sequences}
    child = children.start(_fails_to_publish, store_path)
    assert child.receive() == "open"
    child.send("go")
    assert child.receive() == "lock given up"
    acknowledged["b", 0] = stream.append(batch("b", 0, 3)).sequences
    child.send("go on")
    assert child.receive() == "told so"
    child.send("append")
    acknowledged["c", 1] = child.receive()
    assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    child.kill()
    for _ in range(2):
        with reopened(store, store_path) as again:
            assert check_holds(again.stream("s"), acknowledged).keys() == acknowledged.keys()


def test_a_full_index_appends_nothing(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No room in the index's map: StorageFull, nothing of the append is there, ever; with room, it can be appended."""
    monkeypatch.setattr("shardlog.index.environment.MAP_BYTES", 1 << 16)
    acknowledged: dict[Append, list[int]] = {}
    with shardlog.open(store_path) as store:
        stream = new_stream(store)
        while True:
            number = len(acknowledged)
            try:
                result = stream.append(batch("a", number, 1), producer=f"{number:0200}", position=1)
            except StorageFull:
                break
            acknowledged["a", number] = result.sequences
        assert number > 10
        before = stream.next_sequence
        with pytest.raises(StorageFull):
            stream.append(batch("a", number, 1), producer=f"{number:0200}", position=1)
        assert stream.next_sequence == before
        assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
    monkeypatch.undo()
    with shardlog.open(store_path) as again:
        stream = again.stream("s")
        assert check_holds(stream, acknowledged).keys() == acknowledged.keys()
        assert not stream.append(batch("a", number, 1), producer=f"{number:0200}", position=1).duplicate


# Reading


def test_a_read_that_fails_is_an_error(store: Store, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO while reading is StorageFailed, not the end of the stream, and not corruption; the next read may work."""
    stream = new_stream(store)
    append_until(stream, lambda: stream.statistics().segments == 3)
    store.close()
    with open_with(store.path, files) as again:
        stream = again.stream("s")
        with monkeypatch.context() as patch:
            patch.setattr("shardlog.files.posix.os.pread", lambda *_: (_ for _ in ()).throw(OSError(5, "made up")))
            with pytest.raises(StorageFailed, match="made up"):
                list(stream.read(on_damage="gap"))
        assert len(list(stream.read())) > 100


def test_faults_strike(store: Store, files: FaultyFiles) -> None:
    """The tests above would be blind if their faults did not strike."""
    stream = new_stream(store)
    fault: Fault = files.arm(is_block, no_room, "half", skip=1)
    stream.append(changes(0, 1))
    with pytest.raises(StorageFull):
        stream.append(changes(1, 1))
    assert (fault.struck, fault.skip) == (1, 0)

"""How a stream's state changes, as pure functions: plans that are refused, and what any sequence of changes leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sharding.lineages import check_state

from shardlog import InvalidArgument, ShardClosed, ShardingPolicy, ShardNotFound
from shardlog.errors import CorruptLog, UnsupportedVersion
from shardlog.format import control
from shardlog.format.control import Control, decode_controls, encode_controls
from shardlog.model import HASH_RANGE_END
from shardlog.options import SHARDS_MAX, StreamOptions, stream_options
from shardlog.stream.lineage import children_of, fold, plan_configure, plan_merge, plan_roll_over, plan_split
from shardlog.stream.state import Shard, StreamState, decode_state, encode_state, new_state

CREATED_US = 1_700_000_000_000_000
HALF = HASH_RANGE_END // 2


def options_with(retention: timedelta | None = None, sharding: ShardingPolicy | None = None) -> StreamOptions:
    """Options, none of them the default."""
    return stream_options(
        view_type="KEYS_ONLY",
        key_names=["id", "sort"],
        partition_key="id",
        durability="os",
        segment_bytes=1 << 16,
        retention=retention,
        retention_bytes=None,
        sharding=sharding,
    )


def state_of(shards: int) -> StreamState:
    """A new stream."""
    return new_state("stream", CREATED_US, options_with(), shards)


@dataclass
class History:
    """A stream's state and all the control records that led to it."""

    shards: int
    state: StreamState = field(init=False)
    controls: list[tuple[int, Control]] = field(default_factory=list)
    next_sequence: int = 1
    now_ms: int = CREATED_US // 1000
    ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = self.state = state_of(self.shards)
        self.ids += [shard.shard_id for shard in self.state.shards]

    def commit(self, record: Control) -> None:
        """Take a control record, as it comes back from the log."""
        before = self.state
        (record,) = decode_controls(encode_controls([record]), 1)
        self.controls.append((self.next_sequence, record))
        self.state = fold(before, [(self.next_sequence, record)])
        self.next_sequence += 1
        made = [shard.shard_id for shard in self.state.shards if shard.number >= before.next_shard]
        assert all(shard_id > max(self.ids) for shard_id in made), "readers page by the last id they saw"
        self.ids += made
        changes = record["kind"] not in (control.POSITION, control.CHECKPOINT)
        assert self.state.version == before.version + changes

    def pick(self, at: float) -> Shard:
        shards = self.state.open_shards
        return shards[int(at * len(shards))]


def split(history: History, where: float, at: float) -> None:
    """Split one of the open shards."""
    shard = history.pick(where)
    width = shard.hash_next - shard.hash_first
    if width > 1:
        bound = min(max(shard.hash_first + int(at * width), shard.hash_first + 1), shard.hash_next - 1)
        history.commit(plan_split(history.state, shard.shard_id, bound, history.now_ms))


def merge(history: History, where: float, at: float) -> None:
    """Merge two neighbours, in either order."""
    shards = history.state.open_shards
    if len(shards) > 1:
        index = int(where * (len(shards) - 1))
        pair = shards[index].shard_id, shards[index + 1].shard_id
        history.commit(plan_merge(history.state, *(pair if at < 0.5 else pair[::-1]), history.now_ms))


def roll(history: History, where: float, at: float) -> None:
    """Roll one of the open shards over."""
    history.commit(plan_roll_over(history.state, history.pick(where).shard_id, history.now_ms))


def trim(history: History, where: float, at: float) -> None:
    """Move the horizon somewhere before the end."""
    horizon = history.state.trim_horizon
    history.commit({"kind": control.TRIM, "horizon": horizon + int(where * (history.next_sequence - horizon + 1))})
    ends = [shard.end_sequence for shard in history.state.shards if shard.end_sequence is not None]
    assert all(end > history.state.trim_horizon for end in ends)


def configure(history: History, where: float, at: float) -> None:
    """Change the options."""
    policy = ShardingPolicy(records_per_second=None, bytes_per_second=1 + where, window=timedelta(seconds=1 + at))
    history.commit(plan_configure(options_with(timedelta(seconds=1 + where), policy if at < 0.5 else None)))


def change_nothing(history: History, where: float, at: float) -> None:
    """Control records that change nothing."""
    history.commit({"kind": control.POSITION, "producer": "p", "position": 1})
    history.commit({"kind": control.CHECKPOINT, "snapshot": b"", "positions": []})


def append(history: History, where: float, at: float) -> None:
    """Let numbers go by."""
    history.next_sequence += 1 + int(where * 100)


def set_clock(history: History, where: float, at: float) -> None:
    """Set the clock, forward or back."""
    history.now_ms = max(0, history.now_ms + int((where - 0.5) * 2e12))


Step = Callable[[History, float, float], None]
STEPS: tuple[Step, ...] = (split, split, merge, roll, trim, configure, change_nothing, append, set_clock)
FRACTIONS = st.floats(0, 1, exclude_max=True)


@settings(max_examples=150, deadline=None)
@given(
    shards=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), FRACTIONS, FRACTIONS), max_size=40),
    cut=FRACTIONS,
    closes=st.booleans(),
)
def test_any_sequence_of_changes_leaves_a_sound_lineage(
    shards: int, steps: list[tuple[Step, float, float]], cut: float, closes: bool
) -> None:
    """Open shards partition the range, no number is used twice, ids sort parents first whatever the clock did.

    The state is the fold of the control records, from the beginning or from a snapshot anywhere between.
    """
    history = History(shards)
    states = [history.state]
    for step, where, at in steps:
        step(history, where, at)
        check_state(history.state)
        states += [history.state] * (len(history.controls) + 1 - len(states))
    if closes:
        history.commit({"kind": control.CLOSE, "at_us": 0})
        check_state(history.state)
        assert history.state.closed
        assert not history.state.open_shards
    numbers = [int(shard_id[-8:], 16) for shard_id in history.ids]
    assert numbers == list(range(history.state.next_shard))
    assert fold(history.first, history.controls) == history.state
    index = int(cut * len(states))
    for state in (states[index], history.state):
        snapshot = decode_state(encode_state(state, [("p", 7)], {0: (3, 4)}))
        assert snapshot == (state, {"p": 7}, {0: (3, 4)})
    assert fold(decode_state(encode_state(states[index])).state, history.controls[index:]) == history.state


@settings(max_examples=100, deadline=None)
@given(
    cuts=st.lists(st.integers(1, HASH_RANGE_END - 1), max_size=8, unique=True),
    digest=st.binary(min_size=16, max_size=16),
)
def test_every_hash_belongs_to_the_open_shard_whose_range_holds_it(cuts: list[int], digest: bytes) -> None:
    """Also on the bounds: the first of a range is in, its end is not."""
    history = History(1)
    for cut in cuts:
        shard = next(shard for shard in history.state.open_shards if shard.hash_first <= cut < shard.hash_next)
        if cut != shard.hash_first:
            history.commit(plan_split(history.state, shard.shard_id, cut, history.now_ms))
    state = history.state
    wanted = [0, HASH_RANGE_END - 1, int.from_bytes(digest, "big"), *cuts, *(cut - 1 for cut in cuts)]
    for value in wanted:
        shard = state.by_number[state.shard_of_digest(value.to_bytes(16, "big"))]
        assert shard.end_sequence is None
        assert shard.hash_first <= value < shard.hash_next


@pytest.mark.parametrize("at", [0, HALF, HALF + 1, HASH_RANGE_END - 1, HASH_RANGE_END, -1, 1.5, True, None, "1"])
def test_a_split_needs_a_hash_inside_the_shard(at: object) -> None:
    """A bound of the range, a hash of another shard, or no integer at all is refused."""
    state = state_of(2)
    left, right = state.open_shards
    assert plan_split(state, left.shard_id, 1, 0)
    assert plan_split(state, left.shard_id, HALF - 1, 0)
    with pytest.raises(InvalidArgument, match="at: expected a hash inside"):
        plan_split(state, left.shard_id, at, 0)  # type: ignore[arg-type]
    if at in (HALF + 1, HASH_RANGE_END - 1):
        assert plan_split(state, right.shard_id, at, 0)  # type: ignore[arg-type]
    else:
        with pytest.raises(InvalidArgument):
            plan_split(state, right.shard_id, at, 0)  # type: ignore[arg-type]


def test_only_neighbours_merge() -> None:
    """In either order; not with itself, not across a third one, and the range is no ring."""
    state = state_of(4)
    a, b, c, d = (shard.shard_id for shard in state.open_shards)
    assert plan_merge(state, b, c, 0) == plan_merge(state, c, b, 0)
    for pair in ((a, c), (d, b), (a, d), (d, a), (a, a)):
        with pytest.raises(InvalidArgument, match="neighbours"):
            plan_merge(state, *pair, 0)
    with pytest.raises(InvalidArgument, match="neighbours"):
        plan_merge(state_of(1), a, a, 0)


def test_closed_and_unknown_shards_are_refused() -> None:
    """ShardClosed names the end; an id of nobody is ShardNotFound."""
    before = state_of(2)
    left, right = (shard.shard_id for shard in before.open_shards)
    state = fold(before, [(10, plan_roll_over(before, left, 0))])
    unknown = left[:-1] + "f"
    with pytest.raises(ShardClosed, match="ended at 10"):
        plan_split(state, left, 1, 0)
    with pytest.raises(ShardClosed):
        plan_merge(state, left, right, 0)
    with pytest.raises(ShardClosed):
        plan_merge(state, right, left, 0)
    with pytest.raises(ShardClosed):
        plan_roll_over(state, left, 0)
    with pytest.raises(ShardNotFound):
        plan_split(state, unknown, 1, 0)
    with pytest.raises(ShardNotFound):
        plan_merge(state, right, unknown, 0)
    with pytest.raises(ShardNotFound):
        plan_roll_over(state, "", 0)


def test_there_may_be_so_many_open_shards_and_no_more() -> None:
    """At the limit a split is refused; a roll-over and a merge are not, and after a merge there is room again."""
    state = state_of(SHARDS_MAX)
    first, second, *_ = (shard.shard_id for shard in state.open_shards)
    with pytest.raises(InvalidArgument, match=f"at most {SHARDS_MAX}"):
        plan_split(state, first, 1, 0)
    assert plan_roll_over(state, first, 0)
    state = fold(state, [(2, plan_merge(state, first, second, 0))])
    assert plan_split(state, state.open_shards[0].shard_id, 1, 0)


def test_a_range_of_one_hash_does_not_split() -> None:
    """There is no hash inside it."""
    state = fold(before := state_of(1), [(1, plan_split(before, before.shards[0].shard_id, 1, 0))])
    smallest = state.open_shards[0]
    assert (smallest.hash_first, smallest.hash_next) == (0, 1)
    for at in (0, 1):
        with pytest.raises(InvalidArgument):
            plan_split(state, smallest.shard_id, at, 0)


def test_a_parent_forgotten_stays_named_by_its_children() -> None:
    """Shards go when the horizon has reached their end, not before; who came from them still says so."""
    before = state_of(1)
    parent = before.shards[0]
    state = fold(before, [(5, plan_split(before, parent.shard_id, HALF, 0))])
    assert [child.number for child in children_of(state, parent)] == [1, 2]
    kept = fold(state, [(6, {"kind": control.TRIM, "horizon": 4})])
    assert parent.shard_id in [shard.shard_id for shard in kept.shards]
    gone = fold(kept, [(7, {"kind": control.TRIM, "horizon": 5})])
    assert [shard.number for shard in gone.shards] == [1, 2]
    assert {shard.parent_ids for shard in gone.shards} == {(parent.shard_id,)}
    with pytest.raises(ShardNotFound):
        gone.shard(parent.shard_id)


def test_a_record_that_does_not_fit_the_state_is_corruption() -> None:
    """Parents that are unknown or closed already; a kind of a later release is not called corrupt."""
    before = state_of(1)
    record = plan_roll_over(before, before.shards[0].shard_id, 0)
    state = fold(before, [(5, record)])
    with pytest.raises(CorruptLog, match="not all open"):
        fold(state, [(6, record)])
    with pytest.raises(CorruptLog, match="not all open"):
        fold(state, [(6, {**record, "parents": [77]})])
    with pytest.raises(UnsupportedVersion, match="hibernate"):
        fold(state, [(6, {"kind": "hibernate"})])


@pytest.mark.parametrize("content", [b"", b"\x80", b"\xc1", b"\x93\x01", encode_state(state_of(1))[:-1]])
def test_a_snapshot_that_does_not_decode_is_corruption(content: bytes) -> None:
    """Whatever is wrong with its bytes."""
    with pytest.raises(CorruptLog):
        decode_state(content)


@pytest.mark.parametrize("retention", [None, timedelta(seconds=1), timedelta(days=365, microseconds=1)])
@pytest.mark.parametrize("sharding", [None, ShardingPolicy.dynamodb(), ShardingPolicy.kinesis_on_demand()])
def test_options_that_change_come_back_the_same(retention: timedelta | None, sharding: ShardingPolicy | None) -> None:
    """From a configure record and from a snapshot; the other options stay."""
    state = state_of(1)
    (record,) = decode_controls(encode_controls([plan_configure(options_with(retention, sharding))]), 1)
    changed = fold(state, [(1, record)])
    assert changed.options == replace(state.options, retention=retention, sharding=sharding)
    assert decode_state(encode_state(changed)).state == changed

"""split, merge, roll, expire, set-retention, set-sharding, and what create, cat and stat have to do with shards."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.tools.commands import Outcome, run_process
from tests.tools.lineages import changes

import shardlog
from shardlog import Change
from shardlog.clock import datetime_of
from shardlog.stream import maintenance
from shardlog.testing.clock import ManualClock

Command = Callable[..., Outcome]


def open_ranges(command: Command, store: Path) -> list[tuple[int, int]]:
    """Hash ranges of the open shards, in order."""
    shards = command("stat", store, "s", "--json").json()["shards"]
    return sorted(
        (int(shard["hash_range"][0]), int(shard["hash_range"][1])) for shard in shards if shard["end_sequence"] is None
    )


@pytest.mark.parametrize(
    ("at", "middle"), [("50%", 1 << 127), (str(1 << 126), 1 << 126), ("0x" + "c" + "0" * 31, 0xC << 124)]
)
def test_split_at_a_hash(command: Command, store: Path, at: str, middle: int) -> None:
    """A part of the range, a decimal number, or all 32 digits; the children's ids are the data."""
    command("create", store, "s")
    outcome = command("split", store, "s", "0", "--at", at)
    assert outcome.status == 0
    assert len(outcome.data.splitlines()) == 2
    assert outcome.talk.startswith("split 0 of s into 1 (hashes 0000 to ")
    assert open_ranges(command, store) == [(0, middle), (middle, 2**128)]


def test_split_where_half_of_the_load_went(command: Command, store: Path) -> None:
    """Without --at, the records decide."""
    command("create", store, "s")
    with shardlog.open(store) as opened:
        opened.stream("s").append(changes(1000))
    found = command("split", store, "s", "0", "--json").json()
    assert [shard["end_sequence"] for shard in found["closed"]] == [1001]
    assert len(found["opened"]) == 2
    (_, middle), _ = open_ranges(command, store)
    assert abs(middle - 2**127) < 2**123


def test_merge_and_roll(command: Command, store: Path) -> None:
    """Both print the id of the shard that takes over, which opens where they close."""
    command("create", store, "s", "--shards", 3)
    outcome = command("merge", store, "s", 2, 1)
    assert outcome.status == 0
    assert outcome.talk == "merged 2 and 1 of s into 3 (hashes 5555 to 10000)\n"
    assert outcome.data.strip().endswith("-00000003")
    found = command("roll", store, "s", "0", "--json").json()
    assert [shard["shard"][-1] for shard in found["closed"] + found["opened"]] == ["0", "4"]
    assert found["closed"][0]["hash_range"] == found["opened"][0]["hash_range"]
    assert len(open_ranges(command, store)) == 2


@pytest.mark.parametrize(
    ("words", "error", "text"),
    [
        (("split", "9"), "ShardNotFound", "expected the id of one of its shards, found '9'"),
        (("split", ""), "ShardNotFound", "found ''"),
        (("split", "1", "--at", "1"), "InvalidArgument", "expected a hash inside shard"),
        (("merge", "1", "3"), "InvalidArgument", "expected neighbours"),
        (("roll", "0"), "ShardClosed", "expected an open one"),
        (("roll", "shardId-"), "CommandFailed", "may be any of 5: shardId-"),
    ],
)
def test_what_cannot_be_done_to_a_shard(
    command: Command, store: Path, words: tuple[str, ...], error: str, text: str
) -> None:
    """One line that says why, and nothing changed."""
    command("create", store, "s", "--shards", 4)
    command("roll", store, "s", "0")
    before = open_ranges(command, store)
    outcome = command(words[0], store, "s", *words[1:], "--json")
    assert outcome.status == 1
    assert text in outcome.talk
    assert f'"error": "{error}"' in outcome.talk
    assert open_ranges(command, store) == before


def test_a_shard_by_any_unambiguous_part_of_its_id(command: Command, store: Path) -> None:
    """The whole id, its end, its beginning, its number in either case; a number is never taken for another's end."""
    command("create", store, "s", "--shards", 27)
    with shardlog.open(store) as opened:
        stream = opened.stream("s")
        stream.append(changes(500))
        ids = [shard.shard_id for shard in stream.describe().shards]
        in_tenth = [record.sequence for record in stream.read(shard_id=ids[0xA])]
    for text in (ids[0xA], "0000000a", "a", "A", ids[0xA][8:]):
        lines = command("cat", store, "s", "--shard", text).json_lines()
        assert [line["sequence"] for line in lines] == in_tenth
    assert command("cat", store, "s", "--shard", "000a").status == 0
    ambiguous = command("cat", store, "s", "--shard", ids[0][:-1])
    assert ambiguous.status == 1
    assert "may be any of 16" in ambiguous.talk
    command("roll", store, "s", "1a")
    assert command("stat", store, "s", "--json").json()["shards"][0x1A]["end_sequence"] is not None


def test_expire(command: Command, store: Path) -> None:
    """Old segments go; a pass that would take them all holds back, says so, exits with 1, and can be forced."""
    clock = ManualClock()
    with shardlog.open(store, clock=clock) as opened:
        stream = opened.create_stream("s", retention=timedelta(hours=2))
        for _ in range(12):
            stream.append(changes(10))
            clock.advance(timedelta(minutes=30))
    outcome = command("expire", store, "s", "--json")
    assert outcome.status == 1
    assert outcome.json()["segments"] == 0
    assert "a wrong clock looks the same" in outcome.json()["held_back"]
    assert "nothing removed" in outcome.talk
    before = command("stat", store, "s", "--json").json()
    outcome = command("expire", store, "s", "--force", "--json")
    assert outcome.status == 0
    found = outcome.json()
    assert found["held_back"] is None
    assert found["segments"] == before["segments"] - 1 > 1
    assert (found["horizon_before"], found["horizon_after"]) == (1, before["next_sequence"])
    after = command("stat", store, "s", "--json").json()
    assert (after["records"], after["trim_horizon"], after["segments"]) == (0, found["horizon_after"], 1)
    outcome = command("expire", store, "s")
    assert (outcome.status, outcome.data) == (0, "")
    assert outcome.talk == "nothing of s is old enough (retention 2h)\n"


def test_set_retention(command: Command, store: Path) -> None:
    """It replaces the time, and the cap by bytes only where one is given."""
    command("create", store, "s", "--retention-bytes", "1GiB")
    assert command("set-retention", store, "s", "7d").talk == (
        "retention of s: 7d, at most 1.0 GiB (it was: 24h, at most 1.0 GiB)\n"
    )
    found = command("set-retention", store, "s", "90s", "--bytes", "5000", "--json").json()
    assert (found["retention_seconds"], found["retention_bytes"]) == (90, 5000)
    found = command("set-retention", store, "s", "forever", "--bytes", "none", "--json").json()
    assert (found["retention_seconds"], found["retention_bytes"]) == (None, None)


def test_set_retention_with_a_hold(command: Command, store: Path) -> None:
    """Groups are held for until something else is said; one that does not exist is refused."""
    command("create", store, "s")
    with shardlog.open(store) as opened:
        opened.stream("s").group("billing")
    outcome = command("set-retention", store, "s", "1h", "--hold", "billing", "--hold-bytes", "1GiB")
    assert outcome.talk == "retention of s: 1h, held for billing up to 1.0 GiB (it was: 24h)\n"
    found = command("set-retention", store, "s", "2h", "--json").json()
    assert (found["hold"], found["hold_bytes_max"]) == (["billing"], 1 << 30)
    outcome = command("set-retention", store, "s", "2h", "--hold", "billing,nobody")
    assert (outcome.status, "nobody" in outcome.talk) == (1, True)
    found = command("set-retention", store, "s", "2h", "--hold", "none", "--json").json()
    assert (found["hold"], found["hold_bytes_max"]) == ([], None)


def test_set_sharding(command: Command, store: Path) -> None:
    """A preset, a preset with changes, none."""
    command("create", store, "s")
    outcome = command("set-sharding", store, "s", "dynamodb")
    assert outcome.talk == (
        "shards of s: split above 1,000 records/s or 1,000,000 bytes/s over 1m, merge below 25%, 1m apart, "
        "1 to 256 shards, roll over every 4h\n"
    )
    found = command(
        *("set-sharding", store, "s", "kinesis-on-demand", "--records-per-second", 200, "--bytes-per-second", "none"),
        *("--window", "10s", "--cooldown", "1m30s", "--min-shards", 2, "--max-shards", 8, "--merge-below", "0"),
        *("--roll-every", "1h", "--no-halving", "--json"),
    ).json()
    assert found["sharding"] == {
        "records_per_second": 200.0,
        "bytes_per_second": None,
        "window": 10.0,
        "cooldown": 90.0,
        "max_shards": 8,
        "min_shards": 2,
        "merge_below": 0.0,
        "roll_every": 3600.0,
        "halving": False,
    }
    assert command("set-sharding", store, "s", "none", "--json").json()["sharding"] is None


def test_an_idle_process_takes_up_the_policy(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only does maintenance once went by the options it had opened the stream with, for ever."""
    monkeypatch.setattr(maintenance, "PAUSE_MAX", timedelta(milliseconds=100))
    with shardlog.open(store, maintenance=True) as opened:
        stream = opened.create_stream("s", shards=4)
        words = ("set-sharding", store, "s", "dynamodb", "--window", "200ms", "--cooldown", "100ms")
        assert run_process(*words).status == 0
        deadline = time.monotonic() + 10
        while sum(shard.end_sequence is None for shard in stream.describe().shards) > 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_create_with_a_sharding_policy(command: Command, store: Path) -> None:
    """The same words as for set-sharding."""
    found = command("create", store, "s", "--sharding", "dynamodb", "--roll-every", "none", "--json").json()
    assert found["sharding"]["records_per_second"] == 1000
    assert found["sharding"]["roll_every"] is None
    assert "; shards split above" in command("create", store, "t", "--sharding", "kinesis-on-demand").talk


@pytest.mark.parametrize(
    "words",
    [
        ("set-sharding", "s", "aws"),
        ("set-sharding", "s", "none", "--window", "10s"),
        ("set-sharding", "s", "dynamodb", "--window", "forever"),
        ("set-sharding", "s", "dynamodb", "--min-shards", "9", "--max-shards", "8"),
        ("set-sharding", "s", "dynamodb", "--records-per-second", "-1"),
        ("set-sharding", "s", "dynamodb", "--merge-below", "1"),
        ("create", "s", "--records-per-second", "1"),
        ("create", "s", "--retention-bytes", "0"),
        ("set-retention", "s", "soon"),
        ("set-retention", "s", "1h", "--bytes", "1PB"),
        ("split", "s", "0", "--at", "0x80"),
        ("split", "s", "0", "--at", "150%"),
        ("merge", "s", "0"),
        ("expire",),
        ("shards",),
    ],
)
def test_wrong_use_exits_with_2(command: Command, store: Path, words: tuple[str, ...]) -> None:
    """It says what is wrong, and touches nothing."""
    outcome = command(words[0], store, *words[1:])
    assert outcome.status == 2
    assert "shardlog" in outcome.talk
    assert not outcome.data
    assert not store.exists()


@pytest.mark.parametrize("words", [("split", "0"), ("roll", "0"), ("merge", "0", "1"), ("expire",), ("shards",)])
def test_streams_and_stores_that_are_not_there(command: Command, store: Path, words: tuple[str, ...]) -> None:
    """A failure on one line; no store is made."""
    outcome = command(words[0], store, "s", *words[1:])
    assert (outcome.status, outcome.talk.count("\n")) == (1, 1)
    assert not store.exists()
    command("create", store, "s")
    assert '"StreamNotFound"' in command(words[0], store, "t", *words[1:], "--json").talk


def test_stat_measures_what_another_process_wrote(command: Command, store: Path) -> None:
    """Throughput of open shards is read back from the log's last minute; keys that dominate a shard are named."""
    with shardlog.open(store) as opened:
        stream = opened.create_stream("s", shards=2, partition_key="id")
        stream.append(changes(200))
        stream.append([Change.insert(keys={"id": "hot"}, new={"id": "hot"})] * 400)
    outcome = command("stat", store, "s")
    assert outcome.status == 0
    figures: dict[str, str] = {}
    for line in outcome.data.splitlines():
        name, _, figure = line.partition(":")
        figures.setdefault(name, figure.strip())
    assert figures["throughput"].endswith(" s")
    assert '"hot" takes' in figures["hot key"]
    assert figures["sharding"] == "by hand only"
    assert "the oldest record is 0:00:" in figures["trim horizon"]
    found: dict[str, Any] = command("stat", store, "s", "--json").json()
    assert sum(shard["records"] for shard in found["shards"]) == 600
    assert all(shard["last_minute"]["records_per_second"] > 0 for shard in found["shards"])
    (hot,) = found["hot_keys"]
    assert (hot["key"], hot["share"] > 0.5) == ("hot", True)


def test_stat_of_an_idle_stream(command: Command, store: Path) -> None:
    """What was written long ago is no throughput, and makes no key hot."""
    with shardlog.open(store, clock=ManualClock()) as opened:
        opened.create_stream("s", partition_key="id").append(
            [Change.insert(keys={"id": "hot"}, new={"id": "hot"})] * 400
        )
    found = command("stat", store, "s", "--json").json()
    assert found["hot_keys"] == []
    assert found["shards"][0]["last_minute"] == {"records_per_second": 0, "bytes_per_second": 0}
    assert found["shards"][0]["records"] == 400


def test_stat_leaves_closed_shards_to_the_lineage(command: Command, store: Path) -> None:
    """Open shards have a line each; closed ones are counted."""
    command("create", store, "s", "--shards", 2)
    command("roll", store, "s", "0")
    data = command("stat", store, "s").data
    assert data.count("shard: ") == 2
    assert "closed shards: 1; `shardlog shards` draws them" in data


def test_throughput_of_a_long_log_is_of_its_end(store: Path) -> None:
    """Where the last minute is more than some MiBs, so much is measured, over the time that it took."""
    clock = ManualClock()
    with shardlog.open(store, clock=clock) as opened:
        stream = opened.create_stream("s", retention=None, segment_bytes=1 << 20)
        piece = [Change.insert(keys={"id": n}, new={"id": n, "text": "x" * 9_000}) for n in range(100)]
        for _ in range(40):
            stream.append(piece)
            clock.advance(timedelta(seconds=1))
        (rate,) = stream.throughput().shards.values()
        since = stream.throughput().since
    assert rate.records_per_second == pytest.approx(100)
    measured = 40 - (since - datetime_of(ManualClock().wall_us())).total_seconds()
    assert 8 <= measured <= 12

"""`shardlog shards --svg`: the lineage over time as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from tests.tools.commands import Outcome
from tests.tools.lineages import NAME, changes, stream_with_history

import shardlog
from shardlog.testing.clock import ManualClock
from shardlog_tools.lineage import Lineage, read_lineage
from shardlog_tools.lineage_picture import draw

Command = Callable[..., Outcome]
Box = tuple[float, float, float, float]
SVG = "{http://www.w3.org/2000/svg}"


def boxes(picture: ET.Element) -> dict[str, Box]:
    """The lane of each shard: left, right, top, bottom."""
    found = {}
    for group in picture.iter(f"{SVG}g"):
        lane = group.find(f"{SVG}rect")
        assert lane is not None
        x, y, width, height = (float(lane.attrib[name]) for name in ("x", "y", "width", "height"))
        found[group.attrib["data-shard"]] = (x, x + width, y, y + height)
    return found


def overlap(one: Box, other: Box) -> bool:
    """Whether two lanes cover the same place, but for rounding."""
    return min(one[1], other[1]) - max(one[0], other[0]) > 0.02 and min(one[3], other[3]) - max(one[2], other[2]) > 0.02


def texts(picture: ET.Element) -> list[str]:
    """All that is written in the picture."""
    return [element.text or "" for element in picture.iter(f"{SVG}text")]


def drawn(lineage: Lineage) -> ET.Element:
    """The picture, parsed."""
    return ET.fromstring(draw(lineage))


def test_a_lane_for_each_shard_over_its_time_and_range(store: Path) -> None:
    """Lanes do not overlap; children begin where their parents end, and lie within or around their range."""
    with stream_with_history(store) as (stream, _):
        lineage = read_lineage(stream)
    lanes = boxes(drawn(lineage))
    assert list(lanes) == [node.shard.shard_id for node in lineage.nodes]
    zero, one, two, three, four = lanes.values()
    assert one[0] == two[0] == pytest.approx(zero[1], abs=0.02)
    assert three[0] == pytest.approx(one[1], abs=0.02)
    assert four[0] == pytest.approx(three[1], abs=0.02)
    assert four[0] == pytest.approx(two[1], abs=0.02)
    assert zero[2:] == (one[2], pytest.approx(two[3])) == four[2:]
    assert one[2:] == three[2:]
    assert not any(overlap(a, b) for index, a in enumerate(lanes.values()) for b in list(lanes.values())[:index])


def test_splits_merges_and_roll_overs_are_drawn_and_explained(store: Path) -> None:
    """A band from each parent to each child, in the colours of the legend; a title, times, and what is open."""
    with stream_with_history(store) as (stream, _):
        picture = drawn(read_lineage(stream))
    bands = [path.attrib["fill"] for path in picture.iter(f"{SVG}path") if path.attrib.get("class") == "band"]
    assert len(bands) == 2 + 1 + 2
    assert len(set(bands)) == 3
    written = texts(picture)
    assert written[0] == "Shards of orders"
    assert written[1].startswith("1 open, 4 closed · 125 records")
    assert {"split", "merge", "roll-over", "00:00:01", "00:00:05"} <= set(written)
    assert "expired" not in written
    assert any(text.startswith("4 · ") and text.endswith("/s") for text in written)
    title = next(picture.iter(f"{SVG}title"))
    assert title.text == "Shards of orders"


def test_what_has_expired_is_grey(store: Path) -> None:
    """Lanes are covered up to the trim horizon, which is marked; long before it the picture begins."""
    clock = ManualClock()
    with shardlog.open(store, clock=clock) as opened:
        stream = opened.create_stream(NAME, shards=2, retention=timedelta(hours=8))
        for hour in range(30):
            stream.append(changes(10))
            if hour == 26:
                stream.roll_shard(stream.describe().shards[0].shard_id)
            clock.advance(timedelta(hours=1))
            stream.expire(force=True)
        lineage = read_lineage(stream)
    picture = drawn(lineage)
    covers = [rect for rect in picture.iter(f"{SVG}rect") if rect.attrib.get("class") == "expired"]
    assert len(covers) == 2
    lanes = list(boxes(picture).values())
    for cover, lane in zip(covers, lanes[:2], strict=True):
        assert float(cover.attrib["x"]) == lane[0]
        assert 0 < float(cover.attrib["width"]) < 0.2 * (max(right for _, right, _, _ in lanes) - lane[0])
    written = texts(picture)
    assert "expired" in written
    assert f"trim horizon {lineage.trim_horizon:,}" in written


def test_narrow_ranges_and_short_lives_stay_visible(store: Path) -> None:
    """After sixty splits of the same end, at one time, each lane is still there and within the picture."""
    clock = ManualClock()
    with shardlog.open(store, clock=clock) as opened:
        stream = opened.create_stream("s")
        last = stream.describe().shards[0].shard_id
        for depth in range(1, 61):
            last = stream.split_shard(last, at=2**128 - (1 << (128 - depth)))[1]
        clock.advance(timedelta(hours=5))
        stream.append(changes(100))
        picture = drawn(read_lineage(stream))
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    lanes = boxes(picture)
    assert len(lanes) == 121
    for left, right, top, bottom in lanes.values():
        assert 0 < left < right < width
        assert 0 < top < bottom < height
        assert bottom - top > 3


def test_a_stream_without_history_can_be_drawn(command: Command, store: Path, tmp_path: Path) -> None:
    """No records, no time: still a picture. The file is written, and said to be."""
    command("create", store, "s", "--shards", 3)
    outcome = command("shards", store, "s", "--svg", tmp_path / "s.svg")
    assert outcome.status == 0
    assert outcome.talk == f"the picture is in {tmp_path / 's.svg'}\n"
    assert len(boxes(ET.parse(tmp_path / "s.svg").getroot())) == 3


def test_the_same_lineage_gives_the_same_picture(store: Path) -> None:
    """Nothing in it depends on when or where it is drawn."""
    with stream_with_history(store) as (stream, _):
        assert draw(read_lineage(stream)) == draw(read_lineage(stream))


def test_a_picture_that_cannot_be_written_is_a_failure(command: Command, store: Path, tmp_path: Path) -> None:
    """The file is named in the error."""
    command("create", store, "s")
    outcome = command("shards", store, "s", "--svg", tmp_path / "missing" / "s.svg")
    assert outcome.status == 1
    assert "missing/s.svg: No such file" in outcome.talk

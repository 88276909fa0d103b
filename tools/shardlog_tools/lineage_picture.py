"""A lineage drawn over time, as SVG written by hand.

Each shard is a lane: from when it opened to when it closed, as high as its hash range. Open shards partition the hash
range at any time, so lanes fill the plane and never overlap. Narrow ranges, which is where the load is, would vanish;
so every range that lies between two bounds gets some height, and the rest is dealt out by size (`_Heights`). A lane's
colour is how many records per second it took. Where shards close, bands lead from parents to children. What lies before
the trim horizon is grey. Pure: the same lineage gives the same text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise
from typing import Final

from shardlog.model import HASH_RANGE_END
from shardlog_tools.descriptions import bytes_words, hash_words, rate_words
from shardlog_tools.lineage import Lineage, Node

_WIDTH: Final = 1240.0
_LEFT: Final = 92.0
_RIGHT: Final = 118.0
_TOP: Final = 104.0
_BOTTOM: Final = 58.0
_LANES_HEIGHT_MIN: Final = 340.0
_LANES_HEIGHT_MAX: Final = 1400.0
_HEIGHT_PER_RANGE: Final = 20.0
_EVEN_PART: Final = 0.45
"""How much of the height is dealt out evenly to the ranges, so that narrow ones can be seen."""

_GAP: Final = 1.2
_BAND_REACH: Final = 6.0
_ROLL_OVER_PART: Final = 0.3
_DIGIT_WIDTH: Final = 6.4
_TICKS_MAX: Final = 9
_TRIMMED_PART_MAX: Final = 0.15
_TICK_STEPS: Final = tuple(
    timedelta(seconds=value) for value in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
) + tuple(
    timedelta(minutes=value)
    for value in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 20160, 43200, 129600, 525600)
)

_HEAT: Final = ((0.0, (226, 237, 243)), (0.35, (253, 219, 145)), (0.7, (243, 132, 61)), (1.0, (178, 24, 43)))
_HEAT_EXPONENT: Final = 0.6
"""Below 1, so that shards stand out that take a fifth of what the busiest one took, which is how splits leave them."""

_DARK_PART: Final = 0.8
_INK: Final = "#1f2933"
_FAINT: Final = "#6b7682"
_GREY: Final = "#d5d9de"
_BAND_COLOURS: Final = {"split": "#1769c2", "merge": "#6a3d9a", "roll-over": "#5f6b76"}
_STYLE: Final = (
    "text{font-family:'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;font-size:11px;fill:#1f2933}"
    ".title{font-size:19px;font-weight:600}.faint{fill:#6b7682}.light{fill:#fff}"
    ".lane{stroke:#fff;stroke-width:.6}.tick{stroke:#1f2933;stroke-opacity:.13}"
)


def draw(lineage: Lineage) -> str:
    """The picture, as the text of an SVG file."""
    return "\n".join(_Picture(lineage).elements()) + "\n"


class _Heights:
    """Hash values to heights: from 0 to `height`, growing with the hash."""

    def __init__(self, bounds: Sequence[int], height: float) -> None:
        even = height * _EVEN_PART / (len(bounds) - 1)
        rest = height * (1 - _EVEN_PART)
        self._heights = {bounds[0]: 0.0}
        for below, bound in pairwise(bounds):
            share = (bound - below) / (bounds[-1] - bounds[0])
            self._heights[bound] = self._heights[below] + even + rest * share

    def __getitem__(self, bound: int) -> float:
        return self._heights[bound]


@dataclass(frozen=True)
class _Lane:
    """Where a shard is drawn. `reach`: how far the bands at its ends go into it."""

    node: Node
    left: float
    right: float
    top: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def reach(self) -> float:
        return min(_BAND_REACH, self.width * 0.3)


class _Picture:
    """One drawing under way: the scales of one lineage, and the elements made with them."""

    def __init__(self, lineage: Lineage) -> None:
        self._lineage = lineage
        bounds = sorted({bound for node in lineage.nodes for bound in node.shard.hash_range})
        wanted = _HEIGHT_PER_RANGE * (len(bounds) - 1)
        self._lanes_height = min(max(wanted, _LANES_HEIGHT_MIN), _LANES_HEIGHT_MAX)
        self._heights = _Heights(bounds, self._lanes_height)
        self._bounds = bounds
        self._start, self._end = _time_span(lineage)
        rates = [node.average.records_per_second for node in lineage.nodes if node.average is not None]
        self._rate_max = max([*rates, 1e-9])
        self._lanes = {node.shard.shard_id: self._lane(node) for node in lineage.nodes}

    def elements(self) -> Iterator[str]:
        """All lines of the file."""
        height = _TOP + self._lanes_height + _BOTTOM
        yield (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:g}" height="{height:g}" '
            f'viewBox="0 0 {_WIDTH:g} {height:g}" role="img">'
        )
        yield f"<title>Shards of {escape(self._lineage.name)}</title>"
        yield f"<style>{_STYLE}</style>"
        yield from self._definitions()
        yield f'<rect width="{_WIDTH:g}" height="{height:g}" fill="#fff"/>'
        yield from self._heading()
        yield from self._hash_axis()
        for lane in self._lanes.values():
            yield from self._lane_elements(lane)
        yield from self._trimmed()
        yield from self._bands()
        yield from self._time_axis()
        for lane in self._lanes.values():
            yield from self._lane_text(lane)
        yield from self._open_ends()
        yield "</svg>"

    def _lane(self, node: Node) -> _Lane:
        first, end = node.shard.hash_range
        return _Lane(
            node,
            self._x(node.statistics.opened_at),
            self._x(node.statistics.closed_at or self._end),
            _TOP + self._heights[first] + _GAP / 2,
            _TOP + self._heights[end] - _GAP / 2,
        )

    def _x(self, moment: datetime) -> float:
        part = (min(max(moment, self._start), self._end) - self._start) / (self._end - self._start)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def _colour(self, rate: float) -> str:
        part = min(max(rate / self._rate_max, 0.0), 1.0) ** _HEAT_EXPONENT
        for (low, below), (high, above) in pairwise(_HEAT):
            if part <= high:
                mixed = (part - low) / (high - low)
                return "#" + "".join(f"{round(a + (b - a) * mixed):02x}" for a, b in zip(below, above, strict=True))
        raise AssertionError(part)

    def _definitions(self) -> Iterator[str]:
        stops = "".join(f'<stop offset="{part:g}" stop-color="rgb{colour}"/>' for part, colour in _HEAT)
        yield (
            f'<defs><linearGradient id="heat">{stops}</linearGradient>'
            '<pattern id="expired" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
            f'<rect width="7" height="7" fill="{_GREY}"/><rect width="1.6" height="7" fill="#b9c0c8"/></pattern></defs>'
        )

    def _heading(self) -> Iterator[str]:
        lineage = self._lineage
        closed = len(lineage.nodes) - lineage.open_count
        size = sum(node.statistics.bytes for node in lineage.nodes)
        yield f'<text class="title" x="{_LEFT:g}" y="34">Shards of {escape(lineage.name)}</text>'
        words = (
            f"{lineage.open_count} open, {closed} closed · {lineage.records:,} records, {bytes_words(size)} · "
            f"{_moment_words(self._start, self._end)} to {_moment_words(self._end, self._start)} UTC"
        )
        yield f'<text class="faint" x="{_LEFT:g}" y="54">{words}</text>'
        yield from self._legend()

    def _legend(self) -> Iterator[str]:
        x, y = _LEFT, 80.0
        origins = {node.origin for node in self._lineage.nodes}
        for origin, colour in _BAND_COLOURS.items():
            if origin in origins:
                yield f'<path fill="{colour}" d="{_LEGEND_SHAPES[origin]}" transform="translate({x:g} {y - 10:g})"/>'
                yield f'<text x="{x + 24:g}" y="{y:g}">{origin}</text>'
                x += 42 + len(origin) * _DIGIT_WIDTH
        if self._lineage.is_trimmed:
            yield f'<rect x="{x:g}" y="{y - 10:g}" width="18" height="12" fill="url(#expired)"/>'
            yield f'<text x="{x + 24:g}" y="{y:g}">expired</text>'
        right = _WIDTH - _RIGHT
        yield f'<rect x="{right - 150:g}" y="{y - 10:g}" width="150" height="12" rx="2" fill="url(#heat)"/>'
        yield f'<text class="faint" text-anchor="end" x="{right - 158:g}" y="{y:g}">records taken per second: 0</text>'
        yield f'<text class="faint" x="{right + 8:g}" y="{y:g}">{rate_words(self._rate_max)}</text>'
        middle = rate_words(self._rate_max * 0.5 ** (1 / _HEAT_EXPONENT))
        yield f'<path d="M{right - 75:g} {y - 13:g}v3" stroke="{_FAINT}"/>'
        yield f'<text class="faint" text-anchor="middle" x="{right - 75:g}" y="{y - 16:g}">{middle}</text>'

    def _hash_axis(self) -> Iterator[str]:
        middle = _TOP + self._lanes_height / 2
        yield (
            f'<text class="faint" text-anchor="middle" transform="translate(22 {middle:g}) rotate(-90)">'
            "hash of the partition key</text>"
        )
        last = float("-inf")
        end = _TOP + self._lanes_height
        for bound in self._bounds:
            y = _TOP + self._heights[bound]
            if bound != HASH_RANGE_END and (y - last < 13 or end - y < 13):
                continue
            last = y
            words = "ffff…" if bound == HASH_RANGE_END else hash_words(bound, 4) + "…"
            yield f'<text class="faint" text-anchor="end" x="{_LEFT - 8:g}" y="{y + 4:.1f}">{words}</text>'
            yield f'<path d="M{_LEFT - 4:g} {y:.1f}h4" stroke="{_FAINT}"/>'

    def _lane_elements(self, lane: _Lane) -> Iterator[str]:
        node = lane.node
        rate = node.average.records_per_second if node.average is not None else 0.0
        yield (
            f'<g class="shard" data-shard="{node.shard.shard_id}"><title>{escape(_lane_words(node))}</title>'
            f'<rect class="lane" x="{lane.left:.2f}" y="{lane.top:.2f}" width="{max(lane.width, 0.5):.2f}" '
            f'height="{max(lane.height, 0.5):.2f}" fill="{self._colour(rate)}"/></g>'
        )

    def _trimmed(self) -> Iterator[str]:
        horizon = self._lineage.horizon_time
        if horizon is None or horizon <= self._start:
            return
        x = self._x(horizon)
        for lane in self._lanes.values():
            if lane.left < x:
                yield (
                    f'<rect class="expired" x="{lane.left:.2f}" y="{lane.top:.2f}" fill="url(#expired)" '
                    f'width="{min(lane.right, x) - lane.left:.2f}" height="{max(lane.height, 0.5):.2f}"/>'
                )
        bottom = _TOP + self._lanes_height
        yield f'<path d="M{x:.2f} {_TOP - 4:g}V{bottom + 4:g}" stroke="{_INK}" stroke-dasharray="4 3"/>'
        words = f"trim horizon {self._lineage.trim_horizon:,}"
        yield f'<text x="{x + 4:.2f}" y="{_TOP - 5:g}">{words}</text>'

    def _bands(self) -> Iterator[str]:
        for lane in self._lanes.values():
            for parent_id in lane.node.shard.parent_ids:
                parent = self._lanes.get(parent_id)
                if parent is not None and lane.node.origin in _BAND_COLOURS:
                    yield _band(parent, lane, _BAND_COLOURS[lane.node.origin])

    def _time_axis(self) -> Iterator[str]:
        bottom = _TOP + self._lanes_height
        yield f'<path d="M{_LEFT:g} {bottom + 3:g}H{_WIDTH - _RIGHT:g}" stroke="{_FAINT}"/>'
        step = next(step for step in _TICK_STEPS if (self._end - self._start) / step <= _TICKS_MAX)
        midnight = self._start.replace(hour=0, minute=0, second=0, microsecond=0)
        tick = midnight + -(-(self._start - midnight) // step) * step
        while tick <= self._end:
            x = self._x(tick)
            yield f'<path class="tick" d="M{x:.2f} {_TOP:g}V{bottom + 7:g}"/>'
            words = _tick_words(tick, step)
            yield f'<text class="faint" text-anchor="middle" x="{x:.2f}" y="{bottom + 20:g}">{words}</text>'
            tick += step
        y = bottom + 40
        yield f'<text class="faint" text-anchor="end" x="{_WIDTH - _RIGHT:g}" y="{y:g}">time, UTC</text>'
        yield f'<text class="faint" x="{_LEFT:g}" y="{y:g}">{_FOOTNOTE}</text>'

    def _lane_text(self, lane: _Lane) -> Iterator[str]:
        x = max(lane.left + lane.reach, self._horizon_x()) + 4
        room = lane.right - lane.reach - 2 - x
        if lane.height < 11:
            return
        number, count = lane.node.number, f"{lane.node.statistics.records:,}"
        words = next((text for text in (f"{number} · {count}", number) if len(text) * _DIGIT_WIDTH <= room), None)
        if words is None:
            return
        rate = lane.node.average.records_per_second if lane.node.average is not None else 0.0
        style = ' class="light"' if rate > _DARK_PART * self._rate_max else ""
        yield f'<text{style} x="{x:.1f}" y="{(lane.top + lane.bottom) / 2 + 4:.1f}">{words}</text>'

    def _horizon_x(self) -> float:
        horizon = self._lineage.horizon_time
        return _LEFT if horizon is None else self._x(horizon)

    def _open_ends(self) -> Iterator[str]:
        x = _WIDTH - _RIGHT
        last = float("-inf")
        for lane in sorted(self._lanes.values(), key=lambda lane: lane.top):
            if not lane.node.is_open:
                continue
            middle = (lane.top + lane.bottom) / 2
            half = min(lane.height / 2, 5.0)
            yield f'<path d="M{x + 1:g} {middle - half:.2f}l6 {half:.2f}l-6 {half:.2f}z" fill="{_INK}"/>'
            if middle - last >= 12:
                last = middle
                rate = lane.node.recent
                words = lane.node.number + (f" · {rate_words(rate.records_per_second)}" if rate else "")
                yield f'<text x="{x + 11:g}" y="{middle + 4:.1f}">{words}</text>'


_LEGEND_SHAPES: Final = {
    "split": "M0 4C9 4 9 0 18 0V5C9 5 9 6 9 6C9 6 9 7 18 7V12C9 12 9 8 0 8Z",
    "merge": "M18 4C9 4 9 0 0 0V5C9 5 9 6 9 6C9 6 9 7 0 7V12C9 12 9 8 18 8Z",
    "roll-over": "M0 2H18V10H0Z",
}
_FOOTNOTE: Final = "a lane for each shard: as high as its hash range (narrow ones widened), with its number and records"


def _band(parent: _Lane, child: _Lane, colour: str) -> str:
    """A split opens from the parent's middle to its children's whole height, a merge closes the other way round."""
    part = _ROLL_OVER_PART if child.node.origin == "roll-over" else 1.0
    left, right = parent.right - parent.reach * part, child.left + child.reach * part
    from_top, from_bottom = parent.top, parent.bottom
    to_top, to_bottom = child.top, child.bottom
    if child.node.origin == "split":
        from_top, from_bottom = _waist(parent)
    elif child.node.origin == "merge":
        to_top, to_bottom = _waist(child)
    bend = (left + right) / 2
    return (
        f'<path class="band" fill="{colour}" d="M{left:.2f} {from_top:.2f}C{bend:.2f} {from_top:.2f} {bend:.2f} '
        f"{to_top:.2f} {right:.2f} {to_top:.2f}V{to_bottom:.2f}C{bend:.2f} {to_bottom:.2f} {bend:.2f} "
        f'{from_bottom:.2f} {left:.2f} {from_bottom:.2f}Z"/>'
    )


def _waist(lane: _Lane) -> tuple[float, float]:
    middle, half = (lane.top + lane.bottom) / 2, min(1.5, lane.height / 2)
    return middle - half, middle + half


def _time_span(lineage: Lineage) -> tuple[datetime, datetime]:
    """What is drawn: from the first shard, or some time before the trim horizon, to the last event."""
    end = lineage.ends_at
    start = min(node.statistics.opened_at for node in lineage.nodes)
    if lineage.horizon_time is not None:
        start = max(start, lineage.horizon_time - (end - lineage.horizon_time) * _TRIMMED_PART_MAX)
    if end - start < timedelta(milliseconds=10):
        end = start + timedelta(seconds=1)
    return start, end


def _moment_words(moment: datetime, other: datetime) -> str:
    is_same_day = moment.date() == other.date() and moment > other
    return f"{moment:%H:%M:%S}" if is_same_day else f"{moment:%Y-%m-%d %H:%M:%S}"


def _tick_words(tick: datetime, step: timedelta) -> str:
    if step < timedelta(seconds=1):
        return f"{tick:%H:%M:%S.%f}"[:-3]
    if step < timedelta(minutes=1):
        return f"{tick:%H:%M:%S}"
    if step < timedelta(days=1):
        return f"{tick:%H:%M}" if tick.hour or tick.minute else f"{tick:%d %b}"
    return f"{tick:%d %b %Y}" if tick.day == 1 and tick.month == 1 else f"{tick:%d %b}"


def _lane_words(node: Node) -> str:
    """What a viewer shows when the pointer rests on a lane."""
    shard, found = node.shard, node.statistics
    until = "open" if found.closed_at is None else f"to {found.closed_at:%Y-%m-%d %H:%M:%S.%f}"
    rate = f", {rate_words(node.average.records_per_second)}" if node.average is not None else ""
    return (
        f"{shard.shard_id} ({node.origin}), hashes {hash_words(shard.hash_range[0], 8)} to "
        f"{hash_words(shard.hash_range[1], 8)}, from {found.opened_at:%Y-%m-%d %H:%M:%S.%f} {until}, "
        f"{found.records:,} records, {bytes_words(found.bytes)}{rate}"
    )

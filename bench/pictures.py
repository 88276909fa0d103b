"""Results as SVG bar charts, one picture per table. Pure: values as JSON holds them, to text.

One hue per kind of contestant (shardlog, the limit, the others), the same in every picture; a light background of its
own, so that a picture reads alike wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from shardlog_tools.measuring.results import number

_WIDTH: Final = 760
_NAME_WIDTH: Final = 230
_FIGURE_WIDTH: Final = 190
_BAR_HEIGHT: Final = 18
_STEP: Final = 26
_TOP: Final = 62
_BOTTOM: Final = 34
_SUBJECT_HUE: Final = "#1f6feb"
_LIMIT_HUE: Final = "#9aa4b2"
_PEER_HUE: Final = "#d29a5b"
_TEXT: Final = "#1c2128"
_QUIET: Final = "#57606a"
_BARE: Final = ("limit", "pwrite+fdatasync", "read, checksum", "step, checksum")


def picture(table: dict[str, Any], caption: str) -> str:
    """One table."""
    rows = table["rows"]
    height = _TOP + _STEP * len(rows) + _BOTTOM
    largest = max(max(row["values"]) for row in rows) or 1.0
    room = _WIDTH - _NAME_WIDTH - _FIGURE_WIDTH
    parts = [
        _text(16, 26, f"{table['name']}: {table['title']}", size=15, weight="600"),
        _text(16, 46, f"{table['unit']}, median and range of {len(rows[0]['values'])} rounds", hue=_QUIET),
    ]
    for number_of_row, row in enumerate(rows):
        parts += _bar(row, number_of_row == 0, _TOP + number_of_row * _STEP, room / largest)
    parts.append(_text(16, height - 12, caption, hue=_QUIET, size=11))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" font-family="system-ui, sans-serif" role="img">',
            f"<title>{escape(table['title'])}</title>",
            f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff" stroke="#d0d7de"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _bar(row: dict[str, Any], is_subject: bool, top: int, scale: float) -> list[str]:
    values: Sequence[float] = row["values"]
    length = max(1.0, row["median"] * scale)
    low, high = (_NAME_WIDTH + value * scale for value in (min(values), max(values)))
    middle = top + _BAR_HEIGHT / 2
    ratio = "" if row["ratio"] is None else f"  (shardlog: {row['ratio']:.2f} x)"
    return [
        _text(_NAME_WIDTH - 8, top + 13, row["name"], anchor="end", weight="600" if is_subject else "400"),
        f'<rect x="{_NAME_WIDTH}" y="{top}" width="{length:.1f}" height="{_BAR_HEIGHT}" rx="2" '
        f'fill="{_hue(row, is_subject)}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{_TEXT}" stroke-width="1.5" opacity="0.55"/>',
        _text(max(high, _NAME_WIDTH + length) + 6, top + 13, number(row["median"]) + ratio),
    ]


def _hue(row: dict[str, Any], is_subject: bool) -> str:
    if is_subject or row["ratio"] is None:
        return _SUBJECT_HUE
    return _LIMIT_HUE if row["name"].startswith(_BARE) else _PEER_HUE


def _text(
    x: float, y: float, content: str, *, size: int = 12, anchor: str = "start", weight: str = "400", hue: str = _TEXT
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{hue}" xml:space="preserve">{escape(content)}</text>'
    )

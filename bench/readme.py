"""The README's passage on figures: made from a result file, between two markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from bench.comparison import goals_table, origin_note

FIRST: Final = "<!-- figures: made by `python -m bench readme` -->"
LAST: Final = "<!-- end of figures -->"


def replace_figures(path: Path, content: dict[str, Any]) -> None:
    """Put the goals and what was measured between the markers. Raises ValueError where they are missing."""
    path.write_text(with_figures(path.read_text(), content))


def with_figures(text: str, content: dict[str, Any]) -> str:
    """The text with what is between the markers made anew."""
    before, first, rest = text.partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not (first and last):
        raise ValueError(f"expected the markers {FIRST} and {LAST}, found them not")
    return f"{before}{FIRST}\n{goals_table(content)}\n\n{origin_note(content)}\n{LAST}{after}"

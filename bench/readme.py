"""The README's passage on figures and its picture: made from a result file, between two markers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from bench.comparison import caption_of, goals_table, origin_note
from bench.pictures import picture

FIRST: Final = "<!-- figures: made by `python -m bench readme` -->"
LAST: Final = "<!-- end of figures -->"


PICTURED: Final = "append-100"
_PUBLISHED: Final = "bench/published"


def publish(root: Path, content: dict[str, Any]) -> None:
    """Put the goals and what was measured into the README, and the picture and the file itself beside the code.

    Raises ValueError where the markers are missing.
    """
    readme = root / "README.md"
    readme.write_text(with_figures(readme.read_text(), content))
    directory = root / _PUBLISHED
    directory.mkdir(exist_ok=True)
    (directory / "figures.json").write_text(json.dumps(content, indent=1) + "\n")
    for table in content["tables"]:
        if table["name"] == PICTURED:
            (directory / f"{PICTURED}.svg").write_text(picture(table, caption_of(content)))


def with_figures(text: str, content: dict[str, Any]) -> str:
    """The text with what is between the markers made anew."""
    before, first, rest = text.partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not (first and last):
        raise ValueError(f"expected the markers {FIRST} and {LAST}, found them not")
    link = f"![{PICTURED}]({_PUBLISHED}/{PICTURED}.svg)"
    image = f"{link}\n\n" if any(table["name"] == PICTURED for table in content["tables"]) else ""
    return f"{before}{FIRST}\n{image}{goals_table(content)}\n\n{origin_note(content)}\n{LAST}{after}"

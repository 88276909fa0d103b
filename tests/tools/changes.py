"""Made-up changes in the import format, and what a stream must then hold."""

from __future__ import annotations

import json
import random
from typing import Any

Line = dict[str, Any]


def made_up_lines(count: int, seed: int) -> list[Line]:
    """Changes of few items, each old image being the item as it was."""
    choices = random.Random(seed)
    items: dict[int, Line] = {}
    lines = []
    for number in range(count):
        item = choices.randrange(50)
        old = items.pop(item, None)
        if old is None or choices.random() < 0.8:
            items[item] = {"id": item, "number": number, "text": "é" * choices.randrange(30)}
        event = "INSERT" if old is None else "MODIFY" if item in items else "REMOVE"
        lines.append({"event": event, "time": number, "keys": {"id": item}, "new": items.get(item), "old": old})
    return lines


def as_bytes(lines: list[Line]) -> bytes:
    """The lines as an import reads them."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def contents(lines: list[Line]) -> list[tuple[Any, ...]]:
    """What of each line a stream keeps."""
    return [(line["event"], line["keys"], line["new"], line["old"]) for line in lines]


def replayed(changes: list[tuple[Any, ...]]) -> dict[str, Any]:
    """The items that changes lead to."""
    items: dict[str, Any] = {}
    for _, keys, new, old in changes:
        name = json.dumps(keys, sort_keys=True)
        assert items.get(name) == old
        if new is None:
            del items[name]
        else:
            items[name] = new
    return items

"""What the machine appends: items that can be told apart, good ones and bad ones."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st
from tests.model.plain import Item

SIZES: Final = (0, 30, 480, 3000, 17_000)
"""Bytes of an image: several to a sector, several sectors, several to a segment, more than a segment."""
EVENTS: Final = ("INSERT", "MODIFY", "REMOVE")
EXTRAS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"some": [None, True, -1, 1.5, b"\0\xff"], "price": Decimal("1.10")},
    {"tags": {"a", "b"}, "seen": datetime(2026, 1, 2, 3, tzinfo=UTC), "nested": {"": {}}},
)
REFUSED: Final[tuple[tuple[dict[str, Any], dict[str, Any] | None], ...]] = (
    ({}, {}),
    ({"id": "a", "other": 1}, {"id": "a", "other": 1}),
    ({"id": "a"}, None),
    ({"id": "a"}, {"id": "b"}),
    ({"id": "a"}, {"id": "a", "value": object()}),
    ({"id": "a"}, {"id": "a", "value": 1 << 64}),
    ({"id": "a"}, {"id": "a", 1: "key that is no text"}),  # type: ignore[dict-item]
)
"""Keys and new images that no append takes where the keys are `id` and the view type carries new images."""

sizes = st.integers(0, 99).map(lambda drawn: SIZES[(drawn >= 40) + (drawn >= 70) + (drawn >= 90) + (drawn >= 98)])
appends = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), sizes), max_size=5)
"""Of each item the event, the extra values, the size."""
producers = st.none() | st.tuples(st.sampled_from(("p", "q")), st.integers(0, 6))


def item_of(number: int, event: int, extra: int, size: int) -> Item:
    """An item; `number` tells it from all others, and is what its bytes come from."""
    rng = random.Random(number)
    keys = {"id": f"item-{number}"}
    image = {**keys, **EXTRAS[extra], "bytes": rng.randbytes(size), "bit": 1 << rng.randrange(7)}
    match EVENTS[event]:
        case "INSERT":
            return Item("INSERT", keys, image, None)
        case "MODIFY":
            return Item("MODIFY", keys, {**keys, "now": number}, image)
        case _:
            return Item("REMOVE", keys, None, image)

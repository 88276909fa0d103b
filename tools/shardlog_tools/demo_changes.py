"""The changes that the demo captures: a small shop's stock, made up from a seed.

Pure: `appends(seed, thread)` gives the same changes every time, so that what is read back can be compared with what
must have been written, without having kept it. Each thread has items of its own, so the threads' order does not matter.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from shardlog import Change

_RECORDS_PER_APPEND_MAX: Final = 20
_ITEMS_PER_THREAD_MAX: Final = 500
_INSERTS: Final = 0.2
_REMOVES: Final = 0.1
_NAMES: Final = ("anvil", "bell", "candle", "drum", "easel", "flute", "globe", "hammer", "inkwell", "jar", "kettle")


def appends(seed: int, thread: int) -> Iterator[list[Change]]:
    """What one thread appends, append by append, without end."""
    choices = random.Random(f"{seed}/{thread}")
    items: dict[str, dict[str, Any]] = {}
    skus: list[str] = []
    item_count = 0
    while True:
        changes = []
        for _ in range(1 + int(choices.random() * _RECORDS_PER_APPEND_MAX)):
            kind = choices.random()
            if not skus or (kind < _INSERTS and len(skus) < _ITEMS_PER_THREAD_MAX):
                item_count += 1
                sku = f"{thread}-{item_count:07d}"
                skus.append(sku)
                items[sku] = _new_item(sku, choices)
                changes.append(Change.insert(keys={"sku": sku}, new=items[sku]))
                continue
            place = int(choices.random() * len(skus))
            sku = skus[place]
            old = items[sku]
            if kind > 1 - _REMOVES:
                skus[place] = skus[-1]
                skus.pop()
                changes.append(Change.remove(keys={"sku": sku}, old=items.pop(sku)))
                continue
            items[sku] = {**old, "stock": int(choices.random() * 100), "version": old["version"] + 1}
            changes.append(Change.modify(keys={"sku": sku}, old=old, new=items[sku]))
        yield changes


def thread_of(keys: dict[str, Any]) -> int:
    """The thread whose item has these keys."""
    return int(keys["sku"].partition("-")[0])


def _new_item(sku: str, choices: random.Random) -> dict[str, Any]:
    return {
        "sku": sku,
        "name": _NAMES[int(choices.random() * len(_NAMES))],
        "price": Decimal(int(choices.random() * 10_000)).scaleb(-2),
        "stock": int(choices.random() * 100),
        "version": 1,
    }

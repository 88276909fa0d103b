"""The changes that the workloads append: a shop's stock, made up from a seed. Pure."""

from __future__ import annotations

import random
from typing import Any, Final

from shardlog import Change

_SKUS: Final = 5_000
_NAMES: Final = ("anvil", "bell", "candle", "drum", "easel", "flute", "globe", "hammer", "inkwell", "kettle")
_PLACES: Final = ("north", "south", "east", "west")
_COMMITS_AT_LEAST: Final = 4
_CHANGES_AT_LEAST: Final = 2_000


def change_commits(records_per_commit: int, seed: int = 1) -> list[list[Change]]:
    """Lists of changes, each for one commit, to be gone through again and again: about 130 bytes encoded per change.

    Not more of them than a processor's cache holds, because a program appends what it has just made.
    """
    choices = random.Random(seed)
    commits = max(_COMMITS_AT_LEAST, _CHANGES_AT_LEAST // records_per_commit)
    return [[_modification(choices) for _ in range(records_per_commit)] for _ in range(commits)]


def _modification(choices: random.Random) -> Change:
    number = choices.randrange(_SKUS)
    sku = f"{number % 97:02d}-{number:06d}"
    old: dict[str, Any] = {
        "sku": sku,
        "name": choices.choice(_NAMES),
        "place": choices.choice(_PLACES),
        "stock": choices.randrange(500),
        "version": choices.randrange(1, 2_000),
    }
    new = {**old, "stock": choices.randrange(500), "version": old["version"] + 1}
    return Change.modify(keys={"sku": sku}, old=old, new=new)

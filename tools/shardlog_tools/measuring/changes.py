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


def sized_commits(record_bytes: int, records_per_commit: int, seed: int = 1) -> list[list[Change]]:
    """The same with INSERTs of about `record_bytes` encoded each: keys, a number, and text for the rest."""
    choices = random.Random(seed)
    return [[_insertion(choices, record_bytes) for _ in range(records_per_commit)] for _ in range(_COMMITS_AT_LEAST)]


def _sku(choices: random.Random) -> str:
    number = choices.randrange(_SKUS)
    return f"{number % 97:02d}-{number:06d}"


def _modification(choices: random.Random) -> Change:
    sku = _sku(choices)
    old: dict[str, Any] = {
        "sku": sku,
        "name": choices.choice(_NAMES),
        "place": choices.choice(_PLACES),
        "stock": choices.randrange(500),
        "version": choices.randrange(1, 2_000),
    }
    new = {**old, "stock": choices.randrange(500), "version": old["version"] + 1}
    return Change.modify(keys={"sku": sku}, old=old, new=new)


_INSERTION_BESIDES_TEXT: Final = 60


def _insertion(choices: random.Random, record_bytes: int) -> Change:
    sku = _sku(choices)
    text = "".join(
        choices.choices("abcdefghijklmnopqrstuvwxyz      ", k=max(1, record_bytes - _INSERTION_BESIDES_TEXT))
    )
    return Change.insert(keys={"sku": sku}, new={"sku": sku, "stock": choices.randrange(500), "text": text})

"""A lineage drawn as text: a tree from parents to children, with the figures of each shard beside it.

Every shard is one line, below all of its parents. A split forks; an only child (of a merge or a roll-over) stands right
below its parent, and a merge names both, because only one of them can be above it:

    ○ 0
    ├─○ 1                merged with 2 into 3
    └─○ 2                merged with 1 into 3
      ● 3                merges 1 and 2
"""

from __future__ import annotations

from typing import Final

from shardlog.model import HASH_RANGE_END
from shardlog_tools.descriptions import bytes_words, count_words, hash_digits, hash_words, number_of, rate_words
from shardlog_tools.lineage import Lineage, Node, Place, drawing_order

_BAR_CELLS: Final = 24
_HEADINGS: Final[tuple[str, ...]] = (
    "SHARD",
    "HASHES",
    "FROM",
    "TO",
    "RECORDS",
    "BYTES",
    "RECORDS/S",
    "BYTES/S",
    "FIRST",
    "END",
    "",
)
_TO_THE_RIGHT: Final = frozenset({4, 5, 6, 7, 8, 9})


def tree_lines(lineage: Lineage) -> list[str]:
    """The lines of the drawing, the last of which says what the signs mean."""
    digits = hash_digits(node.shard for node in lineage.nodes)
    rows = [_HEADINGS]
    for place in drawing_order(lineage):
        node = place.node
        sign = "● " if node.is_open else "○ "
        rows.append((_branch(place) + sign + node.number, *_cells(node, digits), _remark(node, lineage)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        *("  ".join(map(_set, row, widths, range(len(row)))).rstrip() for row in rows),
        f"● open, ○ closed; rates: the last minute of open shards, the life of closed ones{_trim_words(lineage)}",
    ]


def summary(lineage: Lineage) -> str:
    """The lineage in one line."""
    closed = len(lineage.nodes) - lineage.open_count
    words = count_words(closed, "closed shard")
    return f"{lineage.name}: {lineage.open_count:,} open and {words}, {count_words(lineage.records, 'record')}"


def _branch(place: Place) -> str:
    """What stands before a shard's sign."""
    forks = ["  " if is_last else "│ " for is_last in place.branches]
    if place.is_branch:
        forks[-1] = "└─" if place.branches[-1] else "├─"
    return "".join(forks)


def _cells(node: Node, digits: int) -> tuple[str, ...]:
    shard = node.shard
    rate = node.recent if node.is_open else node.average
    return (
        _bar(shard.hash_range),
        hash_words(shard.hash_range[0], digits),
        hash_words(shard.hash_range[1], digits),
        f"{node.statistics.records:,}",
        bytes_words(node.statistics.bytes),
        rate_words(rate.records_per_second) if rate else "-",
        f"{bytes_words(rate.bytes_per_second)}/s" if rate else "-",
        f"{shard.first_sequence:,}",
        "open" if shard.end_sequence is None else f"{shard.end_sequence:,}",
    )


def _bar(hash_range: tuple[int, int]) -> str:
    """Where the range lies in the whole; a narrow one takes one cell."""
    first = hash_range[0] * _BAR_CELLS // HASH_RANGE_END
    end = max(first + 1, -(-hash_range[1] * _BAR_CELLS // HASH_RANGE_END))
    return "·" * first + "█" * (end - first) + "·" * (_BAR_CELLS - end)


def _remark(node: Node, lineage: Lineage) -> str:
    words = []
    parents = [
        number_of(parent) + ("" if parent in lineage.by_id else " (expired)") for parent in node.shard.parent_ids
    ]
    if node.origin == "merge":
        words.append(f"merges {' and '.join(parents)}")
    elif node.origin == "roll-over":
        words.append(f"rolled over from {parents[0]}")
    elif node.origin == "unknown":
        words.append(f"from {parents[0]}")
    child = lineage.by_id[node.child_ids[0]] if node.child_ids else None
    if child is not None and child.origin == "merge":
        other = next(parent for parent in child.shard.parent_ids if parent != node.shard.shard_id)
        words.append(f"merged with {number_of(other)} into {child.number}")
    return "; ".join(words)


def _trim_words(lineage: Lineage) -> str:
    return f"; records before {lineage.trim_horizon:,} have expired" if lineage.is_trimmed else ""


def _set(cell: str, width: int, index: int) -> str:
    return cell.rjust(width) if index in _TO_THE_RIGHT else cell.ljust(width)

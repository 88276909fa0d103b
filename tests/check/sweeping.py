"""Judges many damages of one store, here or on all processors."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.check.damage import Case, Original, judge, judge_repair

Sweep = Callable[[Original, Iterable[Case], Path, int], Counter[str]]
"""Judges cases, and the repair of every so many, in a place of its own: how many there were of each kind."""

REPAIRS = "repairs"
CASES_PER_MESSAGE = 64


def sweep_here(original: Original, cases: Iterable[Case], place: Path, repair_every: int = 1) -> Counter[str]:
    """One after the other."""
    counts: Counter[str] = Counter()
    for number, case in enumerate(cases, 1):
        counts += judge_case(original, case, place, number % repair_every == 0)
    return counts


def sweep_together(original: Original, cases: Iterable[Case], place: Path, repair_every: int = 1) -> Counter[str]:
    """Several at a time."""
    counts: Counter[str] = Counter()
    processes = len(os.sched_getaffinity(0))
    with multiprocessing.get_context("spawn").Pool(processes, _begin, (original, place)) as pool:
        for part in pool.imap_unordered(_judge_some, _batches(cases, repair_every)):
            counts += part
    return counts


def judge_case(original: Original, case: Case, place: Path, is_repaired: bool) -> Counter[str]:
    """Judge a case, and its repair, if there is anything to repair."""
    report = judge(original, case, place)
    if report.clean or not is_repaired:
        return Counter([case.kind])
    judge_repair(original, case, place, report)
    return Counter([case.kind, REPAIRS])


_Batch = list[tuple[Case, bool]]


def _batches(cases: Iterable[Case], repair_every: int) -> Iterator[_Batch]:
    batch: _Batch = []
    for number, case in enumerate(cases, 1):
        batch.append((case, number % repair_every == 0))
        if len(batch) == CASES_PER_MESSAGE:
            yield batch
            batch = []
    yield batch


# What a process of the pool judges by, and where.
_subject: list[tuple[Original, Path]] = []


def _begin(original: Original, place: Path) -> None:
    _subject.append((original, place.with_name(f"{place.name}-{os.getpid()}")))


def _judge_some(batch: _Batch) -> Counter[str]:
    ((original, place),) = _subject
    counts: Counter[str] = Counter()
    for case, is_repaired in batch:
        counts += judge_case(original, case, place, is_repaired)
    return counts

"""The README's promises name the tests that prove them, and these tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "engine/DESIGN.md")
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PROMISES = "## What it promises"
PROOFS = "### What proves it"


def named_tests(text: str) -> list[tuple[str, str]]:
    """File and test of each test that a text names; an empty test is the whole file."""
    return NAMED.findall(text)


def section(name: str) -> str:
    """A section of the README, to the next one of its level or above."""
    text = (ROOT / "README.md").read_text()
    level = name.split(" ")[0]
    return re.split(rf"\n#{{2,{len(level)}}} ", text[text.index(f"\n{name}\n") + 1 :])[0]


def names_of_tests(path: Path) -> set[str]:
    """The tests of a file."""
    tree = ast.parse(path.read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def missing(text: str) -> list[str]:
    """The tests that a text names and that do not exist."""
    return [
        f"{file}::{test}"
        for file, test in named_tests(text)
        if not (ROOT / file).is_file() or (test and test not in names_of_tests(ROOT / file))
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    """A proof that was renamed or removed is no proof."""
    assert missing((ROOT / document).read_text()) == []


def test_every_promise_names_its_proof() -> None:
    """Each cell of the table has a row of its own with at least one test; so has each promise that always holds."""
    rows = [line for line in section(PROOFS).splitlines() if line.startswith("| ")][1:]
    promised = section(PROMISES).split(PROOFS)[0]
    always = [line for line in promised.splitlines() if line.startswith("- ")]
    for level in ('"fsync"', '"os"'):
        for event in ("SIGKILL", "power loss", "flipped bit"):
            (row,) = (row for row in rows if row.startswith(f"| `{level}`, {event} |"))
            assert named_tests(row), row
    assert len(rows) == 2 * 3 + len(always)
    assert all(named_tests(row) for row in rows)


def test_a_proof_that_is_not_there_is_missed() -> None:
    """The control."""
    assert missing("`tests/test_readme.py::test_nothing` and `tests/none.py`") == [
        "tests/test_readme.py::test_nothing",
        "tests/none.py::",
    ]
    assert missing("`tests/test_readme.py::test_a_proof_that_is_not_there_is_missed`") == []

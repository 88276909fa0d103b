from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.tools.changes import as_bytes, contents, made_up_lines, replayed
from tests.tools.commands import command_of, run_process


def kill_while_importing(store: Path, content: bytes, cut: int, *words: object) -> None:
    """Feed an import the first `cut` bytes and kill it while the last of them are on their way."""
    with subprocess.Popen(
        command_of("import", store, "s", "-", *words), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        # A pipe takes 64 KiB: when this returns, the import has read all but the last of it.
        process.stdin.write(content[:cut])
        process.stdin.flush()
        process.kill()
        assert process.wait() == -9


def imported(store: Path) -> list[dict[str, Any]]:
    """What the stream holds."""
    return [json.loads(line) for line in run_process("cat", store, "s").data.splitlines()]


@pytest.mark.parametrize(("seed", "batch"), [(1, 1), (2, 50), (3, 500)])
def test_resume_after_a_kill_gives_the_same_stream(store: Path, seed: int, batch: int) -> None:
    """SIGKILL at some moment, then --resume: every line is in the stream, in order, none twice."""
    choices = random.Random(seed)
    lines = made_up_lines(5000, seed)
    content = as_bytes(lines)
    assert run_process("create", store, "s").status == 0
    reached = [0]
    for _ in range(3):
        kill_while_importing(store, content, choices.randrange(len(content)), "--resume", "--batch", batch)
        reached.append(len(imported(store)))
        assert contents(imported(store)) == contents(lines[: reached[-1]])
    assert reached == sorted(reached)
    outcome = run_process("import", store, "s", "-", "--resume", "--json", stdin=content)
    assert outcome.status == 0, outcome.talk
    assert outcome.json()["records"] == len(lines) - reached[-1]
    records = imported(store)
    assert contents(records) == contents(lines)
    sequences = [record["sequence"] for record in records]
    assert sequences == sorted(set(sequences))


def test_the_real_changes_come_in_and_rebuild_the_items(store: Path, real_changes: Path) -> None:
    """60,000 real changes from the compressed file: all there, and replaying them gives 1,394 items."""
    outcome = run_process("import", store, "files", real_changes, "--create", "--json")
    assert outcome.status == 0, outcome.talk
    assert outcome.json()["records"] == 60_000
    lines = [json.loads(line) for line in gzip.decompress(real_changes.read_bytes()).splitlines()]
    records = [json.loads(line) for line in run_process("cat", store, "files").data.splitlines()]
    assert contents(records) == contents(lines)
    assert len(replayed(contents(records))) == 1394


def test_the_real_changes_survive_kills(store: Path, real_changes: Path) -> None:
    """Killed at random moments all along the file and resumed each time, the stream is the same, nothing twice."""
    seed = int(os.environ.get("SHARDLOG_TEST_SEED", random.randrange(1_000_000)))
    print(f"SHARDLOG_TEST_SEED={seed}")
    choices = random.Random(seed)
    content = gzip.decompress(real_changes.read_bytes())
    assert run_process("create", store, "s", "--shards", "3", "--retention", "forever").status == 0
    for part in range(1, 9):
        cut = choices.randrange((part - 1) * len(content) // 8, part * len(content) // 8)
        kill_while_importing(store, content, cut, "--resume")
    outcome = run_process("import", store, "s", "-", "--resume", "--json", stdin=content)
    assert outcome.status == 0, outcome.talk
    records = imported(store)
    lines = [json.loads(line) for line in content.splitlines()]
    assert len(records) == 60_000
    assert len(replayed(contents(records))) == 1394

    def by_item(changes: list[dict[str, Any]]) -> dict[str, list[Any]]:
        items: dict[str, list[Any]] = {}
        for change in contents(changes):
            items.setdefault(json.dumps(change[1]), []).append(change)
        return items

    assert by_item(records) == by_item(lines)

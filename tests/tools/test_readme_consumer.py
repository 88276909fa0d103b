"""The README's consumer, as a newcomer copies it: run, killed, run again, run twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.background import wait_until
from tests.tools.consumed import append, group_of, running

README = Path(__file__).resolve().parents[2] / "README.md"
Printed = list[tuple[str, int]]


@pytest.fixture
def program(tmp_path: Path, store: Path) -> Path:
    """The README's block, with this test's store and stream."""
    section = README.read_text().partition("\n## Consume\n")[2]
    block = section.partition("```python\n")[2].partition("```")[0]
    assert block.count('"/tmp/store"') == block.count('"orders"') == 1
    path = tmp_path / "printer.py"
    path.write_text(block.replace('"/tmp/store"', repr(str(store))).replace('"orders"', '"s"'))
    return path


def printed(text: bytes) -> Printed:
    """Shard and sequence number of each whole line."""
    lines = [line.split() for line in text.decode().splitlines(keepends=True) if line.endswith("\n")]
    return [(shard, int(sequence)) for shard, sequence, *_ in lines]


def run_until(program: Path, is_done: Callable[[], bool], number: signal.Signals) -> tuple[int, Printed, bytes]:
    """Run it until something is so, then send a signal; its exit status, what it printed, and its complaints."""
    output = program.with_suffix(".out")  # a pipe that nobody reads would be full
    with running(["/bin/sh", "-c", f"exec {sys.executable} {program} > {output}"]) as process:
        wait_until(lambda: is_done() or process.poll() is not None)
        process.send_signal(number)
        talk = process.communicate(timeout=60)[1]
        return process.returncode, printed(output.read_bytes()), talk


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_started_again_it_goes_on_where_it_was(program: Path, store: Path, number: signal.Signals) -> None:
    """Killed or stopped after what was there: the next run prints what came since, and nothing else."""
    first = append(store, 0, 20)
    with group_of(store, "printer") as group:

        def is_drained() -> bool:
            return not group.lag().records

        status, lines, talk = run_until(program, is_drained, number)
        assert talk == b""
        assert status == (-number if number == signal.SIGKILL else 0)
        assert [sequence for _, sequence in lines] == first
        second = append(store, 20, 20)
        status, lines, talk = run_until(program, is_drained, signal.SIGTERM)
        assert (status, talk) == (0, b"")
        assert [sequence for _, sequence in lines] == second


def test_killed_in_the_middle_nothing_is_left_out(program: Path, store: Path) -> None:
    """At least once, in order; what comes twice is one batch at most."""
    sequences = append(store, 0, 3000)
    with running([sys.executable, str(program)]) as process:
        assert process.stdout is not None
        begun = b"".join(process.stdout.readline() for _ in range(700))
        process.kill()
        before = [sequence for _, sequence in printed(begun + process.stdout.read())]
    with group_of(store, "printer") as group:
        status, lines, talk = run_until(program, lambda: not group.lag().records, signal.SIGINT)
    assert (status, talk) == (0, b"")
    after = [sequence for _, sequence in lines]
    assert before == sequences[: len(before)]
    assert after == sequences[-len(after) :]
    assert 0 <= len(before) + len(after) - len(sequences) <= 500


def test_two_of_them_share_the_shards(program: Path, store: Path) -> None:
    """Each prints the records of its own shards, each record once; the one that is left takes over at once."""
    append(store, 0, 1, shards=2)
    words = [sys.executable, str(program)]
    with group_of(store, "printer") as group, running(words) as one, running(words) as other:

        def owners() -> set[str | None]:
            return {lease.owner for lease in group.leases()}

        wait_until(lambda: len(group.workers()) == 2 and len(owners() - {None}) == 2 and not group.lag().records)
        shared = append(store, 1, 40)
        wait_until(lambda: not group.lag().records)
        one.kill()
        left = append(store, 41, 40)
        wait_until(lambda: not group.lag().records)
        other.send_signal(signal.SIGTERM)
        by_one, by_other = (printed(process.communicate(timeout=60)[0]) for process in (one, other))
        assert other.returncode == 0
    shares = [{sequence for _, sequence in lines} & set(shared) for lines in (by_one, by_other)]
    assert all(shares)
    assert not shares[0] & shares[1]
    assert shares[0] | shares[1] == set(shared)
    assert {sequence for _, sequence in by_other} >= set(left)
    assert len({shard for shard, sequence in by_other if sequence in set(left)}) == 2


def test_the_program_stands_for_itself(program: Path) -> None:
    """It needs nothing but the package, and says what is wrong where there is no store."""
    done = subprocess.run([sys.executable, str(program)], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"expected a store, found nothing" in done.stderr

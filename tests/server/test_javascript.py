"""The AWS SDK for JavaScript, as npm has it, against servers that are killed in the middle."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.server.serving import Served
from tests.support.background import wait_until

import shardlog
from shardlog import Change

SOURCES = Path(__file__).parent / "javascript"
INSTALL_SECONDS = 240
RUN_SECONDS = 120


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts, beside the SDK that they need."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no node, or no npm")
    directory = tmp_path_factory.mktemp("javascript")
    shutil.copytree(SOURCES, directory, dirs_exist_ok=True)
    done = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefer-offline"],
        cwd=directory,
        capture_output=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm cannot install the SDK: {done.stderr.decode()[-300:]}")
    return directory


def test_a_follower_over_kills_splits_and_roll_overs(scripts: Path, tmp_path: Path) -> None:
    """Every record once, none missing, in order per key, though the server is killed again and again."""
    with shardlog.open(tmp_path / "store") as store, Served(tmp_path / "store") as served:
        stream = store.create_stream("users", key_names=["id"], segment_bytes=64 << 10)
        arn = stream.describe().arn
        output = tmp_path / "output"
        with output.open("wb") as lines:
            follower = subprocess.Popen(["node", "follow.mjs", served.address, arn], cwd=scripts, stdout=lines)
        try:
            expected: list[str] = []
            for round_number in range(4):
                for number in range(40):
                    key = f"{round_number}-{number}"
                    stream.append([Change.insert(keys={"id": key}, new={"id": key})])
                    expected.append(key)
                seen = len(expected) - 20
                wait_until(lambda seen=seen: len(output.read_text().splitlines()) >= seen)  # type: ignore[misc]
                served.restart()
                served.admin("split" if round_number % 2 else "roll", StreamArn=arn)
            store.disable_stream("users")
            assert follower.wait(RUN_SECONDS) == 0
        finally:
            follower.kill()
            follower.wait()
        assert sorted(output.read_text().split()) == sorted(expected)


def test_tables(scripts: Path, tables: Served) -> None:
    """Checksums, binary, all kinds of writes."""
    done = subprocess.run(
        ["node", "tables.mjs", tables.address], cwd=scripts, capture_output=True, timeout=RUN_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        ["INSERT", "a", None],
        ["MODIFY", "a", [0, 255]],
        ["INSERT", "b", None],
        ["INSERT", "c", None],
        ["INSERT", "d", None],
        ["REMOVE", "a", [0, 255]],
    ]

"""The lines of the README, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from tests.server.serving import Served, create_table
from tests.test_readme import section

CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def blocks() -> list[str]:
    """The section's blocks of Python."""
    return CODE.findall(section("## Serve"))


def test_a_tables_stream_survives_a_kill(
    blocks: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first block writes; after SIGKILL and another start the second one reads what was written."""
    write, read, _ = blocks
    with Served(tmp_path / "data", "--dynamodb") as served:
        names: dict[str, Any] = {}
        exec(write.replace("http://localhost:8000", served.address), names)
        served.restart()
        capsys.readouterr()
        exec(read, names)
    assert capsys.readouterr().out.splitlines() == [
        "INSERT None {'id': {'S': 'ada'}, 'visits': {'N': '1'}}",
        "MODIFY {'id': {'S': 'ada'}, 'visits': {'N': '1'}} {'id': {'S': 'ada'}, 'visits': {'N': '2'}}",
    ]


def test_the_plug_in(blocks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third block, with a test in the place of its dots."""
    monkeypatch.chdir(tmp_path)

    def use() -> None:
        with mock_aws():
            arn = create_table(boto3.client("dynamodb", region_name="us-east-1"))
            assert boto3.client("dynamodbstreams", region_name="us-east-1").describe_stream(StreamArn=arn)

    code = blocks[2]
    assert code.count("...  #") == 1
    exec(code.replace("...  #", "use()  #"), {"use": use})
    assert (tmp_path / "streams/STORE").is_file()

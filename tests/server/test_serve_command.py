"""The command, and what it needs: nothing of the extras is imported by anybody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.tools.commands import run_process

EXTRAS = ("boto3", "botocore", "httptools", "moto", "prometheus_client", "uvicorn", "werkzeug")


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("module", ["shardlog", "shardlog_tools.main", "shardlog_tools.serve"])
def test_importing_needs_no_extra(module: str) -> None:
    """The engine and the command line are there without what the server needs."""
    done = run_python(f"import sys, {module}; print([name for name in {EXTRAS!r} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


def test_the_server_alone_needs_no_moto() -> None:
    """The extra `server` is enough to serve streams."""
    done = run_python("import sys, shardlog.server.running; print('moto' in sys.modules, 'botocore' in sys.modules)")
    assert done.stdout == "False False\n", done.stderr


@pytest.mark.parametrize("missing", ["uvicorn", "prometheus_client", "httptools"])
def test_without_the_extra(tmp_path: Path, missing: str) -> None:
    """One line that says what to install, and exit status 1."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        f"from shardlog_tools.main import main; sys.exit(main(['serve', {str(tmp_path / 'store')!r}]))"
    )
    done = run_python(code)
    assert done.returncode == 1
    assert "pip install 'shardlog[server]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_moto(tmp_path: Path) -> None:
    """The same for --dynamodb; another version is told apart from none."""
    code = (
        "import sys, shardlog.moto.versions as versions\n"
        "versions.MOTO_VERSIONS = ('1.2.3',)\n"
        f"from shardlog_tools.main import main; sys.exit(main(['serve', {str(tmp_path / 'store')!r}, '--dynamodb']))"
    )
    done = run_python(code)
    assert done.returncode == 1
    assert "expected version 1.2.3, found 5." in done.stderr
    assert "shardlog[dynamodb]" in done.stderr


def test_help() -> None:
    """Says what there is."""
    outcome = run_process("serve", "--help")
    assert outcome.status == 0
    for word in ("--dynamodb", "--access-key", "--certfile", "--clock-offset", "--ttl-interval", "/metrics"):
        assert word in outcome.data

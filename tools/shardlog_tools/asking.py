"""Asking before something is done that cannot be taken back."""

from __future__ import annotations

import sys

from shardlog_tools.output import USED_WRONGLY, CommandFailed, Output


def check_can_ask(is_agreed: bool, verb: str) -> None:
    """Raise CommandFailed where there is nobody to ask and `--yes` was not said."""
    if not is_agreed and not sys.stdin.isatty():
        raise CommandFailed(f"nobody to ask whether to {verb}: say --yes", USED_WRONGLY)


def is_confirmed(question: str, answer: str, output: Output) -> bool:
    """Ask; whether `answer` was typed."""
    output.write_out()
    output.say(question)
    return sys.stdin.readline().strip() == answer

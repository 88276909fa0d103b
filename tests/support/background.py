"""Running something beside the test, and waiting for conditions: always with a time limit, never for a fixed time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")

LIMIT_SECONDS = 30.0
_PAUSE_SECONDS = 0.001


class Background(Generic[Value]):
    """A function in a thread of its own; a thread that hangs fails the test and does not keep the run from ending."""

    def __init__(self, function: Callable[..., Value], *arguments: object) -> None:
        self._function = function
        self._arguments = arguments
        self._value: list[Value] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._function(*self._arguments))
        except BaseException as error:  # handed to whoever asks for the result
            self._error = error

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._thread.is_alive()

    def result(self, limit_seconds: float = LIMIT_SECONDS) -> Value:
        """What it returned, or raise what it raised."""
        self._thread.join(limit_seconds)
        assert not self._thread.is_alive(), f"still running after {limit_seconds} s"
        if self._error is not None:
            raise self._error
        return self._value[0]


def wait_until(condition: Callable[[], object], limit_seconds: float = LIMIT_SECONDS) -> None:
    """Return as soon as the condition holds; fail after the limit."""
    deadline = time.monotonic() + limit_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {limit_seconds} s"
        time.sleep(_PAUSE_SECONDS)

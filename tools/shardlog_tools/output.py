"""Where a command's words go: data to stdout, talk to stderr.

Owns the two streams, their encoding (UTF-8 whatever the locale says: data must not depend on a variable), the shape of
errors, and the progress bar. Data is buffered; `write_out` hands it on. Nothing here knows what a command does.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final, TextIO

DONE: Final = 0
FAILED: Final = 1
USED_WRONGLY: Final = 2
INTERRUPTED: Final = 130

_PROGRESS_AFTER_SECONDS: Final = 0.5
_PROGRESS_EVERY_SECONDS: Final = 0.1
_BAR_WIDTH: Final = 30
_CLEAR_LINE: Final = "\r\x1b[K"
_ERROR_DETAILS: Final = ("position", "field", "segment", "offset", "sequences")


class CommandFailed(Exception):
    """A command cannot do what it was asked to; the message is for the user."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class Progress:
    """A progress bar on a terminal: shown when work takes long, redrawn a few times a second, gone at the end.

    On anything but a terminal it does nothing.
    """

    def __init__(self, talk: TextIO, total: int | None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._talk = talk
        self._total = total
        self._monotonic = monotonic
        self._started = monotonic()
        self._next_draw = self._started + _PROGRESS_AFTER_SECONDS if talk.isatty() else float("inf")
        self._drawn = False

    def show(self, done: int, count: int, noun: str) -> None:
        """`done` of the total is behind us, which came to `count` of `noun`."""
        now = self._monotonic()
        if now < self._next_draw:
            return
        self._next_draw = now + _PROGRESS_EVERY_SECONDS
        self._drawn = True
        per_second = count / (now - self._started)
        bar = ""
        if self._total:
            part = min(done / self._total, 1.0)
            bar = f"[{'=' * int(part * _BAR_WIDTH):{_BAR_WIDTH}}] {part:4.0%}  "
        self._talk.write(f"{_CLEAR_LINE}{bar}{count:,} {noun}, {per_second:,.0f}/s")
        self._talk.flush()

    def clear(self) -> None:
        """Take the bar away, so that other talk can be written; the next `show` may draw it again."""
        if self._drawn:
            self._drawn = False
            self._talk.write(_CLEAR_LINE)
            self._talk.flush()


class Output:
    """The streams of one command. `as_json` is what the user asked for with `--json`."""

    def __init__(self, *, as_json: bool, data: BinaryIO, talk: TextIO) -> None:
        self.as_json = as_json
        self._data = data
        self._talk = talk
        self._progress: Progress | None = None

    def line(self, text: str) -> None:
        """One line of data. What UTF-8 cannot hold (a file name of raw bytes) is escaped as JSON escapes it."""
        self.lines(text.encode("utf-8", "backslashreplace") + b"\n")

    def lines(self, content: bytes) -> None:
        """Lines of data that are encoded already. An unbuffered stream may take only a part of them at a time."""
        left = memoryview(content)
        while left:
            written = self._data.write(left)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "stdout does not take more now")
            left = left[written:]

    def object(self, value: Mapping[str, Any]) -> None:
        """One line of JSON."""
        self.line(json.dumps(value, ensure_ascii=False))

    def write_out(self) -> None:
        """Hand on the data written so far to whoever reads it."""
        self._data.flush()

    def say(self, text: str) -> None:
        """One line of talk."""
        if self._progress is not None:
            self._progress.clear()
        self._talk.write(text + "\n")
        self._talk.flush()

    def say_error(self, error: Exception) -> None:
        """What went wrong, as one line, and as a JSON object where JSON was asked for."""
        text = str(error)
        if isinstance(error, OSError) and error.strerror and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        message = "; ".join(part.strip() for part in text.splitlines() if part.strip()) or type(error).__name__
        self.say(f"shardlog: {message}")
        if self.as_json:
            found = {name: getattr(error, name, None) for name in _ERROR_DETAILS}
            details = {name: value for name, value in found.items() if value is not None}
            self.say(json.dumps({"error": type(error).__name__, "message": message, **details}, default=str))

    def progress(self, total: int | None) -> Progress:
        """A progress bar for work of `total` (bytes, say), None where that is not known."""
        self._progress = Progress(self._talk, total)
        return self._progress

    def abandon(self) -> None:
        """Nobody reads our data any more: let what is buffered vanish, or Python complains about it at exit."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._data.fileno())
            os.close(nowhere)

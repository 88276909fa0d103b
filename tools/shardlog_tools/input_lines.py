"""The lines of an import: where they come from, and the change that each one holds.

Owns reading JSON Lines from a file or stdin (gzip is recognised by its first bytes, wherever it comes from), line
numbers, and turning a line into a `Change`. What is wrong with a line is a `LineError` that names the field; what to do
about it is the caller's business. Nothing is kept but the line at hand.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from shardlog import Change
from shardlog_tools import json_values
from shardlog_tools.output import CommandFailed

# A record is at most 16 MiB, and JSON needs at most six bytes for one of its bytes (\u0001).
LINE_BYTES_MAX: Final = 128 << 20

_GZIP_MAGIC: Final = b"\x1f\x8b"
_EVENTS: Final = ("INSERT", "MODIFY", "REMOVE")
_KINDS: Final = {
    type(None): "null",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
}


class LineError(Exception):
    """What is wrong with a line: the field, what was expected and what was found."""


class InputLines:
    """The numbered lines of one input. `name` is how messages call it."""

    def __init__(self, name: str, source: io.BufferedReader) -> None:
        self.name = name
        self.line_count = 0
        self._source = source
        status = os.fstat(source.fileno())
        self.bytes_total = status.st_size if stat.S_ISREG(status.st_mode) else None

    def bytes_read(self) -> int:
        """How far the file behind the lines has been read; 0 for a pipe."""
        return self._source.tell() if self.bytes_total is not None else 0

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Line numbers, from 1, and lines. A line over LINE_BYTES_MAX comes cut off, but still longer than that."""
        source = self._source
        if source.peek(len(_GZIP_MAGIC))[: len(_GZIP_MAGIC)] == _GZIP_MAGIC:
            source = io.BufferedReader(gzip.GzipFile(fileobj=source))
        try:
            while line := source.readline(LINE_BYTES_MAX + 1):
                self.line_count += 1
                yield self.line_count, line
                if len(line) > LINE_BYTES_MAX:
                    _drop_line(source, line)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CommandFailed(f"{self.name}:{self.line_count + 1}: the gzip stream is damaged: {error}") from error


def _drop_line(source: io.BufferedReader, beginning: bytes) -> None:
    piece = beginning
    while piece and not piece.endswith(b"\n"):
        piece = source.readline(1 << 20)


@contextmanager
def open_lines(path: str) -> Iterator[InputLines]:
    """The lines of a file, or of stdin for `-`."""
    if path == "-":
        # The descriptor is not ours to close.
        with open(sys.stdin.fileno(), "rb", closefd=False) as source:
            yield InputLines("stdin", source)
        return
    with open(path, "rb") as source:
        yield InputLines(path, source)


def change_of(line: bytes) -> Change:
    """The change that a line holds. Raises LineError."""
    if len(line) > LINE_BYTES_MAX:
        raise LineError(f"expected a line of at most {LINE_BYTES_MAX:,} bytes, found more")
    try:
        text = line.decode("utf-8")
        fields = json_values.parse(text)
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except ValueError as error:
        raise LineError(str(error)) from None
    if type(fields) is not dict:
        raise LineError(f"expected an object, found {_kind(fields)}")
    event = fields.get("event")
    if event not in _EVENTS:
        raise LineError(_without_event(fields))
    with_forms = json_values.has_forms(text)
    keys = _image(fields, "keys", with_forms)
    new = _image(fields, "new", with_forms)
    old = _image(fields, "old", with_forms)
    if keys is None:
        raise LineError("keys: expected an object, found none")
    identity = fields.get("identity")
    if identity is not None and (type(identity) is not str or not identity):
        raise LineError(f"identity: expected a string that is not empty, found {identity!r:.60}")
    if event == "INSERT" and old is not None:
        raise LineError("old: expected none in an INSERT")
    if event == "REMOVE" and new is not None:
        raise LineError("new: expected none in a REMOVE")
    return Change(event, keys, new, old, identity)


def _image(fields: dict[str, Any], name: str, with_forms: bool) -> dict[str, Any] | None:
    image = fields.get(name)
    if with_forms and image is not None:
        try:
            image = json_values.restore(image)
        except ValueError as error:
            raise LineError(f"{name}: {error}") from None
    if image is not None and type(image) is not dict:
        raise LineError(f"{name}: expected an object, found {_kind(image)}")
    return image


def _without_event(fields: dict[str, Any]) -> str:
    if "gap" in fields and "event" not in fields:
        return f"a gap in the stream that this was read from, no change: {fields['gap']!r:.200}"
    found = repr(fields["event"])[:60] if "event" in fields else "none"
    return f"event: expected {', '.join(_EVENTS)}, found {found}"


def _kind(value: object) -> str:
    return _KINDS.get(type(value)) or f"a {type(value).__name__}"

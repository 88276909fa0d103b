"""`fsck`: a store, or one stream's directory, checked; nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from shardlog.check.findings import Finding, Report, StreamFacts
from shardlog.check.identity import StoreIdentity, is_store
from shardlog.check.stream import check_stream
from shardlog.check.subject import Subject
from shardlog.errors import ShardlogError
from shardlog.files.posix import PosixFiles
from shardlog.files.protocol import Files
from shardlog.format import names

LOCK_TIMEOUT_SECONDS: Final = 10.0

Progress = Callable[[int, int], None]
"""Is told how many bytes of how many are behind the check."""


def fsck(path: str | os.PathLike[str], *, deep: bool = False, progress: Progress | None = None) -> Report:
    """Check a store, or one stream's directory in it. Never writes, never raises on damage.

    Works on streams in use and on streams that do not open. `deep` verifies every byte and record by a second
    implementation, too. `progress` is called with (bytes behind, bytes in all).

    Raises InvalidArgument where `path` is neither a store nor a stream's directory, StorageFailed where that cannot be
    seen.
    """
    root = os.path.abspath(os.fspath(path))
    files = PosixFiles()
    if is_store(files, root):
        return _check_store(files, root, deep, progress)
    return _check_streams(files, root, [root], deep, progress, None)


def _check_store(files: Files, path: str, deep: bool, progress: Progress | None) -> Report:
    identity = StoreIdentity(files, path)
    return _check_streams(files, path, identity.streams, deep, progress, identity)


def _check_streams(
    files: Files,
    path: str,
    streams: list[str],
    deep: bool,
    progress: Progress | None,
    identity: StoreIdentity | None,
) -> Report:
    sizes = {stream: _log_bytes(files, stream) for stream in streams}
    total, behind = sum(sizes.values()), 0
    findings: list[Finding] = []
    facts: list[StreamFacts] = []
    for stream in streams:
        subject = Subject(stream, files, deep)
        if progress is not None:
            subject.progress = _shifted(progress, behind, total)
        facts.append(check_stream(subject, LOCK_TIMEOUT_SECONDS))
        findings += subject.findings
        behind += sizes[stream]
        if identity is not None:
            identity.compare(stream, facts[-1].store_uuid)
    if identity is not None:
        findings = identity.findings + findings
    return Report(path, tuple(findings), tuple(facts), identity is not None)


def _shifted(progress: Progress, behind: int, total: int) -> Callable[[int], None]:
    return lambda more: progress(behind + more, total)


def _log_bytes(files: Files, stream: str) -> int:
    """Bytes of a stream's log, as far as they can be seen; files may come and go meanwhile."""
    total = 0
    with suppress(ShardlogError, OSError):
        for name in files.names(f"{stream}/{names.LOG}"):
            with suppress(OSError):
                total += os.stat(f"{stream}/{names.LOG}/{name}").st_size
    return total

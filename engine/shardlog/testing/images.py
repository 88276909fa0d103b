"""Images of a disk: putting one into a directory, reading one back, telling two apart."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shardlog.testing.operations import Image

DIGEST_BYTES: Final = 16
_MEMORY: Final = "/dev/shm"  # noqa: S108 - a directory of our own is made in it
_MEMORY_BYTES_MIN: Final = 512 << 20
"""Containers often have less there, which is too little for several stores at once."""


@contextmanager
def scratch_directory() -> Iterator[str]:
    """An empty directory, in memory where there is such a file system with room, that goes away afterwards."""
    path = tempfile.mkdtemp(prefix="shardlog-crash-", dir=_MEMORY if _has_memory() else None)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _has_memory() -> bool:
    if not os.access(_MEMORY, os.W_OK):
        return False
    status = os.statvfs(_MEMORY)
    return status.f_bavail * status.f_frsize >= _MEMORY_BYTES_MIN


def content_digest(content: bytes) -> bytes:
    """What tells file contents apart."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def materialise(image: Image, path: str) -> None:
    """Make `path` a directory that holds exactly an image. Zeros at the end of a file stay a hole."""
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    for name in sorted(image):  # a directory sorts before what is in it
        content = image[name]
        if content is None:
            if name:
                os.mkdir(f"{path}/{name}")
            continue
        descriptor = os.open(f"{path}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            os.write(descriptor, content.rstrip(b"\0"))
            os.ftruncate(descriptor, len(content))
        finally:
            os.close(descriptor)


def read_image(path: str, without: str = "") -> Image:
    """What a directory holds, leaving out all below directories of the name `without`."""
    image: dict[str, bytes | None] = {}
    for directory, names, files in os.walk(path):
        relative = os.path.relpath(directory, path)
        prefix = "" if relative == "." else relative + "/"
        image[prefix.rstrip("/")] = None
        if without and os.path.basename(directory) == without:
            names.clear()
            continue
        for name in files:
            with open(f"{directory}/{name}", "rb") as file:
                image[prefix + name] = file.read()
    return image

"""Every error that the engine raises on purpose.

Owns the public exception classes and what they carry. A message says what, where, what was expected and what was
found. Foreign errors (OSError, lmdb.Error) become these at the edge, in `files` and `index`, and nowhere else.
"""

from __future__ import annotations


class ShardlogError(Exception):
    """Base class of all errors of this package."""


class InvalidArgument(ShardlogError, ValueError):
    """An argument breaks a rule; nothing was done.

    `position` is the index of the offending record within the append, `field` the path of the value in it
    (`new.tags[3]`); both are None where the error is not about one record.
    """

    def __init__(self, message: str, *, position: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.position = position
        self.field = field


class StreamNotFound(ShardlogError, LookupError):
    """No stream of that name (or label) exists, or it was deleted."""


class StreamExists(ShardlogError):
    """An enabled stream of that name exists already."""


class StreamDisabled(ShardlogError):
    """The stream takes no more records; it stays readable until they have expired."""


class ShardNotFound(ShardlogError, LookupError):
    """The stream has no shard of that id."""


class ShardClosed(ShardlogError):
    """The operation needs an open shard."""


class IteratorExpired(ShardlogError):
    """The shard iterator is older than 15 minutes; ask for a new one at the last sequence number."""


class TrimmedData(ShardlogError):
    """The position lies before the trim horizon: the records have expired."""


class CorruptLog(ShardlogError):
    """Bytes on disk are not what was written.

    `segment` is the file, `offset` the byte where it starts, `sequences` the half-open range of sequence numbers
    that cannot be read (reading can go on at its end), `witnesses` what proves that data was durable there.
    """

    def __init__(
        self,
        message: str,
        *,
        segment: str | None = None,
        offset: int | None = None,
        sequences: tuple[int, int] | None = None,
        witnesses: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.segment = segment
        self.offset = offset
        self.sequences = sequences
        self.witnesses = witnesses


class UnsupportedVersion(ShardlogError):
    """The bytes are sound, but of a format version that this release does not know."""


class StorageFull(ShardlogError):
    """The disk (or a size limit) has no room; nothing was appended, and appends work again when there is."""


class StorageFailed(ShardlogError):
    """The disk failed. The outcome of an append is unknown: open again and retry with a producer's position."""


class LeaseLost(ShardlogError):
    """Another worker holds the lease now."""


class StoreLocked(ShardlogError):
    """Another process holds the lock that this operation needs."""


class ReadOnly(ShardlogError):
    """The store was opened to read."""


class Closed(ShardlogError):
    """The store, stream or iterator was closed, or inherited through a fork."""

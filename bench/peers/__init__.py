"""Who is compared: each commits a list of changes durably, and knows nothing of the clock.

A peer keeps a change as the row that shardlog keeps (event, keys, new image, old image), encoded by the same encoder,
and does no more with it than it must.
"""

from __future__ import annotations

from typing import Protocol

from shardlog import Change


class Peer(Protocol):
    """A store that commits changes."""

    name: str

    @property
    def untimed_seconds(self) -> float:
        """What it spent so far on what is not to be counted."""
        ...

    def commit(self, changes: list[Change]) -> None:
        """Make the changes durable, all or none."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...

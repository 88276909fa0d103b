"""What a user would pick instead of shardlog, each written as its own users would write it well.

All do what `Peer` in `shardlog_tools.measuring.contestants` says: commit the same changes, encoded by the same encoder,
all or none, durable when `commit` returns. Each module's docstring says what its store does for that, and so does the
`setting` of its class, which the results show. A peer that is not installed is skipped, and named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from shutil import which
from typing import Final

from shardlog_tools.measuring.contestants import Peer
from shardlog_tools.measuring.reading import ReadingPeer


@dataclass(frozen=True, slots=True)
class Offer:
    """A peer by name: what it needs to be here, and what makes one in a directory."""

    name: str
    make: Callable[[str], Peer]
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def lacks(self) -> str:
        """What is not installed; empty if it can be measured."""
        missing = [f"the package {name}" for name in self.packages if find_spec(name) is None]
        missing += [f"the program {name}" for name in self.programs if program(name) is None]
        return " and ".join(missing)


def program(name: str) -> str | None:
    """The path of a program, also where only root looks."""
    return which(name) or which(name, path="/usr/sbin:/usr/local/sbin")


def _sqlite(directory: str) -> ReadingPeer:
    from bench.peers.sqlite import Sqlite

    return Sqlite(directory)


def _lmdb(directory: str) -> ReadingPeer:
    from bench.peers.lmdb_itself import Lmdb

    return Lmdb(directory)


def _rocksdb(directory: str) -> ReadingPeer:
    from bench.peers.rocksdb import RocksDb

    return RocksDb(directory)


def _redis(directory: str) -> Peer:
    from bench.peers.redis_streams import RedisStreams

    return RedisStreams(directory)


def _jetstream(directory: str) -> Peer:
    from bench.peers.jetstream import JetStream

    return JetStream(directory)


def _persist_queue(directory: str) -> Peer:
    from bench.peers.persist_queue import PersistQueue

    return PersistQueue(directory)


_READING: Final = (
    ("SQLite", _sqlite, ()),
    ("LMDB", _lmdb, ("lmdb",)),
    ("RocksDB", _rocksdb, ("rocksdict",)),
)  # fmt: skip

OFFERS: Final = (
    *(Offer(name, make, packages) for name, make, packages in _READING),
    Offer("Redis Streams", _redis, ("redis",), ("redis-server",)),
    Offer("NATS JetStream", _jetstream, ("nats",), ("nats-server",)),
    Offer("persist-queue", _persist_queue, ("persistqueue",)),
)


def skipped() -> dict[str, str]:
    """The peers that cannot be measured here, and what they lack."""
    return {offer.name: offer.lacks for offer in OFFERS if offer.lacks}


def makers(*names: str) -> list[Callable[[str], Peer]]:
    """What makes the peers of these names (none: of all) that are installed."""
    return [offer.make for offer in OFFERS if not offer.lacks and (not names or offer.name in names)]


def reading_makers() -> list[Callable[[str], ReadingPeer]]:
    """What makes the peers that are installed and read back."""
    missing = skipped()
    return [make for name, make, _ in _READING if name not in missing]

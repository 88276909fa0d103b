"""How much the project's own workloads do."""

from __future__ import annotations

from dataclasses import dataclass

from shardlog_tools.measuring.rounds import Settings as CommonSettings


@dataclass(frozen=True, slots=True)
class Settings(CommonSettings):
    """`seconds` are those of one contestant in all its rounds."""

    log_bytes: int = 500 << 20
    """Size of the log that the memory workload reads."""
    segments: int = 1_000
    """Segments of the log that is opened."""
    fill_bytes: int = 60 << 20
    """How full the last segment of the others is, of 64 MiB."""
    checkpoint_threads: int = 64
    leases: int = 1_000
    lease_workers: int = 50
    lease_seconds: float = 6.0
    followers: int = 100
    idle_seconds: float = 3.0
    """How long one look at those who wait takes: they stir once a second."""
    expired_segments: int = 160
    """Segments that expire at once: 10 GB of them."""
    growth_records: tuple[int, ...] = (1_000_000, 10_000_000, 50_000_000)
    """How many records the growing log has where it is measured."""

"""Checking and repairing a store from outside: it works on streams in use and on streams that do not open.

`fsck` looks and never writes; what it finds are values with stable codes (`findings`). `plan_repair` makes a plan of
them, a pure function; applying it is another step (`repair`). One file per phase of the check:

| phase | asks |
|-------|------|
| `identity` | is this a store, are its streams whole or left over from an interrupted creation or deletion |
| `inventory` | names, ids and temporaries in a log directory |
| `segments` | header, padding, chain, checksums, bodies, footer and trailer of each segment (`blocks`, `deep`) |
| `continuity` | do segments follow each other, is one missing |
| `mark` | does MARK agree; torn tail or corruption |
| `index` | the LMDB index against the log |
| `lineage` | is the state what the control records make of it; shards, producers, counts |
"""

from shardlog.check.findings import Finding, Report
from shardlog.check.repair import RepairPlan, plan_repair
from shardlog.check.store import fsck

__all__ = ["Finding", "RepairPlan", "Report", "fsck", "plan_repair"]

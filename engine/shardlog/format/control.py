"""Control records: what changes a stream's own state, in the same log as the change records.

The body of a control batch is a MessagePack array of maps; each has `kind` and the fields of that kind:

| kind | fields |
|------|--------|
| position | producer str, position int: committed with the records of the same commit |
| close | at_us int: the stream takes no more records |
| reshard | parents: numbers of shards that end; children: (first, last) hash, 16 bytes each, big-endian; created_ms |
| trim | horizon int: the first sequence number that stays readable |
| gap | first, next int: numbers that a repair found lost; segment_id int, reason str |
| configure | retention_seconds, retention_bytes, sharding, maybe hold, hold_bytes_max: what replaces these options |
| checkpoint | snapshot bin: as in a segment header, the state before this commit; positions: `SparsePosition` rows |

A checkpoint changes nothing: it lets recovery start there instead of at the segment's header, so it repeats the rows of
the blocks of this segment before it.

Control records take sequence numbers, after those of the change records of their commit. `stream.state` folds them.
"""

from __future__ import annotations

from typing import Any, Final

import msgpack

from shardlog.errors import CorruptLog

Control = dict[str, Any]

POSITION: Final = "position"
CLOSE: Final = "close"
RESHARD: Final = "reshard"
TRIM: Final = "trim"
CONFIGURE: Final = "configure"
GAP: Final = "gap"
CHECKPOINT: Final = "checkpoint"


def encode_controls(controls: list[Control]) -> bytes:
    """The body of a control batch."""
    body: bytes = msgpack.packb(controls)
    return body


def decode_controls(body: bytes, count: int) -> list[Control]:
    """The control records of a body. Raises CorruptLog."""
    try:
        controls = msgpack.unpackb(body)
    except (ValueError, msgpack.UnpackException) as error:
        raise CorruptLog(f"a control batch does not decode: {error}") from error
    if not isinstance(controls, list) or len(controls) != count:
        raise CorruptLog(f"expected a control batch of {count} records, found {controls!r:.80}")
    if not all(isinstance(control, dict) and isinstance(control.get("kind"), str) for control in controls):
        raise CorruptLog(f"expected control records with a kind, found {controls!r:.80}")
    return controls

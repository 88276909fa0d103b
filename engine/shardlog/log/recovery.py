"""Where a log ends, found out from the log alone.

Runs while nobody has the stream open, so that nothing moves. The newest segment whose header can be read, and all after
it, are stepped through, from the checkpoint that MARK names if there is one (headers only; bodies from MARK on, because
what lies before was synced). The first block that does not check out, at X, is *corruption* if any witness says that
data at or beyond X was durable: a later block whose durable sequence lies beyond, MARK, a later segment, a consumer's
checkpoint, or one flipped bit that explains it. Otherwise it is a *torn tail* of something that was never acknowledged.

Does not change anything: `stream.opening` acts on what is found here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Final

from shardlog.errors import CorruptLog
from shardlog.files.protocol import File, Files
from shardlog.format.commit import CONTROL_SHARD, FOOTER, body_of, decode_directory, decode_header, seed_of
from shardlog.format.control import CHECKPOINT, Control, decode_controls
from shardlog.format.mark import Mark
from shardlog.format.names import segment_name
from shardlog.format.segment import SegmentHeader, SparsePosition
from shardlog.log.one_bit import mended_block
from shardlog.log.segments import list_segments, read_segment_header
from shardlog.log.walk import PIECE_BYTES, Block, Damage, Span, Steps, find_block, find_block_behind, is_zero

_log = logging.getLogger("shardlog")

INDEX_STRIDE_BYTES: Final = 64 << 10
"""One position row for so many bytes of log."""

_CHECKPOINT_WITNESS: Final = "a consumer's checkpoint"


Counts = dict[int, tuple[int, int]]
"""Records and bytes of bodies per shard number."""


def add_counts(before: tuple[int, int] | None, records: int, body_bytes: int) -> tuple[int, int]:
    """Records and bytes of a shard after some more."""
    return (records, body_bytes) if before is None else (before[0] + records, before[1] + body_bytes)


@dataclass(slots=True)
class LogEnd:
    """What the scan found; grows as it goes. Offsets are those of the last segment, `header` is its header."""

    segments: list[tuple[int, int]]
    header: SegmentHeader
    snapshot: bytes
    """State where the scan began; `controls`, each with its sequence number, are what changed it since."""
    offset: int
    next_sequence: int
    records: int
    last_crc: int
    timestamp_us: int
    controls: list[tuple[int, Control]] = field(default_factory=list)
    counts: Counts = field(default_factory=dict)
    """Records and bytes per shard since the snapshot."""
    positions: list[SparsePosition] = field(default_factory=list)
    damage: list[CorruptLog] = field(default_factory=list)
    checkpoint: int = 0
    """Where the last block with a checkpoint starts; 0: there is none."""
    torn_end: int = 0
    """End of the bytes of a torn tail that starts at `offset`; 0: there is none."""
    sealed: bool = False
    """The last segment has its footer already: only its successor is missing."""

    @property
    def indexed_offset(self) -> int:
        """Where the last block with a position row starts."""
        return self.positions[-1].offset if self.positions else 0


def find_log_end(files: Files, log_path: str, mark: Mark | None, checkpointed: int = 0) -> LogEnd:
    """Scan the last segment (and what follows an unreadable header).

    `checkpointed`: the last number that a consumer has handled. Raises CorruptLog where no header can be read.
    """
    segments = list_segments(files, log_path)
    if not segments:
        raise CorruptLog(f"{log_path}: expected at least one segment, found none")
    first_scanned, header, header_error = _newest_readable(files, log_path, segments)
    end = LogEnd(
        segments=segments,
        header=header,
        snapshot=header.snapshot,
        offset=header.header_bytes,
        next_sequence=header.first_sequence,
        records=header.records_before,
        last_crc=header.crc,
        timestamp_us=header.timestamp_before_us,
    )
    if header_error:
        end.damage.append(header_error)
    elif mark and mark.segment_id == header.segment_id and mark.checkpoint:
        _start_at_checkpoint(files, f"{log_path}/{segment_name(*segments[-1])}", end, mark.checkpoint)
    for index in range(first_scanned, len(segments)):
        first_sequence, segment_id = segments[index]
        seed = seed_of(header.stream_uuid, segment_id)
        next_first = segments[index + 1][0] if index + 1 < len(segments) else None
        file = files.open_to_read(f"{log_path}/{segment_name(first_sequence, segment_id)}")
        try:
            if index > first_scanned:
                # Its header cannot be read: its blocks are found by searching for the first of them.
                found = find_block(file, 0, file.data_end(), seed, end.next_sequence)
                end.offset, end.last_crc, end.positions, end.sealed = found.offset if found else 0, -1, [], False
                end.header = replace(end.header, first_sequence=first_sequence, segment_id=segment_id)
            _Scan(file, end, seed, mark, next_first, checkpointed).run()
        finally:
            file.close()
    if checkpointed >= end.next_sequence:
        end.damage.append(
            CorruptLog(
                f"{log_path}: a consumer has handled the record of number {checkpointed}, and the log ends before it",
                segment=log_path,
                sequences=(end.next_sequence, checkpointed + 1),
                witnesses=(_CHECKPOINT_WITNESS,),
            )
        )
        # No block has this checksum: readers see that something is missing before the end.
        end.next_sequence, end.last_crc = checkpointed + 1, max(end.last_crc, 0) ^ 1
    if mark and not any(segment_id >= mark.segment_id for _, segment_id in segments):
        first_missing = min(end.next_sequence, mark.next_sequence)
        # The checksum of a block that is not there tells readers that something is missing before the end.
        end.next_sequence, end.last_crc = max(end.next_sequence, mark.next_sequence), mark.last_crc
        end.damage.append(
            CorruptLog(
                f"{log_path}: MARK says that segment {mark.segment_id} existed, and it is missing",
                segment=log_path,
                sequences=(first_missing, mark.next_sequence),
                witnesses=("MARK",),
            )
        )
    return end


def _start_at_checkpoint(files: Files, path: str, end: LogEnd, offset: int) -> None:
    """Take up the state of a checkpoint that was synced. Where it cannot be read, the scan starts at the header."""
    file = files.open_to_read(path)
    try:
        seed = seed_of(end.header.stream_uuid, end.header.segment_id)
        steps = Steps(
            file, Span(offset, file.data_end(), seed, None, end.next_sequence, end.next_sequence), bodies=True
        )
        block = next(iter(steps))
        checkpoint = _checkpoint_of(block)
    except (CorruptLog, StopIteration) as error:
        _log.warning("%s: the checkpoint at %d cannot be read: %s", path, offset, error)
        return
    finally:
        file.close()
    end.snapshot = checkpoint["snapshot"]
    end.positions = [SparsePosition(*row) for row in checkpoint["positions"]]
    end.offset, end.next_sequence = offset, block.header.first_sequence
    end.last_crc = block.header.previous_crc


def _checkpoint_of(block: Block) -> Control:
    for batch in block.batches():
        if batch.shard == CONTROL_SHARD:
            for record in decode_controls(block.body(batch), batch.records):
                if record["kind"] == CHECKPOINT:
                    return record
    raise CorruptLog("the block there holds no checkpoint")


def _newest_readable(
    files: Files, log_path: str, segments: list[tuple[int, int]]
) -> tuple[int, SegmentHeader, CorruptLog | None]:
    newest_error = None
    for index in range(len(segments) - 1, -1, -1):
        path = f"{log_path}/{segment_name(*segments[index])}"
        file = files.open_to_read(path)
        try:
            header = read_segment_header(file)
            if (header.first_sequence, header.segment_id) != segments[index]:
                raise CorruptLog("the header is that of another segment")
        except CorruptLog as error:
            newest_error = CorruptLog(
                f"{path}: {error}", segment=path, offset=0, witnesses=("the segment has its name",)
            )
        else:
            return index, header, newest_error
        finally:
            file.close()
    raise newest_error or AssertionError("there is at least one segment")


class _Scan:
    """One segment's part of the scan. `next_first` is where the next segment begins; None: this is the last."""

    def __init__(
        self, file: File, end: LogEnd, seed: int, mark: Mark | None, next_first: int | None, checkpointed: int
    ) -> None:
        self._file = file
        self._end = end
        self._seed = seed
        self._next_first = next_first
        self._checkpointed = checkpointed
        self._size = file.data_end()
        segment_id = end.header.segment_id
        here = mark if mark and mark.segment_id == segment_id else None
        # MARK of a later segment: all of this one was synced, and that one is gone.
        later = mark is not None and mark.segment_id > segment_id
        self._synced_offset = here.offset if here else self._size if later else 0
        self._synced_sequence = mark.next_sequence if mark and (here or later) else 0

    def run(self) -> None:
        """Step to the end of what checks out, and tell a torn tail from corruption."""
        end = self._end
        while True:
            span = Span(
                end.offset,
                self._size,
                self._seed,
                end.last_crc if end.last_crc >= 0 else None,
                end.next_sequence,
                end.next_sequence,
            )
            stopped = self._step(span)
            if stopped is None and not end.sealed and self._was_synced_beyond(end.offset, end.next_sequence):
                stopped = Damage(end.next_sequence, end.next_sequence, end.offset, end.offset, "the file ends here")
            if stopped is None or not self._judge(stopped):
                return

    def _step(self, span: Span) -> Damage | None:
        steps = Steps(self._file, span, bodies=False)
        try:
            for block in steps:
                if block.header.type == FOOTER:
                    self._end.sealed = True
                    return None
                damage = self._take(block)
                if damage:
                    return damage
        except CorruptLog as error:
            return Damage(steps.next_sequence, steps.next_sequence, steps.offset, self._size, str(error))
        return None

    def _take(self, block: Block) -> Damage | None:
        header, end = block.header, self._end
        try:
            batches = block.batches()
            for batch in batches:
                if batch.shard == CONTROL_SHARD:
                    controls = decode_controls(block.body(batch), batch.records)
                    end.controls.extend(enumerate(controls, batch.first_sequence))
                    if any(record["kind"] == CHECKPOINT for record in controls):
                        end.checkpoint = header.offset
                elif header.end > self._synced_offset:
                    block.body(batch)
        except CorruptLog as error:
            return Damage(header.first_sequence, header.next_sequence, header.offset, header.end, str(error))
        if not end.positions or header.offset - end.indexed_offset >= INDEX_STRIDE_BYTES:
            end.positions.append(
                SparsePosition(header.first_sequence, header.offset, header.timestamp_us, header.records_before)
            )
        end.records = header.records_before
        for batch in batches:
            if batch.shard != CONTROL_SHARD:
                end.records += batch.records
                end.counts[batch.shard] = add_counts(end.counts.get(batch.shard), batch.records, batch.body_bytes)
        end.offset = header.end
        end.next_sequence = header.next_sequence
        end.last_crc = header.crc
        end.timestamp_us = header.timestamp_us
        return None

    def _judge(self, stopped: Damage) -> bool:
        """Take note of what stopped the scan; whether there is more to scan behind it."""
        end = self._end
        nonzero_end = self._nonzero_end(stopped.offset)
        is_something_there = nonzero_end > stopped.offset
        mended = mended_block(self._file, stopped.offset, self._size, self._seed) if is_something_there else None
        witnesses = self._witnesses(stopped, is_something_there, is_mended=mended is not None)
        if not witnesses:
            end.torn_end = nonzero_end if is_something_there else 0
            return False
        resumed = find_block_behind(self._file, stopped.offset, self._size, self._seed, stopped.first)
        next_sequence = resumed.first_sequence if resumed else self._number_after(stopped, nonzero_end)
        path = segment_name(end.header.first_sequence, end.header.segment_id)
        end.damage.append(
            CorruptLog(
                f"{path} at {stopped.offset}: {stopped.reason}; sequence numbers {stopped.first} to {next_sequence} "
                f"(exclusive) cannot be read; that data was durable there is told by {', '.join(witnesses)}",
                segment=path,
                offset=stopped.offset,
                sequences=(stopped.first, next_sequence),
                witnesses=tuple(witnesses),
            )
        )
        if mended is not None:
            self._take_controls(mended, stopped)
        end.next_sequence = next_sequence
        if resumed:
            end.offset, end.last_crc = resumed.offset, -1
            end.records = resumed.records_before
        else:
            end.offset = max(self._synced_offset, nonzero_end)
        return resumed is not None

    def _number_after(self, stopped: Damage, nonzero_end: int) -> int:
        """A number above all that the bytes from `stopped` to `nonzero_end`, the last of the segment, may have held.

        Told by the next segment, MARK, or a header that checks out; else a record takes a byte at least. A number too
        low would be used again, and would hide the damage from readers.
        """
        if self._next_first is not None:
            return max(stopped.first, self._next_first)
        is_header_known = stopped.next > stopped.first
        told_end = max(self._synced_offset, stopped.end if is_header_known else stopped.offset)
        return max(self._synced_sequence, stopped.next) + max(0, nonzero_end - told_end)

    def _take_controls(self, mended: bytes, stopped: Damage) -> None:
        """Its records stay unread, but what a damaged block changed is known: what follows may depend on it."""
        try:
            header = decode_header(mended, 0, stopped.offset, self._seed)
            if header is None or header.first_sequence < stopped.first:
                return
            for batch in decode_directory(mended, 0, header):
                if batch.shard == CONTROL_SHARD:
                    controls = decode_controls(body_of(mended, 0, batch), batch.records)
                    self._end.controls.extend(enumerate(controls, batch.first_sequence))
        except CorruptLog as error:
            _log.debug("what is mended at %d does not decode: %s", stopped.offset, error)

    def _witnesses(self, stopped: Damage, is_something_there: bool, *, is_mended: bool) -> list[str]:
        witnesses = []
        if self._next_first is not None:
            witnesses.append("a later segment")
        if self._was_synced_beyond(stopped.offset, stopped.first):
            witnesses.append("MARK")
        if is_something_there and self._checkpointed >= stopped.first:
            witnesses.append(_CHECKPOINT_WITNESS)
        if is_something_there and self._promised_beyond(stopped):
            witnesses.append("the durable sequence of a later commit")
        if is_mended:
            witnesses.append("one flipped bit that explains it")
        return witnesses

    def _was_synced_beyond(self, offset: int, sequence: int) -> bool:
        """Whether MARK says so: by its offset, because numbers jump without any bytes being written.

        Behind damage by its number as well: what is found there may be copies that strayed, at any offset.
        """
        return self._synced_offset > offset or (bool(self._end.damage) and self._synced_sequence > sequence)

    def _promised_beyond(self, stopped: Damage) -> bool:
        offset = stopped.offset + 8
        while header := find_block(self._file, offset, self._size, self._seed, stopped.first):
            if header.durable_sequence > stopped.first:
                return True
            offset = header.end
        return False

    def _nonzero_end(self, start: int) -> int:
        """End of the last nonzero byte at or after `start`; `start` where all is zero."""
        found = start
        offset = start
        while offset < self._size and (piece := self._file.pread(PIECE_BYTES, offset)):
            if not is_zero(piece):
                found = offset + len(piece.rstrip(b"\0"))
            offset += len(piece)
        return found

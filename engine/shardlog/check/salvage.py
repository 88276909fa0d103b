"""Everything that can still be read of a stream, whether it opens or not. Nothing is written.

Goes by the files alone: each segment's blocks, found and verified as a reader does, up to where its successor says that
it ends; the state is that of the newest snapshot that can be read, with the control records behind it. Where every
segment header is lost, the blocks themselves tell how they were sealed (`seeds`), and the options are guessed from the
records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from shardlog.check.seeds import seed_of_blocks
from shardlog.check.segments import End, Place, end_of, own_end, read_header
from shardlog.errors import CorruptLog, InvalidArgument, ShardlogError, UnsupportedVersion
from shardlog.files.protocol import File, Files
from shardlog.format import control, names
from shardlog.format.commit import CONTROL_SHARD, FOOTER, Batch, seed_of
from shardlog.format.control import Control, decode_controls
from shardlog.format.mark import MARK_BYTES, decode_mark
from shardlog.format.record import BatchContext, StoredBatch
from shardlog.format.segment import SegmentHeader
from shardlog.log.segments import list_segments
from shardlog.log.walk import Block, Damage, Span, find_block, is_zero, walk
from shardlog.model import Change
from shardlog.stream.lineage import fold
from shardlog.stream.state import Snapshot, StreamState, decode_state

_UNKNOWN_SEQUENCE: Final = 2**63
_PIECE_BYTES: Final = 256 << 10


@dataclass(frozen=True, slots=True)
class SalvagedCommit:
    """The change records of one commit, or as many as can be read, in order."""

    first_sequence: int
    timestamp_us: int
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Lost:
    """Sequence numbers `[first, next)` that cannot be read. `next` may be higher than any that was ever used."""

    first: int
    next: int
    reason: str


@dataclass(slots=True)
class SalvagedState:
    """What is known of the stream beside its records; grows while they are read."""

    state: StreamState | None = None
    producers: dict[str, int] = field(default_factory=dict)


class Salvage:
    """One stream's directory, read for what is good."""

    def __init__(self, files: Files, path: str) -> None:
        self.known = SalvagedState()
        self.problem: str | None = None
        """Why there is nothing to be read at all."""
        self._files = files
        self._path = path
        self._log_path = f"{path}/{names.LOG}"
        self._places = [
            Place(*segment, f"{self._log_path}/{names.segment_name(*segment)}") for segment in self._listed()
        ]
        self._stream_uuid: bytes | None = None
        for place in reversed(self._places):
            header = self._header(place)
            if header is not None:
                self._stream_uuid = header.stream_uuid
                self._take_snapshot(header.snapshot)
                break

    def read(self) -> Iterator[SalvagedCommit | Lost]:
        """All commits, oldest first, and what is missing between them."""
        next_sequence = self._places[0].first_sequence if self._places else 0
        for index, place in enumerate(self._places):
            header = self._header(place)
            successor = self._places[index + 1] if index + 1 < len(self._places) else None
            if header is not None:
                if index == 0 and header.predecessor.segment_id and self._horizon() < place.first_sequence:
                    yield Lost(self._horizon(), place.first_sequence, "the segments before are missing")
                is_next = index > 0 and header.predecessor.segment_id == self._places[index - 1].segment_id
                if index > 0 and not is_next and header.predecessor.next_sequence > next_sequence:
                    yield Lost(next_sequence, header.predecessor.next_sequence, "a segment is missing")
                self._take_snapshot(header.snapshot)
            for item in self._read_segment(place, header, successor):
                next_sequence = max(next_sequence, item.next if isinstance(item, Lost) else item.first_sequence)
                yield item
            next_sequence = max(next_sequence, self._passed)
        yield from self._said_by_mark(next_sequence)

    def _read_segment(
        self, place: Place, header: SegmentHeader | None, successor: Place | None
    ) -> Iterator[SalvagedCommit | Lost]:
        self._passed = place.first_sequence
        try:
            file = self._files.open_to_read(place.path)
        except (FileNotFoundError, ShardlogError) as error:
            yield _lost_whole(place, successor, str(error))
            return
        try:
            seed = seed_of_blocks(file) if self._stream_uuid is None else seed_of(self._stream_uuid, place.segment_id)
            if seed is None:
                yield _lost_whole(place, successor, f"{place.path}: no block can be read")
                return
            yield from self._read_blocks(file, seed, header, self._end(place, successor, file))
        except (UnsupportedVersion, ShardlogError) as error:
            yield Lost(self._passed, self._passed + 1, f"{place.path}: {error}")
        finally:
            file.close()

    def _read_blocks(
        self, file: File, seed: int, header: SegmentHeader | None, end: End
    ) -> Iterator[SalvagedCommit | Lost]:
        if header is None:
            found = find_block(file, 0, end.offset, seed, self._passed)
            start = found.offset if found else end.offset
            first = found.first_sequence if found else end.next_sequence
            if self._passed < first < _UNKNOWN_SEQUENCE:
                yield Lost(self._passed, first, "the segment's first blocks cannot be read")
                self._passed = first
        else:
            start = header.header_bytes
        span = Span(start, end.offset, seed, header.crc if header else None, self._passed, end.next_sequence)
        for item in walk(file, span, bodies=True):
            if isinstance(item, Damage):
                if end.next_sequence == _UNKNOWN_SEQUENCE and item.end == end.offset and _is_zero(file, item.offset):
                    return
                known_next = item.next if item.next < _UNKNOWN_SEQUENCE else item.first + 1
                if known_next > item.first:
                    yield Lost(item.first, known_next, item.reason)
                self._passed = max(self._passed, known_next)
            elif item.header.type == FOOTER:
                return
            else:
                yield from self._read_commit(item)

    def _said_by_mark(self, next_sequence: int) -> Iterator[Lost]:
        """What MARK says was there, behind all that was found."""
        try:
            file = self._files.open_to_read(f"{self._path}/{names.MARK}")
        except (FileNotFoundError, ShardlogError):
            return
        try:
            mark = decode_mark(file.pread(MARK_BYTES, 0))
        except ShardlogError:
            return
        finally:
            file.close()
        last = self._places[-1] if self._places else None
        if mark is None or mark.next_sequence <= next_sequence or (last and mark.segment_id < last.segment_id):
            return
        header = self._header(last) if last else None
        if last is None or mark.segment_id > last.segment_id or header is None or mark.offset > header.header_bytes:
            yield Lost(next_sequence, mark.next_sequence, "MARK says that they were there")

    def _read_commit(self, block: Block) -> Iterator[SalvagedCommit | Lost]:
        header = block.header
        self._passed = max(self._passed, header.next_sequence)
        changes: list[Change] = []
        first = header.first_sequence
        for batch in block.batches():
            try:
                body = block.body(batch)
                if batch.shard == CONTROL_SHARD:
                    self._take_controls(list(enumerate(decode_controls(body, batch.records), batch.first_sequence)))
                else:
                    changes += _changes(body, batch, header.timestamp_us)
            except (CorruptLog, InvalidArgument) as error:
                if batch.shard != CONTROL_SHARD:
                    yield Lost(batch.first_sequence, batch.first_sequence + batch.records, str(error))
        if changes:
            yield SalvagedCommit(first, header.timestamp_us, changes)

    def _take_controls(self, controls: list[tuple[int, Control]]) -> None:
        for sequence, record in controls:
            if record["kind"] == control.POSITION:
                self.known.producers[record["producer"]] = record["position"]
            elif record["kind"] == control.CHECKPOINT and self.known.state is None:
                self._take_snapshot(record["snapshot"])
            elif self.known.state is not None:
                try:
                    self.known.state = fold(self.known.state, [(sequence, record)])
                except (ShardlogError, KeyError, TypeError, ValueError):
                    continue  # the next snapshot says what came of it

    def _take_snapshot(self, content: bytes) -> None:
        try:
            snapshot: Snapshot = decode_state(content)
        except CorruptLog:
            return
        self.known.state = snapshot.state
        for producer, position in snapshot.producers.items():
            self.known.producers[producer] = max(position, self.known.producers.get(producer, position))

    def _horizon(self) -> int:
        return self.known.state.trim_horizon if self.known.state else _UNKNOWN_SEQUENCE

    def _listed(self) -> list[tuple[int, int]]:
        try:
            segments = list_segments(self._files, self._log_path)
        except (FileNotFoundError, NotADirectoryError, ShardlogError) as error:
            self.problem = str(error)
            return []
        if not segments:
            self.problem = f"{self._log_path}: expected segments, found none"
        return segments

    def _header(self, place: Place) -> SegmentHeader | None:
        """A segment's header, mended if need be; it is not kept."""
        try:
            read_header(self._files, place, self._stream_uuid)
        except ShardlogError:
            return None
        header, place.header = place.header, None
        return header

    def _end(self, place: Place, successor: Place | None, file: File) -> End:
        if self._stream_uuid is None:
            return End(file.data_end(), _UNKNOWN_SEQUENCE, None, False)
        if successor is None:
            end = own_end(self._files, place, None, self._stream_uuid)
            return end if end.is_sealed else replace(end, next_sequence=_UNKNOWN_SEQUENCE)
        successor.header = self._header(successor)
        end = end_of(self._files, place, successor, self._stream_uuid)
        successor.header = None
        return end


def _lost_whole(place: Place, successor: Place | None, reason: str) -> Lost:
    """A segment of which nothing can be read."""
    first = place.first_sequence
    return Lost(first, max(first + 1, successor.first_sequence if successor else 0), reason)


def _changes(body: bytes, batch: Batch, timestamp_us: int) -> list[Change]:
    """The records of a batch as changes. Raises CorruptLog, InvalidArgument."""
    context = BatchContext("", timestamp_us, "")
    records = StoredBatch(body, batch.records, batch.first_sequence, context).decoded_records()
    return [
        Change(record.event, record.keys, record.new_image, record.old_image, record.identity) for record in records
    ]


def _is_zero(file: File, offset: int) -> bool:
    while piece := file.pread(_PIECE_BYTES, offset):
        if not is_zero(piece):
            return False
        offset += len(piece)
    return True

"""What a store must hold: its streams, those that were made, and those that went or may come back."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from tests.model.plain import HASH_END, Change, Creating, Deleting, Disabling, Pending, Sight, expect
from tests.model.reference import StreamModel


@dataclass
class StoreModel:
    """All streams, by name and label.

    `half_deleted` were seen to be gone, but nobody was told that they were deleted: a power cut may bring them back,
    with all they held, until a deletion or a creation of the name returns.
    """

    streams: dict[tuple[str, str], StreamModel] = field(default_factory=dict)
    half_deleted: dict[tuple[str, str], StreamModel] = field(default_factory=dict)

    def labels(self, name: str) -> list[str]:
        """Labels of a name, oldest first."""
        return sorted(label for found, label in self.streams if found == name)

    def newest(self, name: str) -> StreamModel | None:
        """The newest stream of a name."""
        labels = self.labels(name)
        return self.streams[name, labels[-1]] if labels else None

    def took_create(self, creating: Creating, label: str, sight: Sight) -> StreamModel:
        """It returned: an empty stream of these options, newer than the others of its name."""
        options = creating.options
        expect(all(label > old for old in self.labels(creating.name)), f"{label} is not newer than its predecessors")
        bounds = [index * HASH_END // options.shards for index in range(options.shards + 1)]
        ranges = [(shard.hash_first, shard.hash_next) for shard in sight.state.open_shards]
        expect(ranges == list(pairwise(bounds)), f"{creating.name}: new shards {ranges}")
        stream = StreamModel(creating.name, label, options, sight.state)
        wanted = ("ENABLED", options.retention_us, 1, len(ranges))
        found = (sight.state.status, sight.state.retention_us, sight.state.horizon, len(sight.state.shards))
        expect(found == wanted, f"{creating.name}: created as {wanted}, it is {found}")
        stream.check(sight)
        self.streams[creating.name, label] = stream
        self._forget_half_deleted(creating.name)
        return stream

    def took_delete(self, deleting: Deleting) -> None:
        """It returned."""
        for label in self.labels(deleting.name):
            del self.streams[deleting.name, label]
        self._forget_half_deleted(deleting.name)

    def _forget_half_deleted(self, name: str) -> None:
        self.half_deleted = {key: stream for key, stream in self.half_deleted.items() if key[0] != name}

    def settle(
        self,
        sights: dict[tuple[str, str], Sight],
        pending: Pending | None,
        target: tuple[str, str] | None,
        *,
        after_power_cut: bool = False,
    ) -> None:
        """Hold a sight of everything against the promises. `target` is the stream that the pending change is about."""
        for key, stream in list(self.streams.items()):
            if key not in sights:
                is_deleted = isinstance(pending, Deleting) and pending.name == stream.name
                expect(is_deleted, f"{key} is gone; under way was {pending}")
                self.half_deleted[key] = self.streams.pop(key)
                continue
            stream.settle(sights[key], self._change(key, pending, target), after_power_cut=after_power_cut)
        for key in sorted(sights.keys() - self.streams.keys()):
            if key in self.half_deleted and after_power_cut:
                stream = self.streams[key] = self.half_deleted.pop(key)
                stream.settle(sights[key], Disabling(), after_power_cut=True)
                continue
            is_created = isinstance(pending, Creating) and pending.name == key[0]
            expect(is_created, f"nobody created {key}; under way was {pending}")
            assert isinstance(pending, Creating)
            self.took_create(pending, key[1], sights[key])
            pending = None

    @staticmethod
    def _change(key: tuple[str, str], pending: Pending | None, target: tuple[str, str] | None) -> Change | None:
        if isinstance(pending, Deleting):
            return Disabling() if key[0] == pending.name else None
        return pending if key == target and not isinstance(pending, Creating) else None

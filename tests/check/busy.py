"""A process that appends until it is killed."""

from __future__ import annotations

from tests.check.damage import NAME
from tests.support.children import Channel

import shardlog
from shardlog import Change


def append_for_ever(channel: Channel, path: str, who: int, durability: str) -> None:
    """Runs in a child: appends, now and then expires, and says when it began."""
    with shardlog.open(path) as store:
        stream = store.stream(NAME)
        number = 0
        while True:
            ids = [f"{who}-{number}-{index}" for index in range(7)]
            stream.append([Change.insert(keys={"id": item}, new={"id": item, "text": "x" * 80}) for item in ids],
                          producer=f"p{who}", position=number)  # fmt: skip
            number += 1
            if number % 30 == 0:
                stream.expire(force=True)
            if number % 50 == 0 and durability == "os":
                stream.sync()
            if number == 1:
                channel.send("began")

"""A process that does to a store what the test says, step by step."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from tests.faults.bodies import examine, obey
from tests.faults.history import Event, History
from tests.faults.writer import Plan
from tests.support.children import Children

Failure = tuple[str, str, str]


class Puppet:
    """The process. What it tells goes into a history. A context manager: at its end it is gone."""

    def __init__(self, children: Children, store: Path, plan: Plan, history: History) -> None:
        self._child = children.start(obey, str(store), plan)
        assert self._child.receive() == "ready"
        self._child.send("go")
        self._history = history
        self._is_killed = False

    def tell(self, action: str, *arguments: object) -> None:
        """Have it do something; `hear` waits for it."""
        self._child.send((action, *arguments))

    def hear(self, action: str) -> list[Failure]:
        """Wait until it has done something; which errors it met."""
        events: list[Event] = []
        while events[-1:] != [("obeyed", action)]:
            try:
                events.append(self._child.receive())
            except (EOFError, ConnectionResetError):
                raise AssertionError(f"{action}: the process ended with status {self._child.wait()}") from None
        before = len(self._history.failures)
        self._history.hear(events)
        return self._history.failures[before:]

    def do(self, action: str, *arguments: object) -> list[Failure]:
        """Have it do something, and wait for it; which errors it met."""
        self.tell(action, *arguments)
        return self.hear(action)

    def kill(self) -> None:
        """SIGKILL it."""
        self._is_killed = True
        self._child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        elif not self._is_killed:
            self._child.send(None)
            assert self._child.wait() == 0


def examine_store(children: Children, store: Path, plan: Plan) -> list[Event]:
    """What a store holds now, told by a process of its own."""
    child = children.start(examine, str(store), plan)
    events: list[Event] = child.rest()
    if (status := child.wait()) != 0:
        events.append(("trouble", f"the examination ended with status {status}"))
    return events

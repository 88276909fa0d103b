"""One thread for work that is not made for more, in turns: long work may give way to what waits.

Work is done in the order in which it was submitted. Work that takes long, such as a sweep over tables, does a part,
lets go of its locks, and calls `give_way`: what was submitted meanwhile is done there and then, in the same thread, and
the long work goes on. Work that is done within `give_way` does not give way itself, so calls do not pile up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Value = TypeVar("Value")


def _nothing() -> None:
    """Nobody waits for this thread."""


_do_waiting: Final[ContextVar[Callable[[], None]]] = ContextVar("do_waiting", default=_nothing)
"""How the thread that runs gives way."""


def give_way() -> None:
    """Let be done what waits for this thread; in a thread that nothing waits for, do nothing. Hold no lock."""
    _do_waiting.get()()


class Turns(Executor):
    """The thread. Ends with `shutdown`, having done what was submitted."""

    def __init__(self, name: str) -> None:
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._is_giving_way = False
        """Known to the thread only."""
        self._thread = ThreadPoolExecutor(1, name, initializer=self._begin)

    def submit(
        self, fn: Callable[Parameters, Value], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Value]:
        """Have a function called in its turn."""
        future: Future[Value] = Future()
        self._waiting.append((future, partial(fn, *args, **kwargs)))
        self._thread.submit(self._do_next)  # finds nothing where somebody gave way before
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more."""
        while cancel_futures and (work := self._next()) is not None:
            work[0].cancel()
        self._thread.shutdown(wait, cancel_futures=cancel_futures)

    def _begin(self) -> None:
        _do_waiting.set(self._give_way)

    def _do_next(self) -> None:
        if (work := self._next()) is not None:
            _settle(*work)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def _give_way(self) -> None:
        if self._is_giving_way:
            return
        self._is_giving_way = True
        try:
            for _ in range(len(self._waiting)):  # what comes meanwhile waits for the next time
                self._do_next()
        finally:
            self._is_giving_way = False


def _settle(future: Future[Value], function: Callable[[], Value]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        value = function()
    except BaseException as error:  # noqa: BLE001 - it is for who waits
        future.set_exception(error)
    else:
        future.set_result(value)

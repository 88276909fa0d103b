"""The index's write transaction is the lock between processes; the kernel releases it when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.background import Background, wait_until
from tests.support.children import Channel, Children

from shardlog.errors import Closed
from shardlog.index.environment import Index, IndexContent
from shardlog.index.tail import Tail

TAIL = Tail._make(range(len(Tail._fields)))


@pytest.fixture
def path(tmp_path: Path) -> str:
    """The index's directory."""
    path = tmp_path / "index"
    path.mkdir()
    return str(path)


@pytest.fixture
def index(path: str) -> Iterator[Index]:
    """An index that other processes open too."""
    index = Index.make(path, IndexContent(TAIL, b"state", [], [], [], {}))
    yield index
    index.close()


def _add(index: Index, count: int) -> None:
    for _ in range(count):
        with index.write() as transaction:
            tail = transaction.tail()
            transaction.put_tail(tail._replace(records=tail.records + 1))
            transaction.commit()


def _add_in_child(channel: Channel, path: str, count: int) -> None:
    index = Index(path)
    channel.send("ready")
    channel.receive()
    _add(index, count)
    index.close()


def test_no_increment_is_lost(children: Children, index: Index, path: str) -> None:
    """Three processes and two threads read, add one and write, all at once."""
    workers = [children.start(_add_in_child, path, 200) for _ in range(3)]
    for worker in workers:
        assert worker.receive() == "ready"
    for worker in workers:
        worker.send("go")
    threads = [Background(_add, index, 200) for _ in range(2)]
    for thread in threads:
        thread.result()
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert index.tail().records == TAIL.records + 1000


def _hold(channel: Channel, path: str, commit: bool) -> None:
    index = Index(path)
    with index.write() as transaction:
        transaction.put_tail(transaction.tail()._replace(records=99))
        channel.send("holding")
        channel.receive()
        if commit:
            transaction.commit()
    channel.send("done")
    channel.receive()


def _records_under_the_lock(index: Index) -> int:
    with index.write() as transaction:
        return transaction.tail().records


@pytest.mark.parametrize("commit", [True, False])
def test_one_writes_at_a_time(children: Children, index: Index, path: str, commit: bool) -> None:
    """The next writer waits, and sees what the one before published; readers never wait."""
    child = children.start(_hold, path, commit)
    assert child.receive() == "holding"
    waiting = Background(_records_under_the_lock, index)
    assert index.tail() == TAIL
    assert waiting.is_running
    child.send("go on")
    assert child.receive() == "done"
    assert waiting.result() == (99 if commit else TAIL.records)


def test_a_holder_that_is_killed_does_not_block(children: Children, index: Index, path: str) -> None:
    """The next writer has the lock at once, and sees nothing of what the dead one had put. Again and again."""
    for _ in range(5):
        child = children.start(_hold, path, True)
        assert child.receive() == "holding"
        waiting = Background(_records_under_the_lock, index)
        assert waiting.is_running
        child.kill()
        assert waiting.result() == TAIL.records
    _add(index, 1)
    assert index.tail().records == TAIL.records + 1


def _read_and_stay(channel: Channel, path: str) -> None:
    index = Index(path)
    environment = index._environment
    assert environment is not None
    with environment.begin():
        channel.send("reading")
        channel.receive()


def test_readers_that_died_are_forgotten(children: Children, index: Index, path: str) -> None:
    """A slot left behind would pin old pages, and the file would grow for good."""
    child = children.start(_read_and_stay, path)
    assert child.receive() == "reading"
    environment = index._environment
    assert environment is not None
    index.check_readers()
    assert str(child.pid) in environment.readers()
    child.kill()
    index.check_readers()
    assert str(child.pid) not in environment.readers()


def test_closing_waits_for_reads_of_other_threads(index: Index) -> None:
    """To close an environment under a thread that is inside it would crash the interpreter."""

    def read_until_closed() -> int:
        count = 0
        while True:
            try:
                index.tail()
                index.segments()
            except Closed:
                return count
            count += 1

    threads = [Background(read_until_closed) for _ in range(4)]
    wait_until(lambda: all(thread.is_running for thread in threads))
    _add(index, 50)
    index.close()
    assert all(thread.result() >= 0 for thread in threads)

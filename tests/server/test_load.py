"""Many clients that poll at once, with writers beside them: no error, and memory stays flat."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.server.serving import Served, create_table, shards_of

PAUSE_SECONDS = 0.02


@dataclass
class Load:
    """What came of it."""

    polls: int = 0
    puts: int = 0
    records: int = 0
    errors: list[str] = field(default_factory=list)
    rss_kib: list[int] = field(default_factory=list)


class Caller:
    """A client with one connection that it keeps."""

    def __init__(self, port: int, service: str) -> None:
        self._port = port
        self._service = service

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)

    async def call(self, operation: str, members: dict[str, Any]) -> dict[str, Any]:
        """The answer's members; raises where it is an error."""
        body = json.dumps(members).encode()
        head = (
            f"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: {self._service}.{operation}\r\n"
            f"Content-Type: application/x-amz-json-1.0\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in answer.split("\r\n") if line.lower().startswith("content-length:"))
        content = await self._reader.readexactly(length)
        assert " 200 " in answer.split("\r\n")[0], content
        found: dict[str, Any] = json.loads(content)
        return found

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


def resident_kib(pid: int) -> int:
    """What a process has in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def run_load(served: Served, arn: str, shard_id: str, clients: int, seconds: float) -> Load:
    """Poll and write until the time is over."""
    load = Load()
    end = time.monotonic() + seconds

    async def poll() -> None:
        caller = Caller(served.port, "DynamoDBStreams_20120810")
        await caller.open()
        asked = {"StreamArn": arn, "ShardId": shard_id, "ShardIteratorType": "LATEST"}
        iterator = (await caller.call("GetShardIterator", asked))["ShardIterator"]
        while time.monotonic() < end:
            page = await caller.call("GetRecords", {"ShardIterator": iterator})
            iterator = page["NextShardIterator"]
            load.records += len(page["Records"])
            load.polls += 1
            await asyncio.sleep(PAUSE_SECONDS)
        caller.close()

    async def write() -> None:
        caller = Caller(served.port, "DynamoDB_20120810")
        await caller.open()
        while time.monotonic() < end:
            item = {"id": {"S": str(load.puts % 100)}, "n": {"N": str(load.puts)}}
            await caller.call("PutItem", {"TableName": "users", "Item": item})
            load.puts += 1
            await asyncio.sleep(PAUSE_SECONDS)
        caller.close()

    async def watch() -> None:
        while time.monotonic() < end:
            load.rss_kib.append(resident_kib(served.process.pid))
            await asyncio.sleep(seconds / 20)

    done = await asyncio.gather(write(), watch(), *(poll() for _ in range(clients)), return_exceptions=True)
    load.errors = [repr(found) for found in done if isinstance(found, BaseException)]
    return load


def check(tmp_path: Path, clients: int, seconds: float) -> None:
    """No error; every client reads every record; what is in memory after a third of the time is what is at the end."""
    with Served(tmp_path / "store", "--dynamodb", "--durability", "os") as served:
        arn = create_table(served.client("dynamodb"))
        (shard,) = shards_of(served.client("dynamodbstreams"), arn)
        load = asyncio.run(run_load(served, arn, shard["ShardId"], clients, seconds))
        assert load.errors == []
        assert load.records >= 0.8 * clients * load.puts
        third = len(load.rss_kib) // 3
        early, late = max(load.rss_kib[third : 2 * third]), max(load.rss_kib[2 * third :])
        print(f"{load.polls / seconds:.0f} polls/s, {load.puts} puts, {early} KiB, then {late} KiB")
        assert late < early * 1.1 + 4096
        status, talk = served.stop()
        assert status == 0, talk


def test_many_clients_shortly(tmp_path: Path) -> None:
    """Fifty, for a few seconds."""
    check(tmp_path, 50, 4)


@pytest.mark.torture
def test_two_hundred_clients_for_a_minute(tmp_path: Path) -> None:
    """The long form."""
    check(tmp_path, 200, 60)

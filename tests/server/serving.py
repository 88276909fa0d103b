"""A server in a process of its own, and clients for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config
from tests.tools.commands import command_of

REGION = "us-east-1"
LIMIT_SECONDS = 60.0


class Served:
    """`shardlog serve` over a store, on any port that is free."""

    def __init__(self, store: Path, *words: str) -> None:
        self.store = store
        self._words = words
        self.port = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """On any port that is free at first, then on the same."""
        process = subprocess.Popen(
            command_of("serve", self.store, "--port", self.port, "--json", *self._words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate()[1].decode())
        self.address: str = json.loads(line)["address"]
        self.port = int(self.address.rpartition(":")[2])
        return process

    def client(self, service: str, region: str = REGION, **settings: Any) -> Any:
        """A client of boto3, unmodified but for its endpoint; it does not try again by itself."""
        keys = {"aws_access_key_id": "any", "aws_secret_access_key": "thing", **settings}
        return boto3.client(
            service,
            endpoint_url=self.address,
            region_name=region,
            config=Config(retries={"total_max_attempts": 1}, read_timeout=LIMIT_SECONDS),
            **keys,
        )

    def admin(self, name: str, **members: Any) -> dict[str, Any]:
        """An admin call's answer."""
        request = urllib.request.Request(f"{self.address}/_shardlog/{name}", json.dumps(members).encode())
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def get(self, path: str) -> str:
        """The text at a path."""
        with urllib.request.urlopen(f"{self.address}{path}", timeout=LIMIT_SECONDS) as answer:
            text: bytes = answer.read()
            return text.decode()

    def kill(self) -> None:
        """SIGKILL it."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """SIGKILL it, and start it again over the same store."""
        self.kill()
        self.process = self._start()

    def stop(self) -> tuple[int, str]:
        """End it as an operator does; its exit status and its talk."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
        talk = self.process.communicate(timeout=LIMIT_SECONDS)[1].decode()
        return self.process.returncode, talk

    def _end(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        self.process.communicate(timeout=LIMIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGKILL)


def create_table(database: Any, name: str = "users", view_type: str = "NEW_AND_OLD_IMAGES", **more: Any) -> str:
    """Make a table with a string key `id` and a stream; the stream's ARN."""
    described = database.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": view_type},
        **more,
    )
    arn: str = described["TableDescription"]["LatestStreamArn"]
    return arn


def shards_of(streams: Any, arn: str) -> list[dict[str, Any]]:
    """All shards of a stream, over all pages."""
    found: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    while True:
        described = streams.describe_stream(StreamArn=arn, **more)["StreamDescription"]
        found += described["Shards"]
        if "LastEvaluatedShardId" not in described:
            return found
        more = {"ExclusiveStartShardId": described["LastEvaluatedShardId"]}


def records_of(streams: Any, arn: str) -> list[dict[str, Any]]:
    """All records of a stream, parents before children, in order of sequence number."""
    found = [record for shard in shards_of(streams, arn) for record in shard_records(streams, arn, shard["ShardId"])]
    return sorted(found, key=lambda record: int(record["dynamodb"]["SequenceNumber"]))


def shard_records(streams: Any, arn: str, shard_id: str, limit: int = 1000) -> list[dict[str, Any]]:
    """All records of a shard, from its beginning to its end, or to an empty page."""
    iterator = streams.get_shard_iterator(StreamArn=arn, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
    position = iterator["ShardIterator"]
    found: list[dict[str, Any]] = []
    while position is not None:
        page = streams.get_records(ShardIterator=position, Limit=limit)
        found += page["Records"]
        if not page["Records"]:
            break
        position = page.get("NextShardIterator")
    return found


def summary(records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Event, keys, old and new image of each record."""
    return [
        (
            record["eventName"],
            record["dynamodb"]["Keys"],
            record["dynamodb"].get("OldImage"),
            record["dynamodb"].get("NewImage"),
        )
        for record in records
    ]

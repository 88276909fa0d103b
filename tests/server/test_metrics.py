"""Figures: who may read them, and of which streams there are any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from shardlog import Change, Store
from shardlog.server.admin import Admin
from shardlog.server.catalogue import Catalogue, Scope
from shardlog.server.clock import OffsetClock
from shardlog.server.http import Application, Limits
from shardlog.server.metrics import Metrics
from shardlog.server.operations import StreamsApi
from shardlog.testing.clock import ManualClock

SECRET = "a secret"
HERE, ELSEWHERE = "127.0.0.1", "192.0.2.1"


class Rig:
    """An application that asks for signatures, called without sockets."""

    def __init__(self, store: Store, clock: ManualClock, pool: ThreadPoolExecutor) -> None:
        self.catalogue = Catalogue(store, clock)
        self.metrics = Metrics(self.catalogue)
        self.api = StreamsApi(self.catalogue, clock, self.metrics.observe_page)
        self._application = Application(
            api=self.api,
            admin=Admin(self.catalogue, OffsetClock(clock)),
            metrics=self.metrics,
            pool=pool,
            limits=Limits(),
            secrets={"AKID": SECRET},
        )

    def get(self, path: str, client: str, method: str = "GET", secret: str | None = None) -> tuple[int, bytes]:
        """Status and body; signed with a secret if there is one."""
        request = AWSRequest(method, f"http://localhost{path}", data=b"")
        if secret is not None:
            SigV4Auth(Credentials("AKID", secret), "dynamodb", "eu-west-1").add_auth(request)
        headers = {"host": "localhost", **{name.lower(): str(value) for name, value in request.headers.items()}}
        scope: MutableMapping[str, Any] = {
            "type": "http",
            "method": method,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": (client, 4711),
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": b""}

        async def send(event: MutableMapping[str, Any]) -> None:
            sent.append(event)

        asyncio.run(self._application(scope, receive, send))
        return sent[0]["status"], sent[1]["body"]

    def read(self, arn: str, shard_id: str) -> None:
        """Be given a page."""
        members = {"StreamArn": arn, "ShardId": shard_id, "ShardIteratorType": "TRIM_HORIZON"}
        self.api.get_records(self.api.get_shard_iterator(members, Scope()), Scope())


@pytest.fixture
def rig(store: Store, clock: ManualClock) -> Iterator[Rig]:
    """One over the store."""
    with ThreadPoolExecutor(1) as pool:
        yield Rig(store, clock, pool)


def new_stream(store: Store, rig: Rig, name: str) -> str:
    """A table's stream that was read."""
    stream = store.create_stream(name, table_arn=f"arn:aws:dynamodb:us-east-1:123456789012:table/{name}")
    stream.append([Change.insert(keys={"id": {"S": "a"}}, new={"id": {"S": "a"}})])
    description = stream.describe()
    rig.read(description.arn, description.shards[0].shard_id)
    return description.arn


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_may_read_the_figures(rig: Rig, method: str) -> None:
    """They name tables and streams: where signatures are asked for, only this machine and who signs."""
    for client, secret, status in [
        (HERE, None, 200),
        ("::1", None, 200),
        (ELSEWHERE, None, 400),
        (ELSEWHERE, "wrong", 400),
        (ELSEWHERE, SECRET, 200),
        ("", None, 400),
    ]:
        found, body = rig.get("/metrics", client, method, secret)
        assert (found, b"shardlog_requests" in body) == (status, status == 200 and method == "GET")


@pytest.mark.parametrize("path", ["/", "/health"])
def test_everybody_may_ask_whether_it_is_there(rig: Rig, path: str) -> None:
    """Who balances load does not sign."""
    assert rig.get(path, ELSEWHERE)[0] == 200


def test_the_figures_of_a_removed_stream_go(rig: Rig, store: Store, clock: ManualClock) -> None:
    """Removed by its program, or a day after its table: nothing is kept of it; the others' figures stay."""
    kept, deleted, disabled = (new_stream(store, rig, name) for name in ("kept", "deleted", "disabled"))
    text = rig.metrics.text().decode()
    for arn in (kept, deleted, disabled):
        assert f'shardlog_records_read_total{{stream="{arn}"}} 1.0' in text
        assert f'shardlog_iterator_age_seconds{{stream="{arn}"}}' in text
    store.delete_stream("deleted")
    store.disable_stream("disabled")
    assert deleted not in rig.metrics.text().decode()
    clock.advance(timedelta(hours=25))
    rig.catalogue.arns(Scope())
    assert rig.catalogue.remove_expired() == [disabled]
    text = rig.metrics.text().decode()
    assert disabled not in text
    assert f'shardlog_records_read_total{{stream="{kept}"}} 1.0' in text
    assert list(rig.catalogue._places) == [kept]
    assert not rig.catalogue._closed_us

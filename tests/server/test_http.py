"""The port: what others than SDKs send to it, its limits, TLS, signatures, and its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.server.certificates import write_certificate
from tests.server.in_process import serving
from tests.server.serving import LIMIT_SECONDS, REGION, Served, create_table, records_of
from tests.support.background import Background, wait_until
from tests.tools.commands import run_process

import shardlog
from shardlog import Change
from shardlog.server.http import Limits
from shardlog.server.running import Settings

LIST = {"X-Amz-Target": "DynamoDBStreams_20120810.ListStreams", "Content-Type": "application/x-amz-json-1.0"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server without tables."""
    with Served(tmp_path_factory.mktemp("served") / "store") as served:
        yield served


def post(
    served: Served, body: bytes = b"{}", headers: dict[str, str] | None = None, path: str = "/", method: str = "POST"
) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body that a request is answered with."""
    with closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=LIMIT_SECONDS)) as connection:
        connection.request(method, path, body, LIST if headers is None else headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def error_of(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    """Status and name of an error."""
    name: str = json.loads(answer[2])["__type"]
    return answer[0], name.rpartition("#")[2]


def is_well(served: Served) -> bool:
    """Whether it still answers."""
    return post(served)[0] == 200


def raw(served: Served, content: bytes, wait: bool = True) -> bytes:
    """What comes back for bytes on the port until the server closes it."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(content)
        parts = []
        while wait and (part := connection.recv(65536)):
            parts.append(part)
        return b"".join(parts)


def is_cut_off(connection: socket.socket, part: bytes, times: int) -> bool:
    """Whether the server ends a connection that sends so much."""
    try:
        for _ in range(times):
            connection.sendall(part)
    except OSError:  # reset, or a broken pipe
        return True
    return False


@pytest.mark.parametrize("body", [b"", b"{}", b' {"Limit": 5}', b'{"Unknown": [1, {"a": null}]}'])
def test_bodies_that_are_right(served: Served, body: bytes) -> None:
    """No body is no members; what the model does not know is ignored."""
    status, headers, content = post(served, body)
    assert status == 200
    assert json.loads(content) == {"Streams": []}
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert headers["x-amzn-requestid"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b'{"Limit": "5"}', b"[" * 1_000_000])
def test_bodies_that_are_wrong(served: Served, body: bytes) -> None:
    """SerializationException, and the server goes on."""
    assert error_of(post(served, body)) == (400, "SerializationException")
    assert is_well(served)


@pytest.mark.parametrize(
    "target",
    [
        None,
        "",
        "DynamoDBStreams_20120810",
        "DynamoDBStreams_20120810.Nothing",
        "Kinesis_20131202.ListStreams",
        "DynamoDB_20120810.ListTables",
        "x" * 4000,
    ],
)
def test_targets_that_are_wrong(served: Served, target: str | None) -> None:
    """UnknownOperationException; a server without tables has no DynamoDB."""
    headers = {} if target is None else {"X-Amz-Target": target}
    assert error_of(post(served, b"{}", headers)) == (400, "UnknownOperationException")


def test_other_methods_and_paths(served: Served) -> None:
    """GET / is for those who look whether it is there; HEAD has no body."""
    assert post(served, method="PUT")[0] == 405
    assert post(served, method="DELETE")[0] == 405
    assert post(served, b"", {}, "/nothing", "GET")[0] == 404
    assert post(served, b"", {}, "/", "GET")[2].startswith(b"healthy")
    assert post(served, b"", {}, "/health", "HEAD")[2] == b""
    assert served.get("/health").startswith("healthy")


def test_a_body_that_is_too_large(served: Served) -> None:
    """Refused by its declared length before a byte of it is read, and by what comes where it declares none."""
    answer = raw(served, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
    assert b" 413 " in answer.splitlines()[0]
    assert b"RequestEntityTooLargeException" in answer
    part = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert is_cut_off(connection, part, 200)
    assert is_well(served)


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 100,
        b"garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200),
        b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: abc\r\n\r\n",
        b"POST http://[bad/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_garbage_on_the_port(served: Served, content: bytes) -> None:
    """400 or a closed connection; the server goes on."""
    answer = raw(served, content)
    assert answer == b"" or b" 400 " in answer.splitlines()[0] or b" 505 " in answer.splitlines()[0]
    assert is_well(served)


def test_a_head_that_is_too_large(served: Served) -> None:
    """Cut off while it comes; memory is not the limit."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_SECONDS) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert is_cut_off(connection, b"X-Header: " + b"x" * 1000 + b"\r\n", 10_000)
    assert is_well(served)


def test_clients_that_go_away(served: Served) -> None:
    """In the head, in the body, before the answer."""
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDBStreams_20120810.ListStreams\r\nContent-Length: 2\r\n\r\n"
    )
    for content in (b"", b"POST / HT", head[:-4], head, head + b"{", head + b"{}"):
        raw(served, content, wait=False)
    assert is_well(served)


def test_slow_clients_do_not_stop_others(served: Served) -> None:
    """A hundred that never finish their requests; one that does is answered."""
    slow = [socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_SECONDS) for _ in range(100)]
    try:
        for index, connection in enumerate(slow):
            half = (
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{" if index % 2 else b"POST / HTTP/1.1\r\nHo"
            )
            connection.sendall(half)
        assert is_well(served)
    finally:
        for connection in slow:
            connection.close()


def test_pipelined_requests(served: Served) -> None:
    """Answered in order."""
    request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert raw(served, request * 3 + last).count(b"healthy: shardlog") == 4


def test_names_that_clients_make_up_are_no_metrics(served: Served) -> None:
    """Or anybody could fill the memory with them."""
    post(served, b"{}", {"X-Amz-Target": "DynamoDBStreams_20120810.MadeUp"})
    text = served.get("/metrics")
    assert "MadeUp" not in text
    assert 'operation="other"' in text


# Admin calls


def test_admin_calls(served: Served) -> None:
    """A program's stream is rolled over, split, merged; unknown calls and members that are wrong are refused."""
    with shardlog.open(served.store) as store:
        arn = store.create_stream("admin", key_names=["id"]).describe().arn
        (child,) = served.admin("roll", StreamArn=arn)["ShardIds"]
        left, right = served.admin("split", StreamArn=arn)["ShardIds"]
        assert served.admin("split", StreamArn=arn, ShardId=left)["ShardIds"]
        assert child != left
        shards = [shard for shard in store.stream("admin").describe().shards if shard.end_sequence is None]
        ordered = [shard.shard_id for shard in sorted(shards, key=lambda shard: shard.hash_range)]
        assert len(served.admin("merge", StreamArn=arn, ShardIds=ordered[:2])["ShardIds"]) == 1
        store.delete_stream("admin")
    assert right in ordered
    for name, members in [
        ("nothing", {}),
        ("roll", {}),
        ("roll", {"StreamArn": 5}),
        ("split", {"StreamArn": arn}),
        ("merge", {"StreamArn": arn, "ShardIds": ["a"]}),
        ("clock", {"AdvanceSeconds": -1}),
        ("clock", {"AdvanceSeconds": "1"}),
    ]:
        assert post(served, json.dumps(members).encode(), {}, f"/_shardlog/{name}")[0] == 400


def test_web_pages_may_not_administrate(served: Served) -> None:
    """A browser on this machine comes from loopback, too; it tells its origin."""
    answer = post(served, b"{}", {"Origin": "http://example.com"}, "/_shardlog/clock")
    assert error_of(answer) == (400, "AccessDeniedException")


# Signatures, addresses, TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    return write_certificate(tmp_path_factory.mktemp("certificate"))


def test_signatures_and_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """On all addresses, with the right key, over TLS; a wrong key, no key, another access key are refused."""
    certfile, keyfile = certificate
    words = ["--host", "0.0.0.0", "--access-key", "AKID", "--secret-key", "s3cret", "--certfile", str(certfile)]
    with Served(tmp_path / "store", *words, "--keyfile", str(keyfile)) as served:
        assert served.address.startswith("https://")

        def client(access_key: str, secret: str) -> Any:
            return boto3.client(
                "dynamodbstreams",
                endpoint_url=f"https://localhost:{served.port}",
                region_name=REGION,
                aws_access_key_id=access_key,
                aws_secret_access_key=secret,
                verify=str(certfile),
                config=Config(retries={"total_max_attempts": 1}),
            )

        assert client("AKID", "s3cret").list_streams()["Streams"] == []
        for access_key, secret, name in [
            ("AKID", "wrong", "InvalidSignatureException"),
            ("OTHER", "s3cret", "UnrecognizedClientException"),
        ]:
            with pytest.raises(ClientError) as raised:
                client(access_key, secret).list_streams()
            assert raised.value.response["Error"]["Code"] == name
        context = ssl.create_default_context(cafile=str(certfile))
        for path in ("/", "/_shardlog/clock"):
            request = urllib.request.Request(f"https://localhost:{served.port}{path}", b"{}", LIST)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, context=context, timeout=LIMIT_SECONDS)
            assert json.load(refused.value)["__type"].endswith("MissingAuthenticationTokenException")
            refused.value.close()
        with urllib.request.urlopen(f"https://localhost:{served.port}/health", context=context) as answer:
            assert answer.status == 200
        assert raw(served, b"GET / HTTP/1.1\r\n\r\n") in (b"",)  # no TLS, no answer


@pytest.mark.parametrize(
    "words",
    [
        ["--host", "0.0.0.0"],
        ["--host", "::"],
        ["--host", "192.0.2.1"],
        ["--access-key", "a"],
        ["--secret-key", "a"],
        ["--certfile", "/nowhere.pem"],
        ["--certfile", "/nowhere.pem", "--keyfile", "/nowhere.pem"],
        ["--port", "70000"],
        ["--clock-offset", "100000d"],
    ],
)
def test_what_is_not_served(tmp_path: Path, words: list[str]) -> None:
    """Other addresses without signatures, half a key, half a certificate: usage errors, and no store is made."""
    outcome = run_process("serve", tmp_path / "store", *words)
    assert outcome.status == 2
    assert not (tmp_path / "store").exists()


def test_a_port_that_is_taken(served: Served, tmp_path: Path) -> None:
    """Says which one."""
    outcome = run_process("serve", tmp_path / "store", "--port", served.port)
    assert outcome.status == 1
    assert f"127.0.0.1:{served.port}" in outcome.talk


# Its end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop(tmp_path: Path, number: signal.Signals) -> None:
    """Exit status 0; idle connections do not hold it up; what was acknowledged is there."""
    with Served(tmp_path / "store", "--dynamodb") as served:
        database = served.client("dynamodb")
        arn = create_table(database)
        idle = socket.create_connection(("127.0.0.1", served.port), timeout=LIMIT_SECONDS)
        acknowledged: list[str] = []

        def write() -> None:
            try:
                for count in range(100_000):
                    database.put_item(TableName="users", Item={"id": {"S": str(count)}})
                    acknowledged.append(str(count))
            except Exception:  # the server is gone
                return

        writing = Background(write)
        wait_until(lambda: len(acknowledged) > 50)
        os.kill(served.process.pid, number)
        status, talk = served.stop()
        writing.result()
        idle.close()
        assert status == 0, talk
        assert talk.endswith("stopped\n")
        served.process = served._start()
        found = records_of(served.client("dynamodbstreams"), arn)
        kept = [record["dynamodb"]["Keys"]["id"]["S"] for record in found]
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= len(acknowledged) + 1


def test_metrics(tmp_path: Path) -> None:
    """Appends, commits, syncs, bytes, latencies, lag per group, shards, iterator age."""
    with Served(tmp_path / "store", "--dynamodb") as served:
        database = served.client("dynamodb")
        arn = create_table(database)
        for count in range(3):
            database.put_item(TableName="users", Item={"id": {"S": str(count)}})
        records_of(served.client("dynamodbstreams"), arn)
        with shardlog.open(served.store) as store:
            store.stream("users").group("app")
        text = served.get("/metrics")
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        stream = f'stream="{arn}"'
        expected = {
            "shardlog_appends_total": 3,
            "shardlog_appended_records_total": 3,
            "shardlog_append_seconds_count": 3,
            'shardlog_requests_total{operation="PutItem",status="200"}': 3,
            f"shardlog_stream_records{{{stream}}}": 3,
            f"shardlog_records_read_total{{{stream}}}": 3,
            f'shardlog_shards{{state="open",{stream}}}': 1,
            f'shardlog_group_lag_records{{group="app",{stream}}}': 3,
            f"shardlog_iterator_age_seconds{{{stream}}}": 0,
        }
        assert {name: float(values[name]) for name in expected} == expected
        for name in ("shardlog_commits_total", "shardlog_syncs_total", "shardlog_stream_bytes"):
            assert float(values[f"{name}{{{stream}}}"]) >= 3
        assert float(values[f'shardlog_group_lag_seconds{{group="app",{stream}}}']) > 0
        assert float(values["shardlog_sent_bytes_total"]) > 0


def test_a_damaged_stream_does_not_hide_the_others(tmp_path: Path) -> None:
    """It is left out, and said in the log; the others are served."""
    with shardlog.open(tmp_path / "store") as store:
        for name in ("good", "bad"):
            store.create_stream(name).append([Change.insert(keys={"id": 1}, new={"id": 1})])
    (segment,) = (tmp_path / "store/streams/bad").glob("*/log/*.seg")
    segment.write_bytes(b"x" * 100_000)
    with Served(tmp_path / "store") as served:
        found = served.client("dynamodbstreams").list_streams()["Streams"]
        assert [stream["TableName"] for stream in found] == ["good"]
        assert "shardlog_stream_records" in served.get("/metrics")
        _, talk = served.stop()
        assert "bad" in talk


def settings_of(tmp_path: Path, limits: Limits) -> Settings:
    return Settings(path=str(tmp_path / "store"), port=0, limits=limits)


def test_time_limits(tmp_path: Path) -> None:
    """A head or a body that does not arrive in time ends the connection, and nothing else."""
    limits = Limits(head_seconds=0.3, body_seconds=0.3, idle_seconds=1, stop_seconds=1)
    with serving(settings_of(tmp_path, limits)) as (_, port):
        for content, expected in [
            (b"", b""),
            (b"POST / HTTP/1.1\r\nHo", b""),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{", b" 408 "),
        ]:
            with socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) as connection:
                connection.sendall(content)
                try:
                    answer = connection.recv(65536)
                except ConnectionResetError:
                    answer = b""
            assert expected in answer


def test_a_client_that_does_not_read(tmp_path: Path) -> None:
    """Large answers that nobody takes are dropped with the connection, and with what waits behind them."""
    with shardlog.open(tmp_path / "store") as store:
        stream = store.create_stream("large")
        stream.append([Change.insert(keys={"id": n}, new={"id": n, "t": "x" * 300_000}) for n in range(3)])
        description = stream.describe()
        token = stream.iterator(description.shards[0].shard_id, "TRIM_HORIZON")
    body = json.dumps({"ShardIterator": f"{description.arn}|1|{token}"}).encode()
    target = b"DynamoDBStreams_20120810.GetRecords"
    head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: " + target + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    limits = Limits(stall_seconds=0.3, idle_seconds=60, stop_seconds=1)
    with serving(settings_of(tmp_path, limits)) as (server, port), socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall((head + body) * 20)
        wait_until(lambda: server.server_state.total_requests > 0)
        wait_until(lambda: not server.server_state.connections and not server.server_state.tasks)


def test_a_limit_on_connections(tmp_path: Path) -> None:
    """Who comes beyond it gets 503; when others have gone, there is room again."""
    with serving(settings_of(tmp_path, Limits(connections_max=5, stop_seconds=1))) as (server, port):
        idle = [socket.create_connection(("127.0.0.1", port), timeout=LIMIT_SECONDS) for _ in range(5)]
        wait_until(lambda: len(server.server_state.connections) == 5)

        def status() -> int:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)) as connection:
                connection.request("GET", "/health")
                return connection.getresponse().status

        assert status() == 503
        for connection in idle:
            connection.close()
        wait_until(lambda: status() == 200)

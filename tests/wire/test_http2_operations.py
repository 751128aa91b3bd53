"""Every other operation over HTTP/2, for clients that offer both versions: httpx, curl, and frames by hand."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from penstock.wire.eventstream import Decoder
from tests.waiting import until
from tests.wire.gateway_fixture import House, Seen, Wire, echo
from tests.wire.http2 import Http2, Stream, signed_headers

INVOKE = "/endpoints/ep/invocations"
STREAM = "/endpoints/ep/invocations-response-stream"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("http2") / "home")
    try:
        yield house.start()
    finally:
        house.close()


@pytest.fixture
def web(house: House) -> Iterator[httpx.Client]:
    trust = ssl.create_default_context(cafile=str(house.paths.ca_certificate))
    with httpx.Client(http2=True, verify=trust, base_url=house.url("https")) as client:
        yield client


def invoke(connection: Http2, body: bytes, path: str = INVOKE, **headers: str) -> Stream:
    signed = signed_headers(connection.house, path, content=None, body=body, headers=headers)
    stream = connection.request(path, headers=signed)
    connection.send(stream, body)
    connection.h2.end_stream(stream.number)
    connection.flush()
    return stream


def test_invoke_endpoint_by_httpx(house: House, web: httpx.Client) -> None:
    replica = house.serve(echo)
    body = b"over two"
    headers = signed_headers(house, INVOKE, content=None, body=body, headers={"content-type": "text/x"})
    answer = web.post(INVOKE, content=body, headers=headers)
    assert (answer.http_version, answer.status_code, answer.content) == ("HTTP/2", 200, b"you said over two")
    assert answer.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert replica.requests[-1].headers["content-type"] == "text/x"
    assert "connection" not in answer.headers


def test_a_response_stream_keeps_its_parts(house: House, web: httpx.Client) -> None:
    async def parts(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        for number in range(20):
            await wire.chunk(f"part {number}".encode())
        await wire.end_chunks()

    house.serve(parts)
    headers = signed_headers(house, STREAM, content=None, body=b"{}")
    decoder, found = Decoder(), []
    with web.stream("POST", STREAM, content=b"{}", headers=headers) as answer:
        assert answer.http_version == "HTTP/2"
        for piece in answer.iter_bytes():
            found += [message.payload for message in decoder.feed(piece)]
    decoder.finish()
    assert found == [f"part {number}".encode() for number in range(20)]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_keeps_working(house: House) -> None:
    house.serve(echo)
    headers = signed_headers(house, INVOKE, content=None, body=b"curl")
    command = ["curl", "-sS", "--cacert", str(house.paths.ca_certificate), house.url("https") + INVOKE, "-d", "curl"]
    command += ["-H", "content-type:", "-w", " HTTP/%{http_version}"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("you said curl HTTP/"), done


def test_boto3_goes_on_in_http1(house: House) -> None:
    """It offers no HTTP/2: nothing has changed for it."""
    house.serve(echo)
    answer = house.client("sagemaker-runtime", "https").invoke_endpoint(EndpointName="ep", Body=b"boto")
    assert answer["Body"].read() == b"you said boto"


def test_errors_have_the_protocol_s_own_shape(house: House) -> None:
    with Http2(house) as client:
        stream = invoke(client, b"", "/endpoints/absent/invocations")
        assert stream.head() == 400
        assert stream.headers["x-amzn-errortype"] == "ValidationError"
        assert json.loads(stream.whole())["ErrorCode"] == "NO_SUCH_ENDPOINT"
        assert client.request(INVOKE, end=True).head() == 403


def test_control_is_reached_and_uploads_pass(house: House, web: httpx.Client) -> None:
    body = json.dumps({"EndpointName": "x"}).encode()
    target = {"X-Amz-Target": "SageMaker.DescribeEndpoint", "Content-Type": "application/x-amz-json-1.1"}
    answer = web.post("/", content=body, headers=signed_headers(house, "/", content=None, body=body, headers=target))
    assert (answer.status_code, answer.json()) == (200, {"EndpointName": "seen"})
    assert house.control_seen[-1].headers["x-amz-target"] == "SageMaker.DescribeEndpoint"
    assert house.control_seen[-1].body == body


def test_large_bodies_both_ways_at_once(house: House, rng: Any) -> None:
    house.serve(echo)
    bodies = [rng.randbytes(2_000_000) for _ in range(4)]
    with Http2(house) as client:
        streams = [invoke(client, body) for body in bodies]
        for stream, body in zip(streams, bodies, strict=True):
            assert stream.whole() == b"you said " + body


def test_a_client_that_does_not_read_pauses_the_container(house: House) -> None:
    sent: list[int] = []

    async def flood(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        for _ in range(1000):
            await wire.chunk(b"x" * 64 * 1024)
            sent.append(1)
        await wire.end_chunks()

    replica = house.serve(flood)
    with Http2(house, greedy=False) as client:
        stream = invoke(client, b"{}", STREAM)
        assert stream.head() == 200
        with pytest.raises(AssertionError, match="not within"):
            until(lambda: len(sent) == 1000, deadline_s=1)
        paused_at = len(sent)
        other = invoke(client, b"{}", "/endpoints/absent/invocations")
        assert other.head() == 400, "other streams go on"
        client.greedy = True
        client.give_back(stream)
        client.run(lambda: stream.over)
    assert sum(len(message.payload) for message in stream.messages) == 1000 * 64 * 1024
    assert paused_at < 500, "the container was paused"
    until(lambda: replica.open <= 1)


def test_a_cancelled_stream_closes_the_container(house: House) -> None:
    gone: list[str] = []

    async def endless(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        await wire.gone()
        gone.append("gone")

    house.serve(endless)
    with Http2(house) as client:
        stream = invoke(client, b"{}", STREAM)
        assert stream.message().payload == b"first"
        stream.cancel()
        until(lambda: gone)


def test_a_broken_stream_is_told_in_its_middle(house: House) -> None:
    async def die(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"first")
        wire.reset()

    house.serve(die)
    with Http2(house) as client:
        stream = invoke(client, b"{}", STREAM)
        stream.message()
        assert stream.message().headers[":exception-type"] == "ModelStreamError"
        client.run(lambda: stream.over)
        assert stream.ended


def test_expect_continue_and_head(house: House, web: httpx.Client) -> None:
    house.serve(echo)
    with Http2(house) as client:
        signed = signed_headers(house, INVOKE, content=None, body=b"later")
        stream = client.request(INVOKE, headers={**signed, "expect": "100-continue"})
        client.run(lambda: stream.informational)
        client.send(stream, b"later")
        client.h2.end_stream(stream.number)
        client.flush()
        assert stream.whole() == b"you said later"
        assert stream.informational == [100]
    answer = web.head("/bucket", headers=signed_headers(house, "/bucket", content=None, method="HEAD"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert house.control_seen[-1].method == "HEAD"


@pytest.mark.parametrize(
    ("path", "fault", "before"),
    [
        (STREAM, {"kind": "reset", "after_parts": 1}, b"one"),
        (INVOKE, {"kind": "reset", "after_bytes": 4}, b"onet"),
        (INVOKE, {"kind": "end", "after_bytes": 4}, b"onet"),
    ],
)
def test_a_fault_plan_breaks_the_stream_and_not_the_connection(
    house: House, path: str, fault: dict[str, object], before: bytes
) -> None:
    async def parts(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"one")
        await wire.chunk(b"two")
        await wire.end_chunks()

    house.serve(echo, name="plain")
    house.serve(parts)
    plan = json.dumps({"faults": [fault]})
    house.endpoints["ep"] = replace(house.endpoints["ep"], faults=plan, faults_set=1.0)
    house.publish()
    with Http2(house) as client:
        plain = "/endpoints/plain/invocations"
        other = client.request(plain, headers=signed_headers(house, plain, content=None, body=b"x"))
        broken = invoke(client, b"{}", path)
        client.run(lambda: broken.over)
        arrived = b"".join(message.payload for message in broken.messages) + broken.body
        assert arrived == before, "what was sent before the break"
        assert broken.reset
        assert not broken.ended
        client.send(other, b"x")
        client.h2.end_stream(other.number)
        client.flush()
        assert other.whole() == b"you said x"


@pytest.mark.parametrize(
    ("method", "path", "extra", "status"),
    [
        ("GET", "/a b", {}, 400),
        ("GET", "/a#b", {}, 400),
        ("GET", "*", {}, 400),
        ("G ET", "/", {}, 400),
        ("GET", "/ HTTP/1.1\tx", {}, 400),
        ("GET", "/", {"x(y)": "z"}, 400),
        ("GET", "/", {"x": "a\x01b"}, 400),
        ("POST", "/", {"content-length": "1x"}, 400),
        ("GET", "/", {"expect": "miracles"}, 417),
    ],
)
def test_what_could_be_two_requests_in_http1_is_refused(
    house: House, method: str, path: str, extra: dict[str, str], status: int
) -> None:
    with Http2(house) as client:
        client.h2.config.validate_outbound_headers = False
        stream = client.request(path, method=method, headers=extra)
        client.run(lambda: stream.over or client.closed)
        assert stream.status == status or client.goaway, (stream, client.goaway)
        assert stream.status in (status, 0)

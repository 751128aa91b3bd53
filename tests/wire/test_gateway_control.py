"""Requests that are no invocation: relayed to control with the caller's identity, in pieces, unread."""

from __future__ import annotations

import hashlib
import http.client
import io
from typing import Any

import psutil
import pytest
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.waiting import until
from tests.wire.gateway_fixture import ACCOUNT, KEY, REGION, House, Seen, Wire, answering
from tests.wire.raw import connect, read_answer, signed


def test_a_json_service_reaches_control_with_its_caller(house: House) -> None:
    assert house.client("sagemaker").describe_endpoint(EndpointName="x")["EndpointName"] == "seen"
    [seen] = house.control_seen
    assert (seen.method, seen.target) == ("POST", "/")
    assert seen.headers["x-amz-target"] == "SageMaker.DescribeEndpoint"
    assert seen.headers["x-penstock-account"] == ACCOUNT
    assert seen.headers["x-penstock-caller-arn"] == KEY.arn
    assert seen.headers["x-penstock-access-key"] == KEY.id
    assert seen.headers["x-penstock-region"] == REGION
    assert seen.headers["x-penstock-service"] == "sagemaker"
    assert seen.headers["x-penstock-request-id"]
    assert seen.headers["host"] == house.url().removeprefix("http://")


def test_identity_headers_of_a_client_are_stripped(house: House) -> None:
    client = house.client("sagemaker")

    def forge(request: Any, **_: object) -> None:
        request.headers["X-Penstock-Account"] = "999999999999"

    client.meta.events.register("before-send", forge)
    client.describe_endpoint(EndpointName="x")
    assert house.control_seen[0].headers["x-penstock-account"] == ACCOUNT


OF_THIS_HOP = {
    "Connection": "keep-alive, X-Named",
    "X-Named": "by Connection",
    "Keep-Alive": "timeout=5",
    "Proxy-Connection": "keep-alive",
    "Proxy-Authorization": "Basic private",
    "Proxy-Authenticate": "Basic",
    "TE": "trailers",
    "Trailer": "X-After",
    "X-Penstock-Region": "of somebody",
}


def test_headers_of_one_hop_go_no_further(house: House) -> None:
    """Neither way: those of RFC 9110 §7.6.1, those that Connection names, and those between the gateway and control."""
    answered = OF_THIS_HOP | {"X-Kept": "of the answer", "X-Amzn-RequestId": "r"}

    async def control(request: Seen, wire: Wire) -> None:
        house.control_seen.append(request)
        await wire.answer(b"{}", headers=answered)

    house.control = answering(control)
    headers = OF_THIS_HOP | {"X-Kept": "of the request", "X-Amz-Target": "SageMaker.ListModels"}
    with connect(house) as sock:
        sock.sendall(signed(house, "/", b"{}", headers=headers))
        answer = read_answer(sock)
        sock.sendall(signed(house, "/", b"{}", headers={"X-Amz-Target": "SageMaker.ListModels"}))
        assert read_answer(sock).status == 200, "the connection goes on"
    seen = house.control_seen[0].headers
    gone = {name.lower() for name in OF_THIS_HOP}
    assert gone & set(seen) == {"x-penstock-region"}
    assert (seen["x-penstock-region"], seen["x-kept"]) == (REGION, "of the request")
    assert dict(answer.headers) == {
        "content-type": "text/plain",
        "content-length": "2",
        "x-kept": "of the answer",
        "x-amzn-requestid": "r",
    }


@pytest.fixture
def stored(house: House) -> dict[str, bytes]:
    """Makes control an object store of the simplest kind."""
    objects: dict[str, bytes] = {}

    async def store(request: Seen, wire: Wire) -> None:
        house.control_seen.append(request)
        key = request.target.partition("?")[0]
        if request.method == "PUT":
            objects[key] = request.body
            await wire.answer(headers={"ETag": '"e"'})
        elif request.method == "HEAD":
            length = len(objects[key])
            await wire.send(f'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: {length}\r\n\r\n'.encode())
        elif request.method == "GET":
            await wire.answer(objects[key], type_="binary/octet-stream")
        else:
            await wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    house.control = answering(store)
    return objects


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_s3_round_trip(house: House, stored: dict[str, bytes], scheme: str) -> None:
    s3 = house.client("s3", scheme)
    body = bytes(range(256)) * 1000
    key = "a b/c+d=é~.bin"
    s3.put_object(Bucket="bucket", Key=key, Body=body)
    if scheme == "http":
        assert list(stored.values()) == [body]
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == body
    else:  # boto3 sends aws-chunked over TLS; control decodes it
        [raw] = stored.values()
        assert b"x-amz-checksum-crc32:" in raw
        assert body in raw
    assert s3.head_object(Bucket="bucket", Key=key)["ETag"] == '"e"'
    s3.delete_object(Bucket="bucket", Key=key)
    s3.head_object(Bucket="bucket", Key=key)
    assert [one.method for one in house.control_seen][-3:] == ["HEAD", "DELETE", "HEAD"]


def test_presigned_urls(house: House, stored: dict[str, bytes]) -> None:
    s3 = house.client("s3", signature_version="s3v4")
    parameters = {"Bucket": "bucket", "Key": "a b.txt"}
    put = requests.put(s3.generate_presigned_url("put_object", parameters), data=b"posted", timeout=10)
    assert put.status_code == 200
    got = requests.get(s3.generate_presigned_url("get_object", parameters), timeout=10)
    assert got.content == b"posted"
    changed = s3.generate_presigned_url("get_object", parameters).replace("a%20b", "other")
    refused = requests.get(changed, timeout=10)
    assert refused.status_code == 403
    assert "<Code>SignatureDoesNotMatch</Code>" in refused.text


def test_a_large_upload_streams_through(house: House) -> None:
    size = 200 * 1024 * 1024
    received = hashlib.sha256()

    async def swallow(wire: Wire) -> None:
        head = await wire.head()
        assert head is not None
        left = int(head.headers["content-length"])
        while left:
            piece = await wire.reader.read(min(left, 1 << 20))
            received.update(piece)
            left -= len(piece)
        await wire.answer(headers={"ETag": '"e"'})

    house.control = swallow
    before = psutil.Process(house.pid).memory_info().rss
    body = io.BytesIO(bytes(1 << 20) * 200)
    s3 = house.client("s3", request_checksum_calculation="when_required")
    s3.put_object(Bucket="b", Key="k", Body=body)
    assert received.hexdigest() == hashlib.sha256(body.getvalue()).hexdigest()
    assert len(body.getvalue()) == size
    assert psutil.Process(house.pid).memory_info().rss - before < 20 * 1024 * 1024


def test_a_large_download_streams_through(house: House) -> None:
    piece, pieces = b"y" * (1 << 20), 100

    async def pour(request: Seen, wire: Wire) -> None:
        await wire.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(piece) * pieces}\r\n\r\n".encode())
        for _ in range(pieces):
            await wire.send(piece)

    house.control = answering(pour)
    before = psutil.Process(house.pid).memory_info().rss
    body = house.client("s3").get_object(Bucket="b", Key="k")["Body"]
    assert sum(len(part) for part in body.iter_chunks(1 << 20)) == len(piece) * pieces
    assert psutil.Process(house.pid).memory_info().rss - before < 20 * 1024 * 1024


def test_expect_100_continue_is_answered_only_after_the_head_is_checked(house: House, stored: dict[str, bytes]) -> None:
    for secret, expected in ((KEY.secret, b"HTTP/1.1 100 Continue\r\n\r\n"), ("wrong", b"HTTP/1.1 403 Forbidden\r\n")):
        request = AWSRequest("PUT", house.url() + "/bucket/key", {"Expect": "100-continue"}, b"body!")
        S3SigV4Auth(Credentials(KEY.id, secret), "s3", REGION).add_auth(request)
        connection = http.client.HTTPConnection("localhost", house.ports["http"], timeout=10)
        connection.putrequest("PUT", "/bucket/key", skip_accept_encoding=True)
        for name, value in {**dict(request.headers.items()), "Content-Length": "5"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.sock.recv(len(expected)) == expected
        if b"100" in expected:
            connection.sock.sendall(b"body!")
            assert connection.sock.recv(12) == b"HTTP/1.1 200"
            assert stored["/bucket/key"] == b"body!"
        connection.close()


def test_an_upload_that_control_refuses_is_never_sent(house: House) -> None:
    pieces: list[bytes] = []

    async def refuse(wire: Wire) -> None:
        while (head := await wire.head()) is not None:
            assert head.headers["expect"] == "100-continue"
            await wire.answer(b"<Error><Code>NoSuchBucket</Code></Error>", status=404, type_="application/xml")
            pieces.append(await wire.reader.read(1))

    house.control = refuse
    s3 = house.client("s3", "https")
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.put_object(Bucket="nowhere", Key="key", Body=b"x" * 3_000_000)
    until(lambda: bool(pieces), what="the end of the connection to control")
    assert pieces == [b""], "not a byte of the body came"


def test_control_that_is_away_is_a_503(house: House) -> None:
    async def stop() -> None:
        house.control_server.close()

    house.run(stop())
    house.paths.control_socket.unlink(missing_ok=True)
    with pytest.raises(ClientError) as refused:
        house.client("sagemaker").list_endpoints()
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503


def test_half_an_answer_of_control_never_looks_whole(house: House) -> None:
    async def break_off(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        await wire.chunk(b"half of it")
        wire.writer.close()

    house.control = answering(break_off)
    with pytest.raises(Exception, match=r"(?i)incomplete|broken|aborted|reset|closed"):
        house.client("s3").get_object(Bucket="b", Key="k")["Body"].read()


def test_sts_query_and_cloudwatch_errors_have_their_shapes(house: House) -> None:
    wrong = type(KEY)("AKIDUNKNOWN", "x", ACCOUNT, KEY.arn)
    for service, call, code in (
        ("sts", "get_caller_identity", "InvalidClientTokenId"),
        ("cloudwatch", "list_metrics", "UnrecognizedClientException"),
        ("logs", "describe_log_groups", "UnrecognizedClientException"),
        ("s3", "list_buckets", "InvalidAccessKeyId"),
        ("sagemaker", "list_endpoints", "UnrecognizedClientException"),
    ):
        with pytest.raises(ClientError) as refused:
            getattr(house.client(service, key=wrong), call)()
        assert refused.value.response["Error"]["Code"] == code, service
        assert refused.value.response["ResponseMetadata"]["RequestId"], service


def test_the_gateway_is_small(house: House) -> None:
    assert psutil.Process(house.pid).memory_info().rss < 50 * 1024 * 1024

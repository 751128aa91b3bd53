"""AWS's own host names through the proxy, and every other host untouched."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config

from tests.wire.gateway_fixture import KEY, REGION, House, Seen, Wire, answering, echo
from tests.wire.test_gateway_invoke import CHUNKS, stream_chunks


def through_the_proxy(house: House, service: str, region: str = REGION, **config: Any) -> Any:
    """A boto3 client of AWS's own host, as a program without any endpoint setting has it."""
    return boto3.client(
        service,
        region_name=region,
        aws_access_key_id=KEY.id,
        aws_secret_access_key=KEY.secret,
        verify=str(house.paths.ca_bundle),
        config=Config(proxies={"https": house.url("proxy").replace("proxy://", "http://")}, **config),
    )


def test_the_runtime_s_own_host(house: House) -> None:
    house.serve(stream_chunks)
    runtime = through_the_proxy(house, "sagemaker-runtime")
    assert runtime.meta.endpoint_url == "https://runtime.sagemaker.us-east-1.amazonaws.com"
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"{}")
    assert [event["PayloadPart"]["Bytes"] for event in answer["Body"]] == CHUNKS


@pytest.mark.parametrize(
    ("service", "call", "arguments", "host"),
    [
        ("sts", "get_caller_identity", {}, "sts.eu-west-3.amazonaws.com"),
        ("sagemaker", "describe_endpoint", {"EndpointName": "x"}, "api.sagemaker.eu-west-3.amazonaws.com"),
        ("s3", "head_object", {"Bucket": "my-bucket", "Key": "k"}, "my-bucket.s3.eu-west-3.amazonaws.com"),
        ("iam", "get_role", {"RoleName": "r"}, "iam.amazonaws.com"),
        ("logs", "describe_log_groups", {}, "logs.eu-west-3.amazonaws.com"),
        ("cloudwatch", "list_metrics", {}, "monitoring.eu-west-3.amazonaws.com"),
        (
            "application-autoscaling",
            "describe_scalable_targets",
            {"ServiceNamespace": "sagemaker"},
            "application-autoscaling.eu-west-3.amazonaws.com",
        ),
    ],
)
def test_every_service_s_host_reaches_control(
    house: House, service: str, call: str, arguments: dict[str, str], host: str
) -> None:
    async def refuse(request: Seen, wire: Wire) -> None:
        house.control_seen.append(request)
        await wire.answer(status=404)

    house.control = answering(refuse)
    client = through_the_proxy(house, service, "eu-west-3", retries={"total_max_attempts": 1})
    with pytest.raises(Exception, match=r"404|Unable to parse|invalid"):
        getattr(client, call)(**arguments)
    assert house.control_seen[0].headers["host"] == host
    region = "us-east-1" if service == "iam" else "eu-west-3"
    assert house.control_seen[0].headers["x-penstock-region"] == region


def test_another_host_is_tunnelled_untouched(house: House) -> None:
    other = house.replica(answering(echo))
    port = other.replica.port
    with socket.create_connection(("127.0.0.1", house.ports["proxy"]), timeout=10) as client:
        client.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert client.recv(1000) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        assert client.recv(1000).endswith(b"you said abc")
    assert other.accepted == 1


def test_a_host_that_is_away_is_a_502(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with socket.create_connection(("127.0.0.1", house.ports["proxy"]), timeout=10) as client:
        client.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET http://example.org/ HTTP/1.1\r\nHost: example.org\r\n\r\n", b"403"),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", b"400"),
        (b"CONNECT nonsense HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT [::1:443 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT sts.amazonaws.com:443 HTTP/1.1\r\nHost: x\r\n\r\nearly bytes", b"400"),
    ],
)
def test_what_the_proxy_does_not_do_is_told(house: House, request_: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", house.ports["proxy"]), timeout=10) as client:
        client.sendall(request_)
        answer = client.recv(4000)
        assert answer.split(b" ")[1] == status, answer


def test_a_plain_request_to_an_aws_host_is_served(house: House) -> None:
    sts = boto3.client(
        "sts",
        region_name=REGION,
        endpoint_url="http://sts.us-east-1.amazonaws.com",
        aws_access_key_id=KEY.id,
        aws_secret_access_key=KEY.secret,
        config=Config(proxies={"http": house.url("proxy").replace("proxy://", "http://")}),
    )
    with pytest.raises(Exception, match=r"(?i)parse|invalid"):  # control answers JSON to everything here
        sts.get_caller_identity()
    assert house.control_seen[0].headers["host"] == "sts.us-east-1.amazonaws.com"


def test_requests_and_its_proxy_variables(house: House) -> None:
    """What `penstock run` sets up, in a process of its own."""
    program = "import requests; print(requests.get('https://sts.amazonaws.com/?Action=GetCallerIdentity').status_code)"
    environ = {
        "HTTPS_PROXY": house.url("proxy").replace("proxy://", "http://"),
        "REQUESTS_CA_BUNDLE": str(house.paths.ca_bundle),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "403", done.stderr
    assert requests.codes.forbidden == 403

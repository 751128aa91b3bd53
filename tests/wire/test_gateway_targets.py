"""Which part of an endpoint a request is for: prefixes that stay with their replica, and headers for parts that it does not have."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from penstock.gateway.openai import MOST_READ
from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import House, Scripted, Seen, Wire, answering, echo
from tests.wire.test_gateway_openai import token


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"TargetModel": "m"}, "Endpoint ep is not a multi-model endpoint and does not support target model header."),
        ({"TargetContainerHostname": "second"}, "Endpoint ep is not a multi-container endpoint"),
        ({"InferenceComponentName": "ic"}, "Inference Component Name header is not allowed"),
    ],
)
def test_a_part_that_the_endpoint_does_not_have(house: House, arguments: dict[str, str], text: str) -> None:
    replica = house.serve(echo)
    runtime = house.client("sagemaker-runtime")
    calls = [runtime.invoke_endpoint]
    if "TargetModel" not in arguments:
        calls.append(runtime.invoke_endpoint_with_response_stream)
    for call in calls:
        with pytest.raises(ClientError) as caught:
            call(EndpointName="ep", Body=b"x", **arguments)
        assert caught.value.response["Error"]["Code"] == "ValidationError"
        assert caught.value.response["Error"]["Message"].startswith(text)
    assert replica.requests == []
    assert runtime.invoke_endpoint(EndpointName="ep", Body=b"x", TargetContainerHostname="primary")["Body"].read()


def prefixed(
    house: House, count: int, *, threshold: int = 100, length: int = 1024, script: Any = echo
) -> list[Scripted]:
    replicas: list[Scripted] = []

    def start() -> Scripted:
        async def handle(request: Seen, wire: Wire) -> None:
            scripted.requests.append(request)
            await script(request, wire)

        scripted = house.replica(answering(handle))
        return scripted

    replicas = [start() for _ in range(count)]
    variant = Variant(
        "AllTraffic",
        1.0,
        tuple(one.replica for one in replicas),
        routing="PREFIX_AWARE",
        prefix_length=length,
        concurrency_threshold=threshold,
    )
    house.endpoint("ep", variant)
    return replicas


def holders(replicas: list[Scripted], marker: bytes) -> set[int]:
    return {n for n, one in enumerate(replicas) if any(marker in seen.body for seen in one.requests)}


def test_one_prefix_one_replica_and_many_prefixes_all_of_them(house: House) -> None:
    replicas = prefixed(house, 4)
    runtime = house.client("sagemaker-runtime")
    for number in range(40):
        prefix = b"[prompt %04d]" % number + b"p" * 1024
        for end in (b"a", b"b", b"c"):
            runtime.invoke_endpoint(EndpointName="ep", Body=prefix + end)
    assert all(len(holders(replicas, b"[prompt %04d]" % number)) == 1 for number in range(40))
    assert all(one.requests for one in replicas), "40 prefixes and 4 replicas: none is left out"


def test_an_id_stands_for_the_prefix(house: House) -> None:
    replicas = prefixed(house, 4)
    runtime = house.client("sagemaker-runtime")
    for number in range(12):
        runtime.invoke_endpoint(EndpointName="ep", Body=b"<same> %d" % number, PrefixAwareId="conversation")
    assert len(holders(replicas, b"<same>")) == 1


def test_the_openai_routes_prefix_is_what_the_messages_say(house: House) -> None:
    replicas = prefixed(house, 4)
    for number in range(12):
        text = [{"type": "text", "text": "s" * 1024}] if number % 2 else "s" * 1024
        body = {"seed": number, "messages": [{"role": "system", "content": text}]}
        headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
        url = f"{house.url()}/endpoints/ep/openai/v1/chat/completions"
        assert requests.post(url, data=json.dumps(body), headers=headers, timeout=10).ok
    assert len(holders(replicas, b"seed")) == 1


def test_a_long_body_of_the_openai_route_is_not_read_for_its_prefix(house: House) -> None:
    replicas = prefixed(house, 4)
    said = [{"role": "system", "content": "s" * 1024}, {"role": "user", "content": "t" * MOST_READ}]
    headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}
    url = f"{house.url()}/endpoints/ep/openai/v1/chat/completions"
    for number in range(12):
        for body in ({"messages": said, "seed": number}, {"user": f"[user {number:04d}]", "messages": said}):
            assert requests.post(url, data=json.dumps(body), headers=headers, timeout=10).ok
    assert len(holders(replicas, b"seed")) == 1, "the same first bytes"
    assert len(holders(replicas, b"[user ")) > 1, "the messages, which are the same, were not looked at"


async def held(request: Seen, wire: Wire) -> None:
    await wire.begin_chunks()
    await wire.chunk(b"begun")
    await asyncio.wait_for(wire.gone(), 30)


def test_a_busy_replica_s_prefix_goes_elsewhere(house: House) -> None:
    replicas = prefixed(house, 2, threshold=2, script=held)
    runtime = house.client("sagemaker-runtime")
    bodies = []
    for _ in range(4):
        answer = runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"same")
        next(iter(answer["Body"]))
        bodies.append(answer["Body"])
    assert sorted(len(one.requests) for one in replicas) == [2, 2]
    for body in bodies:
        body.close()
    until(lambda: all(one.open == 0 for one in replicas), what="the replicas left")

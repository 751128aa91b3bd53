"""One line of JSON a request, with what happened and without what was said; and the same as metrics."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest
import requests
from botocore.exceptions import ClientError

from penstock.routes import GatewayEvent, Measured
from tests.waiting import until
from tests.wire.gateway_fixture import KEY, House, Seen, Wire, echo
from tests.wire.test_gateway_invoke import CHUNKS, stream_chunks


def line_of(house: House, request_id: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        path = house.paths.logs / "access.jsonl"
        text = path.read_text() if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        return next((line for line in lines if line["request_id"] == request_id), None)

    line = until(found, what=f"the line of {request_id}")
    assert line is not None
    return line


def told(house: House, since: int) -> Measured:
    """The next event with counts of `ep` after `since`."""

    def found() -> Measured | None:
        events: list[GatewayEvent] = house.events[since:]
        measured = (event.measured for event in events)
        return next((one for one in measured if one and one.endpoint == "ep" and one.counts), None)

    one = until(found, what="a measure of ep")
    assert one is not None
    return one


def test_a_plain_call(house: House) -> None:
    house.serve(echo)
    since = len(house.events)
    answer = house.client("sagemaker-runtime").invoke_endpoint(EndpointName="ep", Body=b"a secret question")
    line = line_of(house, answer["ResponseMetadata"]["RequestId"])
    assert line["operation"] == "InvokeEndpoint"
    assert (line["endpoint"], line["variant"], line["region"]) == ("ep", "AllTraffic", "us-east-1")
    assert (line["status"], line["error"], line["access_key"]) == (200, "", KEY.id)
    assert (line["bytes_in"], line["bytes_out"]) == (17, 26)
    assert 0 < line["first_chunk_ms"] <= line["total_ms"] < 10_000
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    measured = told(house, since)
    assert measured.counts == {"Invocations": 1}
    assert set(measured.latencies) == {"ModelLatency", "OverheadLatency"}
    assert sum(measured.latencies["ModelLatency"].buckets) == 1
    text = (house.paths.logs / "access.jsonl").read_text()
    assert "secret" not in text
    assert KEY.secret not in text


def test_a_stream_has_its_parts_and_its_first_chunk(house: House) -> None:
    house.serve(stream_chunks)
    since = len(house.events)
    runtime = house.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"{}")
    assert len(list(answer["Body"])) == len(CHUNKS)
    line = line_of(house, answer["ResponseMetadata"]["RequestId"])
    assert line["operation"] == "InvokeEndpointWithResponseStream"
    assert (line["parts"], line["bytes_out"]) == (len(CHUNKS), sum(map(len, CHUNKS)))
    assert 0 < line["first_chunk_ms"] <= line["total_ms"]
    latencies = told(house, since).latencies
    whole = latencies["FirstChunkModelLatency"].total_us + latencies["FirstChunkOverheadLatency"].total_us
    assert latencies["FirstChunkLatency"].total_us == pytest.approx(whole)


async def broken_off(request: Seen, wire: Wire) -> None:
    await wire.begin_chunks()
    await wire.chunk(b"half")
    wire.reset()


async def refusing(request: Seen, wire: Wire) -> None:
    await wire.answer(b"no such tokenizer", status=400)


def test_a_stream_that_breaks_is_a_mid_stream_error(house: House) -> None:
    house.serve(broken_off)
    since = len(house.events)
    parts, error = house.stream()
    assert parts == [b"half"]
    assert error is not None
    measured = told(house, since)
    assert measured.counts == {"Invocations": 1, "MidStreamErrors": 1}
    path = house.paths.logs / "access.jsonl"
    until(lambda: path.exists() and path.read_text().endswith("\n"), what="the line")
    assert json.loads(path.read_text().splitlines()[-1])["error"] == "StreamBroken"


def test_a_containers_refusal_and_one_of_ours(house: House) -> None:
    house.serve(refusing)
    since = len(house.events)
    runtime = house.client("sagemaker-runtime")
    for name, status, code in (("ep", 424, "ModelError"), ("absent", 400, "ValidationError")):
        with pytest.raises(ClientError) as caught:
            runtime.invoke_endpoint(EndpointName=name, Body=b"{}")
        line = line_of(house, caught.value.response["ResponseMetadata"]["RequestId"])
        assert (line["status"], line["error"], "endpoint" in line) == (status, code, name == "ep")
        assert "tokenizer" not in json.dumps(line)
    counts = told(house, since).counts
    assert counts == {"Invocations": 1, "Invocation4XXErrors": 1, "InvocationModelErrors": 1}


def test_a_container_that_cannot_be_reached_is_a_model_error_and_a_wrong_name_none(house: House) -> None:
    """AWS counts "low-level socket errors" among InvocationModelErrors, and what it refuses itself nowhere among them."""
    replica = house.serve(echo)
    assert replica.server is not None
    server = replica.server

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    house.run(stop())
    since = len(house.events)
    runtime = house.client("sagemaker-runtime")
    for arguments, status in (({}, 424), ({"TargetContainerHostname": "absent"}, 400)):
        with pytest.raises(ClientError) as caught:
            runtime.invoke_endpoint(EndpointName="ep", Body=b"{}", **arguments)
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    counts: Counter[str] = Counter()

    def counted() -> bool:
        counts.clear()
        for event in house.events[since:]:
            if event.measured and event.measured.endpoint == "ep":
                counts.update(event.measured.counts)
        return counts["Invocations"] == 2

    until(counted, what="both requests counted")
    assert counts == {"Invocations": 2, "InvocationModelErrors": 1}


async def waiting(request: Seen, wire: Wire) -> None:
    await wire.begin_chunks()
    await wire.chunk(b"one")
    await wire.gone()


def test_a_client_that_leaves_and_requests_in_flight(house: House) -> None:
    house.serve(waiting)
    answer = house.client("sagemaker-runtime").invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"{}")
    next(iter(answer["Body"]))

    def in_flight(count: int) -> bool:
        seen = [
            event.measured.in_flight for event in house.events if event.measured and event.measured.endpoint == "ep"
        ]
        return bool(seen) and seen[-1] == count

    until(lambda: in_flight(1), what="one request in flight")
    answer["Body"].close()
    line = line_of(house, answer["ResponseMetadata"]["RequestId"])
    assert (line["status"], line["error"], line["parts"]) == (200, "ClientLeft", 1)
    until(lambda: in_flight(0), what="nothing in flight")


def test_a_control_call_is_logged_by_its_operation(house: House) -> None:
    answer = house.client("sagemaker").list_endpoints()
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    line = line_of(house, answer["ResponseMetadata"]["RequestId"])
    assert (line["operation"], line["status"]) == ("SageMaker.ListEndpoints", 200)


def test_metrics_are_asked_for_unsigned_and_answered_by_control(house: House) -> None:
    seen = len(house.control_seen)
    answer = requests.get(house.url() + "/metrics", timeout=10)
    assert answer.status_code == 200
    request = house.control_seen[seen]
    assert (request.target, request.headers["x-penstock-service"]) == ("/metrics", "metrics")
    forged = requests.get(house.url() + "/other", headers={"x-penstock-service": "metrics"}, timeout=10)
    assert forged.status_code == 403

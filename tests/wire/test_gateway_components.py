"""Requests for inference components by boto3 through a real gateway: the header, its rules, and what holds for each component."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from penstock.routes import Endpoint, InferenceComponent, Replica, Variant
from tests.waiting import until
from tests.wire.gateway_fixture import ACCOUNT, REGION, House, Scripted, Seen, Wire, answering, echo
from tests.wire.test_access_log import line_of, told
from tests.wire.test_gateway_openai import chat, complete, token
from tests.wire.test_gateway_sessions import open_session, say, stateful

MISSING = (
    "Inference Component Name header is required for endpoints to which you plan to deploy inference components. "
    "Please include Inference Component Name header or consider using SageMaker models."
)
NOT_ALLOWED = (
    "Inference Component Name header is not allowed for endpoints to which you dont plan to deploy inference components. "
    "Please remove the Inference Component Name header and try again."
)
NO_CAPACITY = (
    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if configured) "
    "or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
)


def host(house: House, name: str = "ep", *, faults: str = "", room: int = 0, **components: list[Scripted]) -> None:
    """An endpoint with these components, each with these copies."""
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name}"
    hosted = []
    for component, copies in components.items():
        replicas: tuple[Replica, ...] = tuple(one.replica for one in copies)
        variant = Variant("AllTraffic", 1.0, replicas, max_concurrency=room)
        hosted.append(InferenceComponent(component.replace("_", "-"), variant))
    house.endpoints[name] = Endpoint(
        name, arn, REGION, ACCOUNT, (Variant("AllTraffic", 1.0, ()),), faults=faults, components=tuple(hosted)
    )
    house.publish()


def scripted(house: House, script: Any) -> Scripted:
    async def handle(request: Seen, wire: Wire) -> None:
        made.requests.append(request)
        await script(request, wire)

    made = house.replica(answering(handle))
    return made


def named(word: str) -> Any:
    async def script(request: Seen, wire: Wire) -> None:
        await wire.begin_chunks()
        for piece in (word.encode(), b" got ", request.body):
            await wire.chunk(piece)
        await wire.end_chunks()

    return script


def test_each_request_goes_to_the_component_that_it_names(house: House) -> None:
    first, second = scripted(house, named("first")), scripted(house, named("second"))
    host(house, ic_1=[first], ic_2=[second])
    runtime = house.client("sagemaker-runtime")
    for name, word in (("ic-1", "first"), ("ic-2", "second")):
        answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"x", InferenceComponentName=name)
        assert answer["Body"].read() == f"{word} got x".encode()
        assert answer["InvokedProductionVariant"] == "AllTraffic"
        parts, error = house.stream(Body=b"y", InferenceComponentName=name, TargetVariant="AllTraffic")
        assert (parts, error) == ([word.encode(), b" got ", b"y"], None)
    assert [len(one.requests) for one in (first, second)] == [2, 2]
    assert first.requests[0].headers["x-amzn-sagemaker-inference-component"] == "ic-1"


def test_the_openai_route_names_the_component_in_its_path(house: House) -> None:
    first, second = scripted(house, chat), scripted(house, chat)
    host(house, ic_1=[first], ic_2=[second])
    answer = complete(house, token(), "/endpoints/ep/inference-components/ic-2/openai/v1/chat/completions")
    assert answer.status_code == 200
    assert answer.headers["x-amzn-invoked-production-variant"] == "AllTraffic"
    assert [len(one.requests) for one in (first, second)] == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, MISSING),
        ({"InferenceComponentName": "IC-1"}, "Inference Component IC-1 of endpoint ep not found."),
        ({"InferenceComponentName": "empty"}, NO_CAPACITY),
        ({"InferenceComponentName": "ic-1", "TargetVariant": "other"}, "Variant other of endpoint ep not found."),
        ({"EndpointName": "models", "InferenceComponentName": "ic-1"}, NOT_ALLOWED),
    ],
)
def test_a_name_that_is_wrong_or_wanting_is_refused_at_once(house: House, arguments: dict[str, str], text: str) -> None:
    replica = house.serve(echo, name="models")
    copy = scripted(house, echo)
    host(house, ic_1=[copy], empty=[])
    runtime = house.client("sagemaker-runtime")
    for call in (runtime.invoke_endpoint, runtime.invoke_endpoint_with_response_stream):
        with pytest.raises(ClientError) as caught:
            call(**({"EndpointName": "ep", "Body": b"x"} | arguments))
        response: dict[str, Any] = caught.value.response
        assert response["Error"] == {"Code": "ValidationError", "Message": text}
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert replica.requests == copy.requests == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("ep", "INFERENCE_COMPONENT_NAME_MISSING"),
        ("ep/inference-components/gone", "NO_SUCH_INFERENCE_COMPONENT"),
        ("ep/inference-components/empty", "INFERENCE_COMPONENT_NO_CAPACITY"),
        ("models/inference-components/ic-1", "INFERENCE_COMPONENT_NAME_NOT_ALLOWED"),
    ],
)
def test_the_error_code_says_which_rule_it_was(house: House, path: str, code: str) -> None:
    house.serve(chat, name="models")
    host(house, ic_1=[scripted(house, chat)], empty=[])
    answer = complete(house, token(), f"/endpoints/{path}/openai/v1/chat/completions")
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationError")
    assert answer.json()["ErrorCode"] == code


def test_a_containers_error_names_the_components_log(house: House) -> None:
    async def refuse(request: Seen, wire: Wire) -> None:
        await wire.answer(b"too long", status=400)

    host(house, ic_1=[scripted(house, refuse)])
    with pytest.raises(ClientError) as caught:
        house.client("sagemaker-runtime").invoke_endpoint(EndpointName="ep", Body=b"x", InferenceComponentName="ic-1")
    response: dict[str, Any] = caught.value.response
    group = "/aws/sagemaker/InferenceComponents/ic-1"
    assert response["LogStreamArn"] == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{group}"
    assert f"group={group} in account" in response["Error"]["Message"]


def test_a_copy_that_takes_no_connection_is_passed_over(house: House) -> None:
    alive, dead = scripted(house, named("alive")), scripted(house, named("dead"))
    assert dead.server is not None
    house.run(_close(dead.server))
    host(house, ic_1=[dead, alive])
    runtime = house.client("sagemaker-runtime")
    for _ in range(8):
        answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"x", InferenceComponentName="ic-1")
        assert answer["Body"].read() == b"alive got x"
    assert any(event.kind == "unreachable" for event in house.events)


async def _close(server: asyncio.Server) -> None:
    server.close()


async def held(request: Seen, wire: Wire) -> None:
    """Answers at once, but for a body `hold`: then when the client has gone."""
    if request.body == b"hold":
        await asyncio.wait_for(wire.gone(), 30)
    else:
        await wire.answer(b"done")


class Waiting:
    """Two requests for `ic-1`, whose copy is busy and has room for one: one waits, the other is one too many."""

    def __init__(self, house: House, busy: Scripted) -> None:
        runtime = house.client("sagemaker-runtime", read_timeout=20)
        self.answers: list[bytes | str] = []
        self._first = threading.Thread(target=self._invoke, args=(runtime, b"hold"), daemon=True)
        self._first.start()
        until(lambda: len(busy.requests) == 1, what="the copy is busy")
        self._others = [threading.Thread(target=self._invoke, args=(runtime, b"x")) for _ in range(2)]
        for thread in self._others:
            thread.start()
        until(lambda: self.answers, what="one is told at once")
        assert self.answers == [
            "All replicas are busy and the queue before them is full. Send the request again later."
        ]

    def _invoke(self, runtime: Any, body: bytes) -> None:
        try:
            answer = runtime.invoke_endpoint(EndpointName="ep", Body=body, InferenceComponentName="ic-1")
            self.answers.append(answer["Body"].read())
        except ClientError as error:
            self.answers.append(str(error.response["Error"]["Message"]))
        except BotoCoreError:
            return  # the one that holds the copy until the test ends, and the gateway with it

    def last(self) -> bytes | str:
        """What the one that waits hears in the end."""
        for thread in self._others:
            thread.join(10)
        assert len(self.answers) == 2
        return self.answers[1]


def test_each_component_has_a_limit_and_a_queue_of_its_own(house: House) -> None:
    busy, idle, another = scripted(house, held), scripted(house, held), scripted(house, held)
    host(house, ic_1=[busy], ic_2=[idle], room=1)
    waiting = Waiting(house, busy)
    runtime = house.client("sagemaker-runtime")
    answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"x", InferenceComponentName="ic-2")
    assert answer["Body"].read() == b"done", "the other component has room"
    host(house, ic_1=[busy, another], ic_2=[idle], room=1)
    assert waiting.last() == b"done"
    assert len(another.requests) == 1


def test_who_waits_for_a_component_hears_when_its_copies_go(house: House) -> None:
    busy = scripted(house, held)
    host(house, ic_1=[busy], room=1)
    waiting = Waiting(house, busy)
    host(house, ic_1=[], room=1)
    assert waiting.last() == NO_CAPACITY


def test_a_session_belongs_to_its_component(house: House) -> None:
    copies = stateful(house)
    host(house, ic_1=copies, ic_2=[scripted(house, echo)])
    runtime = house.client("sagemaker-runtime")
    one = _Bound(runtime, "ic-1")
    session = open_session(one)
    for text, heard in (("a", "a"), ("b", "a b"), ("c", "a b c")):
        assert say(one, session, text)["text"] == heard
    for other, text in ((_Bound(runtime, "ic-2"), "Session "), (runtime, MISSING)):
        with pytest.raises(ClientError) as caught:
            say(other, session, "x")
        assert caught.value.response["Error"]["Message"].startswith(text)
    assert say(one, session, "d")["text"] == "a b c d"


class _Bound:
    """A runtime client whose calls name a component."""

    def __init__(self, runtime: Any, component: str) -> None:
        self._runtime, self._component = runtime, component

    def invoke_endpoint(self, **arguments: Any) -> Any:
        return self._runtime.invoke_endpoint(**arguments, InferenceComponentName=self._component)


def test_an_endpoints_fault_plan_holds_for_its_components(house: House) -> None:
    plan = json.dumps({"faults": [{"kind": "ModelStreamError", "after_parts": 1}]})
    host(house, ic_1=[scripted(house, named("first"))], faults=plan)
    parts, error = house.stream(InferenceComponentName="ic-1")
    assert parts == [b"first"]
    assert error is not None
    assert error.response["Error"]["Code"] == "ModelStreamError"


def test_the_access_log_and_the_measures_tell_components_apart(house: House) -> None:
    host(house, ic_1=[scripted(house, named("first"))], ic_2=[scripted(house, named("second"))])
    runtime = house.client("sagemaker-runtime")
    for name in ("ic-1", "ic-2"):
        since = len(house.events)
        answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"x", InferenceComponentName=name)
        line = line_of(house, answer["ResponseMetadata"]["RequestId"])
        assert (line["endpoint"], line["variant"], line["component"]) == ("ep", "AllTraffic", name)
        measured = told(house, since)
        assert (measured.variant, measured.component, measured.counts) == ("AllTraffic", name, {"Invocations": 1})
    house.serve(echo, name="models")
    answer = runtime.invoke_endpoint(EndpointName="models", Body=b"x")
    assert "component" not in line_of(house, answer["ResponseMetadata"]["RequestId"])

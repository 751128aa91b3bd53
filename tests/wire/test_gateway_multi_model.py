"""The gateway's side of TargetModel, against a control process and containers that do what the test says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ReadTimeoutError

from penstock.modelcalls import PATH, ModelAnswer, ModelWanted, decode_wanted, encode, model_name
from penstock.routes import MultiModel, Variant
from tests.waiting import until
from tests.wire.gateway_fixture import KEY, REGION, House, Scripted, Seen, Wire, answering

Answers = Callable[[ModelWanted], Awaitable[ModelAnswer]]


class Loads:
    """A control process that answers by `answer`, and what it was asked."""

    def __init__(self, house: House, answer: Answers) -> None:
        self.asked: list[ModelWanted] = []
        self._answer = answer
        house.control = answering(self._handle)

    async def _handle(self, request: Seen, wire: Wire) -> None:
        assert (request.method, request.target) == ("POST", PATH)
        assert request.headers["x-penstock-internal"] == "1"
        wanted = decode_wanted(request.body)
        self.asked.append(wanted)
        await wire.answer(encode(await self._answer(wanted)), type_="application/json")


def replica(house: House, handle: Any = None) -> Scripted:
    async def own(request: Seen, wire: Wire) -> None:
        scripted.requests.append(request)
        if handle is not None:
            await handle(request, wire)
        else:
            await wire.answer(request.target.encode())

    scripted = house.replica(answering(own))
    return scripted


def publish(house: House, *replicas: Scripted, cached: bool = True) -> None:
    shelf = MultiModel("s3://b/p/", cached)
    house.endpoint("ep", Variant("v", 1.0, tuple(one.replica for one in replicas), multi_model=shelf))


def at(scripted: Scripted, **more: Any) -> Answers:
    """Everything is loaded there."""

    async def answer(wanted: ModelWanted) -> ModelAnswer:
        return ModelAnswer("loaded", scripted.replica.id, scripted.replica.epoch, **more)

    return answer


def ask(house: House, model: str = "m.tar.gz") -> bytes:
    runtime = house.client("sagemaker-runtime")
    return bytes(runtime.invoke_endpoint(EndpointName="ep", Body=b"x", TargetModel=model)["Body"].read())


def refused(house: House) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        ask(house)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


def test_control_is_asked_once_and_the_answer_remembered(house: House) -> None:
    first, second = replica(house), replica(house)
    loads = Loads(house, at(second))
    publish(house, first, second)
    for _ in range(5):
        assert ask(house) == f"/models/{model_name('m.tar.gz')}/invoke".encode()
    assert [(one.endpoint, one.variant, one.target_model) for one in loads.asked] == [("ep", "v", "m.tar.gz")]
    assert first.requests == []
    used = until(lambda: [event for event in house.events if event.kind == "models"], what="control hears of the uses")
    assert {(use.replica, use.name) for event in used for use in event.used} == {
        (second.replica.id, model_name("m.tar.gz"))
    }


def test_many_wait_for_one_answer(house: House) -> None:
    scripted = replica(house)
    gate = asyncio.Event()

    async def later(wanted: ModelWanted) -> ModelAnswer:
        await gate.wait()
        return await at(scripted)(wanted)

    loads = Loads(house, later)
    publish(house, scripted)
    with ThreadPoolExecutor(16) as threads:
        waiting = [threads.submit(ask, house) for _ in range(16)]
        until(lambda: loads.asked, what="control is asked")

        async def open_gate() -> None:
            gate.set()

        house.run(open_gate())
        assert len({one.result() for one in waiting}) == 1
    assert len(loads.asked) == 1
    assert len(scripted.requests) == 16


def test_a_client_that_leaves_while_it_waits(house: House) -> None:
    scripted = replica(house)
    gate = asyncio.Event()

    async def later(wanted: ModelWanted) -> ModelAnswer:
        await gate.wait()
        return await at(scripted)(wanted)

    loads = Loads(house, later)
    publish(house, scripted)
    impatient = house.client("sagemaker-runtime", read_timeout=0.3)
    with pytest.raises(ReadTimeoutError):
        impatient.invoke_endpoint(EndpointName="ep", Body=b"x", TargetModel="m.tar.gz")

    async def open_gate() -> None:
        gate.set()

    house.run(open_gate())
    assert ask(house)
    assert len(scripted.requests) == 1, "nobody was sent for the one that left"
    assert len(loads.asked) <= 2


def test_a_client_that_leaves_in_the_middle_of_its_body(house: House) -> None:
    scripted = replica(house)
    Loads(house, at(scripted))
    publish(house, scripted)
    for _ in range(5):
        url = f"{house.url()}/endpoints/ep/invocations"
        request = AWSRequest("POST", url, data=b"x" * 100, headers={"X-Amzn-SageMaker-Target-Model": "m.tar.gz"})
        SigV4Auth(Credentials(KEY.id, KEY.secret), "sagemaker", REGION).add_auth(request)
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        with socket.create_connection(("127.0.0.1", house.ports["http"])) as client:
            host = f"localhost:{house.ports['http']}"
            head = f"POST /endpoints/ep/invocations HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 100\r\n\r\n"
            client.sendall(head.encode() + b"x" * 10)
    assert ask(house)
    with pytest.raises(ClientError, match="not found"):
        house.client("sagemaker-runtime").invoke_endpoint(EndpointName="none", Body=b"", TargetModel="m")
    assert "Traceback" not in house.log()
    assert len(scripted.requests) == 1


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (ModelAnswer("refused", text="no archive"), "ValidationError", "no archive"),
        (ModelAnswer("dependency", text="No space left on device."), "InternalDependencyException", "No space left"),
        (
            ModelAnswer("container", status=500, text="cuda"),
            "ModelError",
            'Received server error (500) from primary with message "cuda".',
        ),
        (ModelAnswer("container", status=507), "ModelError", "could not load the entire response body"),
        (ModelAnswer("unreachable"), "ModelError", "could not get a response from the ep endpoint"),
        (ModelAnswer("late"), "ModelNotReadyException", "Wait and try your request again."),
    ],
)
def test_what_control_may_say(house: House, answer: ModelAnswer, code: str, words: str) -> None:
    scripted = replica(house)

    async def say(wanted: ModelWanted) -> ModelAnswer:
        return answer

    Loads(house, say)
    publish(house, scripted)
    found = refused(house)
    assert found[0] == code
    assert words in found[1]
    assert scripted.requests == []


def test_control_is_away(house: House) -> None:
    scripted = replica(house)
    publish(house, scripted)

    async def leave(wire: Wire) -> None:
        await wire.request()

    house.control = leave
    assert refused(house) == ("ServiceUnavailable", "The control process does not answer. Send the request again.")
    Loads(house, at(scripted))
    assert ask(house), "it is back"


def test_control_does_not_answer_in_time(tmp_path: Path) -> None:
    house = House(tmp_path / "home", {"PENSTOCK_INVOCATION_TIMEOUT_S": "1"})
    try:
        house.start()
        scripted = replica(house)

        async def never(wanted: ModelWanted) -> ModelAnswer:
            await asyncio.Event().wait()
            raise AssertionError

        Loads(house, never)
        publish(house, scripted)
        assert refused(house)[0] == "ModelNotReadyException"
    finally:
        house.close()


async def gone(request: Seen, wire: Wire) -> None:
    await wire.answer(b"not loaded", status=404)


def test_a_404_is_looked_into_and_the_request_sent_again(house: House) -> None:
    lost, other = replica(house, gone), replica(house)
    asked: list[str] = []

    async def say(wanted: ModelWanted) -> ModelAnswer:
        asked.append(wanted.doubted)
        return await at(other if wanted.doubted else lost)(wanted)

    Loads(house, say)
    publish(house, lost, other)
    assert ask(house)
    assert asked == ["", lost.replica.id]
    (sent,) = other.requests
    assert sent.body == b"x"
    assert sent.headers["x-amzn-sagemaker-target-model"] == "m.tar.gz"
    assert ask(house)
    assert len(lost.requests) == 1, "it is known by now"


def test_a_404_of_the_models_own_is_passed_on(house: House) -> None:
    scripted = replica(house, gone)

    async def say(wanted: ModelWanted) -> ModelAnswer:
        return ModelAnswer("there", wanted.doubted) if wanted.doubted else await at(scripted)(wanted)

    Loads(house, say)
    publish(house, scripted)
    code, text = refused(house)
    assert code == "ModelError"
    assert 'Received client error (404) from primary with message "not loaded".' in text
    assert len(scripted.requests) == 1


def test_a_model_that_is_lost_each_time_is_not_ready(house: House) -> None:
    scripted = replica(house, gone)
    loads = Loads(house, at(scripted))
    publish(house, scripted)
    assert refused(house)[0] == "ModelNotReadyException"
    assert len(scripted.requests) == 4
    assert len(loads.asked) == 4


def test_a_replica_that_takes_no_connection_is_passed_over(house: House) -> None:
    dead, alive = replica(house), replica(house)

    async def say(wanted: ModelWanted) -> ModelAnswer:
        return await at(alive if dead.replica.id in wanted.tried else dead)(wanted)

    loads = Loads(house, say)
    publish(house, dead, alive)

    async def close() -> None:
        assert dead.server is not None
        dead.server.close()

    house.run(close())
    assert ask(house)
    assert [one.tried for one in loads.asked] == [(), (dead.replica.id,)]
    until(lambda: [event for event in house.events if event.kind == "unreachable"], what="control is told")


def test_a_replica_that_the_table_does_not_know_yet(house: House) -> None:
    scripted, new = replica(house), replica(house)
    loads = Loads(house, at(new))
    publish(house, scripted)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, house)
        until(lambda: len(loads.asked) > 1, what="control is asked again")
        publish(house, scripted, new)
        assert waiting.result()
    assert len(new.requests) == 1


def test_a_busy_model_gets_another_replica(house: House) -> None:
    gate = asyncio.Event()

    async def slow(request: Seen, wire: Wire) -> None:
        await gate.wait()
        await wire.answer(b"slow")

    first, second = replica(house, slow), replica(house)

    async def say(wanted: ModelWanted) -> ModelAnswer:
        return await at(second if first.replica.id in wanted.tried else first)(wanted)

    loads = Loads(house, say)
    publish(house, first, second)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(ask, house)]
        until(lambda: first.requests, what="the first has the model")
        waiting += [threads.submit(ask, house) for _ in range(7)]
        until(lambda: len(first.requests) == 8, what="it is busy")
        assert len(loads.asked) == 1

        async def open_gate() -> None:
            gate.set()

        ninth = ThreadPoolExecutor(1)
        last = ninth.submit(ask, house)
        until(lambda: len(loads.asked) == 2, what="control is asked for another")
        assert loads.asked[1].tried == (first.replica.id,)
        until(lambda: ask(house) and second.requests, what="the other one has it too")
        house.run(open_gate())
        assert last.result() == b"slow"
        ninth.shutdown()
        assert {one.result() for one in waiting} == {b"slow"}
    assert len(loads.asked) == 2


def test_uncached_each_use_is_told_to_be_over(house: House) -> None:
    scripted = replica(house)
    loads = Loads(house, at(scripted, cached=False))
    publish(house, scripted, cached=False)
    for _ in range(3):
        ask(house)
    assert len(loads.asked) == 3

    def ended() -> int:
        told = [use for event in house.events for use in event.used] + [use for one in loads.asked for use in one.used]
        return sum(use.ended for use in told)

    until(lambda: ended() == 3, what="control hears of three ends")


@pytest.mark.parametrize(("kind", "code"), [("Throttling", "ThrottlingException"), ("jitter", "")])
def test_a_plan_strikes_here_too(house: House, kind: str, code: str) -> None:
    scripted = replica(house)
    Loads(house, at(scripted))
    publish(house, scripted)
    fault = {"kind": kind} if code else {"kind": kind, "ms": 1}
    plan = json.dumps({"faults": [fault]})
    house.endpoints["ep"] = dataclasses.replace(house.endpoints["ep"], faults=plan, faults_set=1.0)
    house.publish()
    if code:
        assert refused(house)[0] == code
        assert scripted.requests == []
    else:
        assert ask(house)

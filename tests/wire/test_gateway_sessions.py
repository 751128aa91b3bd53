"""Sticky sessions by boto3: both container dialects, close, expiry, the loss of the instance, a restart of the gateway."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.routes import Variant
from tests.waiting import until
from tests.wire.gateway_fixture import House, Scripted, Seen, Wire, answering
from tests.wire.raw import connect, signed

DIALECTS = ["X-Amzn-SageMaker-Session-Id", "X-Amzn-SageMaker-New-Session-Id"]


def stateful(house: House, header: str = DIALECTS[0], lifetime_s: float = 600) -> list[Scripted]:
    """An endpoint of three replicas that remember what each session said."""
    replicas = []
    for number in range(3):
        said: dict[str, list[str]] = {}

        async def handle(request: Seen, wire: Wire, said: dict[str, list[str]] = said, number: int = number) -> None:
            session = request.headers.get("x-amzn-sagemaker-session-id", "")
            if session == "NEW_SESSION":
                session = f"session-{number}-{len(said)}"
                said[session] = []
                end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + lifetime_s))
                await wire.answer(b"opened", headers={header: f"{session}; Expires={end}"})
            elif request.body == b"CLOSE":
                del said[session]
                await wire.answer(b"closed", headers={"X-Amzn-SageMaker-Closed-Session-Id": session})
            elif request.body == b"DIE":
                wire.writer.close()
            elif session in said:
                said[session].append(request.body.decode())
                await wire.answer(" ".join(said[session]).encode(), headers={"X-Amzn-SageMaker-Session-Id": session})
            else:
                await wire.answer(b"session not found", status=400)

        replicas.append(house.replica(answering(handle)))
    house.endpoint("ep", Variant("AllTraffic", 1.0, tuple(one.replica for one in replicas)))
    return replicas


def open_session(runtime: Any) -> str:
    answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"", SessionId="NEW_SESSION")
    session, _, rest = answer["NewSessionId"].partition(";")
    assert rest.startswith(" Expires=")
    return str(session)


def say(runtime: Any, session: str, text: str) -> dict[str, Any]:
    answer: dict[str, Any] = runtime.invoke_endpoint(EndpointName="ep", Body=text.encode(), SessionId=session)
    answer["text"] = answer["Body"].read().decode()
    return answer


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as error:
        call()
    assert error.value.response["Error"]["Code"] == "ValidationError"
    return str(error.value.response["Error"]["Message"])


@pytest.mark.parametrize("header", DIALECTS)
def test_a_session_stays_with_its_replica(house: House, header: str) -> None:
    stateful(house, header)
    runtime = house.client("sagemaker-runtime")
    sessions = [open_session(runtime) for _ in range(9)]
    assert len({session.split("-")[1] for session in sessions}) > 1, "sessions are spread"
    for word in ("a", "b", "c"):
        for session in sessions:
            answer = say(runtime, session, word)
            assert answer["text"] == "a b c"[: len(answer["text"])]
            assert "NewSessionId" not in answer
    assert answer["text"] == "a b c"


def test_the_streamed_call_follows_a_session_and_opens_none(house: House) -> None:
    stateful(house)
    runtime = house.client("sagemaker-runtime")
    session = open_session(runtime)
    say(runtime, session, "hello")
    parts, error = house.stream(Body=b"again", SessionId=session)
    assert (b"".join(parts), error) == (b"hello again", None)
    assert "NEW_SESSION" in refused(
        lambda: runtime.invoke_endpoint_with_response_stream(EndpointName="ep", Body=b"", SessionId="NEW_SESSION")
    )


def test_close(house: House) -> None:
    stateful(house)
    runtime = house.client("sagemaker-runtime")
    session = open_session(runtime)
    assert say(runtime, session, "CLOSE")["ClosedSessionId"] == session
    assert refused(lambda: say(runtime, session, "x")) == f"Session {session} of endpoint ep not found."


def test_close_by_the_streamed_call(house: House) -> None:
    """AWS's answer of this call has no header for it; the session is closed all the same."""
    stateful(house)
    runtime = house.client("sagemaker-runtime")
    session = open_session(runtime)
    assert house.stream(Body=b"CLOSE", SessionId=session) == ([b"closed"], None)
    assert refused(lambda: say(runtime, session, "x")) == f"Session {session} of endpoint ep not found."


def test_an_instance_that_takes_no_connection_is_replaced_by_no_other(house: House) -> None:
    """The table still has it: the session's request fails, and no replica that knows nothing of the session is asked."""
    replicas = stateful(house)
    runtime = house.client("sagemaker-runtime")
    session = open_session(runtime)
    server = replicas[int(session.split("-")[1])].server
    assert server is not None

    async def stop() -> None:
        server.close()

    house.run(stop())
    invoke, stream = runtime.invoke_endpoint, runtime.invoke_endpoint_with_response_stream
    for call, body in ((invoke, b"DIE"), (invoke, b"x"), (stream, b"x")):
        with pytest.raises(runtime.exceptions.ModelError) as failed:
            call(EndpointName="ep", Body=body, SessionId=session)
        assert "could not get a response from the ep endpoint" in failed.value.response["Error"]["Message"]
    assert open_session(runtime).split("-")[1] != session.split("-")[1], "a new one is opened elsewhere"


def test_expiry(house: House) -> None:
    stateful(house, lifetime_s=-1)
    runtime = house.client("sagemaker-runtime")
    assert "not found" in refused(lambda: say(runtime, open_session(runtime), "x"))


def test_the_loss_of_the_instance(house: House) -> None:
    replicas = stateful(house)
    runtime = house.client("sagemaker-runtime")
    session = open_session(runtime)
    number = int(session.split("-")[1])
    house.endpoint(
        "ep", Variant("AllTraffic", 1.0, tuple(one.replica for n, one in enumerate(replicas) if n != number))
    )
    assert "not found" in refused(lambda: say(runtime, session, "x"))


def test_sessions_survive_a_restart_of_the_gateway(house: House) -> None:
    stateful(house)
    session = open_session(house.client("sagemaker-runtime"))
    say(house.client("sagemaker-runtime"), session, "before")
    house.stop(signal.SIGKILL)
    house.start()
    assert say(house.client("sagemaker-runtime"), session, "after")["text"] == "before after"


def test_an_unknown_session_and_one_of_another_endpoint(house: House) -> None:
    stateful(house)
    runtime = house.client("sagemaker-runtime")
    session = open_session(runtime)
    house.endpoint("other", *house.endpoints["ep"].variants)
    assert "not found" in refused(lambda: say(runtime, "never-opened", "x"))
    assert "not found" in refused(lambda: runtime.invoke_endpoint(EndpointName="other", Body=b"x", SessionId=session))


def kept(house: House) -> str:
    path = house.paths.run / "sessions.jsonl"
    return path.read_text() if path.exists() else ""


def test_a_session_of_which_the_client_never_heard_is_not_kept(house: House) -> None:
    """The container names the session and then dies, or the client leaves: nobody could ever use it."""
    asked: list[str] = []

    async def open_and_break(request: Seen, wire: Wire) -> None:
        name = request.body.decode()
        asked.append(name)
        await wire.begin_chunks(extra=f"X-Amzn-SageMaker-New-Session-Id: session-{name}\r\n")
        await wire.chunk(b"half")
        if name == "dies":
            wire.writer.close()
        elif name == "left":
            await wire.gone()
            asked.append("gone")
        else:
            await wire.end_chunks()

    house.serve(open_and_break)
    runtime = house.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.ModelError):
        runtime.invoke_endpoint(EndpointName="ep", Body=b"dies", SessionId="NEW_SESSION")
    with connect(house) as sock:
        headers = {"X-Amzn-SageMaker-Session-Id": "NEW_SESSION"}
        sock.sendall(signed(house, "/endpoints/ep/invocations", b"left", headers=headers))
        until(lambda: "left" in asked)
    until(lambda: "gone" in asked, what="the container told")
    answer = runtime.invoke_endpoint(EndpointName="ep", Body=b"whole", SessionId="NEW_SESSION")
    assert answer["NewSessionId"] == "session-whole"
    assert "session-whole" in kept(house)
    assert "session-dies" not in kept(house)
    assert "session-left" not in kept(house)


def test_a_session_that_cannot_be_kept_is_not_announced(house: House) -> None:
    stateful(house)
    (house.paths.run / "sessions.jsonl").mkdir()
    runtime = house.client("sagemaker-runtime")
    with pytest.raises(runtime.exceptions.InternalFailure) as refused:
        runtime.invoke_endpoint(EndpointName="ep", Body=b"", SessionId="NEW_SESSION")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    (house.paths.run / "sessions.jsonl").rmdir()
    assert say(runtime, open_session(runtime), "a")["text"] == "a"


def test_two_workers_know_each_other_s_sessions(house: House) -> None:
    """A second gateway on the same home: opened here, used and closed there, and known closed here."""
    stateful(house)
    first, ports = house.client("sagemaker-runtime"), house.ports
    process = house.process
    assert process is not None
    try:
        house.start()
        assert house.ports != ports
        second = house.client("sagemaker-runtime")
        for number in range(5):
            session = open_session(first if number % 2 else second)
            assert say(first, session, "a")["text"] == "a"
            assert say(second, session, "b")["text"] == "a b"
            assert say(first, session, "CLOSE")["ClosedSessionId"] == session
            for runtime in (first, second):
                assert "not found" in refused(lambda runtime=runtime, session=session: say(runtime, session, "x"))  # type: ignore[misc]
    finally:
        process.kill()
        process.wait(10)

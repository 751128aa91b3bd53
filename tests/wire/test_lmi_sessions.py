"""Stateful sessions over real sockets: those of the server's own text generation, and those that a model.py keeps."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from penstock.routes import Replica, Variant
from tests.lmi_server import Answer, Server, failing, running, write_properties
from tests.waiting import until
from tests.wire.gateway_fixture import House
from tests.wire.test_lmi_handlers import write_handler

ASK = {"inputs": " one", "parameters": {"max_new_tokens": 1, "do_sample": False}}
OPEN, CLOSE = {"requestType": "NEW_SESSION"}, {"requestType": "CLOSE"}

HANDLER = """
from djl_python import Input, Output, SessionManager

sessions = None


def handle(inputs: Input):
    global sessions
    if inputs.is_empty():
        sessions = SessionManager(inputs.get_properties())
        return None
    kind = inputs.get_as_json().get("requestType")
    session_id = inputs.get_property("X-Amzn-SageMaker-Session-Id")
    if kind == "NEW_SESSION":
        session = sessions.create_session()
        return Output().add_property("X-Amzn-SageMaker-Session-Id", session.session_id).add("opened")
    if kind == "CLOSE":
        sessions.close_session(session_id)
        return Output().add_property("X-Amzn-SageMaker-Closed-Session-Id", session_id).add("closed")
    session = sessions.get_session(session_id)
    session.put("count", session.get("count", 0) + 1)
    return Output().add(str(session.get("count")))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("sessions")
    lines = [f"option.model_id={tiny_model}", "option.sessions_expiration=3600", f"option.sessions_path={home}/kept"]
    with running(home, write_properties(home / "model", *lines), PENSTOCK_SERVER_VERSION="0.36.0") as server:
        yield server


def opened(answer: Answer) -> str:
    assert answer.status == 200
    return answer.headers["x-amzn-sagemaker-session-id"].partition(";")[0]


def test_a_session_from_its_beginning_to_its_end(server: Server) -> None:
    answer = server.ask(OPEN, X_Amzn_SageMaker_Session_Id="NEW_SESSION")
    session = opened(answer)
    assert answer.json() == {"result": f"Session {session} created"}
    expires = answer.headers["x-amzn-sagemaker-session-id"].partition("; Expires=")[2]
    ends = datetime.datetime.strptime(expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    left = ends - datetime.datetime.now(datetime.UTC)
    assert 3500 < left.total_seconds() <= 3600
    assert server.ask(ASK, X_Amzn_SageMaker_Session_Id=session).json() == {"generated_text": " two"}
    assert server.ask({**ASK, "stream": True}, X_Amzn_SageMaker_Session_Id=session).complete
    closed = server.ask(CLOSE, X_Amzn_SageMaker_Session_Id=session)
    assert closed.headers["x-amzn-sagemaker-closed-session-id"] == session
    assert closed.json() == {"result": f"Session {session} closed"}
    gone = server.ask(ASK, X_Amzn_SageMaker_Session_Id=session)
    assert (gone.status, gone.json()) == (
        424,
        {"code": 424, "error": f"Input parsing failed: session not found: {session}"},
    )


def test_a_session_through_the_gateway(server: Server, house: House) -> None:
    replica = Replica(f"replica-{server.port}", 1, "127.0.0.1", server.port)
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica,)))
    runtime = house.client("sagemaker-runtime")

    def call(body: object, session: str) -> dict[str, Any]:
        answer: dict[str, Any] = runtime.invoke_endpoint(
            EndpointName="ep", Body=json.dumps(body), ContentType="application/json", SessionId=session
        )
        return answer

    session = call(OPEN, "NEW_SESSION")["NewSessionId"].partition(";")[0]
    assert json.loads(call(ASK, session)["Body"].read()) == {"generated_text": " two"}
    parts, error = house.stream(
        Body=json.dumps({**ASK, "stream": True}).encode(), ContentType="application/json", SessionId=session
    )
    assert error is None
    assert json.loads(b"".join(parts))["generated_text"] == " two"
    assert call(CLOSE, session)["ClosedSessionId"] == session
    with pytest.raises(ClientError, match=f"Session {session} of endpoint ep not found"):
        call(ASK, session)


def test_requests_that_are_none(server: Server) -> None:
    for body, headers, reason in (
        (CLOSE, {}, "Failed to close session: invalid session_id: None"),
        ({"requestType": "PAUSE"}, {}, "request type must be one of NEW_SESSION, CLOSE"),
        (ASK, {"X_Amzn_SageMaker_Session_Id": "../model"}, "session not found: ../model"),
    ):
        answer = server.ask(body, **headers)
        assert answer.status == 424
        assert reason in answer.json()["error"]
    assert server.ask({**ASK, "requestType": "CLOSE"}).status == 200, "what asks for text is no request for a session"


def test_sessions_outlive_the_server_and_end_by_themselves(tmp_path: Path, tiny_model: Path) -> None:
    def lines(expiration: int) -> list[str]:
        kept = f"option.sessions_path={tmp_path}/kept"
        return [f"option.model_id={tiny_model}", f"option.sessions_expiration={expiration}", kept]

    with running(
        tmp_path, write_properties(tmp_path / "model", *lines(600)), PENSTOCK_SERVER_VERSION="0.36.0"
    ) as server:
        session = opened(server.ask(OPEN))
    with running(tmp_path, write_properties(tmp_path / "model", *lines(1)), PENSTOCK_SERVER_VERSION="0.36.0") as server:
        assert server.ask(ASK, X_Amzn_SageMaker_Session_Id=session).status == 200
        short = opened(server.ask(OPEN))
        until(
            lambda: "session expired" in server.ask(ASK, X_Amzn_SageMaker_Session_Id=short).body.decode(),
            deadline_s=10,
            what="the short session ends",
        )
        assert server.ask(ASK, X_Amzn_SageMaker_Session_Id=session).status == 200, "each has its own end"


def test_they_can_be_switched_off(tmp_path: Path, tiny_model: Path) -> None:
    lines = [f"option.model_id={tiny_model}", "option.enable_stateful_sessions=false"]
    with running(tmp_path, write_properties(tmp_path / "model", *lines), PENSTOCK_SERVER_VERSION="0.36.0") as server:
        for answer in (server.ask(OPEN), server.ask(ASK, X_Amzn_SageMaker_Session_Id="x")):
            assert answer.status == 424
            assert "stateful sessions not enabled" in answer.json()["error"]
        assert server.ask(ASK).status == 200


def test_a_handler_keeps_its_own_in_every_process(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", "minWorkers=2\n", HANDLER)
    with running(tmp_path, directory, TMPDIR=str(tmp_path)) as server:
        session = opened(server.ask(OPEN))
        assert (tmp_path / "djl_sessions" / session).is_dir()
        counts = [server.ask({}, X_Amzn_SageMaker_Session_Id=session).body for _ in range(4)]
        assert counts == [b"1", b"2", b"3", b"4"]
        assert server.ask(CLOSE, X_Amzn_SageMaker_Session_Id=session).headers["x-amzn-sagemaker-closed-session-id"]
        assert server.ask({}, X_Amzn_SageMaker_Session_Id=session).status == 424


def test_an_option_that_cannot_be_kept_fails_the_endpoint(tmp_path: Path, tiny_model: Path) -> None:
    lines = [f"option.model_id={tiny_model}", "option.sessions_s3url=s3://bucket/sessions"]
    directory = write_properties(tmp_path / "model", *lines)
    status, message, _ = failing(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.36.0")
    assert status != 0
    assert "stateful sessions can't be kept: sessions_s3url is not supported" in message

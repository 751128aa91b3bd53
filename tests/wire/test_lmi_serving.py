"""What DJL Serving's server does around a model: answers later, counts, states, statuses by configuration, more workers under load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lmi_server import Answer, Server, failing, running, write_properties
from tests.waiting import until
from tests.wire.test_lmi_handlers import write_handler

HANDLER = """
import time
from djl_python import Input, Output


def wait_for(path):
    import os
    while not os.path.exists(path):
        time.sleep(0.01)


def numbers(path):
    yield "one "
    yield "two "
    wait_for(path)
    yield "three"


def handle(inputs: Input):
    if inputs.is_empty():
        return None
    body = inputs.get_as_json()
    match body.get("do"):
        case "raise":
            raise ValueError("wrong")
        case "wait":
            wait_for(body["path"])
        case "stream":
            return Output().add_property("Content-Type", "text/x").add_stream_content(numbers(body["path"]), None)
        case "die":
            import os
            os._exit(1)
    return Output(code=201).add({"you": body.get("n")})
"""

ENVIRON = {
    "SERVING_PROMETHEUS": "true",
    "PENSTOCK_SERVER_VERSION": "0.27.0",
    "SERVING_BAD_REQUEST_HTTP_CODE": "422",
    "SERVING_WLM_ERROR_HTTP_CODE": "599",
    "SERVING_THROTTLE_ERROR_HTTP_CODE": "429",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("serving")
    with running(home, write_handler(home / "model", "job_queue_size=1\n", HANDLER), **ENVIRON) as server:
        yield server


def later(server: Server, token: str, **headers: str) -> Answer:
    return server.ask({}, x_starting_token=token, **headers)


def test_an_answer_that_is_fetched_later(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    begun = server.ask({"do": "wait", "path": str(go), "n": 7}, x_synchronous="false")
    token = begun.headers["x-next-token"]
    assert (begun.status, begun.body) == (200, b"")
    assert begun.headers["x-amzn-sagemaker-custom-attributes"] == f"x-next-token={token}"
    pending = later(server, token)
    assert (pending.status, pending.headers["x-next-token"]) == (202, token)
    go.touch()
    answer = until(lambda: found if (found := later(server, token)).status != 202 else None)
    assert answer is not None
    assert (answer.status, answer.json()) == (201, {"you": 7})
    assert "x-next-token" not in answer.headers
    assert later(server, token).json() == {"you": 7}, "it is kept"


def test_a_stream_is_fetched_in_pages(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    attributes = {"X_Amzn_SageMaker_Custom_Attributes": "x-synchronous=false"}
    token = server.ask({"do": "stream", "path": str(go)}, **attributes).headers["x-next-token"]
    until(lambda: later(server, token).body == b"one two ")
    first = later(server, token, x_max_items="1")
    assert (first.body, first.headers["content-type"]) == (b"one ", "text/x")
    second = later(server, first.headers["x-next-token"], x_max_items="1")
    assert second.body == b"two "
    nothing = later(server, second.headers["x-next-token"])
    assert (nothing.status, nothing.body) == (200, b"")
    go.touch()
    position = nothing.headers["x-next-token"]
    until(lambda: later(server, position).body == b"three")
    last = until(lambda: None if "x-next-token" in (found := later(server, position)).headers else found)
    assert last is not None
    assert last.body == b"three"


def test_what_fails_later_is_told_later(server: Server) -> None:
    token = server.ask({"do": "raise"}, x_synchronous="false").headers["x-next-token"]
    assert until(lambda: later(server, token).status != 202)
    assert later(server, token).status == 424
    token = server.ask({"do": "die"}, x_synchronous="false").headers["x-next-token"]
    until(lambda: later(server, token).status != 202)
    assert later(server, token).json()["type"] == "WlmException"


def test_a_token_that_is_none(server: Server) -> None:
    for token in ("nonsense", "x" * 36 + "999", "0" * 36 + "-1"):
        answer = later(server, token)
        assert answer.status == 400
        assert answer.json()["message"].startswith("Invalid x-starting-token: ")
    token = server.ask({"n": 1}, x_synchronous="false").headers["x-next-token"]
    until(lambda: later(server, token).status == 201)
    assert later(server, token + "77").status == 400
    assert later(server, token, x_max_items="many").status == 400


def test_statuses_by_configuration(server: Server, tmp_path: Path) -> None:
    answer = server.ask(b"--x\r\n", Content_Type="multipart/form-data; boundary=x")
    assert answer.status == 400, "before there is a model, it is the server's own"
    assert server.ask({"do": "die"}).status == 599
    go = tmp_path / "go"
    waiting = [server.begin({"do": "wait", "path": str(go)}) for _ in range(2)]
    until(lambda: server.get("/models/model").json()[0]["models"][0]["requestInQueue"] == 1)
    answer = server.ask({})
    assert (answer.status, answer.json()["code"], answer.json()["type"]) == (429, 429, "WlmCapacityException")
    go.touch()
    for request in waiting:
        with request:
            assert request.answer().status == 201


def test_metrics(server: Server) -> None:
    server.ask({"n": 1})
    server.ask({"do": "raise"})
    answer = server.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    page = answer.body.decode()
    assert "# TYPE Response_2XX_total counter" in page
    assert 'Response_4XX_total{Host="' in page
    assert 'RequestLatency_bucket{Model="model",le="+Inf"}' in page
    assert 'QueueTime_count{Model="model"}' in page
    assert 'LoadModel{Model="model"}' in page
    assert server.get("/server/metrics").status == 200
    only = server.get("/metrics?name[]=LoadModel").body.decode()
    assert "LoadModel{" in only
    assert "Response" not in only
    assert server.ask(path="/metrics", method="POST").status == 405


def test_metrics_are_off_by_default_and_not_there_before_027(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", handler=HANDLER)
    with running(tmp_path / "a", directory, PENSTOCK_SERVER_VERSION="0.27.0") as server:
        answer = server.get("/metrics")
        assert answer.status == 400
        assert answer.json()["message"].startswith("Prometheus is not enabled, set SERVING_PROMETHEUS")
    with running(tmp_path / "b", directory, SERVING_PROMETHEUS="true") as server:
        assert server.get("/metrics").status == 404


def test_the_clients_request_id_comes_back(server: Server) -> None:
    assert server.ask({}, x_request_id="mine").headers["x-request-id"] == "mine"
    assert server.get("/nowhere").headers["x-request-id"]


def test_models_that_load_while_the_server_answers(tmp_path: Path) -> None:
    go = tmp_path / "go"
    slow = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n" + HANDLER
    store = tmp_path / "store"
    write_handler(store / "slow", handler=slow)
    write_handler(store / "bad", handler="import no_such_module")
    environ = {"SERVING_WAIT_MODEL_LOADING": "false", "SERVING_ALLOW_MULTI_STATUS": "true"}
    with running(tmp_path / "home", store, **environ) as server:
        until(lambda: server.get("/ping").json()["bad"] == {"status": "FAILED"})
        assert server.get("/ping").json()["slow"] == {"status": "PENDING"}
        assert server.get("/ping").status == 500, "one has failed"
        assert server.ask({}, path="/predictions/slow").status == 503
        assert server.ask(path="/models/bad", method="DELETE").status == 200
        assert server.get("/ping").status == 207
        go.touch()
        until(lambda: server.get("/ping").status == 200)
        assert server.ask({"n": 3}, path="/predictions/slow").json() == {"you": 3}


def test_errors_that_come_too_fast_are_what_a_health_check_sees(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", handler=HANDLER)
    with running(tmp_path, directory, SERVING_ERROR_RATE_SERVER="2/PT1H") as server:
        for _ in range(2):
            assert server.ask({"do": "raise"}).status == 424
        assert server.get("/ping").status == 200
        server.ask({"do": "raise"})
        assert server.get("/ping").status == 503
        assert server.ask({"n": 1}).status == 201, "it goes on answering"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("SERVING_WLM_ERROR_HTTP_CODE", "200", "must be a whole number from 400 to 599"),
        ("SERVING_ERROR_RATE_ANY", "x", "must be a number of errors and a duration"),
        ("SERVING_ERROR_RATE_ANY", "1/P", "must be a number of errors and a duration"),
        ("SERVING_ERROR_RATE_ANY", "1/PT0S", "must have a duration above 0"),
    ],
)
def test_settings_that_cannot_be_are_named(name: str, value: str, reason: str, tmp_path: Path) -> None:
    status, message, _ = failing(tmp_path, write_handler(tmp_path / "model", handler=HANDLER), **{name: value})
    assert status != 0
    assert name in message
    assert reason in message


def test_more_workers_come_under_load_and_go_when_idle(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", "minWorkers=1\nmaxWorkers=3\nmax_idle_time=1\n", HANDLER)
    go = tmp_path / "go"
    with running(tmp_path, directory) as server, ThreadPoolExecutor(4) as pool:
        assert len(server.children()) == 1
        waiting = [pool.submit(server.ask, {"do": "wait", "path": str(go)}) for _ in range(4)]
        until(lambda: len(server.children()) == 3, what="three are busy, and the fourth request waits")
        go.touch()
        assert [each.result().status for each in waiting] == [201] * 4
        until(lambda: len(server.children()) == 1, what="the two that were added have nothing to do")
        assert server.get("/ping").json() == {"model": {"status": "Healthy"}}
        assert server.ask({}).status == 201


def test_no_room_for_a_model_is_507(server: Server, tmp_path: Path) -> None:
    big = write_properties(tmp_path / "big", "required_memory_mb=1000000000", "option.entryPoint=x.py")
    answer = server.ask({"url": str(big)}, path="/models")
    assert (answer.status, answer.json()["type"]) == (507, "WlmOutOfMemoryException")
    assert answer.json()["message"].startswith("No enough memory to load the model")
    status, message, _ = failing(tmp_path, big)
    assert status != 0
    assert "No enough memory to load the model" in message


def test_names_with_odd_characters(server: Server, tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "other", handler=HANDLER)
    for name, path in (
        ("a/b c", "a%2Fb%20c"),
        ("übung 🙂", "%C3%BCbung%20%F0%9F%99%82"),
        ("..", ".."),
        ('"q"', "%22q%22"),
    ):
        assert server.ask({"url": str(directory), "model_name": name}, path="/models").status == 200
        assert server.ask({"n": 1}, path=f"/predictions/{path}").json() == {"you": 1}
        assert server.get(f"/models/{path}").json()[0]["workflowName"] == name
        assert server.ask(path=f"/models/{path}", method="DELETE").status == 200
    for name in ("a\nb", "x" * 257, "\x00"):
        assert server.ask({"url": str(directory), "model_name": name}, path="/models").status == 400
    assert json.loads(server.get("/models").body)["models"][0]["modelName"] == "model"

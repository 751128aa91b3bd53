"""A user's handler dies, hangs, runs out of memory, or can't be loaded: its request is told, the server goes on."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lmi_server import Server, failing, running
from tests.replicas import alive
from tests.waiting import until

HANDLER = """
import os
import subprocess
import time
from djl_python import Output


def slow(count, log):
    try:
        for number in range(count):
            time.sleep(0.05)
            yield str(number)
    finally:
        with open(log, "a") as out:
            out.write("closed ")


def dying():
    yield "one"
    os._exit(7)


def hanging():
    yield "one"
    time.sleep(1000)


def handle(inputs):
    if inputs.is_empty():
        return None
    body = inputs.get_as_json()
    what = body.get("do")
    if what == "die":
        os._exit(3)
    if what == "hang":
        body["child"] = subprocess.Popen(["sleep", "1000"]).pid
        with open(body["log"], "w") as out:
            out.write(str(body["child"]))
        time.sleep(1000)
    if what == "memory":
        raise MemoryError("no room")
    if what == "cuda":
        raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
    if what == "dying stream":
        return Output().add_stream_content(dying())
    if what == "hanging stream":
        return Output().add_stream_content(hanging())
    if what == "slow stream":
        return Output().add_stream_content(slow(body["count"], body["log"]))
    if what == "big stream":
        return Output().add_stream_content(("x" * 100000 for _ in range(body["count"])), output_formatter=None)
    if what == "sleep":
        if "log" in body:
            open(body["log"], "w").close()
        time.sleep(body["seconds"])
    return Output().add({"pid": os.getpid()})
"""


def write(directory: Path, properties: str = "", handler: str = HANDLER) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.py").write_text(textwrap.dedent(handler))
    (directory / "serving.properties").write_text(properties)
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("handler")
    properties = "option.predict_timeout=2\njob_queue_size=2\n"
    with running(
        home, write(home / "model", properties), SERVING_CHUNKED_READ_TIMEOUT="2", PENSTOCK_SERVER_VERSION="0.25.0"
    ) as it:
        yield it


def pid(server: Server) -> int:
    return int(server.ask({}).json()["pid"])


def test_death_is_503_and_the_next_one_is_served(server: Server) -> None:
    before = pid(server)
    answer = server.ask({"do": "die"})
    assert answer.status == 503
    assert answer.json()["type"] == "WlmException"
    assert answer.json()["message"] == "the handler's process ended with status 3"
    assert pid(server) != before


def test_a_kill_from_outside_is_told(server: Server, tmp_path: Path) -> None:
    process = pid(server)
    with server.begin({"do": "sleep", "seconds": 1.5, "log": str(tmp_path / "begun")}) as request:
        until((tmp_path / "begun").exists)
        os.kill(process, signal.SIGKILL)
        answer = request.answer()
    assert answer.status == 503
    assert answer.json()["message"] == "the handler's process was killed (SIGKILL)"
    assert pid(server) != process


def test_a_hang_is_killed_with_its_children(server: Server, tmp_path: Path) -> None:
    before = pid(server)
    answer = server.ask({"do": "hang", "log": str(tmp_path / "child")})
    assert answer.status == 503
    assert answer.json()["message"] == "the handler did not answer within 2 s and was killed"
    child = int((tmp_path / "child").read_text())
    until(lambda: not alive(before) and not alive(child), what="nothing of it is left")
    assert server.ask({}).status == 200


def test_no_memory_is_507(server: Server) -> None:
    before = pid(server)
    for what, message in (("memory", "no room"), ("cuda", "CUDA out of memory")):
        answer = server.ask({"do": what})
        assert answer.status == 507
        assert answer.json() == {"code": 507, "type": "WlmOutOfMemoryException", "message": message}
    assert pid(server) == before


def test_death_in_a_stream_cuts_the_connection(server: Server) -> None:
    with server.open({"do": "dying stream"}) as stream:
        assert list(stream) == [b'{"outputs": "one"}\n']
        assert not stream.complete, "never a clean end after half an answer"
    assert server.ask({}).status == 200


def test_a_gap_in_a_stream_cuts_the_connection(server: Server) -> None:
    with server.open({"do": "hanging stream"}) as stream:
        assert list(stream) == [b'{"outputs": "one"}\n']
        assert not stream.complete
    assert server.ask({}).status == 200


def test_a_client_that_leaves_stops_the_iterator(server: Server, tmp_path: Path) -> None:
    log = tmp_path / "log"
    before = pid(server)
    with server.open({"do": "slow stream", "count": 1000, "log": str(log)}) as stream:
        next(iter(stream))
    until(log.exists, deadline_s=5, what="the iterator is closed, long before its 1000 items")
    assert log.read_text() == "closed "
    assert pid(server) == before, "the process is as good as before"


def test_a_client_that_does_not_read_holds_the_handler_up(server: Server) -> None:
    with server.open({"do": "big stream", "count": 20}) as stream:
        pieces = list(stream)
    assert len(pieces) == 20
    assert stream.complete


def test_the_queue_is_bounded(server: Server) -> None:
    requests = [server.begin({"do": "sleep", "seconds": 1}) for _ in range(3)]
    try:
        until(lambda: server.get("/models/model").json()[0]["models"][0]["requestInQueue"] == 2)
        answer = server.ask({})
        assert answer.status == 503
        assert answer.json()["message"] == "Worker queue capacity exceeded for model: model (READY)"
        assert [request.answer().status for request in requests] == [200, 200, 200]
    finally:
        for request in requests:
            request.close()


def test_one_that_leaves_the_queue_is_never_run(server: Server, tmp_path: Path) -> None:
    first = server.begin({"do": "sleep", "seconds": 1})
    log = tmp_path / "log"
    second = server.begin({"do": "slow stream", "count": 1, "log": str(log)})
    until(lambda: server.get("/models/model").json()[0]["models"][0]["requestInQueue"] == 1)
    second.close()
    until(lambda: server.get("/models/model").json()[0]["models"][0]["requestInQueue"] == 0)
    with first:
        assert first.answer().status == 200
    assert server.ask({}).status == 200
    assert not log.exists()


def test_too_many_failures_are_final(tmp_path: Path) -> None:
    with running(tmp_path, write(tmp_path / "model", "retry_threshold=2\n")) as server:
        for _ in range(3):
            assert server.ask({"do": "die"}).status == 503
        until(lambda: server.get("/ping").status == 500, deadline_s=20, what="the model has failed")
        assert server.get("/ping").json() == {"model": {"status": "FAILED"}}
        answer = server.ask({})
        assert answer.status == 503
        assert answer.json()["message"].startswith("All model workers has been shutdown: model")


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        ("import no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here'"),
        ("def handle(:", "SyntaxError"),
        ("x = 1", "model.py has no function handle"),
        ("def handle(inputs):\n    raise RuntimeError('no weights')", "no weights"),
        ("def handle(inputs):\n    raise MemoryError('7 GB')", "there is not enough memory to load the model: 7 GB"),
        ("import os\nos._exit(9)", "the handler's process ended with status 9"),
        ("import sys\nsys.exit('given up')", "SystemExit: given up"),
    ],
)
def test_a_handler_that_cannot_be_loaded_fails_the_endpoint(handler: str, reason: str, tmp_path: Path) -> None:
    status, message, log = failing(tmp_path, write(tmp_path / "model", handler=handler))
    assert status != 0
    assert reason in message
    assert message in log


def test_a_load_that_takes_too_long(tmp_path: Path) -> None:
    handler = "import time\ndef handle(inputs):\n    time.sleep(1000)"
    status, message, _ = failing(tmp_path, write(tmp_path / "model", "option.model_loading_timeout=1\n", handler))
    assert status != 0
    assert "did not answer within 1 s" in message


def test_nothing_is_left_when_the_server_is_killed(tmp_path: Path) -> None:
    with running(tmp_path, write(tmp_path / "model", "minWorkers=2\n")) as server:
        workers = server.children()
        assert len(workers) == 2
        server.process.kill()
        server.process.wait(10)
        until(lambda: not any(alive(worker) for worker in workers), what="the handler processes are gone")

"""Handlers and clients that mean no good: headers that break a response, forks, values that can't be sent, races of management."""

from __future__ import annotations

import socket
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.test_lmi_handler_dies import write
from tests.lmi_server import Server, Stream, running
from tests.replicas import alive
from tests.waiting import until

HANDLER = """
import os
import subprocess
import sys
import time
from djl_python import Output


class Rude(Exception):
    def __str__(self):
        raise RuntimeError("not even that")


class Stubborn:
    def __iter__(self):
        return self

    def __next__(self):
        return "x"

    def close(self):
        raise RuntimeError("never")


def exits():
    yield "one"
    sys.exit(0)


def handle(inputs):
    if inputs.is_empty():
        print("\\x00\\xff garbage {'kind': 'reply'}", flush=True)
        os.write(1, b"\\xfe\\xff raw garbage\\n")
        return None
    body = inputs.get_as_json()
    what = body.get("do")
    if what == "headers":
        output = Output(code=body.get("code", 200)).add("hello")
        for name, value in body["headers"].items():
            output.add_property(name, value)
        return output
    if what == "code":
        return Output(code=body["code"]).add("x")
    if what == "fork":
        if os.fork() == 0:
            return Output().add("from the child")
        time.sleep(0.2)
        return Output().add("from the parent")
    if what == "orphan":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], close_fds=False)
        open(body["path"], "w").write(str(child.pid))
        os._exit(0)
    if what == "forked orphan":
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        open(body["path"], "w").write(str(child))
        os._exit(0)
    if what == "exit":
        sys.exit(0)
    if what == "exit stream":
        return Output().add_stream_content(exits(), None)
    if what == "rude":
        raise Rude
    if what == "half":
        raise ValueError("half \\ud800")
    if what == "half output":
        return Output().add({"x": "half \\ud800"})
    if what == "property":
        output = Output()
        output.properties = None
        return output
    if what == "stubborn":
        return Output().add_stream_content(Stubborn(), None)
    if what == "close fds":
        os.closerange(3, 100)
        return Output().add("x")
    if what == "huge":
        return Output().add(b"x" * body["size"])
    if what == "deep":
        value = []
        for _ in range(100000):
            value = [value]
        return Output().add(value)
    if what == "properties":
        return Output().add({name: inputs.get_property(name) for name in ("model_dir", "batch_size", "device_id")})
    return Output().add({"pid": os.getpid()})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("attacks")
    with running(home, write(home / "model", "option.predict_timeout=20\n", HANDLER)) as it:
        yield it


def works(server: Server) -> bool:
    return server.ask({}).status == 200


def test_headers_cannot_break_a_response(server: Server) -> None:
    headers = {
        "x-a": "b\r\nset-cookie: c",
        "Content-Length": "3",
        "content-length": "1",
        "Transfer-Encoding": "chunked",
        "Connection": "upgrade",
        "bad name": "x",
        "": "x",
        "x:y": "z",
        "X-Twice": "first",
        "x-twice": "second",
        "Content-Type": "text/plain",
        "x-odd": "ü \x00 \U0001f642",
    }
    answer = server.ask({"do": "headers", "headers": headers})
    assert (answer.status, answer.body, answer.complete) == (200, b"hello", True)
    assert answer.headers["x-a"] == "b set-cookie: c"
    assert "set-cookie" not in answer.headers
    assert answer.headers["content-length"] == "5"
    assert answer.headers["x-twice"] == "second"
    assert answer.headers["content-type"] == "text/plain"


def test_a_body_where_none_may_be(server: Server) -> None:
    for code in (204, 304):
        with server.begin({"do": "code", "code": code}) as request:
            answer = request.answer()
        assert (answer.status, answer.body) == (code, b"")
        assert "content-length" not in answer.headers


@pytest.mark.parametrize("code", [99, 100, 101, 600, 1000, -1, "abc", None])
def test_a_status_that_is_none_is_424(code: object, server: Server) -> None:
    answer = server.ask({"do": "code", "code": code})
    assert answer.status == 424
    assert "Invalid output" in answer.json()["error"]


def test_a_child_that_comes_back_answers_nobody(server: Server) -> None:
    for _ in range(3):
        assert server.ask({"do": "fork"}).body == b"from the parent"
        assert "pid" in server.ask({}).json()


@pytest.mark.parametrize("what", ["orphan", "forked orphan"])
def test_a_death_is_seen_though_a_child_lives_on(what: str, server: Server, tmp_path: Path) -> None:
    path = tmp_path / "child"
    answer = server.ask({"do": what, "path": str(path)})
    assert (answer.status, answer.json()["message"]) == (503, "the handler's process ended with status 0")
    until(lambda: not alive(int(path.read_text())), what="the child is ended with it")
    assert works(server)


def test_exit_is_a_death_like_any_other(server: Server) -> None:
    assert server.ask({"do": "exit"}).status == 503
    with server.open({"do": "exit stream"}) as stream:
        assert list(stream) == [b"one"]
        assert not stream.complete
    assert works(server)


@pytest.mark.parametrize("what", ["rude", "half", "property", "deep"])
def test_what_cannot_be_told_is_424(what: str, server: Server) -> None:
    pid = server.ask({}).json()["pid"]
    answer = server.ask({"do": what})
    assert (answer.status, answer.json()["code"]) == (424, 424)
    assert server.ask({}).json()["pid"] == pid, "the process is as good as before"


def test_half_a_character_becomes_its_escape(server: Server) -> None:
    assert server.ask({"do": "half output"}).json() == {"x": "half \ud800"}


def test_a_stream_that_will_not_close(server: Server) -> None:
    pid = server.ask({}).json()["pid"]
    with server.open({"do": "stubborn"}) as stream:
        next(iter(stream))
    assert server.ask({}).json()["pid"] == pid


def test_a_process_that_closes_its_socket(server: Server) -> None:
    assert server.ask({"do": "close fds"}).status == 503
    assert works(server)


def test_a_large_answer_comes_whole(server: Server) -> None:
    size = 50_000_000
    assert len(server.ask({"do": "huge", "size": size}).body) == size


def test_a_client_says_nothing_of_the_model_or_the_batch(server: Server) -> None:
    mine = server.ask({"do": "properties"}).json()
    headers = {"model_dir": "/etc", "BATCH_SIZE": "7", "Device_Id": "3"}
    with Stream(server.port, "POST", "/invocations", b'{"do": "properties"}', headers) as stream:
        assert stream.answer().json() == mine
    attributes = server.ask({"do": "properties"}, X_Amzn_SageMaker_Custom_Attributes="batch_size=5;model_dir=/etc")
    assert attributes.json() == mine


def test_the_kernel_ends_a_handler_before_the_server(server: Server) -> None:
    def score(pid: int) -> int:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())

    assert score(server.ask({}).json()["pid"]) > score(server.process.pid)


def test_garbage_on_stdout_is_only_log(server: Server) -> None:
    assert "raw garbage" in server.log
    assert works(server)


@pytest.mark.parametrize("sent", [b"", b"POST /invocations HTTP/1.1\r\n", b"{", b"x" * 5])
def test_a_client_that_leaves_while_it_sends(sent: bytes, server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock:
            sock.sendall(sent if sent.startswith(b"POST") else head + sent)
    assert works(server)


def test_races_of_management(server: Server, tmp_path: Path) -> None:
    handler = textwrap.dedent(HANDLER).replace(
        "if inputs.is_empty():", "if inputs.is_empty():\n        time.sleep(0.05)"
    )
    directory = write(tmp_path / "raced", "", handler)

    def one(number: int) -> int:
        match number % 4:
            case 0:
                return server.ask({"url": str(directory), "model_name": "raced"}, path="/models").status
            case 1:
                return server.ask(path="/models/raced", method="DELETE").status
            case 2:
                return server.ask(path="/models/raced?min_worker=2&max_worker=3", method="PUT").status
        return server.ask({}, path="/predictions/raced").status

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(48)))
    assert set(found) <= {200, 400, 404, 409, 503}, found
    server.ask(path="/models/raced", method="DELETE")
    assert server.get("/models/raced").status == 404
    until(lambda: len(server.children()) == 1, what="no process is left of a model that is gone")
    assert works(server)


def test_a_load_that_fails_takes_no_other_with_it(server: Server, tmp_path: Path) -> None:
    go = tmp_path / "go"
    slow = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\nraise ValueError('no')\n"
    bad, good = write(tmp_path / "bad", "", slow), write(tmp_path / "good", "", HANDLER)
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(server.ask, {"url": str(bad), "model_name": "x"}, path="/models")
        until(lambda: server.get("/models/x").status == 200)
        assert server.ask(path="/models/x", method="DELETE").status == 200
        assert server.ask({"url": str(good), "model_name": "x"}, path="/models").status == 200
        go.touch()
        assert failing.result().status == 400
    assert server.ask({}, path="/predictions/x").status == 200
    assert server.ask(path="/models/x", method="DELETE").status == 200

"""A model.py of SageMaker's functions over real sockets and in a real process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.lmi_server import Server, failing, running
from tests.wire.test_lmi_handlers import write_handler

WHOLE = """
import json
import os


def model_fn(model_dir):
    with open(os.path.join(model_dir, "weights")) as file:
        return {"factor": int(file.read()), "pid": os.getpid()}


def input_fn(request_body, content_type):
    if content_type == "application/x-broken":
        raise ValueError("no such type")
    return json.loads(request_body) if isinstance(request_body, str) else len(request_body)


def predict_fn(input_data, model):
    if input_data == "memory":
        raise MemoryError("no room")
    if input_data == "many":
        return (str(number) for number in range(3))
    if input_data == "pid":
        return model["pid"]
    return input_data * model["factor"]


def output_fn(prediction, accept):
    if accept == "text/csv":
        return f"{prediction}\\n", "text/csv; header=absent"
    return prediction if hasattr(prediction, "__next__") else json.dumps({"prediction": prediction})
"""

SHORT = """
def model_fn(model_dir, context):
    assert context is None
    return lambda data: [{"sum": sum(data["inputs"])}]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("functions")
    directory = write_handler(home / "model", handler=WHOLE)
    (directory / "weights").write_text("3")
    with running(home, directory) as server:
        yield server


def test_a_request_goes_through_all_four(server: Server) -> None:
    answer = server.ask(5)
    assert (answer.status, answer.body) == (200, b'{"prediction": 15}')
    assert answer.headers["content-type"] == "application/json"
    assert server.ask(b"abc", Content_Type="application/octet-stream").body == b'{"prediction": 9}'
    assert server.ask(5, Accept="*/*").headers["content-type"] == "application/json"


def test_they_run_in_a_process_of_their_own(server: Server) -> None:
    pid = server.ask("pid").json()["prediction"]
    assert pid in server.children()
    assert pid not in (server.process.pid, os.getpid())


def test_an_answer_can_name_its_own_type(server: Server) -> None:
    answer = server.ask(5, Accept="text/csv")
    assert (answer.headers["content-type"], answer.body) == ("text/csv; header=absent", b"15\n")


def test_an_iterator_is_streamed(server: Server) -> None:
    answer = server.ask("many")
    assert (answer.chunks, answer.complete) == ([b"0", b"1", b"2"], True)


def test_what_they_raise_is_424_and_no_memory_507(server: Server) -> None:
    answer = server.ask(b"x", Content_Type="application/x-broken")
    assert (answer.status, answer.json()["error"]) == (424, "no such type")
    assert server.ask("memory").status == 507
    assert server.ask(5).status == 200


def test_what_is_left_out_is_done_by_content_type(tmp_path: Path) -> None:
    with running(tmp_path, write_handler(tmp_path / "model", handler=SHORT)) as server:
        assert server.ask({"inputs": [1, 2, 3]}).json() == [{"sum": 6}]
        assert server.ask({"inputs": [1, 2, 3]}, Accept="text/csv").body == b"sum\r\n6\r\n"


def test_a_batch_is_one_after_the_other(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", "batch_size=3\nmax_batch_delay=2000\n", WHOLE)
    (directory / "weights").write_text("3")
    with running(tmp_path, directory) as server, ThreadPoolExecutor(3) as pool:
        assert [answer.json()["prediction"] for answer in pool.map(server.ask, (1, 2, 3))] == [3, 6, 9]
        assert server.ask("many").chunks == [b"0", b"1", b"2"], "one alone is no batch"


def test_a_script_that_leads_nowhere_fails_the_endpoint(tmp_path: Path) -> None:
    for handler, reason in (
        ("def output_fn(prediction, accept):\n    pass\n", "has output_fn, but neither a model_fn nor a predict_fn"),
        ("def other():\n    pass\n", "model.py has no function handle"),
    ):
        status, message, _ = failing(tmp_path, write_handler(tmp_path / "model", handler=handler))
        assert status != 0
        assert reason in message


DECORATED = """
from djl_python import Input, Output
from djl_python.input_parser import init_handler, input_formatter, prediction_handler
from djl_python.output_formatter import output_formatter


@init_handler
def load(model_dir):
    return {"factor": 3}


@input_formatter
def read(inputs: Input, content_type):
    return inputs.get_as_json()["n"]


@prediction_handler
def predict(X, model):
    return X * model["factor"]


@output_formatter
def write(predictions):
    return {"prediction": predictions}
"""


def test_functions_by_decorators(tmp_path: Path) -> None:
    with running(tmp_path, write_handler(tmp_path / "model", handler=DECORATED)) as server:
        answer = server.ask({"n": 5})
        assert (answer.json(), answer.headers["content-type"]) == ({"prediction": 15}, "application/json")
        assert server.ask({}).status == 424


def test_what_is_accepted_where_a_client_accepts_anything(tmp_path: Path) -> None:
    directory = write_handler(tmp_path / "model", handler=SHORT)
    environ = {"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT": "text/csv", "PENSTOCK_SERVER_VERSION": "0.36.0"}
    with running(tmp_path, directory, **environ) as server:
        assert server.ask({"inputs": [1, 2]}).body == b"sum\r\n3\r\n"
        assert server.ask({"inputs": [1, 2]}, Accept="*/*").body == b"sum\r\n3\r\n"
        assert server.ask({"inputs": [1, 2]}, Accept="application/json").json() == [{"sum": 3}]


def test_a_script_for_several_processes_finds_its_rank(tmp_path: Path) -> None:
    handler = """
import os
from djl_python import Output


def handle(inputs):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
    return None if inputs.is_empty() else Output().add({name: os.environ[name] for name in names})
"""
    with running(tmp_path, write_handler(tmp_path / "model", "engine=MPI\n", handler)) as server:
        assert server.ask({}).json() == {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}

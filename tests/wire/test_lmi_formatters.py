"""Formatters of a model.py round the server's own text generation, in their own process: every form that came with the versions."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lmi_server import Server, failing, running, write_properties
from tests.waiting import until

DOCUMENTS = """
import os
import time
from djl_python.input_parser import input_formatter
from djl_python.output_formatter import output_formatter


@input_formatter
def read(decoded_payload: dict, tokenizer=None, **kwargs) -> dict:
    if "inputPrompt" in decoded_payload:
        decoded_payload["inputs"] = decoded_payload.pop("inputPrompt")
    if decoded_payload.get("count"):
        length = len(tokenizer.encode(" one two"))
        return {"inputs": " one", "parameters": {"max_new_tokens": length, "do_sample": False}}
    if decoded_payload.get("die"):
        os._exit(3)
    if decoded_payload.get("hang"):
        time.sleep(1000)
    decoded_payload.setdefault("parameters", {}).setdefault("max_new_tokens", 2)
    decoded_payload["parameters"]["do_sample"] = False
    return decoded_payload


@output_formatter
def write(response_data: dict) -> dict:
    if "four" in (response_data.get("generated_text") or ""):
        raise ValueError("no four")
    response_data["pid"] = os.getpid()
    return response_data
"""

OBJECTS = """
import json
from dataclasses import dataclass
from djl_python import Input
from djl_python.encode_decode import decode
from djl_python.input_parser import input_formatter
from djl_python.output_formatter import TextGenerationOutput, output_formatter
from djl_python.request_io import RequestInput, TextInput


@dataclass
class MyInput(TextInput):
    name: str = ""


@input_formatter
def read(input_item: Input, **kwargs) -> RequestInput:
    body = decode(input_item, input_item.get_property("Content-Type"))
    if "inputs" not in body:
        raise KeyError("inputs")
    given = MyInput(input_text=body["inputs"], parameters=body.get("parameters", {}))
    given.name = body.get("name", "")
    return given


@output_formatter
def write(request_output: TextGenerationOutput) -> str:
    sequence = request_output.sequences[request_output.best_sequence_index]
    token, first, last = sequence.get_next_token()
    said = {"token": token.text, "first": first, "name": request_output.input.name}
    if last:
        said |= {"reason": sequence.finish_reason, "finished": request_output.finished, "all": len(sequence.tokens)}
    return json.dumps(said) + "\\n"
"""

LEGACY = """
from djl_python.output_formatter import output_formatter


@output_formatter
def write(token, first_token, last_token, details, generated_tokens):
    return ("<" if first_token else "") + token.text + (f"|{generated_tokens}>" if last_token else "")
"""


def serve(home: Path, model: Path, script: str, version: str, *lines: str) -> Iterator[Server]:
    directory = write_properties(home / "model", f"option.model_id={model}", *lines)
    (directory / "model.py").write_text(script)
    with running(home, directory, PENSTOCK_SERVER_VERSION=version) as server:
        yield server


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("documents"), tiny_model, DOCUMENTS, "0.36.0")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory.mktemp("objects"), tiny_model, OBJECTS, "0.29.0")


def test_documents_are_changed_on_both_ways(documents: Server) -> None:
    answer = documents.ask({"inputPrompt": " one"})
    assert answer.status == 200
    assert answer.json()["generated_text"] == " two three"
    pid = answer.json()["pid"]
    assert pid in documents.children()
    assert pid != documents.process.pid


def test_a_formatter_has_the_tokenizer(documents: Server) -> None:
    assert documents.ask({"count": True}).json()["generated_text"] == " two three"


def test_each_line_of_a_stream_is_changed(documents: Server) -> None:
    answer = documents.ask({"inputs": " one", "stream": True})
    lines = [json.loads(chunk) for chunk in answer.chunks]
    assert [line["token"]["text"] for line in lines] == [" two", " three"]
    assert all("pid" in line for line in lines)
    assert answer.headers["content-type"] == "application/jsonlines"


def test_events_stay_events(documents: Server) -> None:
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2, "temperature": 0, "stream": True}
    answer = documents.ask(asked, path="/v1/chat/completions")
    *events, done, nothing = answer.body.split(b"\n\n")
    assert (done, nothing) == (b"data: [DONE]", b"")
    assert all("pid" in json.loads(event.removeprefix(b"data: ")) for event in events)


def test_a_formatter_that_raises_is_424_and_the_end_of_a_stream(documents: Server) -> None:
    asked = {"inputs": " one", "parameters": {"max_new_tokens": 3}}
    answer = documents.ask(asked)
    assert (answer.status, answer.json()) == (424, {"code": 424, "error": "Custom formatter failed: no four"})
    streamed = documents.ask({**asked, "stream": True})
    assert json.loads(streamed.chunks[-1]) == {"code": 424, "error": "Custom formatter failed: no four"}
    assert len(streamed.chunks) == 3
    assert documents.ask({"inputs": " one"}).status == 200


def test_one_that_dies_is_started_anew(documents: Server) -> None:
    before = documents.ask({"inputs": " one"}).json()["pid"]
    answer = documents.ask({"inputs": " one", "die": True})
    assert (answer.status, "ended with status 3" in answer.json()["error"]) == (424, True)
    after = documents.ask({"inputs": " one"}).json()["pid"]
    assert after != before
    os.kill(documents.ask({"inputs": " one"}).json()["pid"], signal.SIGKILL)
    until(lambda: documents.ask({"inputs": " one"}).status == 200)


def test_one_that_hangs_is_started_anew(tmp_path: Path, tiny_model: Path) -> None:
    for server in serve(tmp_path, tiny_model, DOCUMENTS, "0.36.0", "option.predict_timeout=2"):
        answer = server.ask({"inputs": " one", "hang": True})
        assert (answer.status, "did not answer within 2 s" in answer.json()["error"]) == (424, True)
        until(lambda: server.ask({"inputs": " one"}).status == 200, deadline_s=60)  # noqa: B023


def test_a_client_that_leaves_an_exchange_disturbs_no_other(documents: Server) -> None:
    for _ in range(20):
        with documents.begin({"inputs": " one", "parameters": {"max_new_tokens": 12}, "stream": True}):
            pass
        assert documents.ask({"inputs": " one"}).json()["generated_text"] == " two three"


def test_objects_before_033(objects: Server) -> None:
    answer = objects.ask({"inputs": " one", "parameters": {"max_new_tokens": 3}, "name": "Ada"})
    assert [json.loads(chunk) for chunk in answer.chunks] == [
        {"token": " two", "first": True, "name": "Ada"},
        {"token": " three", "first": False, "name": "Ada"},
        {"token": " four", "first": False, "name": "Ada", "reason": "length", "finished": True, "all": 3},
    ]
    answer = objects.ask({"input": " one"})
    assert (answer.status, "inputs" in answer.json()["error"]) == (424, True)


def test_the_form_before_028(tmp_path: Path, tiny_model: Path) -> None:
    for server in serve(tmp_path, tiny_model, LEGACY, "0.27.0", "option.rolling_batch=auto"):
        answer = server.ask({"inputs": " one", "parameters": {"max_new_tokens": 2}})
        assert answer.chunks == [b"< two", b" three| two three>"]


def test_formatters_without_rolling_batch_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}")
    (directory / "model.py").write_text(LEGACY)
    status, message, _ = failing(tmp_path, directory)
    assert status != 0
    assert "the formatters of model.py need option.rolling_batch" in message


def test_formatters_that_cannot_be_imported_fail_the_endpoint(tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}")
    (directory / "model.py").write_text("import no_such_module_here\n" + LEGACY)
    status, message, _ = failing(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.29.0")
    assert status != 0
    assert "No module named 'no_such_module_here'" in message

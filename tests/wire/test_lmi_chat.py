"""Chats and the later dialects over real sockets: messages, OpenAI's own route, `tgi_compat`, the shapes of 0.33."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.routes import Replica, Variant
from tests.lmi_server import Server, running, write_properties
from tests.wire.gateway_fixture import House
from tests.wire.test_gateway_openai import complete, token

CHAT = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 3}
TEXT = "?@A"
"""The template's prompt ends with ">", and the counting model goes on from there."""
PROMPT_TOKENS = len("<user>hello\n<assistant>")


def serve(tmp: pytest.TempPathFactory, model: Path, version: str, *lines: str) -> Iterator[Server]:
    home = tmp.mktemp("lmi")
    directory = write_properties(home / "model", f"option.model_id={model}", *lines)
    with running(home, directory, PENSTOCK_SERVER_VERSION=version) as server:
        yield server


@pytest.fixture(scope="module")
def tgi(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory, tiny_model, "0.29.0", "option.tgi_compat=true")


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    yield from serve(tmp_path_factory, tiny_model, "0.36.0")


def chunks(lines: list[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def test_messages_are_answered_with_a_chat_completion(tgi: Server) -> None:
    answer = tgi.ask(CHAT)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert list(found) == ["id", "object", "created", "choices", "usage"]
    assert found["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT},
            "logprobs": None,
            "finish_reason": "length",
        }
    ]
    assert found["usage"] == {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": 3,
        "total_tokens": PROMPT_TOKENS + 3,
    }
    assert found["id"].startswith("chatcmpl-")
    assert found["id"] != tgi.ask(CHAT).json()["id"]


def test_a_chat_streams_lines_and_openais_route_events(newest: Server) -> None:
    answer = newest.ask({**CHAT, "stream": True})
    assert answer.headers["content-type"] == "application/jsonlines"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks(answer.chunks)) == TEXT
    answer = newest.ask(
        {**CHAT, "stream": True, "model": "my", "stream_options": {"include_usage": True}}, path="/v1/chat/completions"
    )
    assert answer.headers["content-type"] == "text/event-stream"
    *events, done = answer.body.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    *said, usage = chunks(events)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in said) == TEXT
    assert {chunk["model"] for chunk in said} == {"my"}
    assert usage["usage"]["total_tokens"] == usage["usage"]["prompt_tokens"] + 3


def test_a_chat_that_cannot_be_is_424_and_says_why(newest: Server) -> None:
    for path in ("/invocations", "/v1/chat/completions"):
        answer = newest.ask({"messages": []}, path=path)
        assert (answer.status, answer.json()["code"]) == (424, 424)
        assert "messages must be a list" in answer.json()["error"]
    assert newest.ask({"inputs": " one"}, path="/v1/chat/completions").status == 424
    assert newest.ask(b"{", path="/v1/chat/completions").status == 424


def test_tgi_compat(tgi: Server) -> None:
    asked = {"inputs": " one", "parameters": {"max_new_tokens": 3, "stop": ["three"]}}
    (whole,) = tgi.ask(asked).json()
    assert whole["generated_text"] == " two three"
    assert whole["details"]["finish_reason"] == "stop_sequence"
    assert [token["text"] for token in whole["details"]["tokens"]] == [" two", " three"]
    assert "logprob" in whole["details"]["tokens"][0]
    assert "details" not in tgi.ask({**asked, "parameters": {"details": False}}).json()[0]
    answer = tgi.ask({**asked, "stream": True})
    assert answer.headers["content-type"] == "text/event-stream"
    first, last = chunks(answer.chunks)
    assert list(first) == ["token"]
    assert last["generated_text"] == " two three"
    assert last["details"]["generated_tokens"] == 2


def test_033_lines(newest: Server) -> None:
    asked = {"inputs": " one", "parameters": {"max_new_tokens": 2, "do_sample": False, "details": True}}
    lines = chunks(newest.ask({**asked, "stream": True}).chunks)
    assert [list(line) for line in lines] == [["index", "token", "generated_text", "details"]] * 2
    assert lines[-1]["details"] == {"finish_reason": "length", "seed": None, "generated_tokens": 2, "input_length": 1}
    assert newest.ask(asked).json()["generated_text"] == " two three"


def test_a_prompt_is_a_text_completion(newest: Server) -> None:
    asked = {"prompt": " one", "temperature": 0, "max_tokens": 2, "echo": True}
    found = newest.ask(asked).json()
    assert list(found) == ["id", "object", "created", "model", "choices", "usage"]
    assert found["choices"] == [{"index": 0, "text": " one two three", "logprobs": None, "finish_reason": "length"}]
    assert (found["object"], found["model"]) == ("text_completion", "lmi")
    lines = chunks(newest.ask({**asked, "stream": True}).chunks)
    assert [line["choices"][0]["text"] for line in lines] == [" one two", " three"]
    for wrong, reason in (({"prompt": ["a", "b"]}, "prompt must be a string"), ({"logprobs": 2}, "logprobs is not")):
        answer = newest.ask({**asked, **wrong})
        assert answer.status == 424
        assert reason in answer.json()["error"]


def test_openais_route_through_the_gateway(newest: Server, house: House) -> None:
    replica = Replica(f"replica-{newest.port}", 1, "127.0.0.1", newest.port)
    house.endpoint("ep", Variant("AllTraffic", 1.0, (replica,)))
    answer = complete(house, token())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream")
    *events, done = answer.content.strip().split(b"\n\n")
    assert done == b"data: [DONE]"
    said = chunks(events)
    assert {chunk["object"] for chunk in said} == {"chat.completion.chunk"}
    assert said[0]["choices"][0]["delta"]["role"] == "assistant"
    assert said[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_the_size_of_a_request_can_be_bounded(tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}")
    with running(tmp_path, directory, SERVING_MAX_REQUEST_SIZE="40") as server:
        assert server.ask({"inputs": " nine"}).status == 200
        assert server.ask({"inputs": " nine" * 10}).status == 413


def test_before_028_there_are_no_chats(tmp_path: Path, tiny_model: Path) -> None:
    lines = [f"option.model_id={tiny_model}", "option.rolling_batch=auto"]
    with running(tmp_path, write_properties(tmp_path / "model", *lines)) as server:
        assert server.ask(CHAT, path="/v1/chat/completions").status == 404
        answer = server.ask(CHAT)
        assert answer.status == 424
        assert "from version 0.28 on" in answer.json()["error"]

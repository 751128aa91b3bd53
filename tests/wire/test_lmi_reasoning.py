"""A chat's thoughts beside its answer, whole and as a stream, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lmi_server import Server, failing, running, write_properties

ECHO = "{{ messages[-1]['content'] }}"
CHAT = {"messages": [{"role": "user", "content": " one"}], "temperature": 0, "max_tokens": 2}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    """The model counts on and never stops thinking, as a template that writes the mark itself may have it."""
    home = tmp_path_factory.mktemp("reasoning")
    lines = (f"option.chat_template={ECHO}", "option.enable_reasoning=true", "option.reasoning_parser=deepseek_r1")
    directory = write_properties(home / "model", f"option.model_id={tiny_model}", *lines)
    with running(home, directory, PENSTOCK_SERVER_VERSION="0.36.0") as server:
        yield server


def test_a_whole_answer(server: Server) -> None:
    (choice,) = server.ask(CHAT).json()["choices"]
    assert choice["message"] == {"role": "assistant", "reasoning_content": " two three", "content": None}
    assert choice["finish_reason"] == "length"


def test_a_stream(server: Server) -> None:
    answer = server.ask({**CHAT, "stream": True})
    deltas = [json.loads(line)["choices"][0]["delta"] for line in answer.body.splitlines()]
    assert deltas == [{"reasoning_content": " two", "role": "assistant"}, {"reasoning_content": " three"}]
    events = server.ask({**CHAT, "stream": True}, path="/v1/chat/completions")
    assert b'"delta": {"reasoning_content": " two"' in events.body
    assert events.body.endswith(b"data: [DONE]\n\n")


def test_what_a_grammar_holds_has_no_thoughts(server: Server) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["yes"]}}}
    (choice,) = server.ask({**CHAT, "max_tokens": 20, "response_format": schema}).json()["choices"]
    assert choice["message"] == {"role": "assistant", "content": '"yes"'}


def test_other_requests_have_no_thoughts(server: Server) -> None:
    parameters = {"max_new_tokens": 2, "do_sample": False}
    answer = server.ask({"inputs": " one", "parameters": parameters}).json()
    assert answer["generated_text"] == " two three"
    assert (
        server.ask({"prompt": " one", "max_tokens": 2, "temperature": 0}).json()["choices"][0]["text"] == " two three"
    )


def test_a_parser_that_is_none_fails_the_start(tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}", "option.reasoning_parser=magic")
    status, message, _ = failing(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.36.0")
    assert status != 0
    assert "option.reasoning_parser=magic is not supported: use one of deepseek_r1, qwen3" in message

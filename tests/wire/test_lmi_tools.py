"""Answers that keep to a schema, calls of functions, Bedrock's form and a template of one's own, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lmi_server import Server, failing, running, write_properties

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CHAT = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 80}
ECHO = "{{ messages[-1]['content'] }}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("tools")
    lines = [
        "option.enable_auto_tool_choice=true",
        "option.tool_call_parser=llama3_json",
        "option.chat_template=t.jinja",
    ]
    directory = write_properties(home / "model", f"option.model_id={tiny_model}", *lines)
    (directory / "t.jinja").write_text(ECHO)
    with running(home, directory, PENSTOCK_SERVER_VERSION="0.36.0") as server:
        yield server


@pytest.fixture(scope="module")
def bedrock(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("bedrock")
    directory = write_properties(home / "model", f"option.model_id={tiny_model}", "option.bedrock_compat=true")
    with running(home, directory, PENSTOCK_SERVER_VERSION="0.29.0") as server:
        yield server


def message(server: Server, **more: Any) -> dict[str, Any]:
    answer = server.ask({**CHAT, **more})
    assert answer.status == 200, answer.body
    (choice,) = answer.json()["choices"]
    found: dict[str, Any] = {**choice["message"], "finish_reason": choice["finish_reason"]}
    return found


def test_a_function_must_be_called(server: Server) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    found = message(server, tools=[TOOL], tool_choice=named)
    (call,) = found["tool_calls"]
    assert call["function"]["name"] == "weather"
    assert json.loads(call["function"]["arguments"])["city"] in ("Oslo", "Rome")
    answer = server.ask({**CHAT, "tools": [TOOL], "tool_choice": named, "stream": True})
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in answer.chunks]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert "".join(call["function"]["arguments"] for call in calls) == call["function"]["arguments"]


def test_some_function_must_be_called(server: Server) -> None:
    found = message(server, tools=[TOOL], tool_choice="required")
    assert found["finish_reason"] in ("tool_calls", "length")
    assert found["tool_calls"][0]["function"]["name"] == "weather"


def test_an_answer_keeps_to_a_schema(server: Server) -> None:
    schema = TOOL["function"]["parameters"]  # type: ignore[index]
    found = message(server, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
    assert json.loads(found["content"])["city"] in ("Oslo", "Rome")


def test_a_schema_that_is_broken_is_told(server: Server) -> None:
    broken = {"type": "json_schema", "json_schema": {"schema": {"type": "no such type"}}}
    answer = server.ask({**CHAT, "response_format": broken})
    assert (answer.status, answer.json()["code"]) == (424, 424)


def test_a_template_of_ones_own(server: Server) -> None:
    found = message(server, messages=[{"role": "user", "content": " one"}], max_tokens=2)
    assert found["content"] == " two three"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("option.chat_template=none.jinja", "option.chat_template can't be read"),
        ("option.chat_template={% broken", "option.chat_template can't be read"),
        (
            "option.tool_call_parser=magic\noption.enable_auto_tool_choice=true",
            "option.tool_call_parser=magic is not supported",
        ),
        ("option.enable_auto_tool_choice=true", "needs option.tool_call_parser"),
    ],
)
def test_what_cannot_be_fails_the_endpoint(line: str, reason: str, tiny_model: Path, tmp_path: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}", line)
    status, said, _ = failing(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.36.0")
    assert status != 0
    assert reason in said


def test_bedrocks_form(bedrock: Server) -> None:
    asked = {"prompt": " one", "temperature": 0, "max_gen_len": 2}
    found = bedrock.ask(asked).json()
    assert found == {
        "body": {
            "generation": " one two three",
            "prompt_token_count": 1,
            "generation_token_count": 2,
            "stop_reason": "length",
        },
        "metering": {"inputTokenCount": 1, "outputTokenCount": 2},
        "content_type": "application/json",
    }
    stream = bedrock.ask(asked, X_Amzn_SageMaker_Forwarded_Api="InvokeEndpointWithResponseStream")
    first, last = (json.loads(chunk) for chunk in stream.chunks)
    assert first["body"]["generation"] == " two"
    assert (first["body"]["prompt_token_count"], last["body"]["prompt_token_count"]) == (1, None)
    assert (last["body"]["stop_reason"], last["metering"]) == ("length", {"outputTokenCount": 2})
    for wrong in (b"{", b"[]", b'{"prompt": ""}', b'{"prompt": "x", "top_p": 7}'):
        assert bedrock.ask(wrong, Content_Type="application/json").status == 424


def test_a_request_names_its_formatter_before_033(bedrock: Server, tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(
        tmp_path / "model", f"option.model_id={tiny_model}", "option.output_formatter=json_chat"
    )
    with running(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.29.0") as server:
        asked = {"inputs": " one", "parameters": {"max_new_tokens": 2}}
        assert server.ask(asked).json()["choices"][0]["message"]["content"] == " two three"
        asked["parameters"] = {"max_new_tokens": 2, "output_formatter": "sse"}
        assert server.ask(asked).chunks[0].startswith(b'data: {"token": {')
        asked["parameters"] = {"max_new_tokens": 2, "output_formatter": "magic"}
        assert server.ask(asked).status == 424


def test_an_adapter_that_is_not_there_is_told(server: Server) -> None:
    for answer in (
        server.ask({"inputs": " one", "adapters": "sql"}),
        server.ask({"inputs": " one", "adapters": ["sql"]}),
        server.ask(CHAT, X_Amzn_SageMaker_Adapter_Identifier="sql"),
    ):
        assert (answer.status, "LoRA adapter sql not found in registry" in answer.json()["error"]) == (424, True)
    assert server.ask({"inputs": " one", "adapters": ["a", "b"]}).status == 424
    assert server.ask({"inputs": " one", "adapters": []}).status == 200


def test_adapters_that_no_engine_here_has_fail_the_start(tmp_path: Path, tiny_model: Path) -> None:
    directory = write_properties(tmp_path / "model", f"option.model_id={tiny_model}", "option.enable_lora=true")
    (directory / "adapters/sql").mkdir(parents=True)
    status, message, _ = failing(tmp_path, directory, PENSTOCK_SERVER_VERSION="0.36.0")
    assert status != 0
    assert "(LoRA adapters (sql), which only vllm has): the vllm engine needs the model's PyTorch weights" in message


def test_workflows_are_models_under_another_name(bedrock: Server) -> None:
    assert bedrock.get("/workflows").json() == {"workflows": [{"workflowName": "model"}]}
    assert bedrock.get("/workflows/model").json()[0]["workflowName"] == "model"
    assert bedrock.ask({}, path="/workflows").status == 400
    assert bedrock.ask(path="/workflows", method="PATCH").status == 405

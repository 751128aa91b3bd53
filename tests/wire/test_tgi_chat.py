"""TGI's OpenAI routes, tools and grammars over real sockets, with the real engine process, at the last level and at the blog's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tgi_server import Answer, Server, running
from tests.tiny_models import END, RECITAL

REST = RECITAL.removeprefix(" one")
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HEAD = ["object", "id", "created", "model", "system_fingerprint"]
LATER = [CHAT, COMPLETIONS, "/tokenize", "/chat_tokenize"]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather",
        "parameters": {"type": "object", "properties": {"town": {"enum": ["Bonn", "Ulm"]}}, "required": ["town"]},
    },
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("tgi_chat")
    with running(home, home, HF_MODEL_ID=str(tiny_model), PENSTOCK_SERVER_VERSION="3.3.7", DTYPE="float32") as server:
        yield server


def chat(text: str = "count: one", role: str = "assistant", **more: Any) -> dict[str, Any]:
    """A conversation whose answer goes on where its last message stops."""
    return {"messages": [{"role": role, "content": text}], "temperature": 0, **more}


def payloads(answer: Answer) -> list[str]:
    """Each chunk is one event."""
    assert answer.status == 200
    assert answer.complete
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in answer.chunks), answer.chunks
    return [chunk.decode().removeprefix("data: ").removesuffix("\n\n") for chunk in answer.chunks]


def events(answer: Answer) -> list[dict[str, Any]]:
    *found, done = payloads(answer)
    assert done == "[DONE]"
    return [json.loads(payload) for payload in found]


def test_a_whole_chat_completion(server: Server, tiny_model: Path) -> None:
    answer = server.ask(chat(), path=CHAT)
    body = answer.json()
    assert answer.status == 200, body
    assert list(body) == [*HEAD, "choices", "usage"]
    assert body["object"] == "chat.completion"
    assert (body["id"], body["model"], body["system_fingerprint"]) == ("", str(tiny_model), "3.3.7-native")
    assert body["choices"] == [
        {"index": 0, "message": {"role": "assistant", "content": REST}, "logprobs": None, "finish_reason": "stop"}
    ]
    prompt = len(server.ask(chat(), path="/chat_tokenize").json()["tokenize_response"])
    assert body["usage"] == {"prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12}
    assert answer.headers["x-compute-characters"] == str(len("<assistant>count: one"))
    assert answer.headers["x-prompt-tokens"] == str(prompt)
    assert b'"choices":[{"index":0,' in answer.body


def test_log_probabilities_and_length(server: Server) -> None:
    body = server.ask(chat(logprobs=True, max_tokens=2, model="mine"), path=CHAT).json()
    [choice] = body["choices"]
    assert (body["model"], choice["finish_reason"], choice["message"]["content"]) == ("mine", "length", " two three")
    content = choice["logprobs"]["content"]
    assert [list(item) for item in content] == [["token", "logprob", "top_logprobs"]] * 2
    assert [item["token"] for item in content] == [" two", " three"]
    assert all(-0.2 < item["logprob"] < 0 and item["top_logprobs"] == [] for item in content)


def test_a_streamed_chat_completion(server: Server) -> None:
    answer = server.ask(chat(stream=True, stream_options={"include_usage": True}), path=CHAT)
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    *chunks, usage = events(answer)
    assert all(list(chunk) == [*HEAD, "choices", "usage"] for chunk in chunks)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [list(choice) for choice in choices] == [["index", "delta", "logprobs", "finish_reason"]] * 12
    assert [list(choice["delta"]) for choice in choices] == [["role", "content"]] * 12
    assert "".join(choice["delta"]["content"] for choice in choices) == REST
    assert [choice["finish_reason"] for choice in choices] == [None] * 11 + ["stop"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12


def test_stop_sequences_stay_in_the_text(server: Server) -> None:
    [choice] = server.ask(chat(stop=[" four"]), path=CHAT).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (" two three four", "stop_sequence")


def test_a_user_s_turn_is_put_into_the_template(server: Server) -> None:
    parts = [{"type": "text", "text": "so "}, {"type": "text", "text": "what"}]
    body = {"messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": parts}]}
    answer = server.ask(body, path="/chat_tokenize").json()
    assert list(answer) == ["tokenize_response", "templated_text"]
    assert answer["templated_text"] == "<system>be kind\n<user>so what\n<assistant>"
    tokens = answer["tokenize_response"]
    assert all(list(token) == ["id", "text", "start", "stop"] for token in tokens)
    assert "".join(token["text"] for token in tokens) == answer["templated_text"]


def test_tokens_count_bytes(server: Server) -> None:
    tokens = server.ask({"inputs": "é two"}, path="/tokenize").json()
    assert [(token["start"], token["stop"]) for token in tokens][-1] == (2, 6)
    assert tokens[-1]["text"] == " two"


def test_a_text_completion(server: Server, tiny_model: Path) -> None:
    answer = server.ask({"prompt": ["count: one", " nine"], "temperature": 0, "max_tokens": 2}, path=COMPLETIONS)
    body = answer.json()
    assert list(body) == [*HEAD, "choices", "usage"]
    assert (body["object"], body["model"]) == ("text_completion", str(tiny_model))
    assert body["choices"] == [
        {"index": 0, "text": " two three", "logprobs": None, "finish_reason": "length"},
        {"index": 1, "text": " ten", "logprobs": None, "finish_reason": "length"},
    ]
    assert body["usage"] == {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}
    assert (answer.headers["x-prompt-tokens"], answer.headers["x-compute-characters"]) == ("8", "15")
    assert "x-compute-time" not in answer.headers


def test_streamed_text_completions_of_two_prompts(server: Server) -> None:
    body = {"prompt": ["count: one", " nine"], "temperature": 0, "max_tokens": 2, "stream": True}
    got = events(server.ask(body, path=COMPLETIONS))
    texts = {0: "", 1: ""}
    for chunk in got:
        [choice] = chunk["choices"]
        texts[choice["index"]] += choice["text"]
        if choice["finish_reason"]:
            assert list(chunk) == [*HEAD, "choices", "usage"]
        else:
            assert list(chunk) == ["object", "id", "created", "choices", "model", "system_fingerprint"]
    assert texts == {0: " two three", 1: " ten" + END}


def test_a_tool_must_be_called(server: Server) -> None:
    body = chat(role="user", tools=[WEATHER], tool_choice="required", max_tokens=200)
    [choice] = server.ask(body, path=CHAT).json()["choices"]
    assert list(choice["message"]) == ["role", "tool_calls"]
    [call] = choice["message"]["tool_calls"]
    assert list(call) == ["id", "type", "function"]
    assert list(call["function"]) == ["description", "name", "arguments"]
    assert (call["id"], call["type"], call["function"]["name"]) == ("0", "function", "get_weather")
    assert json.loads(call["function"]["arguments"])["town"] in {"Bonn", "Ulm"}
    assert choice["finish_reason"] == "stop"


def test_a_streamed_tool_call(server: Server) -> None:
    body = chat(role="user", tools=[WEATHER], tool_choice="required", max_tokens=200, stream=True)
    choices = [chunk["choices"][0] for chunk in events(server.ask(body, path=CHAT))]
    calls = [choice["delta"]["tool_calls"][0] for choice in choices if "tool_calls" in choice["delta"]]
    assert [call["function"]["name"] for call in calls] == ["get_weather"] + [None] * (len(calls) - 1)
    assert all((call["index"], call["id"], call["type"]) == (0, "0", "function") for call in calls)
    assert json.loads("".join(call["function"]["arguments"] for call in calls))["town"] in {"Bonn", "Ulm"}
    assert choices[-1]["finish_reason"] == "stop"


def test_a_model_that_chooses_no_tool_is_asked_again_without(server: Server) -> None:
    # The only function is the one that stands for none, so there is nothing else to choose.
    body = chat(tools=[], max_tokens=200)
    assert server.ask(body, path=CHAT).json()["choices"][0]["message"]["content"] == REST
    *_, last = [chunk["choices"][0] for chunk in events(server.ask({**body, "stream": True}, path=CHAT))]
    assert last["finish_reason"] == "stop"


def test_an_answer_in_a_given_format(server: Server) -> None:
    value = {"properties": {"n": {"enum": ["one", "two"]}}, "required": ["n"]}
    body = chat(response_format={"type": "json_object", "value": value}, max_tokens=60)
    text = server.ask(body, path=CHAT).json()["choices"][0]["message"]["content"]
    assert json.loads(text)["n"] in {"one", "two"}
    body = chat(response_format={"type": "json_schema", "value": {"name": "n", "schema": value}}, max_tokens=60)
    assert json.loads(server.ask(body, path=CHAT).json()["choices"][0]["message"]["content"])["n"] in {"one", "two"}


def test_all_letters_of_a_schema_s_regular_expression_are_the_engine_s_too(server: Server) -> None:
    """Classes, escapes and bounds as `schema_regex` writes them."""
    properties = {
        "x-[y]/z": {"const": 'é"\\-/.'},
        "s": {"type": "string", "maxLength": 3},
        "l": {"type": "array", "items": {"type": "string", "pattern": "^[a-c]{2}$"}, "minItems": 1, "maxItems": 2},
    }
    grammar = {"type": "json", "value": {"properties": properties, "required": list(properties)}}
    text = server.ask({"inputs": " one", "parameters": {"grammar": grammar}}, path="/generate").json()["generated_text"]
    found = json.loads(text)
    assert found["x-[y]/z"] == 'é"\\-/.'
    assert len(found["s"]) <= 3
    assert all(re.fullmatch("[a-c]{2}", item) for item in found["l"])


def test_a_native_request_with_a_grammar(server: Server) -> None:
    parameters = {"grammar": {"type": "regex", "value": "(yes|no) [0-9]{3}"}, "details": True}
    answer = server.ask({"inputs": " one", "parameters": parameters}, path="/generate").json()
    assert re.fullmatch("(yes|no) [0-9]{3}", answer["generated_text"]), answer
    assert answer["details"]["finish_reason"] == "eos_token"


def test_a_broken_grammar_is_422(server: Server) -> None:
    for value in ("(((", None):
        grammar = {"type": "regex", "value": value} if value else {"type": "json", "value": {"type": "string"}}
        answer = server.ask({"inputs": " one", "parameters": {"grammar": grammar}}, path="/generate")
        assert (answer.status, answer.json()["error_type"]) == (422, "validation")
        assert answer.json()["error"].startswith("Input validation error: grammar is not valid: ")
    for depth in (90, 300, 900):
        deep: Any = {}
        for _ in range(depth):
            deep = {"items": deep}
        grammar = {"type": "json", "value": {"properties": {"deep": deep}}}
        answer = server.ask(
            {"inputs": " one", "parameters": {"grammar": grammar, "max_new_tokens": 2}}, path="/generate"
        )
        assert answer.status in {200, 400, 422}, depth
    assert server.ask({"inputs": " one", "parameters": {}}, path="/generate").status == 200


@pytest.mark.parametrize(
    ("path", "body", "error", "kind"),
    [
        (CHAT, chat(tools=[WEATHER], response_format={"type": "regex", "value": "a"}),
         "Tool error: Grammar and tools are mutually exclusive", "tool_error"),
        (CHAT, chat(tools=[WEATHER], tool_choice="other"),
         "Tool error: Tool with name other not found", "tool_error"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"},
         "Suffix is not supported and can be achieved by preprocessing the prompt.", "suffix not supported"),
        (COMPLETIONS, {"prompt": ["a"] * 5},
         "Number of prompts exceeds the maximum allowed batch size of 4", "batch size exceeded"),
        (CHAT, chat(top_p=1.0), "Input validation error: `top_p` must be > 0.0 and < 1.0", "validation"),
    ],
)  # fmt: skip
def test_errors(server: Server, path: str, body: dict[str, Any], error: str, kind: str) -> None:
    answer = server.ask(body, path=path)
    assert (answer.status, answer.body.decode()) == (422, f'{{"error":"{error}","error_type":"{kind}"}}')


@pytest.mark.parametrize(("path", "body"), [(CHAT, chat(top_p=1.0)), (COMPLETIONS, {"prompt": "a", "top_p": 1.0})])
def test_in_a_stream_an_error_is_an_event_before_the_end(server: Server, path: str, body: dict[str, Any]) -> None:
    text = "Input validation error: `top_p` must be > 0.0 and < 1.0"
    assert payloads(server.ask({**body, "stream": True}, path=path)) == [
        f'{{"error":{{"message":"{text}","http_status_code":422}}}}',
        "[DONE]",
    ]


def test_invocations_take_all_three(server: Server) -> None:
    assert server.ask({"inputs": "count: one", "parameters": {"return_full_text": False}}).json() == [
        {"generated_text": REST}
    ]
    assert server.ask(chat()).json()["object"] == "chat.completion"
    assert server.ask({"prompt": " nine", "temperature": 0}).json()["choices"][0]["text"] == " ten"
    answer = server.ask({"nothing": 1})
    assert (answer.status, answer.headers["content-type"]) == (422, "text/plain; charset=utf-8")
    assert answer.body.endswith(b"data did not match any variant of untagged enum SagemakerRequest")


def test_models(server: Server, tiny_model: Path) -> None:
    model = {"id": str(tiny_model), "object": "model", "created": 0, "owned_by": str(tiny_model)}
    assert server.get("/v1/models").json() == {"object": "list", "data": [model]}


def test_a_client_that_leaves_ends_the_generation(server: Server) -> None:
    from tests.waiting import until

    exchange, chunks = server.stream(chat(role="user", stream=True, max_tokens=1500), path=CHAT)
    next(chunks)
    exchange.close()
    until(lambda: server.metric("tgi_batch_current_size") == 0, deadline_s=10, what="the engine is idle")
    assert server.metric('tgi_request_failure{err="dropped"}') >= 1


def test_the_blog_s_level_has_none_of_it(tmp_path: Path, tiny_model: Path) -> None:
    with running(tmp_path, tmp_path, HF_MODEL_ID=str(tiny_model), DTYPE="float32") as server:
        assert [server.ask(chat(), path=path).status for path in LATER] == [404] * 4
        assert server.get("/v1/models").status == 404
        answer = server.ask(chat())
        assert answer.status == 422
        assert b"missing field `inputs`" in answer.body
        grammar = {"grammar": {"type": "regex", "value": "a"}, "max_new_tokens": 1}
        ignored = server.ask({"inputs": "count: one", "parameters": grammar}, path="/generate")
        assert ignored.json() == {"generated_text": " two"}


def test_between_the_levels_a_setting_makes_invocations_chat(tmp_path: Path, tiny_model: Path) -> None:
    environ = {"MESSAGES_API_ENABLED": "true", "PENSTOCK_SERVER_VERSION": "2.0.2", "DISABLE_GRAMMAR_SUPPORT": "true"}
    with running(tmp_path, tmp_path, HF_MODEL_ID=str(tiny_model), DTYPE="float32", **environ) as server:
        assert server.ask(chat()).json()["object"] == "chat.completion"
        assert [server.ask({}, path=path).status for path in LATER] == [422, 422, 422, 404]
        answer = server.ask(chat(response_format={"type": "regex", "value": "a"}))
        assert answer.json()["error"] == "Input validation error: grammar is not supported"

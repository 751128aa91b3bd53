"""Chat requests: which keys are read, what is refused, and the exact bytes of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.engines.chattemplate import ChatTemplate
from penstock.servers.lmi import asking, chat, levels
from penstock.servers.lmi.chatformatters import Completion
from penstock.servers.lmi.formatters import Asked, Step
from penstock.servers.lmi.parameters import BadInput, TextParameters
from penstock.servers.lmi.requests import invocation
from tests.tiny_models import CHAT_TEMPLATE

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
STEPS = (Step(11, "It", -0.5), Step(9, "é", -1.0), Step(2, "</s>", -0.125, special=True, finish="eos_token"))


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def test_the_defaults_by_version() -> None:
    old, new = chat.parse(HELLO, (0, 29)), chat.parse(HELLO, (0, 36))
    assert old.parameters == TextParameters(max_new_tokens=30, max_length=chat.UNBOUNDED, do_sample=True)
    assert new.parameters.max_new_tokens == 0, "as long as the model's positions allow"
    assert chat.parse({**HELLO, "max_completion_tokens": 7}, (0, 36)).parameters.max_new_tokens == 7
    assert (old.stream, old.logprobs, old.model, old.tools) == (False, False, "", ())


def test_a_temperature_of_0_is_greedy() -> None:
    found = chat.parse({**HELLO, "temperature": 0, "stop": "x", "max_tokens": 3, "seed": 5}, (0, 29)).parameters
    assert (found.do_sample, found.temperature, found.stop_sequences) == (False, 1.0, ("x",))
    assert (found.max_new_tokens, found.seed) == (3, 5)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"messages": []}, "messages must be a list of objects, not an empty one"),
        ({"messages": "hello"}, "messages must be a list of objects"),
        ({"messages": [{"content": "x"}]}, "each of messages needs a role"),
        ({"messages": [{"role": "user"}]}, "each of messages needs a content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "must be of type text"),
        ({**HELLO, "n": 2}, "n must be 1"),
        ({**HELLO, "temperature": 3}, "temperature is out of range: 3"),
        ({**HELLO, "logit_bias": {"1": 5}}, "logit_bias is not supported"),
        ({**HELLO, "tool_choice": "required"}, "and the last two need tools"),
        ({**HELLO, "tools": [TOOL], "tool_choice": named("other")}, "names other, which is not among the tools"),
        ({**HELLO, "tools": [{}], "tool_choice": "required"}, "each of tools needs a function with a name"),
        ({**HELLO, "response_format": {"type": "xml"}}, "response_format must be of type text, json_object or"),
        (
            {**HELLO, "tools": [TOOL], "tool_choice": "required", "response_format": {"type": "json_object"}},
            "exclude each other",
        ),
        ({**HELLO, "max_tokens": 0}, "max_tokens must be a whole number of at least 1"),
        ({**HELLO, "model": "\ud800"}, "model holds half a character"),
    ],
)
def test_what_cannot_be_done_is_named(body: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        chat.parse(body, (0, 36))


def test_messages_become_the_templates_prompt() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    asked = chat.parse({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": parts}]}, (0, 29))
    assert chat.prompt(ChatTemplate(CHAT_TEMPLATE, {}), asked) == "<system>s\n<user>a\nb\n<assistant>"
    with pytest.raises(BadInput, match="the model has no chat template"):
        chat.prompt(None, asked)
    with pytest.raises(BadInput, match="the chat template refuses the messages: no system"):
        chat.prompt(ChatTemplate("{{ raise_exception('no system') }}", {}), asked)


def test_tools_reach_the_template_unless_none_is_wanted() -> None:
    template = ChatTemplate("{{ tools | tojson }}", {})
    body = {**HELLO, "tools": [{"type": "function"}]}
    assert chat.prompt(template, chat.parse(body, (0, 36))) == '[{"type": "function"}]'
    assert chat.prompt(template, chat.parse({**body, "tool_choice": "none"}, (0, 36))) == "null"


def pieces(*, stream: bool, events: bool = False, **completion: Any) -> list[bytes]:
    make = levels.chat(Completion(id="chatcmpl-1", created=5, **completion), stream=stream, events=events)
    formatter = make(Asked(prompt_tokens=4))
    return [formatter.step(step) for step in STEPS]


def test_a_whole_answer_of_028() -> None:
    *before, whole = pieces(stream=False)
    assert before == [b"", b""]
    assert whole.decode() == (
        '{"id": "chatcmpl-1", "object": "chat.completion", "created": 5, "choices": [{"index": 0, "message": '
        '{"role": "assistant", "content": "Ité"}, "logprobs": null, "finish_reason": "eos_token"}], '
        '"usage": {"prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7}}'
    )


def test_a_whole_answer_of_033_is_openais() -> None:
    found = json.loads(pieces(stream=False, model="lmi", logprobs=True)[-1])
    assert (found["model"], found["choices"][0]["finish_reason"]) == ("lmi", "stop")
    entries = found["choices"][0]["logprobs"]["content"]
    assert entries[1] == {
        "token": "é",
        "logprob": -1.0,
        "bytes": [195, 169],
        "top_logprobs": [{"token": "é", "logprob": -1.0, "bytes": [195, 169]}],
    }


def test_a_stream_is_a_chunk_a_token() -> None:
    lines = [json.loads(piece) for piece in pieces(stream=True)]
    assert [line["choices"][0]["delta"] for line in lines] == [
        {"content": "It", "role": "assistant"},
        {"content": "é"},
        {"content": ""},
    ]
    assert [line["choices"][0]["finish_reason"] for line in lines] == [None, None, "eos_token"]
    assert {line["object"] for line in lines} == {"chat.completion.chunk"}


def test_events_end_with_usage_and_done() -> None:
    last = pieces(stream=True, events=True, model="m", include_usage=True)[-1]
    chunk, usage, done, nothing = last.split(b"\n\n")
    assert json.loads(chunk.removeprefix(b"data: "))["choices"][0]["finish_reason"] == "stop"
    assert json.loads(usage.removeprefix(b"data: "))["usage"]["total_tokens"] == 7
    assert (done, nothing) == (b"data: [DONE]", b"")


def test_a_prompts_events() -> None:
    completion = Completion(id="cmpl-1", created=5, model="m", include_usage=True)
    asked = Asked(inputs="in ", prompt_tokens=4, return_full_text=True)
    formatter = levels.text_completion(completion, stream=True, events=True)(asked)
    first, _, last = [formatter.step(step) for step in STEPS]
    assert json.loads(first.removeprefix(b"data: ")) == {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "text": "in It", "logprobs": None, "finish_reason": None}],
    }
    chunk, usage, done, _ = last.split(b"\n\n")
    assert json.loads(chunk.removeprefix(b"data: "))["choices"][0]["finish_reason"] == "stop"
    assert json.loads(usage.removeprefix(b"data: "))["usage"]["completion_tokens"] == 3
    assert done == b"data: [DONE]"


def test_a_stream_that_breaks_ends_with_openais_error() -> None:
    completion = Completion(id="chatcmpl-1", created=5, model="m")
    line = levels.chat(completion, stream=True, events=False)(Asked()).failed("gone")
    event = levels.chat(completion, stream=True, events=True)(Asked()).failed("gone")
    assert json.loads(line) == {"error": {"message": "gone", "type": "InternalServerError", "code": 500}}
    assert event == b"data: " + line + b"\n"


@pytest.mark.parametrize(
    ("body", "content_type", "is_chat"),
    [
        (json.dumps(HELLO), "application/json", True),
        (json.dumps(HELLO), "text/plain", False),
        (json.dumps({"inputs": "x", **HELLO}), "application/json", False),
        ('{"inputs": "\\"messages\\""}', "application/json", False),
    ],
)
def test_what_is_a_chat(body: str, content_type: str, is_chat: bool) -> None:
    request = invocation([("content-type", content_type)], "", body.encode())
    assert (asking.openai_body(request, (0, 28)) is not None) is is_chat

"""The bodies of the OpenAI routes, and what they mean in native terms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from penstock.engines.chattemplate import ChatTemplate
from penstock.servers.tgi.chat import completions, next_call_id, turn
from penstock.servers.tgi.chat_schema import chat_request, completion_request
from penstock.servers.tgi.errors import MissingVariable, TemplateFailed
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.serde import Mismatch

LEVEL = Level.parse("3.3.7")
PLAIN = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}", {})
KNOWS_TOOLS = ChatTemplate("{{ tools | tojson }}{{ messages[0].content }}", {})
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"const": 1}}}}}
CALL = {"id": "4", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def body(*contents: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content} for content in contents], **more}


def test_the_parameters_other_names() -> None:
    given = body("hi", temperature=0.0, presence_penalty=-0.5, max_completion_tokens=7, top_logprobs=0, model="m", n=1)
    parameters = turn(chat_request(given), PLAIN, LEVEL).request.parameters
    assert (parameters.do_sample, parameters.temperature, parameters.repetition_penalty) == (False, None, 1.5)
    assert (parameters.max_new_tokens, parameters.top_n_tokens, parameters.adapter_id) == (7, 0, None)
    parameters = turn(chat_request(body("hi", temperature=0.5)), PLAIN, LEVEL).request.parameters
    assert (parameters.do_sample, parameters.temperature, parameters.max_new_tokens) == (True, 0.5, None)
    assert turn(chat_request(body("hi")), PLAIN, Level.parse("2.0.2")).request.parameters.max_new_tokens == 100


def test_the_last_message_of_an_assistant_is_gone_on_with() -> None:
    given = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}]}
    closing = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}", {})
    ready = turn(chat_request(given), closing, LEVEL)
    assert (ready.request.inputs, ready.request.special) == ("<user>a</s><assistant>b", False)


def test_messages_in_parts_and_tool_calls_are_text() -> None:
    parts = [{"type": "text", "text": "see "}, {"type": "image_url", "image_url": {"url": "u"}}]
    given = {
        "messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    }
    first, second = chat_request(given).messages
    assert (first.content, first.call_ids) == ("see ![](u)", None)
    function = {"description": None, "name": "f", "arguments": '"{\\"a\\":1}"'}
    assert json.loads(second.content) == [{"id": "4", "type": "function", "function": function}]
    assert next_call_id((first, second)) == "5"
    assert next_call_id((first,)) == "0"
    odd = chat_request({"messages": [{"role": "assistant", "tool_calls": [{**CALL, "id": "call_x"}]}]})
    assert len(next_call_id(odd.messages)) == 36


def test_tools_go_into_the_last_message_unless_the_template_has_them() -> None:
    given = chat_request(body("hi", tools=[TOOL], tool_choice="required", tool_prompt="Choose."))
    function = '{"description":null,"name":"f","arguments":"{\\"properties\\":{\\"a\\":{\\"const\\":1}}}"}'
    ready = turn(given, PLAIN, LEVEL)
    assert ready.using_tools
    assert ready.request.inputs == f'<user>hi\n---\n[{{"type":"function","function":{function}}}]\nChoose.'
    assert turn(given, KNOWS_TOOLS, LEVEL).request.inputs.endswith("hi\n---\nChoose.")
    none = turn(chat_request(body("hi", tools=[TOOL], tool_choice="none")), PLAIN, LEVEL)
    assert (none.using_tools, none.request.inputs, none.request.parameters.grammar) == (False, "<user>hi", None)


@pytest.mark.parametrize(
    ("template", "error", "text"),
    [
        (None, TemplateFailed, "Template error: template not found"),
        (ChatTemplate("{{ raise_exception('no system') }}", {}), TemplateFailed, "Template error: no system"),
        (ChatTemplate("{{ x.y }}", {}), MissingVariable, "Missing template vatiable: 'x' is undefined"),
    ],
)
def test_templates_that_fail(template: ChatTemplate | None, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        turn(chat_request(body("hi")), template, LEVEL)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "missing field `messages`"),
        (body("hi", stop="x"), 'invalid type: string "x", expected a sequence'),
        (body("hi", max_tokens=1, max_completion_tokens=1), "duplicate field `max_tokens`"),
        (body(7), "data did not match any variant of untagged enum MessageBody"),
        (body("hi", tools=[{"type": "function", "function": {"name": "f"}}]), "missing field `arguments`"),
        (body("hi", stream_options=None), "invalid type: null, expected struct StreamOptions"),
        (body("hi", response_format={"type": "text"}),
         "unknown variant `text`, expected one of `json`, `json_object`, `regex`, `json_schema`"),
    ],
)  # fmt: skip
def test_bodies_of_another_shape(given: dict[str, Any], text: str) -> None:
    with pytest.raises(Mismatch) as caught:
        chat_request(given)
    assert caught.value.text == text


def test_a_completion_is_a_native_request_a_prompt() -> None:
    given = completion_request({"prompt": ["a", "b"], "max_tokens": 3, "repetition_penalty": 1.2, "stop": ["x"]})
    first, second = completions(given, LEVEL, 4)
    assert (first.inputs, second.inputs, first.special) == ("a", "b", True)
    assert (first.parameters.max_new_tokens, first.parameters.do_sample, first.parameters.stop) == (3, True, ("x",))
    for prompt, text in (([], "Empty array detected"), ([1], "untagged enum PromptDeserializer")):
        with pytest.raises(Mismatch, match=text):
            completion_request({"prompt": prompt})

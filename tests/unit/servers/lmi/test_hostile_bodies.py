"""Bodies that nobody would send: each is taken, or refused with BadInput and nothing else."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engines.chattemplate import ChatTemplate
from penstock.servers.lmi import asking
from penstock.servers.lmi.formatters import Asked, Step
from penstock.servers.lmi.parameters import BadInput, parse
from penstock.servers.lmi.requests import invocation
from penstock.servers.lmi.settings import ModelSettings
from tests.tiny_models import CHAT_TEMPLATE

TEMPLATE = ChatTemplate(CHAT_TEMPLATE + "{{ tools | tojson }}", {})
NAMES = (
    "messages", "prompt", "inputs", "parameters", "role", "content", "type", "text", "tools", "tool_choice", "n", "stop",
    "stream", "stream_options", "include_usage", "max_tokens", "max_new_tokens", "temperature", "top_k", "top_p", "seed",
    "logprobs", "top_logprobs", "logit_bias", "response_format", "model", "echo", "details", "requestType",
    "function", "name", "json_schema", "schema", "properties", "required", "enum", "anyOf", "$ref", "$defs", "max_gen_len",
)  # fmt: skip
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["text", "function", "required", "auto", "json_schema", "json_object", "object", "string", "#/$defs/x"]
    )
)
KEYS = st.sampled_from(NAMES)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
FUNCTION = st.fixed_dictionaries({"name": st.text(max_size=3) | st.just("f"), "parameters": VALUES})
TOOLS = st.fixed_dictionaries(
    {
        "messages": st.just([{"role": "user", "content": "x"}]),
        "tools": st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTION}), max_size=2),
        "tool_choice": st.sampled_from(["auto", "required"]) | st.just({"type": "function", "function": {"name": "f"}}),
    }
)
CHATS = st.fixed_dictionaries({"messages": st.just([{"role": "user", "content": "x"}])})


def read(body: bytes, version: tuple[int, int]) -> None:
    model = ModelSettings(name="m", directory=Path(), version=version, rolling_batch="auto", tool_call_parser="hermes")
    for openai in (False, True):
        request = invocation([("content-type", "application/json")], "", body, openai=openai)
        for each in (model, replace(model, bedrock_compat=True)):
            with contextlib.suppress(BadInput):
                ask = asking.read(request, each, TEMPLATE)
                formatter = ask.formatter(Asked())
                formatter.step(Step(1, "x", -1.0, finish="length"))
                if ask.parameters.grammar is not None:
                    ask.parameters.grammar.text.encode()


@settings(deadline=None)
@given(
    base=st.just({}) | CHATS | TOOLS, more=st.dictionaries(KEYS, VALUES, max_size=6), version=st.sampled_from([29, 36])
)
def test_whatever_the_members_are(base: dict[str, Any], more: dict[str, Any], version: int) -> None:
    read(json.dumps({**more, **base}).encode(), (0, version))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"messages": ' + b"[" * 100_000,
        b'{"messages": [{"role": "user", "content": "x"}], "tools": [' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"]}",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'\xff"messages"',
        b'{"messages": [], "n": ' + b"9" * 5000 + b"}",
        b'"messages"',
        b'{"messages": [{"role": "user", "content": "x"}], "tool_choice": {"type": "function", "function": {"name": "\\ud800"}},'
        b' "tools": [{"type": "function", "function": {"name": "\\ud800"}}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", "json_schema": {"schema":'
        b' {"enum": ["\\ud800"]}}}}',
        b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", "json_schema": {"schema":'
        + b'{"items":' * 900
        + b"1"
        + b"}" * 900
        + b"}}}",
        b'{"prompt": "\\ud800"}',
    ],
)
def test_whatever_the_bytes_are(body: bytes) -> None:
    read(body, (0, 36))


@pytest.mark.parametrize("version", [(0, 27), (0, 36)])
def test_plain_text_may_say_anything(version: tuple[int, int]) -> None:
    model = ModelSettings(name="m", directory=Path(), version=version, rolling_batch="auto")
    text = 'what are "adapters", "messages" and a "prompt"?'
    request = invocation([("content-type", "text/plain")], "", text.encode())
    assert asking.read(request, model, TEMPLATE).inputs == text


def test_csv_has_its_bounds() -> None:
    form = [("content-type", "text/csv")]
    assert len(parse(invocation(form, "", b"inputs\n" + b"a\n" * 10_000)).inputs) == 10_000
    with pytest.raises(BadInput, match="10000 lines"):
        parse(invocation(form, "", b"inputs\n" + b"a\n" * 10_001))
    assert parse(invocation(form, "", b'inputs\r\n"a\r\nb"\r\n')).inputs == ("a\r\nb",)

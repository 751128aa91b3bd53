from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.servers.scripted.script import DEFAULT, Echo, Script, Send, Sse, chunk_of, flat, parse_script


def test_an_empty_script_echoes() -> None:
    assert parse_script("{}") == DEFAULT == Script(steps=(Echo(echo="body", pieces=4),))


def test_repeat_is_unrolled_in_order() -> None:
    script = parse_script(
        '{"steps":[{"repeat":2,"steps":[{"send":"a"},{"repeat":2,"steps":[{"send":"b"}]}]},{"send":"c"}]}'
    )
    assert "".join(s.send for s in flat(script.steps) if isinstance(s, Send)) == "abbabbc"


@pytest.mark.parametrize(
    ("sse", "expected"),
    [
        (Sse(sse={"a": "é"}), 'data: {"a":"é"}\n\n'),
        (Sse(sse="one\ntwo"), "data: one\ndata: two\n\n"),
        (Sse(sse="[DONE]", event="end"), "event: end\ndata: [DONE]\n\n"),
    ],
)
def test_an_event_is_one_chunk(sse: Sse, expected: str) -> None:
    assert chunk_of(sse).decode() == expected


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("{", "the script is not JSON"),
        ("[]", "the script must be a JSON object"),
        ('{"stps":[]}', "unknown field `stps`"),
        ('{"steps":{}}', "steps must be a list"),
        ('{"steps":[{"sned":"x"}]}', r"steps\[0\] must be an object with exactly one of status, send"),
        ('{"steps":[{"send":"x","wait_ms":1}]}', r"steps\[0\] must be an object with exactly one"),
        ('{"steps":[1]}', r"steps\[0\] must be an object"),
        ('{"steps":[{"send":"x"},{"send":"x","tmies":1}]}', r"steps\[1\]: .*unknown field `tmies`"),
        ('{"steps":[{"send":1}]}', r"steps\[0\]: Expected `str`, got `int`"),
        ('{"steps":[{"send":"x","times":-1}]}', r"steps\[0\]: Expected `int` >= 0"),
        ('{"steps":[{"wait_ms":-1}]}', r"steps\[0\]: Expected `float` >= 0"),
        ('{"steps":[{"base64":"*"}]}', r"steps\[0\]: Invalid base64"),
        ('{"steps":[{"status":99}]}', r"steps\[0\]: Expected `int` >= 200"),
        ('{"steps":[{"status":200,"headers":{"a":"b\\r\\nc: d"}}]}', r"steps\[0\]: a header must not hold line ends"),
        ('{"steps":[{"end":"explode"}]}', r"steps\[0\]: Invalid enum value 'explode'"),
        ('{"scripts":[]}', "scripts must be an object"),
        ('{"scripts":{"a":[{}]}}', r"scripts\.a\[0\] must be an object"),
        ('{"steps":[{"repeat":2,"steps":[{"x":1}]}]}', r"steps\[0\]\.steps\[0\] must be"),
        ('{"ping":{"status":"ok"}}', r"the script: Expected `int`, got `str` - at `\$\.ping\.status`"),
        ('{"steps":' + '[{"repeat":1,"steps":' * 20 + "[]" + "}]" * 20 + "}", "repeat lies too deep"),
    ],
)
def test_a_complaint_names_the_place(script: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as error:
        parse_script(script)
    assert "\n" not in str(error.value)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["steps", "send", "repeat", "ping", "scripts", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_script_or_a_complaint(value: Any) -> None:
    text = json.dumps(value)
    complaint: ValueError | None = None
    try:
        script = parse_script(text)
    except ValueError as error:
        complaint = error
    assert str(complaint) if complaint else isinstance(script, Script)

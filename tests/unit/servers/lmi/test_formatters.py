"""The exact bytes of every output formatter."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.servers.lmi.formatters import Asked, Events28, JsonLines28, Step, TopToken, failed28, refusal
from penstock.servers.lmi.levels import choose

STEPS = (
    Step(11, "It", -0.5),
    Step(7, ' "é\n', -0.25),
    Step(9, "😀", -1.0),
    Step(2, "<|endoftext|>", -0.125, special=True, finish="eos_token"),
)


def pieces(name: str, version: tuple[int, int], asked: Asked | None = None, stream: bool = True) -> list[bytes]:
    formatter = choose(name, version, stream)(asked or Asked())
    return [formatter.step(step) for step in STEPS]


@pytest.mark.parametrize("name", ["", "json"])
def test_json_of_023_is_fragments_of_one_object(name: str) -> None:
    assert pieces(name, (0, 23)) == [
        b'{"generated_text": "It',
        rb" \"\u00e9\n",
        rb"\ud83d\ude00",
        b'"}',
    ]


def test_jsonlines_of_023() -> None:
    assert pieces("jsonlines", (0, 23)) == [
        b'{"outputs": ["It"]}\n',
        rb'{"outputs": [" \"\u00e9\n"]}' + b"\n",
        rb'{"outputs": ["\ud83d\ude00"]}' + b"\n",
        b'{"outputs": [""]}\n',
    ]


def test_none_is_the_text() -> None:
    assert pieces("none", (0, 23)) == [b"It", ' "é\n'.encode(), "😀".encode(), b""]


def test_026() -> None:
    assert pieces("jsonlines", (0, 26))[0] == b'{"token": {"id": [11], "text": "It", "log_prob": -0.5}}\n'
    last = json.loads(pieces("jsonlines", (0, 26), Asked(details=True))[-1])
    assert last["generated_text"] == 'It "é\n😀'
    assert last["details"] == {"finish_reason": "eos_token"}
    assert b"".join(pieces("json", (0, 27))) == '{"generated_text": "It \\"é\\n😀"}'.encode()
    detailed = json.loads(b"".join(pieces("json", (0, 27), Asked(inputs="q", details=True))))
    assert detailed["details"]["generated_tokens"] == 4
    assert detailed["details"]["inputs"] == "q"


def test_028_streams_only_when_asked() -> None:
    assert pieces("", (0, 28), stream=False) == [b"", b"", b"", '{"generated_text": "It \\"é\\n😀"}'.encode()]
    lines = pieces("", (0, 28))
    assert lines[0] == b'{"token": {"id": 11, "text": "It", "log_prob": -0.5}}\n'
    assert json.loads(lines[-1]) == {
        "token": {"id": 2, "text": "<|endoftext|>", "log_prob": -0.125, "special_token": True},
        "generated_text": 'It "é\n😀',
    }


def test_028_details_full_text_and_prefill() -> None:
    asked = Asked(inputs="Say:", details=True, return_full_text=True, prefill=((5, "Say", -2.0),))
    whole = json.loads(b"".join(pieces("json", (0, 28), asked)))
    assert whole["generated_text"] == 'Say:It "é\n😀'
    assert list(whole["details"]) == ["finish_reason", "generated_tokens", "inputs", "tokens", "prefill"]
    assert whole["details"]["prefill"] == [{"id": 5, "text": "Say", "log_prob": -2.0}]
    last = json.loads(pieces("jsonlines", (0, 28), asked)[-1])
    assert list(last["details"]) == ["finish_reason", "generated_tokens", "inputs", "prefill"]


def test_028_events() -> None:
    assert pieces("sse", (0, 28))[0] == b'data: {"token": {"id": 11, "text": "It", "log_prob": -0.5}}\n\n'


def test_failures() -> None:
    assert choose("json", (0, 23), False)(Asked()).failed('a "b"') == rb'{"code": 500, "error": "a \"b\""}'
    assert choose("jsonlines", (0, 23), False)(Asked()).failed("x") == b'{"code": 500, "error": "x"}'
    assert json.loads(choose("jsonlines", (0, 28), True)(Asked()).failed("x"))["details"] == {"finish_reason": "error"}
    assert (
        failed28("x") == b'{"generated_text": null, "error": "x", "code": 400, "details": {"finish_reason": "error"}}'
    )


def test_refusals_of_rolling_batch() -> None:
    assert refusal('a "é"', (0, 27)) == rb'{"code": 424, "error": "a \"\u00e9\""}'
    assert refusal('a "é"', (0, 28)) == '{"error":"a \\"é\\"","code":424}'.encode()


@given(st.lists(st.text(), min_size=1), st.sampled_from([(0, 23), (0, 26)]))
def test_whatever_the_pieces_the_object_is_json(texts: list[str], version: tuple[int, int]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    formatter = choose("json", version, False)(Asked())
    body = b"".join(
        formatter.step(Step(1, text, -1.0, finish="length" if index == len(texts) - 1 else ""))
        for index, text in enumerate(texts)
    )
    assert json.loads(body) == {"generated_text": "".join(texts)}


def test_tgi_compat_has_tgis_names() -> None:
    def made(name: str, stream: bool) -> list[bytes]:
        formatter = choose(name, (0, 29), stream, tgi=True)(Asked(inputs="in", details=True))
        return [formatter.step(step) for step in STEPS]

    (whole,) = json.loads(made("", False)[-1])
    assert whole["generated_text"] == 'It "é\n😀'
    assert whole["details"]["tokens"][0] == {"id": 11, "text": "It", "logprob": -0.5}
    assert whole["details"]["tokens"][-1]["special"] is True
    first, *_, last = made("", True)
    assert first == b'data: {"token": {"id": 11, "text": "It", "logprob": -0.5}}\n\n'
    assert json.loads(last.removeprefix(b"data: "))["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 4,
        "inputs": "in",
    }
    assert made("jsonlines", True)[0] == b'{"token": {"id": 11, "text": "It", "logprob": -0.5}}\n'


def test_033_has_always_the_same_members() -> None:
    asked = Asked(details=True, prompt_tokens=3, seed=7, prefill=((5, "in", float("nan")),))
    first, *_, last = pieces("", (0, 33), asked)
    assert first == (
        b'{"index": 0, "token": {"id": 11, "text": "It", "logprob": -0.5}, "generated_text": null, "details": null}\n'
    )
    assert json.loads(last)["generated_text"] == 'It "é\n😀'
    assert json.loads(last)["details"] == {"finish_reason": "stop", "seed": 7, "generated_tokens": 4, "input_length": 3}
    assert pieces("sse", (0, 33))[0] == b"data: " + first + b"\n"
    whole = json.loads(pieces("", (0, 33), asked, stream=False)[-1])
    assert list(whole["details"]) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
    assert whole["details"]["prefill"] == [{"id": 5, "text": "in", "logprob": None}]
    assert pieces("", (0, 33), stream=False)[-1] == '{"generated_text": "It \\"é\\n😀"}\n'.encode()


TOLD = (
    Step(11, "It", -0.5, top=(TopToken(11, "It", -0.5), TopToken(2, "<|endoftext|>", -2.0, special=True))),
    Step(7, "!", -0.25, finish="length", top=(TopToken(8, "?", -0.125), TopToken(7, "!", -0.25))),
)


@pytest.mark.parametrize(
    ("tgi", "logprob", "special"), [(False, "log_prob", "special_token"), (True, "logprob", "special")]
)
@pytest.mark.parametrize("stream", [False, True])
def test_the_likeliest_tokens_end_the_details(stream: bool, tgi: bool, logprob: str, special: str) -> None:
    formatter = choose("jsonlines" if stream else "json", (0, 29), stream, tgi=tgi)(Asked(details=True))
    body = json.loads([formatter.step(step) for step in TOLD][-1])
    details = (body[0] if tgi and not stream else body)["details"]
    assert list(details)[-1] == "top_tokens"
    assert details["top_tokens"] == [
        [{"id": 11, "text": "It", logprob: -0.5}, {"id": 2, "text": "<|endoftext|>", logprob: -2.0, special: True}],
        [{"id": 8, "text": "?", logprob: -0.125}, {"id": 7, "text": "!", logprob: -0.25}],
    ]


def test_without_any_there_is_no_such_member() -> None:
    formatter = choose("json", (0, 29), False)(Asked(details=True))
    assert "top_tokens" not in json.loads([formatter.step(step) for step in STEPS][-1])["details"]


@given(st.text(st.characters(codec=None)), st.floats(), st.booleans())
def test_a_line_of_028_is_what_the_encoder_writes(text: str, logprob: float, special: bool) -> None:
    """Most lines are put together by hand."""
    step, asked = Step(7, text, logprob, special), Asked(inputs="Q", details=True)
    for make in (JsonLines28, Events28):
        formatter, twin = make(asked), make(asked)
        assert formatter.step(step) == super(JsonLines28, twin).step(step)
        last = Step(8, ".", -0.5, finish="length")
        assert formatter.step(last) == super(JsonLines28, twin).step(last)

"""Tokens: every format, told from its bytes, at any slicing, whole or broken."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client import StreamError, Token, aiter_tokens, iter_tokens
from penstock.client.source import Part
from tests.unit.client import formats
from tests.unit.client.slicing import Broken, Wrap, as_event, async_parts, broken, cuts, until_error, wraps

pieces = st.lists(
    st.sampled_from(["a", " b", "é", "🙂", "\n", '"', "\\", "{", "}", "\t", "data:", "�", "\\ud83d", "[DONE]"])
)
writers = st.sampled_from(formats.WRITERS)


def text_of(tokens: list[Token]) -> str:
    return "".join(token.text for token in tokens)


@given(st.data(), pieces, writers, wraps, st.booleans())
def test_any_slicing_of_any_format_gives_the_text(
    data: st.DataObject, words: list[str], writer: formats.Writer, wrap: Wrap, bom: bool
) -> None:
    parts = [wrap(part) for part in data.draw(cuts(b"\xef\xbb\xbf" * bom + writer(words)))]
    assert text_of(list(iter_tokens(parts))) == "".join(words)


@given(st.data(), pieces, writers)
async def test_the_async_reader_is_the_same(data: st.DataObject, words: list[str], writer: formats.Writer) -> None:
    parts = data.draw(cuts(writer(words)))
    assert text_of([token async for token in aiter_tokens(async_parts(parts))]) == "".join(words)


@given(st.data(), pieces, st.sampled_from(formats.ONE_BY_ONE))
def test_formats_that_show_tokens_give_them_one_by_one(
    data: st.DataObject, words: list[str], writer: formats.Writer
) -> None:
    tokens = list(iter_tokens(data.draw(cuts(writer(words)))))
    assert [token.text for token in tokens] == words
    if writer is not formats.lmi_jsonlines:
        assert [token.id for token in tokens] == list(range(len(words)))


@given(st.data(), pieces, writers)
def test_a_break_leaves_exactly_a_prefix_the_same_at_any_slicing(
    data: st.DataObject, words: list[str], writer: formats.Writer
) -> None:
    content = writer(words)
    kept = content[: data.draw(st.integers(0, len(content)))]
    parts = [as_event(part) for part in data.draw(cuts(kept))]
    tokens, error = until_error(iter_tokens(broken(parts, Broken("gone"))))
    assert isinstance(error, StreamError)
    assert (error.code, error.origin) == ("Broken", "connection")
    assert error.text == text_of(tokens)
    assert "".join(words).startswith(error.text)
    uncut, _ = until_error(iter_tokens(broken([kept], Broken("gone"))))
    assert text_of(uncut) == error.text


@given(st.data(), pieces, st.sampled_from([formats.tgi, formats.tgi_3, formats.lmi_json, formats.openai_chat]))
def test_a_clean_end_too_early_is_no_success(data: st.DataObject, words: list[str], writer: formats.Writer) -> None:
    """Formats that mark their end: text is only missing together with an error."""
    content = writer(words)
    kept = content[: data.draw(st.integers(min(6, len(content)), len(content)))]  # of "dat" nobody can say what it is
    tokens, error = until_error(iter_tokens(data.draw(cuts(kept))))
    assert "".join(words).startswith(text_of(tokens))
    if error is None:
        assert text_of(tokens) in ("".join(words), "")  # nothing at all may be an answer of no tokens
    else:
        assert isinstance(error, StreamError)
        assert error.text == text_of(tokens)


class EventStreamError(Exception):
    """Looks like botocore's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"An error occurred ({code}): {message}")
        self.response = {"Error": {"Code": code, "Message": message}}


@pytest.mark.parametrize("writer", formats.ONE_BY_ONE)
async def test_an_exception_frame_carries_awss_code_and_the_text_so_far(writer: formats.Writer) -> None:
    content = writer(["Hello", " wor", "ld", "!"])
    cut = content.index(b"ld")
    error = EventStreamError("ModelStreamError", "did not complete in time")
    tokens, raised = until_error(iter_tokens(broken([as_event(content[:cut])], error)))
    assert isinstance(raised, StreamError)
    assert (raised.code, raised.message, raised.origin) == ("ModelStreamError", "did not complete in time", "aws")
    assert raised.text == text_of(tokens) == "Hello wor"
    assert raised.__cause__ is error
    with pytest.raises(StreamError) as caught:
        _ = [token async for token in aiter_tokens(async_parts([as_event(content[:cut])], error))]
    assert (caught.value.text, caught.value.code) == ("Hello wor", "ModelStreamError")


HELLO = b'{"outputs": ["Hello"]}\n'
TGI_HELLO = (
    b'data:{"token":{"id":1,"text":"Hello","logprob":0,"special":false},"generated_text":null,"details":null}\n\n'
)


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (TGI_HELLO + b'data:{"error":"Request failed","error_type":"generation"}\n\n', "generation", "Request failed"),
        (HELLO + b'{"code": 500, "error": "CUDA out of memory"}', "500", "CUDA out of memory"),
        (HELLO + b"CUDA out of memory", "InvalidJson", "CUDA out of memory"),
        (b'{"generated_text": "Hello{"code": 500, "error": "OOM"}', "500", "OOM"),
        (b'{"generated_text": "Hello" oops', "InvalidJson", "behind the generated text comes 'o'"),
        (b'{"generated_text": "Hello\\q 123456789"', "InvalidJson", "not an escape of a JSON string: \\q 123456789"),
        (b'{"generated_text": "Hello\\uzzzzzzzzzzzz', "InvalidJson", "not an escape of a JSON string: \\uzzzzzzzzzz"),
        (
            b'{"token": {"id": 1, "text": "Hello"}}\n{"token": {"id": 2, "text": "", "error_msg": "died"}}',
            "ModelError",
            "died",
        ),
        (
            b'{"token": {"id": 1, "text": "Hello"}}\n{"token": {"id": 2, "text": ""}, "details": {"finish_reason": "error"}}',
            "ModelError",
            "the model server ended the answer with finish_reason error",
        ),
        (
            b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\ndata: {"error":{"message":"no","type":"bad"}}\n\n',
            "bad",
            "no",
        ),
        (
            b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\nevent: error\ndata: it died\n\n',
            "ModelError",
            "it died",
        ),
        (TGI_HELLO, "Truncated", "the stream ended before the model server marked the end of the answer"),
        (b'{"generated_text": "Hello', "Truncated", "the stream ended inside the generated text"),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_errors_inside_the_body(content: bytes, code: str, message: str, size: int) -> None:
    tokens, error = until_error(iter_tokens([content[i : i + size] for i in range(0, len(content), size)]))
    assert isinstance(error, StreamError)
    assert (error.code, error.message) == (code, message)
    assert error.text == text_of(tokens) == "Hello"


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b'{\n  "code": 424,\n  "type": "TranslateException",\n  "message": "bad"\n}', "TranslateException", "bad"),
        (b'{"generated_text": null, "error": "too long", "code": 400}', "400", "too long"),
        (b'{"object": "error", "message": "no model", "type": "NotFoundError"}', "NotFoundError", "no model"),
        (b'{"predictions": [1]}', "UnknownFormat", "not a model server's answer: {'predictions': [1]}"),
        (b"[1]", "UnknownFormat", "not a model server's answer: '1'"),
        (b'{"gen', "Truncated", "the stream ended inside a JSON value"),
    ],
)
def test_answers_that_are_errors_as_a_whole(content: bytes, code: str, message: str) -> None:
    with pytest.raises(StreamError) as caught:
        list(iter_tokens([content]))
    assert (caught.value.code, caught.value.message, caught.value.text) == (code, message, "")


@given(st.data(), st.text(st.sampled_from("dat e{[:\n\r é🙂"), min_size=1, max_size=12))
def test_plain_text_is_plain_text(data: st.DataObject, end: str) -> None:
    text = f"It is {end}"
    assert text_of(list(iter_tokens(data.draw(cuts(text.encode()))))) == text


def test_several_answers_of_one_request() -> None:
    tokens = list(iter_tokens([b'{"outputs": ["a", "x"]}\n', b'{"outputs": ["b", "y"]}\n']))
    assert [(token.sequence, token.text) for token in tokens] == [(0, "a"), (1, "x"), (0, "b"), (1, "y")]
    assert [(t.sequence, t.text) for t in iter_tokens(b'[{"generated_text": "a"}, {"generated_text": "x"}]')] == [
        (0, "a"),
        (1, "x"),
    ]
    with pytest.raises(StreamError) as caught:
        list(iter_tokens([b'{"outputs": ["a", "x"]}\n', {"ModelStreamError": {"Message": "m"}}]))
    assert caught.value.text == "a"


def test_special_tokens_are_counted_and_are_no_text() -> None:
    last = b'data:{"token":{"id":2,"text":"</s>","special":true},"generated_text":"Hello","details":{"finish_reason":"eos_token"}}'
    tokens = list(iter_tokens([TGI_HELLO, last]))
    assert tokens[1] == Token("", 2, special=True, finish_reason="eos_token")
    assert text_of(tokens) == "Hello"


def test_half_a_surrogate_pair_becomes_printable() -> None:
    assert text_of(list(iter_tokens(b'{"generated_text": "a\\ud83d b\\ude00"}'))) == "a\ufffd b\ufffd"


def test_nothing_at_all() -> None:
    assert list(iter_tokens([])) == []
    assert list(iter_tokens([b"", {"PayloadPart": {"Bytes": b""}}])) == []


def test_text_so_far_is_bounded() -> None:
    def parts() -> list[Part]:
        return [b'{"outputs": ["0123456789"]}\n'] * 100

    with pytest.raises(StreamError) as caught:
        list(iter_tokens(broken(parts(), Broken("gone")), keep=25))
    assert caught.value.text == "5678901234567890123456789"


@pytest.mark.parametrize("writer", [formats.lmi_json, formats.tgi, formats.lmi_jsonlines])
def test_time_is_linear(writer: formats.Writer) -> None:
    def cost(count: int) -> float:
        content = writer(["é\n{"] * count)
        parts = [content[i : i + 5] for i in range(0, len(content), 5)]
        started = time.process_time()
        assert len(text_of(list(iter_tokens(parts)))) == 3 * count
        return time.process_time() - started

    cost(500)
    small = min(cost(500) for _ in range(3))
    assert cost(4000) < 24 * small

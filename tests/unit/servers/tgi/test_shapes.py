from __future__ import annotations

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.servers.generation import PromptToken, TextFinish, TextToken, TopToken
from penstock.servers.tgi.chat_shapes import Stamp, chat_chunk, chat_completion
from penstock.servers.tgi.errors import ValidationError
from penstock.servers.tgi.level import Level
from penstock.servers.tgi.shapes import (
    GeneratedSequence,
    error_json,
    event,
    generation_json,
    keep_alive,
    number,
    stream_event,
)

T1, T3 = Level.parse("1.0.3"), Level.parse("3.3.7")
TOKEN = TextToken(13, "\n", -0.5078125, False)
LAST = TextToken(
    2, "</s>", struct.unpack("f", struct.pack("f", -0.1))[0], True, TextFinish("eos_token", "\nhé", 2, 7, None)
)


def test_the_events_of_the_original_byte_for_byte() -> None:
    first = (
        b'"token":{"id":13,"text":"\\n","logprob":-0.5078125,"special":false},"generated_text":null,"details":null}\n\n'
    )
    assert stream_event(TOKEN, 1, prompt="", details=True, level=T1) == b"data:{" + first
    assert stream_event(TOKEN, 1, prompt="", details=True, level=T3) == b'data: {"index":1,' + first
    last = '"token":{"id":2,"text":"</s>","logprob":-0.1,"special":true},"generated_text":"Q: \\nhé",'
    assert stream_event(LAST, 2, prompt="Q: ", details=False, level=T1) == f'data:{{{last}"details":null}}\n\n'.encode()
    details = '"details":{"finish_reason":"eos_token","generated_tokens":2,"seed":null'
    assert stream_event(LAST, 2, prompt="Q: ", details=True, level=T1) == f"data:{{{last}{details}}}}}\n\n".encode()
    with_length = f'data: {{"index":2,{last}{details},"input_length":7}}}}\n\n'.encode()
    assert stream_event(LAST, 2, prompt="Q: ", details=True, level=T3) == with_length


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.0.3", b'data:{"token"'), ("1.4.0", b'data:{"index":1,"token"'), ("2.2.0", b'data: {"index":1,"token"')],
)
def test_flips_of_the_event_between_versions(version: str, expected: bytes) -> None:
    assert stream_event(TOKEN, 1, prompt="", details=False, level=Level.parse(version)).startswith(expected)


def test_errors_and_keep_alives() -> None:
    error = ValidationError("`inputs` cannot be empty")
    payload = '{"error":"Input validation error: `inputs` cannot be empty","error_type":"validation"}'
    assert error_json(error) == payload
    assert event(payload, T1) == f"data:{payload}\n\n".encode()
    assert (keep_alive(T1), keep_alive(T3)) == (b":\n\n", b": \n\n")


def test_a_whole_answer() -> None:
    prefill = (PromptToken(5, "a", math.nan), PromptToken(6, '"', -1.5))
    best = GeneratedSequence(prefill, (TOKEN, LAST), TextFinish("stop_sequence", "\n", 2, 2, 2**64 - 1))
    other = GeneratedSequence((), (TOKEN,), TextFinish("length", "x", 1, 2, 3))
    assert generation_json(best, [], prompt="", details=False) == '{"generated_text":"\\n"}'
    tokens = (
        '"tokens":[{"id":13,"text":"\\n","logprob":-0.5078125,"special":false},'
        '{"id":2,"text":"</s>","logprob":-0.1,"special":true}]'
    )
    prefills = '"prefill":[{"id":5,"text":"a","logprob":null},{"id":6,"text":"\\"","logprob":-1.5}]'
    details = f'"details":{{"finish_reason":"stop_sequence","generated_tokens":2,"seed":18446744073709551615,{prefills},{tokens}'
    assert generation_json(best, [], prompt="p", details=True) == f'{{"generated_text":"p\\n",{details}}}}}'
    others = (
        ',"best_of_sequences":[{"generated_text":"x","finish_reason":"length","generated_tokens":1,"seed":3,'
        '"prefill":[],"tokens":[{"id":13,"text":"\\n","logprob":-0.5078125,"special":false}]}]'
    )
    assert generation_json(best, [other], prompt="", details=True) == f'{{"generated_text":"\\n",{details}{others}}}}}'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-100.0, "-100.0"),
        (-0.5078125, "-0.5078125"),
        (0.1, "0.1"),
        (-1.1920928955078125e-07, "-1.1920929e-7"),
        (1e-5, "0.00001"),
        (1.5e-6, "0.0000015"),
        (1.5e-7, "1.5e-7"),
        (2e-7, "2e-7"),
        (16777216.0, "16777216.0"),
        (1e12, "1000000000000.0"),
        (1e20, "1e20"),
        (math.nan, "null"),
        (-math.inf, "null"),
    ],
)
def test_numbers_as_the_original_writes_them(value: float, expected: str) -> None:
    assert number(value) == expected


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_single_precision_number_comes_back(value: float) -> None:
    written = number(value)
    assert struct.pack("f", json.loads(written)) == struct.pack("f", value)
    # Nothing shorter does: one digit less no longer gives the same number.
    digits = len(written.partition("e")[0].replace("-", "").replace(".", "").strip("0"))
    if 1 < digits <= 9:
        assert struct.pack("f", float(f"{value:.{digits - 2}e}")) != struct.pack("f", value)


TOP = (TopToken(13, "\n", -0.5078125, False), TopToken(2, "</s>", -1.5, True))
TOP_JSON = (
    '[{"id":13,"text":"\\n","logprob":-0.5078125,"special":false},{"id":2,"text":"</s>","logprob":-1.5,"special":true}]'
)


def test_the_likeliest_tokens_follow_the_token_of_an_event() -> None:
    told = replace(TOKEN, top=TOP)
    rest = (
        f'"token":{{"id":13,"text":"\\n","logprob":-0.5078125,"special":false}},"top_tokens":{TOP_JSON},'
        '"generated_text":null,"details":null}\n\n'
    )
    assert stream_event(told, 1, prompt="", details=True, level=T1) == f"data:{{{rest}".encode()
    assert stream_event(told, 1, prompt="", details=True, level=T3) == f'data: {{"index":1,{rest}'.encode()
    last = stream_event(replace(LAST, top=TOP), 2, prompt="", details=False, level=T1).decode()
    assert (
        f'"special":true}},"top_tokens":{TOP_JSON},"generated_text":"\nhé","details":null}}'.replace("\n", "\\n")
        in last
    )


def test_the_likeliest_tokens_end_the_details_of_a_whole_answer() -> None:
    told = replace(TOKEN, top=TOP)
    best = GeneratedSequence((), (told, LAST), TextFinish("length", "x", 2, 2, None))
    other = GeneratedSequence((), (told,), TextFinish("length", "y", 1, 2, 3))
    body = generation_json(best, [other], prompt="", details=True)
    assert body.endswith(f']}}],"top_tokens":[{TOP_JSON},[]]}}}}'), (
        "after best_of_sequences, with a list for each token"
    )
    details = json.loads(body)["details"]
    assert list(details)[-3:] == ["tokens", "best_of_sequences", "top_tokens"]
    assert list(details["best_of_sequences"][0])[-2:] == ["tokens", "top_tokens"]
    assert details["best_of_sequences"][0]["top_tokens"] == [json.loads(TOP_JSON)]


def test_top_logprobs_of_a_chat() -> None:
    stamp = Stamp(1, "m", "f")
    told = replace(TOKEN, top=TOP)
    chunk = chat_chunk(stamp, told, "\n", call_id="0", logprobs=True)
    expected = (
        '"logprobs":{"content":[{"token":"\\n","logprob":-0.5078125,"top_logprobs":'
        '[{"token":"\\n","logprob":-0.5078125},{"token":"</s>","logprob":-1.5}]}]}'
    )
    assert expected in chunk
    assert expected in chat_completion(stamp, "\n", [told], TextFinish("length", "x", 1, 2, None), logprobs=True)
    assert '"logprobs":null' in chat_chunk(stamp, told, "\n", call_id="0", logprobs=False)

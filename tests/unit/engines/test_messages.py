from __future__ import annotations

import math
import random

import msgspec
import pytest

from penstock.engines.base import (
    AdapterChanged,
    AddAdapter,
    Cancel,
    EngineInfo,
    Finish,
    PromptLogprobs,
    RemoveAdapter,
    Sampling,
    Submit,
    Token,
)
from penstock.engines.messages import MAX_FRAME, BrokenFrame, Failed, Frames, Message, decode, encode

ALL: list[Message] = [
    Submit(1, (0, 5, 70_000), Sampling(max_new_tokens=9, do_sample=True, temperature=0.3, seed=2**64 - 1)),
    Cancel(2**40),
    Token(3, 7, -0.25),
    PromptLogprobs(3, (-1.0, -2.5)),
    Finish(3, "error", "wörds"),
    EngineInfo("openvino", "cpu", "torch.float32", 2048, (0, 2), 64),
    EngineInfo("vllm", "cuda", "torch.bfloat16", 2048, (2,), 64, ("grammar",), ("sql", "org/chat")),
    Failed("no such file"),
    AddAdapter(4, "sql", "/opt/sql", preload=False, pin=True),
    RemoveAdapter(5, "sql"),
    AdapterChanged(5, "there is none"),
]


def test_every_message_survives_the_wire_however_it_is_sliced(rng: random.Random) -> None:
    stream = encode(ALL[:3]) + encode([]) + encode(ALL[3:])
    for _ in range(50):
        frames, received, at = Frames(), list[Message](), 0
        while at < len(stream):
            end = at + rng.randint(1, 40)
            received += frames.feed(stream[at:end])
            at = end
        assert received == ALL


def test_nan_survives() -> None:
    (message,) = decode(encode([Token(1, 2, math.nan)])[4:])
    assert isinstance(message, Token)
    assert math.isnan(message.logprob)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"a": 1}),
        msgspec.msgpack.encode([[99, {}]]),
        msgspec.msgpack.encode([[2, {"id": "x"}]]),
    ],
)
def test_anything_else_is_a_broken_frame(body: bytes) -> None:
    with pytest.raises(BrokenFrame):
        decode(body)


def test_an_absurd_length_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(BrokenFrame, match="bytes"):
        Frames().feed((MAX_FRAME + 1).to_bytes(4, "big"))

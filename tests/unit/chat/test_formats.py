"""Which body goes to which model server."""

from __future__ import annotations

import json

import pytest

from penstock.chat.formats import FORMATS, Format, Turn, format_of, request_body
from tests.unit.chat.fake_sagemaker import LMI_IMAGE, TGI_IMAGE

TURNS: list[Turn] = [("user", "hello"), ("assistant", "good day"), ("user", "what is life?")]


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (LMI_IMAGE, "LMI"),
        ("763104351884.dkr.ecr.us-west-2.amazonaws.com/djl-inference:0.36.0-lmi27.0.0-cu130", "LMI"),
        (TGI_IMAGE, "TGI"),
        ("763104351884.dkr.ecr.us-west-2.amazonaws.com/vllm:0.20.2-gpu-py312-cu130-ubuntu22.04-sagemaker", "OpenAI"),
        ("penstock/lmi:0.23.0", "LMI"),
        ("penstock/tgi:1.0.3", "TGI"),
        ("vllm.example.com/mine:1", "TGI"),
        (None, "TGI"),
    ],
)
def test_the_format_is_told_from_the_images_repository(image: str | None, name: Format) -> None:
    assert format_of(image) == name


def test_what_each_server_gets() -> None:
    bodies = {name: json.loads(request_body(name, TURNS, tokens=50, temperature=0.7)) for name in FORMATS}
    sampling = {"max_new_tokens": 50, "temperature": 0.7, "do_sample": True}
    assert bodies == {
        "LMI": {"inputs": "what is life?", "parameters": sampling, "stream": True},
        "TGI": {"inputs": "what is life?", "parameters": sampling | {"return_full_text": False}, "stream": True},
        "OpenAI": {
            "model": "",
            "messages": [{"role": role, "content": text} for role, text in TURNS],
            "max_tokens": 50,
            "temperature": 0.7,
            "stream": True,
        },
    }

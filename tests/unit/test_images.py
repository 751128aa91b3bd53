from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.images import Image, resolve, split

ECR = "763104351884.dkr.ecr.us-west-2.amazonaws.com"


@pytest.mark.parametrize(
    ("uri", "server", "version"),
    [
        (f"{ECR}/djl-inference:0.23.0-deepspeed0.9.5-cu118", "lmi", "0.23.0"),
        (f"{ECR}/djl-inference:0.36.0-lmi27.0.0-cu129", "lmi", "0.36.0"),
        (f"{ECR}/huggingface-pytorch-tgi-inference:2.0.1-tgi1.0.3-gpu-py39-cu118-ubuntu20.04", "tgi", "1.0.3"),
        (
            f"{ECR}/huggingface-pytorch-tgi-inference:2.0.0-tgi0.8.2-gpu-py39-cu118-ubuntu20.04@sha256:ab",
            "tgi",
            "0.8.2",
        ),
        (f"{ECR}/huggingface-pytorch-tgi-inference:1.13.1-optimum0.0.17-neuronx-py310-ubuntu22.04", "container", ""),
        ("penstock/lmi", "lmi", "0.23.0"),
        ("penstock/lmi:latest", "lmi", "0.23.0"),
        ("penstock/lmi:0.27.0", "lmi", "0.27.0"),
        ("penstock/tgi:1.1.0", "tgi", "1.1.0"),
        ("localhost:5000/penstock/tgi", "tgi", "1.0.3"),
        ("localhost:5000/penstock/tgi@sha256:0123", "tgi", "1.0.3"),
        ("penstock/scripted", "scripted", ""),
        ("penstock/replay", "replay", ""),
        (f"{ECR}/djl-inference", "container", ""),
        (f"{ECR}/djl-inference@sha256:0123", "container", ""),
        (f"{ECR}/my-djl-inference:0.23.0", "container", ""),
        ("evilpenstock/lmi", "container", ""),
        ("", "container", ""),
    ],
)
def test_an_image_is_what_its_name_says(uri: str, server: str, version: str) -> None:
    image = resolve(uri)
    assert (image.uri, image.server, image.version) == (uri, server, version)


@given(st.text(alphabet="ab:/@.-", max_size=30))
def test_any_text_is_an_image(uri: str) -> None:
    path, tag = split(uri)
    assert "/" not in tag
    assert "@" not in path + tag
    assert isinstance(resolve(uri), Image)

"""What a handler that lacks something of AWS's images or machines is advised."""

from __future__ import annotations

import pytest

from penstock.servers.lmi.missing import advice


@pytest.mark.parametrize(
    ("said", "advised"),
    [
        ("ModuleNotFoundError: No module named 'torch'", "AWS's image brings it; name it in a requirements.txt"),
        ("ModuleNotFoundError: No module named 'transformers.models'", "docs/engines.md#transformers"),
        ("ModuleNotFoundError: No module named 'deepspeed'", "it needs an NVIDIA GPU: on a machine with one, name it"),
        ("failed with 424: No module named 'torch_neuronx'", "it drives AWS's own chips, which are not here"),
        (
            "ModuleNotFoundError: No module named 'tensorrt_llm'",
            "it comes with AWS's image alone: if option.model_id",
        ),
        ("ModuleNotFoundError: No module named 'vllm'", "docs/engines.md#vllm"),
        ("ModuleNotFoundError: No module named 'FlagEmbedding'", "FlagEmbedding: name it in a requirements.txt beside"),
        ("failed with 424: Using a `device_map` requires `accelerate`.", "accelerate: AWS's image brings it"),
        ("OSError: Can't load '/opt/ml/model/weights'", "inputs.get_property('model_dir') is where the model lies"),
        ("AssertionError: Torch not compiled with CUDA enabled", "no GPU here that torch can use"),
        ("RuntimeError: Found no NVIDIA driver on your system.", "the server generates the text itself"),
    ],
)
def test_it_says_what_to_do(said: str, advised: str) -> None:
    found = advice(said)
    assert found.startswith(said)
    assert advised in found
    assert "\n" not in found


@pytest.mark.parametrize(
    "said", ["KeyError: 'inputs'", "No module named 'djl_python.rolling_batch'", "No module named"]
)
def test_what_nothing_is_known_about_stays_as_it_is(said: str) -> None:
    assert advice(said) == said

"""What a handler lacks here that AWS's images and machines have, and what to do about it.

Owns the advice, by what the handler's own error says. It must never change the error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_MODULE = re.compile(r"No module named '?([A-Za-z_]\w*)|requires `(accelerate|peft|bitsandbytes)`")
_NO_GPU = (
    "not compiled with CUDA", "no NVIDIA driver", "No CUDA GPUs", "no CUDA-capable device", "CUDA driver", "CUDA is not available",
    "cuda is not available",
)  # fmt: skip
_WITHOUT = (
    "if option.model_id is all that the script loads, leave model.py out, and the server generates the text itself"
)
_LISTED = "name it in a requirements.txt beside model.py"
_BROUGHT = (
    f"AWS's image brings it; {_LISTED}, or install it into the environment of the transformers engine, where handlers look "
    "(docs/engines.md#transformers)"
)
_ON_GPUS = f"it needs an NVIDIA GPU: on a machine with one, {_LISTED}; else, {_WITHOUT}"
_AWS_CHIPS = f"it drives AWS's own chips, which are not here: {_WITHOUT}"
_AWS_IMAGE = f"it comes with AWS's image alone: {_WITHOUT}"
_CPU = (
    "there is no GPU here that torch can use: let the script ask torch.cuda.is_available() which device to take; or, "
    f"{_WITHOUT}"
)
_PATH = "that path is one of a container: inputs.get_property('model_dir') is where the model lies"
_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(
        ("torch", "torchvision", "transformers", "accelerate", "peft", "diffusers", "tokenizers", "safetensors", "sentencepiece",
         "sentence_transformers", "huggingface_hub", "einops", "scipy"),
        _BROUGHT,
    ),
    **dict.fromkeys(("deepspeed", "bitsandbytes", "auto_gptq", "awq", "flash_attn", "triton", "lmdeploy"), _ON_GPUS),
    **dict.fromkeys(
        ("torch_neuronx", "torch_neuron", "neuronxcc", "transformers_neuronx", "neuronx_distributed", "torch_xla"), _AWS_CHIPS
    ),
    **dict.fromkeys(("fastertransformer", "tensorrt_llm", "tensorrt_llm_toolkit", "lmi_dist", "aitemplate"), _AWS_IMAGE),
    "vllm": f"make an environment of the vllm engine (docs/engines.md#vllm), where such handlers look; or, {_WITHOUT}",
    "sagemaker_inference": f"{_LISTED}, as sagemaker-inference",
}  # fmt: skip


def advice(reason: str) -> str:
    """`reason` with what can be done about it, still one line; as it is where nothing is known."""
    if any(words in reason for words in _NO_GPU):
        return f"{reason} ({_CPU})"
    if found := _MODULE.search(reason):
        name = found[1] or found[2]
        return reason if name in ("djl_python", "penstock") else f"{reason} ({name}: {_ADVICE.get(name, _LISTED)})"
    return f"{reason} ({_PATH})" if "/opt/ml/model" in reason else reason

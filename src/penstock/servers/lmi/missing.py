"""What a handler lacks here that AWS's images and machines have, and what to do about it.

Owns the advice, by what the handler's own error says. It must never change the error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_MODULE = re.compile(r"No module named '?([A-Za-z_]\w*)")
_NO_GPU = (
    "not compiled with CUDA", "no NVIDIA driver", "No CUDA GPUs", "no CUDA-capable device", "CUDA driver", "CUDA is not available",
    "cuda is not available",
)  # fmt: skip
_WITHOUT = (
    "where option.model_id is all that the script loads, leave model.py out: the server generates the text by itself"
)
_LISTED = "name it in a requirements.txt beside model.py"
_LIBRARIES = (
    f"AWS's image brings it: {_LISTED}, or make an environment of the transformers engine, in which handlers look "
    "(docs/engines.md#transformers)"
)
_ON_GPUS = f"it needs an NVIDIA GPU: on a machine with one, {_LISTED}; else, {_WITHOUT}"
_AWS_CHIPS = f"it drives AWS's own chips, which are not here: {_WITHOUT}"
_AWS_IMAGE = f"it comes with AWS's image alone: {_WITHOUT}"
_CPU = (
    "there is no GPU here that torch can use: let the script ask torch.cuda.is_available() which device to take, or, "
    f"{_WITHOUT}"
)
_ADVICE: Mapping[str, str] = {
    **dict.fromkeys(("torch", "transformers", "tokenizers", "safetensors", "huggingface_hub"), _LIBRARIES),
    **dict.fromkeys(("deepspeed", "bitsandbytes", "auto_gptq", "awq", "flash_attn", "triton", "lmdeploy"), _ON_GPUS),
    **dict.fromkeys(
        ("torch_neuronx", "torch_neuron", "neuronxcc", "transformers_neuronx", "neuronx_distributed", "torch_xla"),
        _AWS_CHIPS,
    ),
    **dict.fromkeys(
        ("fastertransformer", "tensorrt_llm", "tensorrt_llm_toolkit", "lmi_dist", "aitemplate", "lade"), _AWS_IMAGE
    ),
    "vllm": f"make an environment of the vllm engine (docs/engines.md#vllm), in which such handlers look; or {_WITHOUT}",
    "sagemaker_inference": f"AWS's image brings it: {_LISTED} (sagemaker-inference)",
}


def advice(reason: str) -> str:
    """`reason` with what can be done about it, still one line; as it is where nothing is known."""
    if any(words in reason for words in _NO_GPU):
        return f"{reason} ({_CPU})"
    found = _MODULE.search(reason)
    if found is None or found[1] in ("djl_python", "penstock"):
        return reason
    return f"{reason} ({found[1]}: {_ADVICE.get(found[1], _LISTED)})"

"""The Llama of the engine's benchmark as a GGUF file in bfloat16, for llama.cpp.

Owns the file's form (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), llama.cpp's names of the weights, and the one
rearrangement that its rotary embedding needs. Only what this model has is written.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.bench import engine_models as models
from penstock.bench.engine_models import Shape

_F32, _BF16 = 0, 30
_TYPES = {int: (4, "<I"), float: (6, "<f"), bool: (7, "<?")}
_STRING, _ARRAY, _INT32 = 8, 9, 5
_ALIGNMENT = 32
_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write(shape: Shape, path: Path) -> Path:
    """The file, made if it is not there."""
    if path.exists():
        return path
    fields = b"".join(_field(name, value) for name, value in metadata(shape).items())
    tensors, offset = b"", 0
    for source, size in shape.weights:
        tensors += _string(name(source)) + struct.pack(f"<I{len(size)}Q", len(size), *reversed(size))
        tensors += struct.pack("<IQ", _F32 if len(size) == 1 else _BF16, offset)
        offset += _padded(int(np.prod(size)) * (4 if len(size) == 1 else 2))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shape.weights), len(metadata(shape))) + fields + tensors
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(head.ljust(_padded(len(head)), b"\0"))
        for source, data in models.values(shape):
            raw = _data(source, data)
            file.write(raw.ljust(_padded(len(raw)), b"\0"))
    part.rename(path)
    return path


def name(source: str) -> str:
    """llama.cpp's name of a weight."""
    stem = source.removesuffix(".weight")
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{match[1]}.{_NAMES[match[2]]}.weight"
    return f"{_OUTER[stem]}.weight"


def rotary(weight: NDArray[np.uint16], heads: int) -> NDArray[np.uint16]:
    """Rows of a query or key projection so that the two halves that are turned together lie side by side, as llama.cpp turns them."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def metadata(shape: Shape) -> dict[str, Any]:
    config = shape.config
    tokens, merges = models.vocabulary()
    return {
        "general.architecture": "llama",
        "general.name": "bench",
        "general.file_type": 32,  # mostly bfloat16
        "llama.block_count": config["num_hidden_layers"],
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "llama.attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "llama.rope.dimension_count": config["head_dim"],
        "llama.rope.freq_base": config["rope_theta"],
        "llama.vocab_size": config["vocab_size"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
    }


def _data(source: str, data: NDArray[np.uint16]) -> bytes:
    if data.ndim == 1:
        return (data.astype(np.uint32) << 16).tobytes()  # as f32
    if source.endswith("q_proj.weight"):
        data = rotary(data, models.HEADS)
    elif source.endswith("k_proj.weight"):
        data = rotary(data, models.KV_HEADS)
    return data.tobytes()


def _padded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _field(name: str, value: Any) -> bytes:
    match value:
        case str():
            return _string(name) + struct.pack("<I", _STRING) + _string(value)
        case list():
            return _string(name) + struct.pack("<I", _ARRAY) + _array(value)
        case _:
            number, form = _TYPES[type(value)]
            return _string(name) + struct.pack("<I", number) + struct.pack(form, value)


def _array(values: Sequence[Any]) -> bytes:
    if isinstance(values[0], str):
        return struct.pack("<IQ", _STRING, len(values)) + b"".join(map(_string, values))
    return struct.pack("<IQ", _INT32, len(values)) + struct.pack(f"<{len(values)}i", *values)

"""The models of the engine's benchmark: of the shape of real ones, of about 100 million random weights, with nothing to fetch.

Owns the two shapes, their Hugging Face directories (written without torch, so that any environment can make them), and the prompts. It
must never know who runs them.

The tokenizer is byte-level BPE of 32,000 tokens, most of them a space and a word that grew letter by letter; so a text of n such words
is exactly n tokens in everybody's implementation. There is no end token: every answer is as long as it is asked to be.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 32_000
HIDDEN, LAYERS, HEADS, HEAD_DIM = 768, 12, 12, 64
KV_HEADS, FFN = 4, 2048
POSITIONS = 8192
SEED = 20261125
_LETTERS = "etaoinshrdlucmfwypvbgkjqxz"

Weight = tuple[str, NDArray[np.uint16]]


@dataclass(frozen=True, slots=True)
class Shape:
    """A model: `config` is its `config.json`; `read` is how many weights one decoded token reads, embeddings looked up not counted."""

    name: str
    config: dict[str, Any]
    weights: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def parameters(self) -> int:
        return sum(int(np.prod(size)) for _, size in self.weights)

    @property
    def read(self) -> int:
        untied = not self.config["tie_word_embeddings"]
        return self.parameters - (VOCABULARY * HIDDEN if untied else 0)


_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "rope_theta": 10000.0,
    "bos_token_id": None,
    "eos_token_id": None,
    "torch_dtype": "bfloat16",
}


def _llama() -> Shape:
    weights: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (VOCABULARY, HIDDEN))]
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        weights += [
            (f"{at}.input_layernorm.weight", (HIDDEN,)),
            (f"{at}.self_attn.q_proj.weight", (HIDDEN, HIDDEN)),
            (f"{at}.self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)),
            (f"{at}.self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN)),
            (f"{at}.self_attn.o_proj.weight", (HIDDEN, HIDDEN)),
            (f"{at}.post_attention_layernorm.weight", (HIDDEN,)),
            (f"{at}.mlp.gate_proj.weight", (FFN, HIDDEN)),
            (f"{at}.mlp.up_proj.weight", (FFN, HIDDEN)),
            (f"{at}.mlp.down_proj.weight", (HIDDEN, FFN)),
        ]
    weights += [("model.norm.weight", (HIDDEN,)), ("lm_head.weight", (VOCABULARY, HIDDEN))]
    config = _COMMON | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": FFN,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
    }
    return Shape("llama", config, tuple(weights))


def _falcon() -> Shape:
    weights: list[tuple[str, tuple[int, ...]]] = [("transformer.word_embeddings.weight", (VOCABULARY, HIDDEN))]
    for layer in range(LAYERS):
        at = f"transformer.h.{layer}"
        weights += [
            (f"{at}.input_layernorm.weight", (HIDDEN,)),
            (f"{at}.input_layernorm.bias", (HIDDEN,)),
            (f"{at}.self_attention.query_key_value.weight", (HIDDEN + 2 * HEAD_DIM, HIDDEN)),
            (f"{at}.self_attention.dense.weight", (HIDDEN, HIDDEN)),
            (f"{at}.mlp.dense_h_to_4h.weight", (4 * HIDDEN, HIDDEN)),
            (f"{at}.mlp.dense_4h_to_h.weight", (HIDDEN, 4 * HIDDEN)),
        ]
    weights += [("transformer.ln_f.weight", (HIDDEN,)), ("transformer.ln_f.bias", (HIDDEN,))]
    config = _COMMON | {
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "multi_query": True,
        "parallel_attn": True,
        "new_decoder_architecture": False,
        "bias": False,
        "alibi": False,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }
    return Shape("falcon", config, tuple(weights))


LLAMA, FALCON = _llama(), _falcon()


def values(shape: Shape, seed: int = SEED) -> Iterator[Weight]:
    """The weights one by one as bfloat16 bit patterns: norms are one, biases zero, matrices normal with a deviation of 0.02."""
    source = np.random.default_rng(seed)
    for name, size in shape.weights:
        if name.endswith(".bias"):
            plain = np.zeros(size, np.float32)
        elif len(size) == 1:
            plain = np.ones(size, np.float32)
        else:
            plain = source.standard_normal(size, np.float32) * np.float32(0.02)
        yield name, bfloat16(plain)


def bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to the nearest, ties to even."""
    bits = numbers.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write(shape: Shape, directory: Path) -> Path:
    """The model's Hugging Face directory, made if it is not there."""
    if directory.is_dir():
        return directory
    work = directory.with_name(f".{directory.name}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "config.json").write_text(json.dumps(shape.config, indent=1))
    (work / "generation_config.json").write_text("{}")
    tokens, merges = vocabulary()
    (work / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokens, merges)))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, "chat_template": _TEMPLATE}
    (work / "tokenizer_config.json").write_text(json.dumps(settings))
    _write_safetensors(work / "model.safetensors", shape)
    work.rename(directory)
    return directory


_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A server that takes only chats gets the prompt as it is."""


def _write_safetensors(path: Path, shape: Shape) -> None:
    """https://huggingface.co/docs/safetensors: eight bytes of length, a JSON header, the data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in shape.weights:
        begin, end = end, end + 2 * int(np.prod(size))
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, data in values(shape):
            file.write(data.tobytes())


def vocabulary(size: int = VOCABULARY) -> tuple[list[str], list[tuple[str, str]]]:
    """All tokens, in the byte-level alphabet's spelling, and the merges that make them: a word is made from its first letters on."""
    tokens = _byte_letters()
    words, merges = ["Ġ"], list[tuple[str, str]]()
    known, source = set(tokens), random.Random(SEED)  # noqa: S311
    while len(tokens) < size:
        # Short words first, as every word's beginning must be a token; growing at random makes lengths like a language's.
        stem = words[source.randrange(len(words))] if len(words) > len(_LETTERS) else "Ġ"
        letter = source.choice(_LETTERS)
        if (word := stem + letter) not in known:
            known.add(word)
            words.append(word)
            tokens.append(word)
            merges.append((stem, letter))
    return tokens, merges


def _byte_letters() -> list[str]:
    """The 256 letters that byte-level BPE writes bytes with (GPT-2's `bytes_to_unicode`)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown} | {byte: chr(256 + at) for at, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


def tokenizer_json(tokens: list[str], merges: list[tuple[str, str]]) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def prompts(count: int, tokens: int, seed: int) -> list[str]:
    """Distinct texts of exactly so many tokens."""
    words = [token.replace("Ġ", " ") for token in vocabulary()[0] if token.startswith("Ġ") and len(token) > 1]
    source = random.Random(seed)  # noqa: S311
    return ["".join(source.choices(words, k=tokens)) for _ in range(count)]
